"""The audit of a ledger: the log is read once, in order, and every named invariant is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow, tuple_row

from recordledger.domain.audit.findings import EventPlace, Finding
from recordledger.domain.audit.invariants import Audit
from recordledger.domain.errors import ImpossibleHistory, UnknownEvent, UnreadableEvent
from recordledger.domain.records.events import Event
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..replay.replay import Difference, Progress, check_replay
from ..replay.shadow import Shadow
from ..store.database import Db, as_ledger_errors, connect, cursor_of
from ..store.statements import statements
from ..tables import payloads
from .verification import verify_in

_SQL: Final = statements("proof.audit")
_LOG: Final = statements("log.ledger_events")
_ROWS: Final = 10_000
_ERASED: Final = 500

# Which invariant a table that differs from the log breaks; the others break `replay`.
_ROWS_OF_AGGREGATES: Final = ("records", "managers", "tokens", "jobs", "datasets")
_COUNTERS: Final = ("status_counts", "rescue_counts", "dataset_counts")

ELSEWHERE: Final = {
    "idempotent": "it needs the same request twice; see tests/api/http/test_idempotency.py",
    "no-lost-ack": "it needs the answers that clients received; see tests/acceptance/crash.py",
}
"""Invariants that neither the log nor the tables show, and why not or where they are checked."""

Row: TypeAlias = tuple[EventPlace, Event]


@dataclass(slots=True)
class AuditReport:
    """What an audit has found.

    Attributes:
        position: the newest position of the log when it was read.
        n_events, n_all: how many events were read, and how many there are.
        findings: one for each invariant, in the order in which they are checked.
        stopped: whether the audit stopped at the first breach, and left out what comes after it.
    """

    position: int = 0
    n_events: int = 0
    n_all: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    stopped: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.is_broken for finding in self.findings)

    def __str__(self) -> str:
        """Return a line for each invariant, below it the events that break it, and a summary."""
        lines = [f"{self.n_events:,} of {self.n_all:,} events up to position {self.position}"]
        for finding in self.findings:
            lines.append(str(finding))
            lines += [f"  {breach}" for breach in finding.breaches]
        if self.broken:
            names = ", ".join(finding.name for finding in self.broken)
            lines.append(f"Broken: {names}.")
            if self.stopped:
                lines.append("What comes after the first breach was not checked (--keep-going).")
        else:
            lines.append("All invariants that can be checked here hold.")
        return "\n".join(lines)

    @property
    def broken(self) -> list[Finding]:
        """The invariants that are broken."""
        return [finding for finding in self.findings if finding.is_broken]


def audit(
    ledger: Ledger,
    *,
    progress: Progress | None = None,
    tolerance_s: float = 30.0,
    stop_at_first: bool = False,
    log_only: bool = False,
    breaches_max: int = 20,
    shadow: Shadow | None = None,
) -> AuditReport:
    """Check every named invariant that the log, or the log and the tables, can show.

    It may run while the ledger is in use: the log is read in one snapshot, and the tables are
    compared with it in another. Nothing is changed.

    Args:
        ledger: which.
        progress: called with the number of events read so far, and of all.
        tolerance_s: for how long a task may be passed over, as of `Order`.
        stop_at_first: read no further than to the first breach.
        log_only: do not compare the tables with the log, which takes several times as long.
        breaches_max: how many breaches of each invariant are kept; all are counted.
        shadow: an empty one for `check_replay`, which otherwise makes its own.
    """
    checks = Audit(tolerance_s=tolerance_s, breaches_max=breaches_max)
    report = AuditReport(findings=checks.findings)
    with as_ledger_errors(), connect(ledger.url, ledger.schema) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction(force_rollback=True):
            _read(ledger, connection, checks, report, progress, stop_at_first=stop_at_first)
            report.stopped = stop_at_first and not report.holds
            if not report.stopped:
                report.findings.append(_erasure(ledger, connection, checks, breaches_max))
                report.findings.append(_chain(ledger, connection, breaches_max))
    report.stopped = stop_at_first and not report.holds
    if not report.stopped:
        report.findings += _skipped() if log_only else _compare(ledger, breaches_max, shadow)
        report.findings += [
            Finding(name, "", unchecked=reason) for name, reason in ELSEWHERE.items()
        ]
    return report


def _read(
    ledger: Ledger,
    connection: Connection[TupleRow],
    checks: Audit,
    report: AuditReport,
    progress: Progress | None,
    *,
    stop_at_first: bool,
) -> None:
    totals = connection.execute(
        "SELECT coalesce(max(notification_id), 0), count(*) FROM ledger_events"
    ).fetchone()
    report.position, report.n_all = totals or (0, 0)
    with connection.cursor("audit", row_factory=tuple_row) as rows:
        rows.itersize = _ROWS
        rows.execute(_LOG["read_log"], {"after": 0, "upto": report.position}, binary=True)
        for row in _events(ledger, rows, checks.unreadable):
            if row is not None:
                checks.feed(*row[0], row[1])
            if checks.n_events % _ROWS == 0 and progress:
                progress(checks.n_events, report.n_all)
            if stop_at_first and checks.is_broken:
                break
        else:
            checks.end()
    report.n_events = checks.n_events
    if progress:
        progress(report.n_events, report.n_all)


def _events(
    ledger: Ledger, rows: Iterable[Any], unreadable: Callable[[EventPlace | None, str], None]
) -> Iterator[Row | None]:
    """Give each event with its place, or None for one that cannot be read.

    What many records share is read once.
    """
    event_of = ledger.event_mapper.event_of
    seen: tuple[str, bytes] = ("", b"")
    event: Event | None = None
    for position, originator_id, version, topic, state in rows:
        try:
            stream, number = stream_number(originator_id)
        except ValueError:
            unreadable(None, f"position {position}: {originator_id} is not a stream")
            yield None
            continue
        place = EventPlace(position, stream, number, version)
        if event is None or seen != (topic, state):
            try:
                event, seen = event_of(topic, state), (topic, state)
            except (UnknownEvent, UnreadableEvent) as error:
                unreadable(place, str(error))
                yield None
                continue
        yield place, event


def _chain(ledger: Ledger, connection: Connection[TupleRow], breaches_max: int) -> Finding:
    """Compare the log with its seals, by the keys that the database names."""
    found = verify_in(connection, ledger, breaches_max=breaches_max)
    if not found.n_seals:
        return Finding("chain", "", unchecked="the log has no seal yet")
    finding = Finding(
        "chain",
        "the log agrees with its seals",
        "sealed events",
        n_checked=found.n_sealed,
        breaches_max=breaches_max,
        note=f"{found.n_events - found.n_sealed:,} events are not sealed yet",
    )
    for broken in found.findings:
        finding.n_breaches += broken.n_breaches
        finding.breaches += broken.breaches[: breaches_max - len(finding.breaches)]
    return finding


def _erasure(
    ledger: Ledger, connection: Connection[TupleRow], checks: Audit, breaches_max: int
) -> Finding:
    """Look for what erased records have named, and nobody else, among the payloads."""
    finding = Finding(
        "erasure",
        "a hard delete destroys the payload",
        "erased records",
        breaches_max=breaches_max,
    )
    db = cursor_of(connection)
    for start in range(0, len(checks.erased), _ERASED):
        part = checks.erased[start : start + _ERASED]
        finding.n_checked += len(part)
        named = _named_by(ledger, db, part)
        for (digest,) in db.execute(_SQL["not_destroyed"], {"digests": sorted(named)}).fetchall():
            finding.report(f"payload {digest.hex()} is still there", [named[digest]])
    return finding


def _named_by(ledger: Ledger, db: Db, record_ids: Sequence[int]) -> dict[bytes, EventPlace]:
    """Return the payloads that records have named, each with the last event that did."""
    ids = [stream_uuid(Stream.record, record_id) for record_id in record_ids]
    rows = db.execute(_SQL["histories"], {"ids": ids}).fetchall()
    return {
        payload.digest: row[0]
        for row in _events(ledger, rows, lambda _place, _why: None)
        if row is not None
        for payload in payloads.named_by(row[1])
    }


def _skipped() -> list[Finding]:
    names = ("atomic", "counters", "replay")
    return [Finding(name, "", unchecked="only the log was checked") for name in names]


def _compare(ledger: Ledger, breaches_max: int, shadow: Shadow | None) -> list[Finding]:
    """Compare the tables with the log, by folding it again."""
    atomic = Finding("atomic", "each row agrees with its last event", breaches_max=breaches_max)
    counters = Finding("counters", "kept counts equal recounted ones", breaches_max=breaches_max)
    replay = Finding("replay", "rebuilt tables equal the live ones", breaches_max=breaches_max)
    try:
        found = check_replay(ledger, differences_max=breaches_max, shadow=shadow)
    except (ImpossibleHistory, UnknownEvent, UnreadableEvent) as error:
        replay.report(f"the log cannot be folded: {error}")
        atomic.unchecked = counters.unchecked = "the log cannot be folded"
        return [atomic, counters, replay]
    for finding in (atomic, counters, replay):
        finding.n_checked = found.n_events
    for difference in found.differences:
        _broken_by(difference, atomic, counters, replay).report(str(difference))
    for digest, record_id in found.missing_payloads:
        replay.report(f"payload {digest}of record {record_id} is missing")
    return [atomic, counters, replay]


def _broken_by(
    difference: Difference, atomic: Finding, counters: Finding, replay: Finding
) -> Finding:
    if difference.table in _ROWS_OF_AGGREGATES:
        return atomic
    return counters if difference.table in _COUNTERS else replay
