"""What people ask of the ledger, as operations: records, their history, counts, waiting."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Unpack, cast
from urllib.parse import urlencode

from recordledger.domain.errors import TooLarge
from recordledger.domain.records.filters import CONDITIONS

from ...schemas.attempts import AttemptInclude, AttemptOut
from ...schemas.base import Answer
from ...schemas.fields import PriorityName
from ...schemas.moments import MomentOut
from ...schemas.records import GetRequest, Include, QueryRequest
from ...schemas.submissions import CreateAnswer, CreateRequest
from .. import exchange, wire
from ..arguments import AsOf, conditions, is_one, listed
from ..conditions import RecordConditions, describes_conditions
from ..errors import ClientError, InvalidArgument, RecordsNotFound, Refused, WaitTimeout
from ..exchange import Operation, Session, Sleep
from ..parts import add_progress, moved
from ..progress import bar
from ..results.attempts import Attempts
from ..results.bulk import InsertMetadata
from ..results.events import History, HistoryEvent
from ..results.records import Record, Records

# What the server takes for granted of a record to add.
_COMMON: Final[Mapping[str, Any]] = {
    "tag": "default",
    "priority": "normal",
    "required_programs": (),
    "retries": 0,
    "retry_delay_s": 0.0,
    "retry_on": (),
}
Kind = Literal["task", "service"]
_PAGE: Final = 250
_PAGE_MIN: Final = 10
_PAGE_S: Final = 0.5
_POLL_MIN_S: Final = 0.1
_POLL_MAX_S: Final = 5.0
# A poll may cost the server at most this part of the waiting time.
_POLL_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSpec:
    """A record to add: what to compute, and how to treat it.

    Attributes:
        function: an entry point's name, or `module:function`.
        kwargs: its arguments: JSON values.
        required_programs: what a manager must have, like `psi4>=1.9`.
        tag: routing string.
        priority: the order within the tag.
        retries: how many errors are to be reset automatically.
        retry_delay_s: pause before the first retry, in seconds; it doubles with each further one.
        retry_on: patterns of error types that qualify, like `"OSError"` or `"!ValueError"`.
        kind: "task", or "service" if `function` is the name of a service.
    """

    function: str
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    required_programs: Sequence[str] = ()
    tag: str = "default"
    priority: PriorityName = "normal"
    retries: int = 0
    retry_delay_s: float = 0.0
    retry_on: Sequence[str] = ()
    kind: Kind = "task"


class _GotAnswer(Answer):
    records: list[Record | None]
    as_of: MomentOut | None = None


class _PageAnswer(Answer):
    records: list[Record]
    next_cursor: str | None
    as_of: MomentOut | None = None


class _RecordAttemptsAnswer(Answer):
    record_id: int
    attempts: list[AttemptOut]


class _RecordHistoryAnswer(Answer):
    record_id: int
    events: list[HistoryEvent]


def add_records(
    session: Session,
    function: str | Iterable[RecordSpec],
    kwargs: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
    *,
    tag: str = "default",
    priority: PriorityName = "normal",
    required_programs: Sequence[str] = (),
    retries: int = 0,
    retry_delay_s: float = 0.0,
    retry_on: Sequence[str] = (),
    find_existing: bool = True,
    reason: str | None = None,
) -> Operation[InsertMetadata]:
    """Add records: one function with many arguments, or a list of specifications.

    `client.add_records("package.module:function", [{"x": 1.0}, {"x": 2.0}], tag="gpu")` adds two,
    `client.add_records([RecordSpec(function=..., kwargs=...), ...])` any mixture. Long lists are
    cut into several requests, each of which happens as a whole or not at all; if one fails, the
    error's `partial` says what the ones before it did.

    Args:
        function: an entry point's name or `module:function`; or `RecordSpec`s, which bring all
            the arguments up to `retry_on` with them.
        kwargs: the function's arguments: one mapping for one record, or a list of them.
        tag: routing string; managers claim by tag.
        priority: "low", "normal" or "high": the order within the tag.
        required_programs: what a manager must have, like `["psi4>=1.9"]`.
        retries: how many errors are to be reset automatically.
        retry_delay_s: pause before the first retry, in seconds; it doubles with each further
            one, up to an hour.
        retry_on: patterns of the error types that qualify, like `["OSError", "*Timeout*"]` or
            `["!ValueError"]`; all but those that computing again cannot repair, if not given.
        find_existing: return an existing record of the same specification, unless it is cancelled,
            deleted or invalid; False always makes a new one.
        reason: kept with the event.

    Returns:
        `ids` in the order given, which are new and which were there, and the refused by index.

    Raises:
        InvalidArgument: a value has no form in JSON, or is too large; nothing was sent.

    >>> added = client.add_records("package.module:energy", [{"x": 1.0}, {"x": 2.0}])
    >>> records = client.get_records(added.ids)
    """
    specs = _specs(
        function,
        kwargs,
        tag=tag,
        priority=priority,
        required_programs=required_programs,
        retries=retries,
        retry_delay_s=retry_delay_s,
        retry_on=retry_on,
    )
    return (yield from add_specs(session, specs, find_existing=find_existing, reason=reason))


def add_specs(
    session: Session, specs: Sequence[RecordSpec], *, find_existing: bool, reason: str | None
) -> Operation[InsertMetadata]:
    """Add records as they were specified, in as many requests as it takes."""
    fields = wire.message(CreateRequest, records=[], find_existing=find_existing, reason=reason)
    envelope = fields.model_dump(exclude={"records"}, exclude_none=True)
    limits = (yield from exchange.server(session)).limits
    entries = [_packed(spec, idx) for idx, spec in enumerate(specs)]
    room_bytes = wire.room_bytes(envelope, limits.body_bytes)
    parts = wire.spans(entries, limits.records_per_request, room_bytes, "records")
    done: list[tuple[int, CreateAnswer]] = []
    with bar(session.progress, len(entries), "adding records") as progress:
        for part in parts:
            body = wire.pack_list(envelope, "records", entries[part.start : part.stop])
            try:
                answer = yield from exchange.post(session, "/v1/records", CreateAnswer, body)
            except ClientError as error:
                add_progress(error, _inserted(done) if done else None, part.start)
                raise
            done.append((part.start, answer))
            progress.update(len(part))
    return _inserted(done)


def get_records(
    session: Session,
    ids: int | Iterable[int | None],
    include: Include | Iterable[Include] = (),
    *,
    missing_ok: bool = False,
    as_of: AsOf = None,
) -> Operation[Any]:
    """Return a record for an id, and `Records` in the order of the ids for several.

    Args:
        ids: one id or several.
        include: which payloads to bring: "kwargs", "result", "stdout", "stderr", "traceback",
            "provenance".
        missing_ok: give None for what is not there.
        as_of: as it was then: a position of the log, or a time; in UTC if it does not say.

    Raises:
        RecordsNotFound: some are not there, and `missing_ok` is False.
        Refused: the moment `as_of` has not come, or is before the first event of the log.

    >>> client.get_records(411, include="result").result
    >>> client.get_records([411, 412]).counts
    """
    moment = wire.as_of(as_of)
    if isinstance(ids, Iterable):
        wanted = wire.record_ids(ids)
        return (yield from _get(session, wanted, include, missing_ok=missing_ok, as_of=moment))
    one = [wire.record_id(ids)]
    found = yield from _get(session, one, include, missing_ok=missing_ok, as_of=moment)
    return found[0]


def history(
    session: Session,
    record_id: int,
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> Operation[History]:
    """Return the events of a record, oldest first: who did what, when and why; all or some.

    Args:
        record_id: whose.
        kind: only of this kind, like `errored`, or of several.
        actor: only by this one, like `user:ann`, or by several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.

    Raises:
        InvalidArgument: a time has no zone.
        NotFound: there is no such record.
        Refused: there is no such kind of event.

    >>> print(client.history(411))
    """
    query = conditions(kind=kind, actor=actor, after=after, before=before)
    path = f"/v1/records/{wire.record_id(record_id)}/events?{urlencode(query)}".rstrip("?")
    answer = yield from exchange.get(session, path, _RecordHistoryAnswer)
    return History(answer.record_id, tuple(answer.events))


def attempts(
    session: Session, record_id: int, include: AttemptInclude | Iterable[AttemptInclude] = ()
) -> Operation[Attempts]:
    """Return every attempt of a record, each with its own outcome, output and error.

    Args:
        record_id: whose.
        include: what shall come with them: `result`, `stdout`, `stderr`, `traceback`, `provenance`.

    Raises:
        NotFound: there is no such record.

    >>> [attempt.error_type for attempt in client.attempts(412)]
    """
    names = [include] if isinstance(include, str) else list(include)
    query = "&".join(f"include={name}" for name in names)
    path = f"/v1/records/{wire.record_id(record_id)}/attempts" + (f"?{query}" if query else "")
    answer = yield from exchange.get(session, path, _RecordAttemptsAnswer)
    return Attempts(answer.record_id, tuple(answer.attempts))


def wait(
    session: Session,
    ids: int | Iterable[int | None],
    *,
    timeout_s: float | None = None,
    include: Include | Iterable[Include] = (),
) -> Operation[Records[Record]]:
    """Wait until the records are finished, which is to say: neither waiting nor running.

    Complete is finished, and so are error, held, cancelled, deleted, invalid and failed: look at
    the `counts` of what is returned.

    Args:
        ids: one id or several.
        timeout_s: for how long at most, in seconds; None waits for as long as it takes.
        include: which payloads to bring.

    Raises:
        WaitTimeout: time is up; it says which are still open.
        RecordsNotFound: some are not there.

    >>> records = client.wait([411, 412], timeout_s=3600)
    """
    wanted = wire.record_ids(ids) if isinstance(ids, Iterable) else [wire.record_id(ids)]
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    finished: dict[int, Record] = {}
    still_open = list(dict.fromkeys(wanted))
    pause_s = _POLL_MIN_S
    with bar(session.progress, len(still_open), "waiting") as progress:
        while True:
            asked_at = time.monotonic()
            polled = yield from _get(session, still_open, (), progress=False, give_up_at=give_up_at)
            ended = {record.id: record for record in polled if record and record.is_finished}
            finished |= ended
            still_open = [id_ for id_ in still_open if id_ not in ended]
            progress.update(len(ended))
            now = time.monotonic()
            if not still_open:
                break
            if give_up_at is not None and now >= give_up_at:
                raise _timed_out(wanted, still_open, finished)
            # Something has moved: look again soon.
            pause_s = _POLL_MIN_S if ended else min(1.5 * pause_s, _POLL_MAX_S)
            pause_s = max(pause_s, (now - asked_at) / _POLL_SHARE)
            yield Sleep(pause_s if give_up_at is None else min(pause_s, give_up_at - now))
    if include:
        return (yield from _get(session, wanted, include, missing_ok=False))
    return Records(finished[id_] for id_ in wanted)


class Pages:
    """The pages of one query, one after the other. `is_last` says that there are no more."""

    def __init__(self, session: Session, request: QueryRequest, limit: int | None) -> None:
        self.is_last = limit == 0
        self._session = session
        self._request = request
        self._left = limit
        self._pace = _Pace()

    def fetch(self) -> Operation[Records[Record]]:
        """Return the next page, newest records first; it may be empty."""
        limits = (yield from exchange.server(self._session)).limits
        size = self._pace.size(limits.page)
        size = size if self._left is None else min(size, self._left)
        request = self._request.model_copy(update={"limit": size})
        asked_at = time.monotonic()
        answer = yield from exchange.post(
            self._session, "/v1/records/query", _PageAnswer, wire.body(request)
        )
        self._pace.adjust(time.monotonic() - asked_at)
        self._request.cursor = answer.next_cursor
        if answer.as_of is not None:
            # All pages are of the moment of the first.
            self._request.as_of = answer.as_of.position
        if self._left is not None:
            self._left -= len(answer.records)
        self.is_last = answer.next_cursor is None or self._left == 0
        return Records(answer.records, answer.as_of)


@describes_conditions
def query_records(
    session: Session,
    *,
    ids: Iterable[int | None] | None = None,
    dataset: int | str | None = None,
    include: Include | Iterable[Include] = (),
    limit: int | None = None,
    as_of: AsOf = None,
    **which: Unpack[RecordConditions],
) -> Pages:
    """Find the records that meet every condition that is given, newest first.

    Iterate over the answer for the records, or over its `pages()` for `Records` of some hundreds
    each. They are fetched as one goes along.

    Args:
        ids: only these.
        dataset: only of this dataset, by id or name.
        include: which payloads to bring.
        limit: maximum number of records in all; None for no limit.
        as_of: as it was then: a position of the log, or a time; in UTC if it does not say.
        {which}

    Raises:
        InvalidArgument: a condition cannot be one, like a status that does not exist.
        Refused: the moment `as_of` has not come, or is before the first event of the log.

    >>> for record in client.query_records(status="error", tag="default", limit=100):
    ...     print(record.id, record.error_type)
    """
    if limit is not None and limit < 0:
        raise InvalidArgument(f"limit is {limit}; it cannot be negative")
    request = wire.message(
        QueryRequest,
        query=conditions_of({"ids": ids, "dataset": dataset, **which}),
        include=listed(include),
        as_of=wire.as_of(as_of),
    )
    return Pages(session, request, limit)


def conditions_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions on records as the server takes them: lists where several are possible."""
    conditions = {
        name: listed(value) if name in CONDITIONS and CONDITIONS[name].is_list else value
        for name, value in given.items()
        if value is not None
    }
    if (ids := conditions.get("ids")) is not None:
        conditions["ids"] = wire.record_ids(ids)
    return conditions


class _Pace:
    """How much to ask for at once, so that an answer takes about `_PAGE_S`."""

    def __init__(self) -> None:
        self._size = _PAGE
        self._ceiling: int | None = None

    def size(self, most: int) -> int:
        """Return how many to ask for now, within what the server gives."""
        self._size = max(1, min(self._size, most, self._ceiling or most))
        return self._size

    def adjust(self, seconds: float) -> None:
        """Ask for more or for less the next time, by how long the answer took."""
        if seconds < _PAGE_S / 2:
            self._size *= 2
        elif seconds > _PAGE_S * 2:
            self._size = max(_PAGE_MIN, self._size // 2)

    def halve(self, count: int) -> None:
        """Ask for half of that at most from now on: the server refused the number."""
        self._size = self._ceiling = max(1, count // 2)


def _get(
    session: Session,
    ids: Sequence[int],
    include: Include | Iterable[Include],
    *,
    missing_ok: bool = False,
    progress: bool | None = None,
    give_up_at: float | None = None,
    as_of: int | datetime | None = None,
) -> Operation[Records[Any]]:
    """Return the records, asking for as many at once as the server and the payloads allow."""
    fields = wire.message(GetRequest, ids=[], include=listed(include), missing_ok=True, as_of=as_of)
    limits = (yield from exchange.server(session)).limits
    pace = _Pace()
    found: Records[Any] = Records()
    wanted = session.progress if progress is None else progress
    with bar(wanted, len(ids), "reading records") as shown:
        while len(found) < len(ids):
            most = limits.ids_per_request
            size = pace.size(most) if fields.include else most
            part = ids[len(found) : len(found) + size]
            asked_at = time.monotonic()
            body = wire.body(fields.model_copy(update={"ids": part}))
            try:
                answer = yield from exchange.post(
                    session, "/v1/records/get", _GotAnswer, body, give_up_at=give_up_at
                )
            except Refused as refusal:
                if refusal.code != TooLarge.code or len(part) == 1:
                    raise
                pace.halve(len(part))
                continue
            pace.adjust(time.monotonic() - asked_at)
            if answer.as_of is not None:
                # All parts are of the moment of the first.
                found.as_of = answer.as_of
                fields = fields.model_copy(update={"as_of": answer.as_of.position})
            found += answer.records
            shown.update(len(part))
    if not missing_ok:
        _require_all(ids, found)
    return found


def _require_all(ids: Sequence[int], found: Sequence[Record | None]) -> None:
    pairs = zip(ids, found, strict=True)
    missing = tuple(dict.fromkeys(id_ for id_, record in pairs if record is None))
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise RecordsNotFound(
            f"there is no record {named}"
            if len(missing) == 1
            else f"there are no records {named} ({len(missing):,} of {len(ids):,})",
            ids=missing,
        )


def _timed_out(
    wanted: Sequence[int], still_open: Sequence[int], finished: Mapping[int, Record]
) -> WaitTimeout:
    named = ", ".join(map(str, still_open[:10])) + (", ..." if len(still_open) > 10 else "")
    return WaitTimeout(
        f"{len(still_open):,} of {len(wanted):,} records still wait or run: {named}. They go on; "
        "wait again to see them end, or see managers() for who could run them",
        open_ids=tuple(still_open),
        finished=Records(finished[id_] for id_ in wanted if id_ in finished),
    )


def _specs(function: Any, kwargs: Any, **common: Any) -> list[RecordSpec]:
    """Return what to add as specifications, whichever way it was given."""
    if isinstance(function, str):
        given: list[Any] = [{} if kwargs is None else kwargs] if is_one(kwargs) else list(kwargs)
        return [RecordSpec(function=function, kwargs=each, **common) for each in given]
    if not isinstance(function, Iterable):
        raise InvalidArgument(
            f"the function is {function!r}: pass its name, like "
            "'package.module:function'; managers "
            "import it where they run"
        )
    if kwargs is not None or common != _COMMON:
        raise InvalidArgument("with a list of RecordSpec, put kwargs, tag and so on into each")
    return list(cast("Iterable[RecordSpec]", function))


def _packed(spec: Any, idx: int) -> bytes:
    """Return one record to add as msgpack, without what is the default anyway."""
    what = f"records[{idx}]"
    if not isinstance(spec, RecordSpec):
        raise InvalidArgument(f"{what} is a {type(spec).__name__}, not a RecordSpec", idx=idx)
    kwargs: Any = spec.kwargs
    if not isinstance(kwargs, Mapping):
        raise InvalidArgument(
            f"{what}.kwargs is a {type(kwargs).__name__}; pass a dict for each record", idx=idx
        )
    if isinstance(spec.required_programs, str):
        raise InvalidArgument(f"{what}.required_programs is a str; pass a list", idx=idx)
    document: dict[str, Any] = {"function": spec.function, "kwargs": dict(spec.kwargs)}
    for name, default in _COMMON.items():
        value = getattr(spec, name)
        if value != default:
            document[name] = list(value) if name == "required_programs" else value
    if spec.kind != "task":
        document["kind"] = spec.kind
    return wire.pack_json(document, what=what, idx=idx)


def _inserted(done: Sequence[tuple[int, CreateAnswer]]) -> InsertMetadata:
    """Return the answers to the parts as one answer to the call."""
    return InsertMetadata(
        operation_ids=[answer.operation_id for _, answer in done if answer.operation_id],
        errors=[moved(error, start) for start, answer in done for error in answer.errors],
        ids=[id_ for _, answer in done for id_ in answer.ids],
        inserted_idx=[start + idx for start, answer in done for idx in answer.inserted_idx],
        existing_idx=[start + idx for start, answer in done for idx in answer.existing_idx],
    )
