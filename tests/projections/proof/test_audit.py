"""The audit of a real ledger: what happened rightly passes, and what was forged is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from recordledger.domain.proof.notes import SigningKey
from recordledger.domain.proof.seals import origin_of
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event
from recordledger.domain.streams import Stream, stream_uuid
from recordledger.projections.actions.managing import deactivate_manager, relinquish
from recordledger.projections.proof import audit as audit_module
from recordledger.projections.proof.audit import ELSEWHERE, AuditReport, audit
from recordledger.projections.proof.seals import seal_next
from recordledger.projections.reading.queries import ledger_id
from recordledger.projections.tables.payloads import payload_of

from ..replay.test_replay import damage
from ..stage import BOB, Stage, bad, good, staged, together

NAMES: Final = {
    "readable",
    "contiguous",
    "ordered",
    "legal-transition",
    "single-lease",
    "fence",
    "exactly-once-accept",
    "late",
    "order",
    "liveness",
    "undo",
    "services",
    "erasure",
    "atomic",
    "counters",
    "replay",
    "idempotent",
    "no-lost-ack",
    "chain",
}


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A stage on a database of its own: what is damaged here stays so."""
    with staged(database_url) as made:
        yield made


def lived(stage: Stage) -> int:
    """Let a little of everything happen, to records 1 to 6; return a manager that is active."""
    stage.submit(6, retries=1)
    manager_id = stage.manager()
    held = stage.claim(manager_id, 5)
    stage.hand_in(manager_id, {1: held[1]}, good())
    stage.hand_in(manager_id, {2: held[2]}, bad())
    relinquish(stage.ledger, manager_id, {3: held[3]}, user=BOB)
    stage.hand_in(manager_id, {3: held[3]}, good(b"late"))
    stage.order(Action.adopt, 3)
    stage.undo(stage.done(Action.cancel, 4))
    stage.order(Action.erase, 1)
    service = stage.service(5)
    stage.hand_in(manager_id, {5: held[5]})
    stage.finish(service, good())
    gone = stage.manager()
    stage.claim(gone)
    deactivate_manager(stage.ledger, gone, actor=BOB, owner=BOB)
    return manager_id


def seal(stage: Stage) -> None:
    """Seal what has happened."""
    key = SigningKey(origin_of(ledger_id(stage.ledger)), b"k" * 32)
    assert seal_next(stage.ledger, key) is not None


def broken(report: AuditReport) -> dict[str, list[tuple[int, int]]]:
    """Return which records' events break an invariant: (number, version), by its name."""
    return {
        finding.name: [
            (place.number, place.version) for each in finding.breaches for place in each.places
        ]
        for finding in report.broken
    }


def rewrite(stage: Stage, number: int, version: int, **changes: Any) -> None:
    """Change what an event of a record says, as only an owner who is bent on it can."""
    mapper = stage.ledger.event_mapper
    where = "WHERE originator_id = %s AND originator_version = %s"
    key = [stream_uuid(Stream.record, number), version]
    [(topic, state)] = stage.ask(f"SELECT topic, state FROM ledger_events {where}", key)  # noqa: S608
    event: Event = mapper.event_of(topic, bytes(state)).model_copy(update=changes)
    damage(stage)
    forged = [event.topic, mapper.state_of(event), *key]
    assert stage.do(f"UPDATE ledger_events SET topic = %s, state = %s {where}", forged) == 1  # noqa: S608


def test_what_happened_rightly_passes_and_every_invariant_is_named(stage: Stage) -> None:
    lived(stage)
    seal(stage)
    steps: list[tuple[int, int]] = []
    report = audit(stage.ledger, progress=lambda done, total: steps.append((done, total)))
    assert report.holds, str(report)
    assert {finding.name for finding in report.findings} == NAMES
    assert {finding.name for finding in report.findings if finding.unchecked} == set(ELSEWHERE)
    head = stage.head()
    assert (report.n_events, report.n_all, report.position) == (head, head, head)
    assert steps[-1] == (head, head)
    counted = {finding.name: finding.n_checked for finding in report.findings}
    assert all(n > 0 for name, n in counted.items() if name not in ELSEWHERE), counted


def test_the_page_about_the_audit_explains_each_line(stage: Stage) -> None:
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    stage.submit()
    assert "chain                not checked: the log has no seal yet" in str(audit(stage.ledger))
    seal(stage)
    lines = {finding.name: bool(finding.unchecked) for finding in audit(stage.ledger).findings}
    for name, is_unchecked in lines.items():
        assert (f"| `{name}` |" in page) is not is_unchecked
        assert f"`{name}`" in page


def test_an_empty_log_breaks_nothing(stage: Stage) -> None:
    report = audit(stage.ledger)
    assert report.holds
    assert report.n_events == 0


def test_an_audit_in_the_middle_of_work_holds(stage: Stage) -> None:
    stage.submit(300)
    managers = [stage.manager() for _ in range(2)]

    def work(manager_id: int) -> None:
        while held := stage.claim(manager_id, 7):
            stage.hand_in(manager_id, held, good())

    def check() -> list[AuditReport]:
        return [audit(stage.ledger) for _ in range(3)]

    *_, reports = together(*(lambda id_=id_: work(id_) for id_ in managers), check)
    assert [str(report) for report in reports if not report.holds] == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "DELETE FROM ledger_events WHERE topic = 'relinquished'",
            {"contiguous", "late", "liveness", "replay"},
        ),
        (
            "UPDATE ledger_events SET topic = 'released' WHERE topic = 'cancelled'",
            {"legal-transition", "single-lease", "replay"},
        ),
        (
            "INSERT INTO ledger_events SELECT originator_id, originator_version + 1, topic, state"
            " FROM ledger_events WHERE topic = 'late_result'",
            None,
        ),
        (
            "UPDATE ledger_events SET notification_id = 1000 + notification_id"
            " WHERE topic = 'uncancelled'",
            {"contiguous", "ordered", "legal-transition", "replay"},
        ),
        ("UPDATE records SET status = 'error' WHERE id = 3", {"atomic"}),
        ("UPDATE managers SET name = 'other'", {"atomic"}),
        ("UPDATE status_counts SET n_records = n_records + 1", {"counters"}),
        ("DELETE FROM claim_queue", {"replay"}),
        ("DELETE FROM payloads WHERE data = 'late'", {"replay"}),
    ],
)
def test_what_is_changed_behind_the_ledgers_back_is_found(
    stage: Stage, statement: str, expected: set[str] | None
) -> None:
    lived(stage)
    damage(stage)
    if expected is None:
        stage.do("DELETE FROM ledger_events WHERE topic = 'result_adopted'")
        expected = {"late", "atomic", "replay", "counters"}
    assert stage.do(statement) > 0
    report = audit(stage.ledger)
    assert {finding.name for finding in report.broken} == expected, str(report)


@pytest.mark.parametrize(
    ("number", "version", "changes", "expected"),
    [
        (2, 2, {"attempt": 2}, {"fence": [(2, 2), (2, 2), (2, 3), (2, 5)]}),
        (2, 3, {"actor": "manager:99"}, {"fence": [(2, 2), (2, 3)]}),
        (2, 2, {"manager_id": 99}, {"fence": [(2, 2), (2, 3)], "liveness": [(2, 2)]}),
        (3, 4, {"manager_id": 99}, {"late": [(3, 4)]}),
        (3, 5, {"attempt": 2}, {"late": [(3, 5)]}),
        (4, 4, {"undoes": stream_uuid(Stream.record, 1)}, {"undo": [(4, 4)]}),
        (6, 1, {"tag": "zzz", "priority": 2}, {"order": [(4, 5), (6, 2)]}),
    ],
)
def test_an_event_that_was_forged_is_found_and_named(
    stage: Stage,
    number: int,
    version: int,
    changes: dict[str, Any],
    expected: dict[str, list[tuple[int, int]]],
) -> None:
    lived(stage)
    rewrite(stage, number, version, **changes)
    found = broken(audit(stage.ledger))
    log_alone = {
        name: found[name] for name in found if name not in ("atomic", "counters", "replay")
    }
    assert log_alone == expected


def test_time_that_was_turned_back_is_found(stage: Stage) -> None:
    lived(stage)
    rewrite(stage, 2, 3, timestamp=stage.events(1)[0].timestamp.replace(year=2001))
    assert broken(audit(stage.ledger))["ordered"] == [(2, 3)]


def test_a_payload_that_outlives_its_records_erasure_is_found(stage: Stage) -> None:
    (erased, other) = stage.submit(2)
    [spec] = stage.ask(
        "SELECT p.* FROM payloads p JOIN records r ON r.spec = p.digest WHERE r.id = %s", [erased]
    )
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    stage.hand_in(manager_id, held, good(b"shared"))
    stage.order(Action.erase, erased)
    # What another record still names is there rightly.
    assert stage.status(other) is not None
    assert audit(stage.ledger).holds
    stage.do("INSERT INTO payloads VALUES (%s, %s, %s, %s)", spec)
    report = audit(stage.ledger)
    assert broken(report) == {"erasure": [(erased, 1)]}
    assert bytes(spec[0]).hex() in str(report)


def test_many_erased_records_are_looked_at_in_parts(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_ERASED", 2)
    stage.order(Action.erase, *stage.submit(5))
    [finding] = [each for each in audit(stage.ledger).findings if each.name == "erasure"]
    assert finding.n_checked == 5


def test_it_stops_at_the_first_breach_if_that_is_wanted(stage: Stage) -> None:
    lived(stage)
    rewrite(stage, 2, 3, actor="manager:99")
    report = audit(stage.ledger, stop_at_first=True)
    assert broken(report) == {"fence": [(2, 2), (2, 3)]}
    assert report.stopped
    assert report.n_events < report.n_all
    assert "replay" not in {finding.name for finding in report.findings}


def test_a_table_that_differs_is_no_reason_to_leave_the_rest_out(stage: Stage) -> None:
    lived(stage)
    stage.do("DELETE FROM claim_queue")
    report = audit(stage.ledger, stop_at_first=True)
    assert broken(report) == {"replay": []}
    assert report.n_events == report.n_all


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (b"\xc1", "not valid msgpack"),
        (b"\x80", "Field required"),
        (b"\x93\x01", "not a valid event"),
    ],
)
def test_altered_bytes_are_found_and_the_rest_is_judged_nonetheless(
    stage: Stage, forged: bytes, why: str
) -> None:
    lived(stage)
    damage(stage)
    key = [stream_uuid(Stream.record, 2), 2]
    changed = "UPDATE ledger_events SET state = %s"
    one = " WHERE originator_id = %s AND originator_version = %s"
    assert stage.do(changed + one, [forged, *key]) == 1
    report = audit(stage.ledger)
    assert broken(report) == {"readable": [(2, 2)], "replay": []}
    assert why in str(report)
    assert "the log cannot be folded" in str(report)
    assert report.n_events == report.n_all
    assert {finding.name for finding in report.findings} == NAMES


def test_bytes_of_an_erased_record_that_were_altered_are_found(stage: Stage) -> None:
    lived(stage)
    damage(stage)
    stage.do(
        "UPDATE ledger_events SET state = '' WHERE originator_id = %s AND originator_version = 1",
        [stream_uuid(Stream.record, 1)],
    )
    assert broken(audit(stage.ledger)) == {"readable": [(1, 1)], "replay": []}


def test_an_event_of_a_later_version_of_the_code_is_found(stage: Stage) -> None:
    stage.submit()
    damage(stage, "UPDATE ledger_events SET topic = 'invented_later'")
    report = audit(stage.ledger)
    assert broken(report) == {"readable": [(1, 1)], "replay": []}
    assert "upgrade recordledger" in str(report)


def test_a_stream_of_an_unknown_kind_is_found(stage: Stage) -> None:
    stage.submit()
    damage(stage, "UPDATE ledger_events SET originator_id = gen_random_uuid()")
    report = audit(stage.ledger)
    assert broken(report) == {"readable": [], "replay": []}
    assert "position 1: " in str(report)
    assert "is not a stream" in str(report)


def test_a_task_that_nobody_would_ever_take_is_found(
    stage: Stage,
) -> None:
    (passed, *others) = stage.submit(4)
    manager_id = stage.manager()
    # The ledger would not pass it over: its row in the queue is taken away.
    stage.do("DELETE FROM claim_queue WHERE record_id = %s", [passed])
    for _ in others:
        assert stage.claim(manager_id, 1)
    assert audit(stage.ledger).broken[0].name == "replay"
    found = broken(audit(stage.ledger, tolerance_s=0.0))
    assert found["order"] == [(others[0], 2), (others[2], 2)]


def test_what_many_records_share_is_read_once_and_counted_for_each(stage: Stage) -> None:
    ids = stage.submit(50)
    stage.done(Action.cancel, *ids)
    assert [type(event) for event in stage.events(ids[-1])] == [e.Created, e.Cancelled]
    report = audit(stage.ledger)
    assert report.holds
    assert report.n_events == 100
    assert payload_of(b"").size_bytes == 0
