"""Actions on records: what people can do to them, one row for each.

The HTTP API, both clients, the command line, the reference pages and the explanations of `why` read
these rows. Events and statuses are named here by their topics and names, and are looked up by
`propagation`: the command line reads the rows at every start, and does without the events' models.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, Literal, Self


class Group(Enum):
    """Relatives that an action reaches, by their status."""

    unfinished = auto()
    complete = auto()
    error = auto()
    not_deleted = auto()
    existing = auto()


@dataclass(frozen=True, slots=True)
class Reach:
    """What an action does to parents, and theirs, or to children, and theirs.

    Attributes:
        event: the topic of their event.
        group: to which of them.
        otherwise: the topic of the event of those of another group.
        shared: of children: whether those follow too that another parent needs.
        below: of children: only those of relatives to which this event happens follow.
        option: the option of the action without which nobody follows.
    """

    event: str
    group: Group
    otherwise: tuple[str, Group] | None = None
    shared: bool = False
    below: str | None = None
    option: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What an action takes besides the records.

    Attributes:
        name: of the field of a request, and of the argument of the client's method.
        kind: of its value.
        help: what it is, as the end of a sentence.
        default: what holds if it is not given.
        unset: what None stands for, where that is the default.
        field: of the order that the request becomes.
        choices: the texts that are allowed; any if empty.
        least, most: bounds of a number; `least` is the smallest length of a text too.
        flags: its spelling on the command line, where it is not its name.
        example: a value for the reference.
    """

    name: str
    kind: type[str | int | bool]
    help: str
    default: bool | None = None
    unset: str = ""
    field: str
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    flags: str = ""
    example: str | int | None = None


NEW_TAG: Final = Option(
    name="new_tag",
    kind=str,
    help="routing string",
    unset="what it is",
    field="tag",
    example="gpu",
)
NEW_PRIORITY: Final = Option(
    name="new_priority",
    kind=str,
    help="the order within the tag",
    unset="what it is",
    field="priority",
    choices=("low", "normal", "high"),
)
TEXT: Final = Option(
    name="text",
    kind=str,
    help="the remark, of 1 to 10,000 characters",
    field="text",
    least=1,
    example="converged to the wrong minimum",
)
ATTEMPT: Final = Option(
    name="attempt",
    kind=int,
    help="the attempt whose late result is adopted",
    unset="the newest without an error",
    field="attempt",
    least=1,
    most=2**31 - 1,
)
DELETE_CHILDREN: Final = Option(
    name="delete_children",
    kind=bool,
    help="whether children that no other record needs are changed too",
    default=True,
    field="delete_children",
    flags="--delete-children/--keep-children",
)
PROPAGATE: Final = Option(
    name="propagate",
    kind=bool,
    help="whether records made from them become invalid too",
    default=True,
    field="propagate",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All that the ledger has to know of an action.

    Attributes:
        event: the topic of the selected records' event; None for `undo`.
        text: what it does, as a sentence without its full stop; what comes before a semicolon says
            it in short.
        done: what was done to a record, a past participle.
        options: what it takes besides the records.
        needs_option: whether a request must give one of its options at least.
        parents, children: what it does to relatives.
        opposite: the action whose event takes this one's back, by name. What has none is taken back
            by `Reverted`, or not at all.
        restores: whether it brings back the relatives that its opposite took away with the record.
        remedy_for: the status that it leads out of; `why` recommends it there.
        for_administrators: whether only these may do it.
        undoable: whether an undo can take it back.
        confirm: when the command line asks first; "by query" does not ask for ids.
    """

    event: str | None
    text: str
    done: str
    options: tuple[Option, ...] = ()
    needs_option: bool = False
    parents: Reach | None = None
    children: Reach | None = None
    opposite: str | None = None
    restores: bool = False
    remedy_for: str | None = None
    for_administrators: bool = False
    undoable: bool = True
    confirm: Literal["never", "by query", "always"] = "never"

    @property
    def is_familial(self) -> bool:
        """Whether it concerns relatives at all."""
        return self.restores or self.parents is not None or self.children is not None

    @property
    def is_downward(self) -> bool:
        """Whether it concerns children only, even if others need them."""
        return self.parents is None and self.children is not None and self.children.shared


class Action(StrEnum):
    """What people do to records."""

    row: Row

    def __new__(cls, name: str, row: Row) -> Self:
        """Return the action of this name, with its row."""
        action = str.__new__(cls, name)
        action._value_ = name
        action.row = row
        return action

    reset = (
        "reset",
        Row(
            event="reset",
            text="Let records in error wait for another attempt; a service's errored children too",
            done="reset",
            children=Reach("reset", Group.error, shared=True),
            remedy_for="error",
        ),
    )
    cancel = (
        "cancel",
        Row(
            event="cancelled",
            text="Cancel records that are not finished, with their families",
            done="cancelled",
            opposite="uncancel",
            parents=Reach("cancelled", Group.unfinished),
            children=Reach("cancelled", Group.unfinished),
            confirm="by query",
        ),
    )
    uncancel = (
        "uncancel",
        Row(
            event="uncancelled",
            text="Bring cancelled records back as they were; those cancelled because of them too",
            done="uncancelled",
            opposite="cancel",
            restores=True,
            remedy_for="cancelled",
        ),
    )
    delete = (
        "delete",
        Row(
            event="soft_deleted",
            text="Hide records, with their children; they can be undeleted",
            done="deleted",
            opposite="undelete",
            options=(DELETE_CHILDREN,),
            parents=Reach("soft_deleted", Group.not_deleted),
            children=Reach("soft_deleted", Group.not_deleted, option=DELETE_CHILDREN.name),
            confirm="always",
        ),
    )
    undelete = (
        "undelete",
        Row(
            event="undeleted",
            text="Bring deleted records back as they were; those deleted because of them too",
            done="undeleted",
            opposite="delete",
            restores=True,
            remedy_for="deleted",
        ),
    )
    erase = (
        "erase",
        Row(
            event="erased",
            text="Destroy records that nothing refers to, for good; only events without "
            "content stay",
            done="destroyed",
            options=(DELETE_CHILDREN,),
            children=Reach("erased", Group.existing, option=DELETE_CHILDREN.name),
            for_administrators=True,
            undoable=False,
            confirm="always",
        ),
    )
    invalidate = (
        "invalidate",
        Row(
            event="invalidated",
            text="Mark results as not to be used, with records made from them; they stay readable",
            done="invalidated",
            opposite="uninvalidate",
            options=(PROPAGATE,),
            parents=Reach(
                "invalidated",
                Group.complete,
                otherwise=("cancelled", Group.unfinished),
                option=PROPAGATE.name,
            ),
            children=Reach("cancelled", Group.unfinished, below="cancelled", option=PROPAGATE.name),
        ),
    )
    uninvalidate = (
        "uninvalidate",
        Row(
            event="uninvalidated",
            text="Let results be used again; those invalidated because of them too",
            done="valid again",
            opposite="invalidate",
            restores=True,
            remedy_for="invalid",
        ),
    )
    hold = (
        "hold",
        Row(
            event="held",
            text="Keep waiting records from being claimed; they keep their place in the queue",
            done="held",
            opposite="release",
        ),
    )
    release = (
        "release",
        Row(
            event="released",
            text="Let held records be claimed again",
            done="released",
            opposite="hold",
            remedy_for="held",
        ),
    )
    fail = (
        "fail",
        Row(
            event="failed",
            text="Mark errors as final; the records leave the queue for good",
            done="failed",
        ),
    )
    revive = (
        "revive",
        Row(
            event="revived",
            text="Let failed records wait again",
            done="revived",
            remedy_for="failed",
            for_administrators=True,
        ),
    )
    modify = (
        "modify",
        Row(
            event="rerouted",
            text="Give records another tag or priority; the unfinished children of services too",
            done="modified",
            options=(NEW_TAG, NEW_PRIORITY),
            needs_option=True,
            children=Reach("rerouted", Group.unfinished, shared=True),
        ),
    )
    comment = (
        "comment",
        Row(
            event="commented",
            text="Write a remark about records; it changes nothing else",
            done="commented",
            options=(TEXT,),
            needs_option=True,
            undoable=False,
        ),
    )
    resubmit = (
        "resubmit",
        Row(
            event="resubmitted",
            text="Make a new record of the same specification for each of these",
            done="resubmitted",
            undoable=False,
        ),
    )
    adopt = (
        "adopt",
        Row(
            event="result_adopted",
            text="Use a late result of each record as its result; a running attempt becomes stale",
            done="complete by a late result",
            options=(ATTEMPT,),
        ),
    )
    undo = (
        "undo",
        Row(
            event=None,
            text="Undo what an operation changed, except in records that were changed since",
            done="again what they were",
        ),
    )


# What can be asked for by naming records. An undo names an operation instead.
ON_RECORDS: Final = tuple(action for action in Action if action is not Action.undo)
