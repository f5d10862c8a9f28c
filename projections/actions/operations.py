"""What people do to records: cancel, reset, delete, hold, comment and so on, over families.

Everything here works on at most a slice of records in one transaction; `bulk.py` cuts what is
larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypedDict
from uuid import UUID

from psycopg import Rollback
from pydantic_core import from_json

from recordledger.domain.errors import (
    ChangedSince,
    CommandRefused,
    NothingToAdopt,
    NotUndoable,
    RecordNotFound,
    StillReferenced,
)
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.commands import Change, Create
from recordledger.domain.records.events import EVENT_OF, Event, Kind, Payload, Priority, Stamp
from recordledger.domain.records.propagation import RESTORES, Family, consequences
from recordledger.domain.records.record import RecordAggregate, decide, fold, inverse
from recordledger.domain.specs.references import MARK_BYTES, payloads_referred_to

from ..ledger import Intent, Ledger, Operation
from ..tables import datasets, families, operations, payloads, records
from ..tables.changes import RecordClass
from ..tables.idempotency import RequestKey

SHARED: Final = frozenset(Action) - {Action.adopt, Action.resubmit, Action.erase, Action.undo}
"""Actions whose event is the same for all records that are meant."""
# Histories that are held in memory at a time.
_HISTORIES: Final = 2_000
# Events that a record may have had since, without preventing an undo.
_HARMLESS: Final = (e.Commented, e.LateResult, e.Resubmitted)


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What is to be done.

    Attributes:
        action: its name.
        tag, priority: of `modify`; None keeps what it is.
        text: of `comment`; a job has stored it already.
        attempt: of `adopt`: which late result; None for the newest.
        delete_children: of `delete` and `erase`: whether children follow.
        propagate: of `invalidate`: whether parents follow.
    """

    action: Action
    tag: str | None = None
    priority: Priority | None = None
    text: str | Payload | None = None
    attempt: int | None = None
    delete_children: bool = True
    propagate: bool = True

    def options(self) -> dict[str, Any]:
        """Return everything but the action and the text, as plain values."""
        names = (each.name for each in fields(self) if each.name not in ("action", "text"))
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(
        cls, action: Action, options: Mapping[str, Any], text: Payload | None
    ) -> OperationRequest:
        """Return the order with these options, as `options` gave them, and with this text.

        The options of an old order have the text themselves.
        """
        priority = options.get("priority")
        known: dict[str, Any] = {
            "text": text,
            **options,
            "priority": None if priority is None else Priority(priority),
        }
        return cls(action, **known)


class Managed(TypedDict):
    """The outcome of an operation, by the indexes of the ids that were given.

    `errors` are (index, code, message). `new_ids` are those of resubmitted records, by index.
    """

    operation_id: str
    updated_idx: list[int]
    errors: list[tuple[int, str, str]]
    n_children_updated: int
    n_parents_updated: int
    new_ids: dict[int, int]


@dataclass(slots=True)
class SliceOutcome:
    """The outcome of a slice, by record."""

    updated: set[int] = field(default_factory=set[int])
    refusals: dict[int, CommandRefused] = field(default_factory=dict[int, CommandRefused])
    n_children: int = 0
    n_parents: int = 0
    new_ids: dict[int, int] = field(default_factory=dict[int, int])


def manage(
    ledger: Ledger,
    order: OperationRequest,
    ids: Sequence[int],
    *,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
    dry_run: bool = False,
) -> Managed:
    """Do something to records, as one operation and in one transaction.

    A record that the rules refuse spoils no other, and its family stays as it is; an id that comes
    twice counts once.

    Raises:
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Managed:
        return answer_of(str(operation.id), ids, do(operation, order, ids))

    intent = Intent(order.action, dry_run=dry_run)
    return ledger.operate(work, actor=actor, reason=reason, request=request, intent=intent)


def answer_of(operation_id: str, ids: Sequence[int], done: SliceOutcome) -> Managed:
    """Return the outcome of each id, in the order in which they were given."""
    answer = Managed(
        operation_id=operation_id,
        updated_idx=[],
        errors=[],
        n_children_updated=done.n_children,
        n_parents_updated=done.n_parents,
        new_ids={},
    )
    seen: set[int] = set()
    for index, record_id in enumerate(ids):
        if record_id in seen:
            continue
        seen.add(record_id)
        if record_id in done.updated:
            answer["updated_idx"].append(index)
            if record_id in done.new_ids:
                answer["new_ids"][index] = done.new_ids[record_id]
        else:
            refusal = done.refusals[record_id]
            answer["errors"].append((index, refusal.code, str(refusal)))
    return answer


def do(
    operation: Operation,
    order: OperationRequest,
    ids: Iterable[int],
    all_meant: AbstractSet[int] = frozenset(),
) -> SliceOutcome:
    """Do something to these records in the transaction of the operation.

    Args:
        operation: which.
        order: what to do.
        ids: a slice of the records that were meant, or all.
        all_meant: all of them, if `ids` is a slice. They are not counted as relatives, and may
            be destroyed before their own slice comes, with the children that are in this one.
    """
    asked = set(ids)
    done = do_alike(operation, order, asked)
    if done is None:
        done = do_one_by_one(operation, order, asked, all_meant)
    changed: set[int] = set()
    if operation.continues and done.refusals:
        # What an earlier slice did to a relative of a record is what was wanted of it here.
        refused = sorted(done.refusals)
        changed.update(operations.versions_in(operation.db, operation.id, refused))
        done.updated |= changed & asked
    done.refusals = {
        id_: why for id_, why in done.refusals.items() if id_ in asked and id_ not in changed
    }
    return done


def do_alike(
    operation: Operation, order: OperationRequest, asked: AbstractSet[int]
) -> SliceOutcome | None:
    """Do something to tasks without relatives, class by class: O(classes) of Python.

    What the rules say of a class, they say of each record in it: they are asked once.

    Returns:
        None if the action is another one for each record, or if one of the records is a service or
        has relatives; nothing is locked then.
    """
    if order.action not in SHARED or not asked:
        return None
    ids = sorted(asked)
    with operation.savepoint() as savepoint:
        classes = operation.lock_classes(ids)
        # Under the locks: a service that takes one of these records for its child waits for them.
        is_plain = all(each.like.kind is Kind.task for each in classes) and not (
            families.has_relatives(operation.db, ids)
        )
        if not is_plain:
            raise Rollback(savepoint)
    if not is_plain:
        return None
    done = SliceOutcome()
    maker = _Maker(operation, order, Family(), {}, len(ids))
    accepted: dict[Event, list[RecordClass]] = {}
    missing = asked - {id_ for each in classes for id_ in each.ids}
    for each in (*classes, *(RecordClass([id_], [0], RecordAggregate(id_)) for id_ in missing)):
        try:
            events = maker.events_for(each.like)
        except CommandRefused:
            done.refusals |= _refusals(maker, each)
            continue
        done.updated.update(each.ids)
        for event in events:
            accepted.setdefault(event, []).append(each)
    for event, found in accepted.items():
        operation.happen_to_classes(event, found)
    return done


def _refusals(maker: _Maker, refused: RecordClass) -> dict[int, CommandRefused]:
    """Return why each record of a class is refused: some say which record it is."""
    found: dict[int, CommandRefused] = {}
    for id_ in refused.ids:
        try:
            maker.events_for(replace(refused.like, id=id_))
        except CommandRefused as refusal:
            found[id_] = refusal
    return found


def do_one_by_one(
    operation: Operation,
    order: OperationRequest,
    asked: AbstractSet[int],
    all_meant: AbstractSet[int],
) -> SliceOutcome:
    """Do something to records of any kind and to their families."""
    family, known = _lock_with_family(operation, sorted(asked), order.action)
    wanted = sorted(asked)
    if order.action is Action.erase:
        wanted = sorted(asked | (family.ancestors(asked) & all_meant & known.keys()))
    done = SliceOutcome()
    maker = _Maker(operation, order, family, known, len(wanted))
    accepted: list[tuple[RecordAggregate, list[Event]]] = []
    for record_id in wanted:
        record = known.get(record_id, RecordAggregate(record_id))
        try:
            accepted.append((record, maker.events_for(record)))
        except CommandRefused as refusal:
            done.refusals[record_id] = refusal
    meant = [record.id for record, _ in accepted]
    named_in: Mapping[int, tuple[str, ...]] = {}
    if order.action is Action.erase:
        named_in = datasets.referring(operation.db, known)
        meant = _refuse_referenced(meant, family, known, named_in, done)
    happening: dict[int, list[Event]] = {
        record.id: events for record, events in accepted if record.id not in done.refusals
    }
    done.updated.update(happening.keys() & asked)
    if family.parents or family.children:
        _add_relatives(operation, order, maker, happening, meant, done, all_meant, named_in.keys())
    for record_id, events in happening.items():
        operation.happen(known[record_id], events)
    for record, events in maker.new_records:
        operation.happen(record, events)
    done.new_ids = maker.new_ids
    return done


class _Maker:
    """Makes the events of an operation; those that many records share are made once."""

    def __init__(
        self,
        operation: Operation,
        order: OperationRequest,
        family: Family,
        known: Mapping[int, RecordAggregate],
        n_meant: int,
    ) -> None:
        self.operation = operation
        self.order = order
        self.family = family
        self.known = known
        self.new_ids: dict[int, int] = {}
        self.new_records: list[tuple[RecordAggregate, list[Event]]] = []
        self._shared: dict[tuple[type[Event], int | None], Change] = {}
        self._n_meant = n_meant
        self._spare_ids: list[int] = []
        self._histories: dict[int, list[Event]] | None = None
        self._specifications: dict[bytes, tuple[Payload, ...]] | None = None

    def events_for(self, record: RecordAggregate) -> list[Event]:
        """Return the events of a selected record.

        Raises:
            CommandRefused: the rules do not allow it.
        """
        match self.order.action:
            case Action.modify:
                return self.reroute(record, None)
            case Action.adopt:
                return self._adopt(record)
            case Action.resubmit:
                return self._resubmit(record)
            case _:
                return decide(record, self.change(EVENT_OF[self.order.action], None))

    def change(self, event_type: type[Event], cause: int | None) -> Change:
        """Return the command that lets an event happen, because of a record or not."""
        key = event_type, cause
        if key not in self._shared:
            said = common(self.operation.stamp, cause)
            if "text" in event_type.model_fields:
                said["text"] = self._stored_text()
            self._shared[key] = Change(event=event_type(**said))
        return self._shared[key]

    def _stored_text(self) -> Payload | None:
        text = self.order.text
        if not isinstance(text, str):
            return text
        return payloads.keep(self.operation.db, text.encode())

    def reroute(self, record: RecordAggregate, cause: int | None) -> list[Event]:
        """Return the event that gives a record another tag or priority; none if it has them."""
        tag, priority = self.order.tag, self.order.priority
        rerouted = e.Rerouted(tag=tag, priority=priority, **common(self.operation.stamp, cause))
        events = decide(record, Change(event=rerouted))
        same_tag = tag is None or tag == record.tag
        return [] if same_tag and priority in (None, record.priority) else events

    def history(self, record_id: int) -> list[Event]:
        """Return the events of a record that was meant; those of all are read together."""
        if self._histories is None:
            self._histories = self.operation.ledger.histories(self.operation.db, list(self.known))
        return self._histories.get(record_id, [])

    def _adopt(self, record: RecordAggregate) -> list[Event]:
        if not record.exists:
            raise RecordNotFound(record.id)
        late = [
            attempt
            for attempt in attempts(self.history(record.id)).values()
            if attempt.late
            and attempt.outcome is not None
            and attempt.outcome.error_type is None
            and self.order.attempt in (None, attempt.number)
        ]
        if not late or late[-1].outcome is None:
            raise NothingToAdopt(record.id, self.order.attempt)
        adopted = e.ResultAdopted(
            attempt=late[-1].number,
            outcome=late[-1].outcome,
            **common(self.operation.stamp, None),
        )
        return decide(record, Change(event=adopted))

    def _resubmit(self, record: RecordAggregate) -> list[Event]:
        if not record.exists or record.spec is None:
            raise RecordNotFound(record.id)
        stamp = self.operation.stamp
        if not self._spare_ids:
            self._spare_ids = records.next_ids(self.operation.db, self._n_meant)[::-1]
        new_id = self._spare_ids[-1]
        resubmitted = e.Resubmitted(new_record_id=new_id, **common(stamp, None))
        events = decide(record, Change(event=resubmitted))
        new = RecordAggregate(self._spare_ids.pop())
        create = Create(
            stamp=stamp,
            kind=record.kind,
            spec=record.spec,
            function=record.function,
            required_programs=record.required_programs,
            tag=record.tag,
            priority=record.priority,
            retry=record.retry,
            resubmission_of=record.id,
            refers_to=self._referred_to(record.spec),
        )
        self.new_records.append((new, decide(new, create)))
        self.new_ids[record.id] = new_id
        return events

    def _referred_to(self, spec: Payload) -> tuple[Payload, ...]:
        """Return the payloads that a specification refers to; those of all are read together."""
        if self._specifications is None:
            specs = {record.spec.digest for record in self.known.values() if record.spec}
            contents = payloads.load(self.operation.db, specs)
            self._specifications = {
                digest: payloads_referred_to(data, from_json(data))
                for digest, data in contents.items()
                if MARK_BYTES in data
            }
        return self._specifications.get(spec.digest, ())


def common(stamp: Stamp, cause: int | None) -> dict[str, Any]:
    """Return the fields that every event of an operation has."""
    return {**stamp.model_dump(), "cause": cause}


def _refuse_referenced(
    meant: Sequence[int],
    family: Family,
    known: Mapping[int, RecordAggregate],
    named_in: Mapping[int, tuple[str, ...]],
    done: SliceOutcome,
) -> list[int]:
    """Return those that nothing refers to but what is destroyed with them; refuse the others."""
    accepted = set(meant)

    def spared_parents(record_id: int) -> tuple[int, ...]:
        parents = family.parents.get(record_id, ())
        return tuple(id_ for id_ in parents if id_ not in accepted and id_ in known)

    todo = list(meant)
    refused: set[int] = set()
    while todo:
        record_id = todo.pop()
        if record_id in accepted and (record_id in named_in or spared_parents(record_id)):
            accepted.discard(record_id)
            refused.add(record_id)
            todo.extend(family.children.get(record_id, ()))
    for record_id in refused:
        done.refusals[record_id] = StillReferenced(
            record_id, spared_parents(record_id), named_in.get(record_id, ())
        )
    return sorted(accepted)


def _add_relatives(
    operation: Operation,
    order: OperationRequest,
    maker: _Maker,
    happening: dict[int, list[Event]],
    meant: Sequence[int],
    done: SliceOutcome,
    all_meant: AbstractSet[int],
    spared: AbstractSet[int],
) -> None:
    found = consequences(
        order.action,
        meant,
        maker.family,
        maker.known,
        down=order.delete_children,
        up=order.propagate,
        spared=spared,
    )
    for relative in found:
        record = maker.known[relative.record_id]
        if relative.event_type is e.Rerouted:
            events = maker.reroute(record, relative.cause)
        else:
            events = decide(record, maker.change(relative.event_type, relative.cause))
        if events:
            happening[record.id] = events
            if record.id not in all_meant:
                done.n_children += relative.is_child
                done.n_parents += not relative.is_child
    taken_away = RESTORES.get(order.action)
    if taken_away is not None:
        for went_in, ids in _operations_of(maker, taken_away, meant).items():
            _restore_relatives(operation, maker, went_in, ids, happening, done, all_meant)


def _operations_of(
    maker: _Maker, taken_away: type[Event], meant: Iterable[int]
) -> dict[UUID, list[int]]:
    """Return, by operation, the records with relatives that it took away and that come back."""
    family = maker.family
    related = [id_ for id_ in meant if id_ in family.parents or id_ in family.children]
    found: dict[UUID, list[int]] = {}
    for record_id, history in maker.operation.ledger.in_slices(
        maker.operation.db, related, _HISTORIES
    ):
        went = next(event for event in reversed(history) if type(event) is taken_away)
        found.setdefault(went.operation_id, []).append(record_id)
    return found


def _restore_relatives(
    operation: Operation,
    maker: _Maker,
    went_in: UUID,
    came_back: Sequence[int],
    happening: dict[int, list[Event]],
    done: SliceOutcome,
    all_meant: AbstractSet[int],
) -> None:
    """Bring back the relatives that went in the same operation and have not changed since."""
    ancestors = maker.family.ancestors(came_back)
    relatives = ancestors | maker.family.descendants(ancestors.union(came_back))
    relatives &= maker.known.keys()
    relatives -= happening.keys()
    versions = operations.versions_in(operation.db, went_in, sorted(relatives))
    returning = set(came_back)
    for relative_id, history in operation.ledger.in_slices(
        operation.db, sorted(versions), _HISTORIES
    ):
        changed = versions[relative_id]
        because = history[changed[-1] - 1].cause
        cause = because if because in returning else came_back[0]
        record = maker.known[relative_id]
        try:
            happening[relative_id] = reverse(operation.stamp, record, history, changed, cause=cause)
        except CommandRefused:
            continue
        if relative_id not in all_meant:
            done.n_parents += relative_id in ancestors
            done.n_children += relative_id not in ancestors


def reverse(
    stamp: Stamp,
    record: RecordAggregate,
    history: Sequence[Event],
    versions: Sequence[int],
    *,
    cause: int | None,
) -> list[Event]:
    """Return the event that takes back what an operation did to a record.

    Args:
        stamp: of the operation that takes it back.
        record: as it is now.
        history: all its events.
        versions: which of them belong to the operation.
        cause: the record because of which this happens; None if it was meant itself.

    Raises:
        ChangedSince: it has changed meanwhile.
        NotUndoable: no event takes this back.
    """
    first, last = versions[0], versions[-1]
    for version, event in enumerate(history[first:], first + 1):
        if version not in versions and not isinstance(event, _HARMLESS):
            raise ChangedSince(record.id, event.topic)
    before = fold(record.id, history[: first - 1])
    done = history[last - 1]
    taken_back = inverse(before, done, stamp, cause)
    if taken_back is None or not record.exists:
        raise NotUndoable(record.id, done.topic)
    return decide(record, Change(event=taken_back))


def undo_slice(operation: Operation, undone: UUID, record_ids: Sequence[int]) -> SliceOutcome:
    """Take back what an operation did to these records, where they have not changed since."""
    known = operation.lock(record_ids)
    versions = operations.versions_in(operation.db, undone, record_ids)
    histories = operation.ledger.histories(operation.db, sorted(known))
    done = SliceOutcome()
    for record_id in record_ids:
        record = known.get(record_id)
        try:
            if record is None:
                raise RecordNotFound(record_id)
            events = reverse(
                operation.stamp, record, histories[record_id], versions[record_id], cause=None
            )
        except CommandRefused as refusal:
            done.refusals[record_id] = refusal
            continue
        operation.happen(record, events)
        done.updated.add(record_id)
    return done


def _lock_with_family(
    operation: Operation, wanted: Sequence[int], action: Action
) -> tuple[Family, dict[int, RecordAggregate]]:
    """Lock records and those that their change concerns, in the order of ids; return both.

    Relatives can only be found by reading, and may change until they are locked. So they are
    read again under the locks, and if there are more of them, all locks are given back and taken
    again: nobody ever waits for a smaller id while holding a larger one.
    """
    if not action.row.is_familial:
        return Family(), operation.lock(wanted)
    find = families.descendants_of if action.row.is_downward else families.family_of
    ids = set(wanted)
    while True:
        with operation.savepoint() as savepoint:
            locked = operation.lock(ids)
            family = find(operation.db, wanted)
            members = family.parents.keys() | family.children.keys()
            complete = members <= ids
            if not complete:
                raise Rollback(savepoint)
        if complete:
            return family, locked
        ids |= members
