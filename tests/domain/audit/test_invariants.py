"""What breaks an invariant is found, with the events that break it; what is legal is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.admin.access import Role, TokenIssued, TokenRevoked
from recordledger.domain.admin.divergence import DivergenceFound, DivergenceRepaired, RowFault
from recordledger.domain.admin.job import JobFinished, JobSubmitted
from recordledger.domain.admin.webhook import WebhookAdded, WebhookFilter, WebhookRemoved
from recordledger.domain.audit.findings import Breach, EventPlace, Finding
from recordledger.domain.audit.invariants import TOO_SOON, Audit
from recordledger.domain.audit.origins import operation_of
from recordledger.domain.dataset import DatasetCreated, DatasetDeleted
from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Kind, Priority
from recordledger.domain.routing.manager import (
    ManagerDeactivated,
    ManagerDeclaredLost,
    ManagerDraining,
)
from recordledger.domain.streams import Stream
from tests.domain.specification import live
from tests.examples import (
    ELSEWHERE,
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    erased,
    errored,
    failed,
    failure,
    held,
    imported,
    invalidated,
    late_result,
    lease_expired,
    manager_lost,
    payload,
    released,
    relinquished,
    rerouted,
    reset,
    resubmitted,
    result_adopted,
    retry_due,
    reverted,
    revived,
    service_iterated,
    service_started,
    soft_deleted,
    success,
    uncancelled,
    undeleted,
)

from .written_log import LONG_S, Log, M, R, by, claims, log, passed_over, registered, said

CHOICES: Final = st.integers(0, 2**16)
LIVES: Final = st.lists(CHOICES, max_size=10) | st.lists(CHOICES, min_size=15, max_size=40)

DONE: Final = by(1, completed())
WRONG: Final = by(1, errored())
SOON: Final = at(1)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        # single-lease (and with it the table)
        (
            [created(), claimed(1), claimed(2, attempt=2)],
            {"single-lease": [(5, 6)], "legal-transition": [(6,)]},
        ),
        (
            [created(kind=Kind.service), service_started(), service_started(attempt=2)],
            {"single-lease": [(5, 6)], "legal-transition": [(6,)]},
        ),
        # fence
        ([created(), claimed(1, attempt=2)], {"fence": [(5,)]}),
        ([created(), claimed(1), by(2, completed())], {"fence": [(5, 6)]}),
        ([created(), claimed(1), completed()], {"fence": [(5, 6)]}),
        (
            [created(), claimed(1), relinquished(1), claimed(2, attempt=2), by(2, completed())],
            {"fence": [(7, 8)]},
        ),
        ([created(), claimed(1), relinquished(2)], {"fence": [(5, 6)]}),
        ([created(), claimed(1), relinquished(1, attempt=2)], {"fence": [(5, 6)]}),
        ([created(), DONE], {"fence": [(5,)], "legal-transition": [(5,)]}),
        # exactly-once-accept
        (
            [created(), claimed(1), DONE, DONE],
            {
                "exactly-once-accept": [(6, 7)],
                "legal-transition": [(7,)],
                "fence": [(7,)],
            },
        ),
        (
            [
                created(),
                claimed(1),
                relinquished(1),
                late_result(1),
                claimed(2, attempt=2),
                by(2, completed(attempt=2)),
                result_adopted(),
            ],
            {"exactly-once-accept": [(9, 10)], "legal-transition": [(10,)]},
        ),
        # late
        ([created(), late_result(1)], {"late": [(5,)]}),
        ([created(), claimed(1), late_result(1)], {"late": [(5, 6)]}),
        ([created(), claimed(1), DONE, late_result(1)], {"late": [(7,)]}),
        ([created(), claimed(1), relinquished(1), late_result(2)], {"late": [(7,)]}),
        ([created(), claimed(1), relinquished(1), late_result(), late_result()], {"late": [(8,)]}),
        ([created(), claimed(1), relinquished(1), result_adopted()], {"late": [(7,)]}),
        (
            [
                created(),
                claimed(1),
                relinquished(1),
                late_result(),
                result_adopted(outcome=success("other")),
            ],
            {"late": [(8,)]},
        ),
        (
            [
                created(),
                claimed(1),
                relinquished(1),
                late_result(outcome=failure()),
                result_adopted(outcome=failure()),
            ],
            {"late": [(8,)]},
        ),
        # legal-transition
        ([created(), created()], {"legal-transition": [(5,)]}),
        ([commented()], {"legal-transition": [(4,)]}),
        ([created(), erased(), commented()], {"legal-transition": [(6,)]}),
        ([created(), uncancelled()], {"legal-transition": [(5,)]}),
        ([created(), reverted("running")], {"legal-transition": [(5,)]}),
        (
            [created(kind=Kind.service), claimed(1)],
            {"legal-transition": [(5,)]},
        ),
        # liveness
        ([created(), claimed(77)], {"liveness": [(5,)]}),
        ([created(), claimed(1), lease_expired()], {"liveness": [(5, 6)]}),
        ([created(), claimed(1), manager_lost(1)], {"liveness": [(5, 6)]}),
        (
            [created(), claimed(1), WRONG, reset(retry=1, not_before=at(99)), retry_due()],
            {"liveness": [(8,)]},
        ),
        # order
        (
            [
                created(),
                claimed(1),
                WRONG,
                reset(retry=1, not_before=at(99)),
                claimed(1, attempt=2),
            ],
            {"order": [(8,)]},
        ),
        ([created(required_programs=("orca",)), claimed(1)], {"order": [(5,)]}),
        # undo
        (
            [created(), uncancelled(undoes=UUID(int=7))],
            {"undo": [(5,)], "legal-transition": [(5,)]},
        ),
        ([created(), held(), released(undoes=UUID(int=7))], {"undo": [(6,)]}),
    ],
)
def test_a_history_that_breaks_an_invariant_is_found(
    history: Sequence[Event], expected: dict[str, list[tuple[int, ...]]]
) -> None:
    lease = at(LONG_S)
    events = [
        event.model_copy(update={"lease_expires_at": lease}) if type(event) is e.Claimed else event
        for event in history
    ]
    assert log().record(*events).found() == expected


ADOPTED: Final = [created(), claimed(1), relinquished(1), late_result(), result_adopted()]


@pytest.mark.parametrize(
    "history",
    [
        [created(), claimed(1), DONE, invalidated(), soft_deleted(), undeleted(), erased()],
        [created(), claimed(1), WRONG, reset(), claimed(1, attempt=2), by(1, completed(attempt=2))],
        [created(), claimed(1), WRONG, failed(), revived(), claimed(2, attempt=2)],
        ADOPTED,
        # Adopting is undone, and done again.
        [*ADOPTED, reverted("waiting"), result_adopted()],
        [*ADOPTED, reverted("waiting"), reverted("complete"), commented()],
        # In place of an error, and of an attempt that runs.
        [
            created(),
            claimed(1),
            relinquished(1),
            claimed(2, attempt=2),
            by(2, errored(attempt=2)),
            late_result(),
            result_adopted(),
        ],
        [
            created(),
            claimed(1),
            relinquished(1),
            claimed(2, attempt=2),
            late_result(),
            result_adopted(),
            late_result(2, attempt=2),
        ],
        [created(), claimed(1), cancelled(), late_result(), uncancelled(), claimed(1, attempt=2)],
        [
            created(kind=Kind.service),
            service_started(),
            lease_expired(),
            service_started(attempt=2),
        ],
        [created(kind=Kind.service), service_started(), service_iterated(), completed()],
        [created(), rerouted(priority=Priority.high), rerouted(tag="cpu"), claimed(3)],
        [
            created(),
            claimed(1),
            WRONG,
            resubmitted(),
            reset(retry=1, not_before=at(4)),
            retry_due(),
            claimed(2, attempt=2),
        ],
        [created(), claimed(1), WRONG, reset(not_before=at(9)), cancelled(), uncancelled()],
        [created(), claimed(1), WRONG, reset(), claimed(2, attempt=2)],
    ],
)
def test_a_legal_history_breaks_nothing(history: Sequence[Event]) -> None:
    assert log().record(*history).found() == {}


@for_all(LIVES)
def test_no_legal_history_breaks_an_invariant(choices: list[int]) -> None:
    written = log()
    history, _ = live(choices)
    holder: int | None = None
    for number, event in enumerate(history):
        # The examples all happen at once, and by alice.
        update: dict[str, Any] = {"timestamp": at(LONG_S * number)}
        if isinstance(event, e.Claimed):
            holder = event.manager_id
            update["lease_expires_at"] = at(LONG_S * number + 120)
        elif isinstance(event, e.ServiceStarted):
            holder = None
        elif isinstance(event, e.Completed | e.Errored) and holder is not None:
            update["actor"] = f"manager:{holder}"
        elif isinstance(event, e.Reset) and event.not_before is not None:
            update["not_before"] = at(LONG_S * number + 3)
        update["operation_id"] = UUID(int=number + 1)
        written.happen(Stream.record, R, event.model_copy(update=update))
    found = written.found()
    found.pop("order", None)  # The specification lets a task be claimed during its pause.
    assert found == {}


# Streams


def test_a_gap_and_a_repetition_in_a_stream_are_found() -> None:
    gap = log().append(Stream.record, R, 1, created()).append(Stream.record, R, 3, held())
    assert gap.found() == {"contiguous": [(5,)]}
    twice = log().append(Stream.record, R, 1, created()).append(Stream.record, R, 1, held())
    assert twice.found() == {"contiguous": [(5,)]}
    other = Log().append(Stream.manager, M, 2, registered())
    assert other.found() == {"contiguous": [(1,)]}


def test_positions_that_do_not_grow_and_time_that_goes_back_are_found() -> None:
    audit = Audit()
    audit.feed(5, Stream.record, 1, 1, created())
    audit.feed(5, Stream.record, 2, 1, created())
    audit.feed(4, Stream.record, 3, 1, created())
    audit.feed(6, Stream.record, 1, 2, held(timestamp=at(-1)))
    assert Log(audit).found() == {"ordered": [(5,), (4,), (6,)]}
    assert "its position is not after 5" in Log(audit).what("ordered")


def test_all_other_aggregates_live_by_their_rules() -> None:
    draining = ManagerDraining(**said(1, 1))
    submitted = JobSubmitted(ids=payload(), n_total=1, options={}, **said(2, 1))
    issued = TokenIssued(user="ann", role=Role.user, token_hash=bytes(32), **said(3, 1))
    fine = log()
    fine.manager(draining, ManagerDeactivated(**said(4, 2)))
    fine.happen(Stream.job, 1, submitted, JobFinished(**said(5, 2)))
    fine.happen(Stream.token, 1, issued, TokenRevoked(**said(6, 2)))
    created_ = DatasetCreated(name="water", description="", **said(7, 1))
    fine.happen(Stream.dataset, 1, created_, DatasetDeleted(**said(8, 2)))
    added = WebhookAdded(url="https://x.org", filter=WebhookFilter(), after=0, **said(9, 1))
    fine.happen(Stream.webhook, 1, added, WebhookRemoved(**said(10, 2)))
    wrong_row = DivergenceFound(table="records", key=("1",), fault=RowFault.extra, **said(11, 1))
    fine.happen(Stream.divergence, 1, wrong_row, DivergenceRepaired(**said(12, 2)))
    assert fine.found() == {}
    wrong = log()
    wrong.manager(ManagerDeactivated(**said(4, 1)), ManagerDeclaredLost(**said(5, 2)))
    wrong.happen(Stream.job, 1, JobFinished(**said(6, 2)))
    wrong.happen(Stream.token, 1, TokenRevoked(**said(7, 2)))
    wrong.happen(Stream.dataset, 1, DatasetDeleted(**said(8, 1)))
    wrong.happen(Stream.webhook, 1, WebhookRemoved(**said(9, 1)))
    wrong.happen(Stream.divergence, 1, DivergenceRepaired(**said(10, 1)))
    assert wrong.found() == {"legal-transition": [(5,), (6,), (7,), (8,), (9,), (10,)]}


def test_a_manager_that_has_not_registered_changes_nothing_else() -> None:
    assert Log().manager(ManagerDraining(**said(1, 1))).found() == {"legal-transition": [(1,)]}


# What cannot be read


def test_what_cannot_be_read_is_found_and_its_stream_not_judged_from_there_on() -> None:
    written = log().record(created(), claimed(1))
    written.position += 1
    written.audit.unreadable(EventPlace(6, Stream.record, R, 3), "no msgpack")
    # Whatever comes now: nobody knows what the record is.
    written.versions[Stream.record, R] = 3
    written.record(DONE, claimed(1, attempt=9)).manager(ManagerDeactivated(**said(1, 9)))
    assert written.found() == {"readable": [(6,)]}
    [finding] = [each for each in written.audit.findings if each.name == "readable"]
    assert finding.n_checked == written.audit.n_events == 9
    assert finding.note == "1 streams not checked from there on"


def test_a_record_that_cannot_be_read_neither_waits_nor_keeps_a_service_from_its_end() -> None:
    written = claims("gpu").submit(1, tag="gpu")
    service(written, 1, 2)
    written.audit.unreadable(EventPlace(90, Stream.record, 1, 2), "no msgpack")
    written.audit.unreadable(EventPlace(91, Stream.record, 2, 1), "no msgpack")
    written.position = 91
    written.record(completed(), number=900)
    assert passed_over(written, 10, 25, 41).found() == {"readable": [(90,), (91,)]}


def test_what_a_manager_that_cannot_be_read_does_is_not_judged() -> None:
    written = claims("gpu").submit(1, 2)
    written.audit.unreadable(EventPlace(4, Stream.manager, M, 2), "no msgpack")
    written.position = 4
    assert written.claim(2, 1).found() == {"readable": [(4,)]}


def test_what_belongs_to_no_stream_is_found() -> None:
    audit = Audit()
    audit.unreadable(None, "position 1: no stream")
    assert Log(audit).found() == {"readable": [()]}
    assert audit.findings[0].note == ""


# Liveness


@pytest.mark.parametrize("ended", [ManagerDeactivated, ManagerDeclaredLost])
def test_an_attempt_left_under_a_manager_that_ended_is_found(ended: type[Event]) -> None:
    left = log().record(created(), claimed(1)).manager(ended(**said(1, 9)))
    assert left.found() == {"liveness": [(5, 6)]}
    back = log().record(created(), claimed(1), relinquished(1)).manager(ended(**said(1, 9)))
    assert back.found() == {}


def test_a_claim_of_a_manager_that_has_ended_is_found() -> None:
    ended = log().manager(ManagerDeactivated(**said(1, 1)))
    assert ended.record(created(), claimed(1)).found() == {"liveness": [(6,)]}
    assert ended.what("liveness") == "manager 1 claims, but is inactive"


def test_a_lease_that_could_be_over_may_be_lost() -> None:
    soon = log().record(created(), claimed(1, lease_expires_at=at(3)), manager_lost(1))
    assert soon.found() == {}
    early = log().record(created(), claimed(1, lease_expires_at=at(3.1)), manager_lost(1))
    assert early.found() == {"liveness": [(5, 6)]}
    assert TOO_SOON in early.what("liveness")


# Undo, services, erasure


def test_an_undo_of_what_the_operation_had_changed_is_right() -> None:
    written = log()
    written.happen(Stream.record, R, created(timestamp=at(1)))
    there = said(7, 2, action="hold")
    back = said(8, 3, action="undo", undoes=UUID(int=7))
    written.happen(Stream.record, R, e.Held(**there), e.Released(**back))
    again = said(9, 4, action="undo", undoes=UUID(int=8))
    written.happen(Stream.record, R, e.Held(**again))
    assert written.found() == {}


def service(written: Log, *children: int) -> Log:
    started = [created(kind=Kind.service), service_started()]
    return written.record(*started, service_iterated(children=children), number=900)


@pytest.mark.parametrize(
    ("child", "is_open"),
    [
        ([created()], True),
        ([created(), claimed(1)], True),
        ([created(), held()], True),
        ([created(), claimed(1), DONE], False),
        ([created(), claimed(1), WRONG], False),
        ([created(), cancelled()], False),
        ([created(), erased()], False),
        ([], False),
    ],
)
def test_a_service_completes_when_its_children_have_ended(
    child: Sequence[Event], is_open: bool
) -> None:
    written = service(log().record(*child), R)
    written.record(completed(), number=900)
    assert written.found() == ({"services": [(written.position,)]} if is_open else {})


# What happened in another ledger


def imported_from_elsewhere(*events: Event) -> list[Event]:
    """Return events as an import brings them: of operations that were done elsewhere."""
    here = {"operation_id": operation_of(ELSEWHERE, UUID(int=1))}
    return [event.model_copy(update=here) for event in events]


def test_who_was_alive_in_another_ledger_is_not_asked_here() -> None:
    history = [created(timestamp=at(1)), claimed(9, timestamp=at(2))]
    ended = by(9, completed(timestamp=at(3)))
    came = log().happen(Stream.record, R, *imported_from_elsewhere(*history, ended))
    assert came.happen(Stream.record, R, imported(timestamp=at(4))).found() == {}
    here = log().happen(Stream.record, R, *history, ended)
    assert here.found() == {"liveness": [(5,)]}


def test_how_long_leases_and_pauses_were_in_another_ledger_is_not_asked_here() -> None:
    history = (
        created(retries=1),
        claimed(1, lease_expires_at=at(500)),
        manager_lost(1),
        claimed(1, attempt=2),
        by(1, errored(attempt=2)),
        reset(retry=1, not_before=at(500)),
        retry_due(),
    )
    came = log().happen(Stream.record, R, *imported_from_elsewhere(*history), imported())
    assert came.found() == {}
    assert log().record(*history).found() == {"liveness": [(5, 6), (10,)]}


def test_an_import_ends_the_attempt_that_ran_there() -> None:
    came = log().happen(
        Stream.record, R, *imported_from_elsewhere(created(), claimed(1)), imported()
    )
    came.record(released(), claimed(1, attempt=2), DONE.model_copy(update={"attempt": 2}))
    assert came.found() == {}


def test_a_service_that_completed_in_another_ledger_may_have_older_children_here() -> None:
    whole = (
        created(kind=Kind.service),
        service_started(),
        service_iterated(children=(R,)),
        completed(),
    )
    came = log().record(created())
    came.happen(Stream.record, 900, *imported_from_elsewhere(*whole), imported())
    assert came.found() == {}


def test_claims_in_another_ledger_pass_nobody_over_here() -> None:
    written = claims("gpu").submit(1, tag="gpu", at_s=0)
    for number in range(4):
        at_s = 1_000.0 * (number + 1)
        history = created(timestamp=at(at_s), tag="gpu"), claimed(M, timestamp=at(at_s))
        written.happen(Stream.record, 100 + number, *imported_from_elsewhere(*history))
    assert written.found() == {}


def test_erased_records_are_told() -> None:
    written = log().record(created(), erased())
    assert written.found() == {}
    assert written.audit.erased == [R]


# Findings


def test_a_finding_says_in_one_line_how_an_invariant_stands() -> None:
    finding = Finding("fence", "nothing stale", "claims", n_checked=1234, breaches_max=1)
    assert str(finding) == "fence                ok: 1,234 claims; nothing stale"
    finding.report("first", [EventPlace(1, Stream.record, 2, 3)])
    finding.report("second")
    finding.note = "a part"
    assert str(finding) == ("fence                BROKEN 2 x: 1,234 claims (a part); nothing stale")
    assert finding.breaches == [Breach("first", (EventPlace(1, Stream.record, 2, 3),))]
    assert str(finding.breaches[0]) == "position 1 (record 2, event 3): first"
    assert str(Breach("alone")) == "alone"
    assert str(Finding("chain", "", unchecked="why")) == "chain                not checked: why"


def test_an_audit_knows_whether_anything_is_broken_so_far() -> None:
    written = log().record(created())
    assert not written.audit.is_broken
    written.record(created())
    assert written.audit.is_broken
    assert written.audit.n_events == 5
