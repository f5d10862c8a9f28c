"""Actions on records: the methods that both clients and both handles of datasets have.

An action without options is one line in `RecordActions`. The signature of one with options is
written out above it, so that editors and type checkers know it. What an action does, and what its
options are, is said in its row.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterable
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from recordledger.domain.records.actions import Action, Option

from .conditions import Conditions, Ids, RecordConditions
from .on_demand import CallOnDemand, management
from .signatures import put

if TYPE_CHECKING:
    from typing import Unpack

    from ..schemas.fields import PriorityName
    from .exchange import Operation, Session
    from .results.management import UpdateMetadata

P = ParamSpec("P")
# What a method returns: the metadata of the action, or what is awaited for them.
Metadata = TypeVar("Metadata", covariant=True)

_WIDTH: Final = 100
_SHARED: Final = {
    "ids": "one id or several; leave them out to select by conditions.",
    "reason": "why; kept with every event.",
    "dry_run": "report what would change, and change nothing.",
    "wait": "whether to wait for a job, which changes more than 10,000 records.",
    "which": 'conditions, like `status="error", tag="x"`; or `all=True`.',
}
_OF_DATASET: Final = (
    "Of this dataset: all its records, or those that meet conditions, like "
    '`specification="hf", entry=[...], status="error"`.'
)
# Which of its records; the dataset is not asked for.
_OF_ITS_RECORDS: Final = Parameter(
    "which", Parameter.VAR_KEYWORD, annotation=f"Unpack[{RecordConditions.__name__}]"
)


class ActionMethod(Generic[P]):
    """A method of `RecordActions`: each class that has it makes its own of the operation.

    Attributes:
        action: what it does.
        operation: of the clients. Its signature and docstring are made when they are needed.
        of_dataset: the same, described as the datasets have it.
    """

    def __init__(
        self,
        action: Action,
        function: Callable[Concatenate[Session, Action, P], Operation[UpdateMetadata]],
        more: str = "",
        **args: str,
    ) -> None:
        """Make an operation of a function that takes the action as its second argument.

        Args:
            action: what it does.
            function: its parameters from the third on are the method's.
            more: what its docstring says besides the row.
            args: descriptions of parameters that are no options of the row.
        """
        self.action = action
        self.operation = CallOnDemand(self._of_client)
        self.of_dataset = CallOnDemand(self._of_dataset)
        self._function: Callable[..., Operation[UpdateMetadata]] = function
        self._more = more
        self._args = args

    def __set_name__(self, owner: type, name: str) -> None:
        """Note how it is called."""
        self._name = name

    def _of_client(self) -> Any:
        def operation(session: Session, /, *given: Any, **named: Any) -> Operation[UpdateMetadata]:
            return self._function(session, self.action, *given, **named)

        signature = inspect.signature(self._function)
        session, _, *others = signature.parameters.values()
        return self._documented(operation, signature.replace(parameters=[session, *others]))

    def _of_dataset(self) -> Any:
        def operation(session: Session, /, **named: Any) -> Operation[UpdateMetadata]:
            return self._function(session, self.action, **named)

        signature = inspect.signature(self._function)
        session, _, _, *others = signature.parameters.values()
        *keywords, _ = (each.replace(kind=Parameter.KEYWORD_ONLY) for each in others)
        parameters = [session, *keywords, _OF_ITS_RECORDS]
        return self._documented(operation, signature.replace(parameters=parameters), "dataset")

    def _documented(
        self, operation: Any, signature: inspect.Signature, whose: str = "client"
    ) -> Any:
        row = self.action.row
        about = _SHARED | {each.name: _described(each) for each in row.options} | self._args
        args = (f"{each}: {about[each]}" for each in list(signature.parameters)[1:])
        which = ["[411, 412]"] if whose == "client" else ['specification="hf"']
        given = [f"{each.name}={json.dumps(each.example)}" for each in row.options if each.example]
        paragraphs = (
            f"{row.text}{'; for administrators' if row.for_administrators else ''}.",
            _OF_DATASET if whose == "dataset" else "",
            self._more,
            "Args:\n" + "\n".join(_wrapped(args)),
            f">>> {whose}.{self._name}({', '.join([*which, *given])})",
        )
        operation.__name__ = self._name
        operation.__doc__ = "\n\n".join(filter(None, paragraphs))
        operation.__signature__ = signature
        return operation

    if TYPE_CHECKING:

        @overload
        def __get__(
            self, instance: LedgerActions[Metadata], owner: Any
        ) -> Callable[P, Metadata]: ...
        @overload
        def __get__(
            self, instance: DatasetActions[Metadata], owner: Any
        ) -> Callable[..., Metadata]: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Callable[..., Any]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...


def _described(option: Option) -> str:
    choices = f": {', '.join(option.choices)}" if option.choices else ""
    unset = f"; None for {option.unset}" if option.unset else ""
    return f"{option.help}{choices}{unset}."


def _wrapped(args: Iterable[str]) -> Iterable[str]:
    for each in args:
        yield from textwrap.wrap(each, _WIDTH, initial_indent="    ", subsequent_indent="        ")


def _plain(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    return management.manage(session, action, ids, which, reason=reason, dry_run=dry_run, wait=wait)


def _delete(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    soft_delete: bool = True,
    delete_children: bool = True,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    return management.manage(
        session,
        action if soft_delete else Action.erase,
        ids,
        which,
        {"delete_children": delete_children},
        reason=reason,
        dry_run=dry_run,
        wait=wait,
    )


def _invalidate(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    propagate: bool = True,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    own = {"propagate": propagate}
    return management.manage(
        session, action, ids, which, own, reason=reason, dry_run=dry_run, wait=wait
    )


def _modify(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    new_tag: str | None = None,
    new_priority: PriorityName | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    own = {"new_tag": new_tag, "new_priority": new_priority}
    return management.manage(
        session, action, ids, which, own, reason=reason, dry_run=dry_run, wait=wait
    )


def _comment(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    text: str = "",
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    own = {"text": text}
    return management.manage(
        session, action, ids, which, own, reason=reason, dry_run=dry_run, wait=wait
    )


def _adopt(
    session: Session,
    action: Action,
    ids: Ids | None = None,
    attempt: int | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    own = {"attempt": attempt}
    return management.manage(
        session, action, ids, which, own, reason=reason, dry_run=dry_run, wait=wait
    )


class RecordActions:
    """Every action on records, as a method of both clients and of both handles of datasets."""

    reset_records = ActionMethod(Action.reset, _plain)
    cancel_records = ActionMethod(Action.cancel, _plain)
    uncancel_records = ActionMethod(Action.uncancel, _plain)
    delete_records = ActionMethod(
        Action.delete,
        _delete,
        soft_delete="whether they can be undeleted. False destroys them, for administrators, and "
        "is refused as long as something refers to a record; only events without content stay.",
    )
    undelete_records = ActionMethod(Action.undelete, _plain)
    invalidate_records = ActionMethod(Action.invalidate, _invalidate)
    uninvalidate_records = ActionMethod(Action.uninvalidate, _plain)
    hold_records = ActionMethod(Action.hold, _plain)
    release_records = ActionMethod(Action.release, _plain)
    fail_records = ActionMethod(Action.fail, _plain)
    revive_records = ActionMethod(Action.revive, _plain)
    modify_records = ActionMethod(Action.modify, _modify)
    add_comment = ActionMethod(Action.comment, _comment)
    resubmit_records = ActionMethod(
        Action.resubmit,
        _plain,
        "The new and the old records refer to each other; `new_ids` has the new ones.",
    )
    adopt_results = ActionMethod(Action.adopt, _adopt)


_METHODS: Final[dict[str, ActionMethod[Any]]] = {
    name: each for name, each in vars(RecordActions).items() if isinstance(each, ActionMethod)
}


class LedgerActions(RecordActions, Generic[Metadata]):
    """The actions as methods of a client: on ids, or on the records that meet conditions."""

    def __init_subclass__(cls, *, bind: Callable[[Any], Any] | None = None) -> None:
        """Give a client its methods; `bind` makes one of an operation, as of all others."""
        if bind is not None:
            for name, each in _METHODS.items():
                put(cls, name, bind(each.operation))


class DatasetActions(RecordActions, Generic[Metadata]):
    """The actions as methods of a dataset: on all its records, or some of them."""

    def __init_subclass__(cls, *, bind: Callable[[Any], Any] | None = None) -> None:
        """Give a handle its methods; `bind` makes one of an operation."""
        if bind is not None:
            for name, each in _METHODS.items():
                put(cls, name, bind(each.of_dataset))


def method_of(action: Action) -> str:
    """Return the name of the method that does something to records."""
    return next(name for name, each in _METHODS.items() if each.action is action)
