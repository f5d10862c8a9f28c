"""The client without a server: where it finds one, what it makes of answers, how results look."""

from __future__ import annotations

import doctest
import importlib
import pickle
import stat
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    ClientError,
    Connection,
    Counts,
    Explanation,
    Forbidden,
    History,
    InsertMetadata,
    InvalidArgument,
    Manager,
    ManagerHistory,
    Managers,
    NotConnected,
    Queue,
    QueueLane,
    Record,
    Records,
    RecordsNotFound,
    Refused,
    ReturnMetadata,
    Server,
    ServerFault,
    WaitTimeout,
    exchange,
    find_connection,
    read_connection,
    wire,
    write_connection,
)
from recordledger.api.client.calls import records as calls
from recordledger.api.client.exchange import (
    ExchangeFault,
    Outcome,
    Reply,
    Send,
    Session,
    Sleep,
    Step,
)
from recordledger.api.client.progress import bar
from recordledger.api.client.results.events import HistoryEvent
from recordledger.api.schemas.base import Refusal
from recordledger.api.schemas.routing import QueueAnswer
from recordledger.domain.records.status import Status

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EVIL = "<script>alert('x')</script>\x1b[2J"


# Where the server is


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, and an environment that names no server."""
    for name in ("RECORDLEDGER_URL", "RECORDLEDGER_TOKEN", "RECORDLEDGER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECORDLEDGER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_without_any_server_one_is_told_how_to_get_one(kind: type[Any]) -> None:
    with pytest.raises(NotConnected, match=r"`recordledger up`.*RECORDLEDGER_URL"):
        kind()


def test_the_file_is_for_its_owner_only_and_replaced_as_a_whole(home: Path) -> None:
    path = write_connection(home, "http://127.0.0.1:1/", "rl_old")
    path.chmod(0o644)
    write_connection(home, "http://127.0.0.1:2", "rl_new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [each.name for each in home.iterdir()] == ["connection.json"]
    found = read_connection()
    assert found is not None
    assert (found.url, found.token) == ("http://127.0.0.1:2", "rl_new")
    assert "rl_new" not in repr(found)
    assert repr(Client()) == "Client('http://127.0.0.1:2')"


def test_arguments_come_before_the_environment_and_that_before_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_connection(home, "http://file", "file")
    assert (find_connection().url, find_connection().token) == ("http://file", "file")
    monkeypatch.setenv("RECORDLEDGER_TOKEN", " environment\n")
    assert (find_connection().url, find_connection().token) == ("http://file", "environment")
    monkeypatch.setenv("RECORDLEDGER_URL", "http://environment/")
    found = find_connection("http://argument", "argument")
    assert (found.url, found.token) == ("http://argument", "argument")
    assert find_connection().url == "http://environment"


def test_the_token_of_the_file_goes_to_no_other_server(home: Path) -> None:
    write_connection(home, "http://127.0.0.1:7420", "secret")
    assert find_connection("http://127.0.0.1:7420/").token == "secret"  # noqa: S105
    assert find_connection("http://elsewhere.example").token is None


def test_a_token_may_be_in_a_file_of_its_own(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_connection(home, "http://file", "file")
    file = tmp_path / "token"
    file.write_text("rotated\n")
    assert find_connection("http://a", token_file=file).token == "rotated"  # noqa: S105
    monkeypatch.setenv("RECORDLEDGER_TOKEN_FILE", str(file))
    assert find_connection().token == "rotated"  # noqa: S105
    monkeypatch.setenv("RECORDLEDGER_TOKEN", "environment")
    assert find_connection().token == "environment"  # noqa: S105
    assert find_connection(token_file=file).token == "rotated"  # noqa: S105
    with pytest.raises(InvalidArgument, match="not both"):
        find_connection(token="a", token_file=file)  # noqa: S106
    for text in ("", "to ken", "ü"):
        file.write_text(text)
        with pytest.raises(NotConnected, match="cannot read a token from"):
            find_connection(token_file=file)
    file.unlink()
    with pytest.raises(NotConnected, match="cannot read a token from"):
        find_connection(token_file=file)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1, "token": "a"}', "\ud800"])
def test_a_damaged_file_is_said(home: Path, text: str) -> None:
    write_connection(home, "http://a", "b").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(NotConnected, match=r"connection\.json"):
        find_connection()


@pytest.mark.parametrize(
    "url", ["localhost:7420", "ftp://a", "http://", "http://a b", "http://a:x", "http://a?b", "ü"]
)
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the address of a server"):
        find_connection(url, "token")


def test_what_is_no_token_is_said_without_showing_it() -> None:
    with pytest.raises(InvalidArgument) as caught:
        find_connection("http://a", "to ken")
    assert "to ken" not in str(caught.value)


# What is sent again, and when: operations are driven here by hand


SERVER = {
    "version": "1",
    "ledger_id": "l",
    "time": NOW,
    "user": "alice",
    "role": "user",
    "limits": {
        "records_per_request": 2,
        "results_per_request": 2,
        "ids_per_request": 10,
        "claim_per_request": 10,
        "page": 10,
        "body_bytes": 10_000,
        "payload_bytes": 10_000,
    },
}


def reply(answer: Any, status: int = 200, **headers: str) -> Reply:
    body = msgpack.packb(answer, datetime=True)
    return Reply(status, {"content-type": "application/msgpack", **headers}, body)


def busy(retry_after: str | None = None) -> Reply:
    return Reply(503, {} if retry_after is None else {"retry-after": retry_after}, b"")


def play(operation: exchange.Operation[Any], *outcomes: Outcome) -> tuple[list[Step], Any]:
    """Give the outcomes of its requests to an operation; return its steps and its result."""
    steps: list[Step] = []
    answers = iter(outcomes)
    try:
        steps.append(next(operation))
        while True:
            outcome = None if isinstance(steps[-1], Sleep) else next(answers)
            steps.append(operation.send(outcome))
    except StopIteration as end:
        return steps, end.value


def pauses_of(operation: exchange.Operation[Any], *outcomes: Outcome) -> list[float]:
    """Return how long an operation sleeps each time."""
    steps, _ = play(operation, *outcomes)
    return [step.seconds for step in steps if isinstance(step, Sleep)]


def test_the_limits_are_asked_for_once() -> None:
    session = Session("http://a")
    _, first = play(exchange.server(session), reply(SERVER))
    assert play(exchange.server(session))[1] is first


def test_pauses_are_random_below_a_bound_that_doubles() -> None:
    faults = [ExchangeFault("no route")] * 6
    for _ in range(50):
        session = Session("http://a", retries_s=60)
        pauses = pauses_of(exchange.server(session), *faults, reply(SERVER))
        assert all(pause <= 0.1 * 2**n for n, pause in enumerate(pauses))
        assert len(set(pauses)) == len(pauses) == 6


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    session = Session("http://a", retries_s=60)
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    pauses = pauses_of(
        exchange.server(session), busy("7"), busy(at), busy("soon"), busy(), reply(SERVER)
    )
    assert 7 <= pauses[0] <= 7.1
    assert 18 <= pauses[1] <= 20.2
    assert max(pauses[2:]) < 1


def test_a_longer_pause_than_there_is_patience_is_an_error_at_once() -> None:
    with pytest.raises(ServerFault, match="503"):
        play(exchange.server(Session("http://a", retries_s=60)), busy("61"))


def test_a_server_that_never_answered_gets_less_patience() -> None:
    session = Session("http://a")
    assert session.patience_s == 5
    play(exchange.server(session), reply(SERVER))
    assert session.patience_s == 60
    assert Session("http://a", retries_s=600).patience_s == 600


def test_a_lasting_fault_is_an_error_at_once() -> None:
    with pytest.raises(NotConnected, match="certificate"):
        play(
            exchange.server(Session("http://a", retries_s=60)),
            ExchangeFault("certificate", is_lasting=True),
        )


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (ExchangeFault("refused", was_sent=False), True),
        (ExchangeFault("reset", was_sent=True), False),
        (busy(), True),
        (Reply(502, {}, b""), False),
    ],
)
def test_what_has_no_key_is_sent_again_only_if_nothing_can_have_happened(
    outcome: Outcome, again: bool
) -> None:
    session = Session("http://a", retries_s=60)
    operation = exchange.post(session, "/x", Server, b"", is_repeatable=False)
    if again:
        assert play(operation, outcome, reply(SERVER))[1].user == "alice"
    else:
        with pytest.raises((NotConnected, ServerFault)):
            play(operation, outcome)


REFUSED = Reply(401, {}, b"")


def session_of(connection: Connection) -> Session:
    return Session(connection.url, token=connection.token, read_token=connection.read_token)


def shown(steps: list[Step]) -> list[str]:
    """Return the tokens with which requests were sent."""
    return [step.headers["Authorization"] for step in steps if isinstance(step, Send)]


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_refused_token_is_read_again_from_its_file(
    tmp_path: Path, home: Path, is_kept: bool
) -> None:
    file = tmp_path / "token"

    def write(token: str) -> None:
        file.write_text(token)
        write_connection(home, "http://kept", token)

    write("old")
    session = session_of(find_connection(token_file=None if is_kept else file))
    write("new")
    steps, found = play(exchange.server(session), REFUSED, reply(SERVER))
    assert shown(steps) == ["Bearer old", "Bearer new"]
    assert found.user == "alice"
    steps, _ = play(exchange.get(session, "/v1/server", Server), reply(SERVER))
    assert shown(steps) == ["Bearer new"]


def test_a_token_is_refused_for_good_if_its_file_has_no_other(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    session = session_of(find_connection("http://a", token_file=file))
    for text in ("old", ""):
        file.write_text(text)
        with pytest.raises(ServerFault, match="401"):
            play(exchange.server(session), REFUSED)
    file.write_text("new")
    with pytest.raises(ServerFault, match="401"):
        play(exchange.server(session), REFUSED, REFUSED)
    with pytest.raises(ServerFault, match="401"):
        play(exchange.server(Session("http://a", token="fixed")), REFUSED)  # noqa: S106


def test_each_part_has_its_own_key_and_keeps_it() -> None:
    session = Session("http://a", retries_s=60)
    operation = calls.add_records(session, "f", [{"n": n} for n in range(3)])
    steps, result = play(
        operation, reply(SERVER), busy(), busy(), reply(_created(2)), reply(_created(1))
    )
    keys = [step.headers.get("Idempotency-Key") for step in steps if isinstance(step, Send)]
    assert keys[0] is None
    assert keys[1] == keys[2] == keys[3] != keys[4]
    assert result.inserted_idx == [0, 1, 2]


def _created(n: int) -> dict[str, Any]:
    return {
        "operation_id": "o",
        "ids": list(range(n)),
        "inserted_idx": list(range(n)),
        "existing_idx": [],
        "errors": [],
    }


def test_a_compressed_answer_is_read_whether_or_not_httpx_does_it() -> None:
    plain = reply(SERVER)
    small = Reply(200, plain.headers, zstandard.ZstdCompressor().compress(plain.body))
    assert play(exchange.server(Session("http://a")), small)[1].user == "alice"
    cut = Reply(200, plain.headers, small.body[:20])
    with pytest.raises(ServerFault):
        play(exchange.server(Session("http://a")), cut)


def test_waiting_asks_less_often_the_longer_nothing_happens() -> None:
    session = Session("http://a")
    play(exchange.server(session), reply(SERVER))
    waiting = reply({"records": [record(status="waiting").model_dump()]})
    done = reply({"records": [record().model_dump()]})
    steps, found = play(calls.wait(session, 411), *[waiting] * 12, done)
    pauses = [step.seconds for step in steps if isinstance(step, Sleep)]
    assert found[0].status is Status.complete
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.3
    assert pauses[-1] == 5.0


def test_parts_keep_to_both_limits_and_to_the_order() -> None:
    entries = [b"x" * size for size in (5, 5, 1, 9, 10, 1, 1, 1, 1)]
    parts = wire.spans(entries, 3, 10, "entries")
    assert [list(part) for part in parts] == [[0, 1], [2, 3], [4], [5, 6, 7], [8]]
    assert wire.spans([], 3, 10, "entries") == []


def test_a_packed_list_is_what_packing_the_whole_would_be() -> None:
    entries = [{"a": n} for n in range(20)]
    body = wire.pack_list({"reason": "r"}, "records", [wire.pack(entry) for entry in entries])
    assert body == msgpack.packb({"reason": "r", "records": entries})


# How things look


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": 411,
        "status": "complete",
        "kind": "task",
        "function": "package.module:function",
        "required_programs": [],
        "tag": "gpu",
        "priority": "normal",
        "owner": "user:alice",
        "fingerprint": "f" * 64,
        "created_at": NOW,
        "modified_at": NOW,
        "attempt": 1,
        "manager_id": 3,
        "started_at": NOW,
        "finished_at": NOW,
        "compute_s": 0.5,
        "error_type": None,
        "error_message": None,
        "retries": 0,
        "retries_used": 0,
        "version": 3,
    }
    return Record.model_validate(fields | changes)


def manager(**changes: Any) -> Manager:
    fields: dict[str, Any] = {
        "id": 3,
        "state": "active",
        "name": "cluster",
        "hostname": "node1",
        "owner": "user:alice",
        "tags": ["gpu", "*"],
        "programs": {"psi4": "1.9", "dftd4": None},
        "lease_s": 120.0,
        "heartbeat_s": 30.0,
        "registered_at": NOW,
        "modified_at": NOW,
    }
    return Manager.model_validate(fields | changes)


def event(version: int, topic: str, after_s: float, **data: Any) -> HistoryEvent:
    return HistoryEvent(
        position=version,
        version=version,
        kind=topic,
        timestamp=NOW + timedelta(seconds=after_s),
        actor="user:alice" if topic == "created" else "manager:3",
        operation_id="o",
        reason="first try" if topic == "created" else None,
        data=data,
    )


def explanation(**changes: Any) -> Explanation:
    fields: dict[str, Any] = dict.fromkeys(Explanation.model_fields)
    fields |= {"record_id": 411, "status": "waiting", "code": "in_queue", "text": "It waits."}
    lists = dict.fromkeys(("nearest", "required_programs", "claimed_tags"), ())
    return Explanation.model_validate({**fields, **lists, "children": {}, **changes})


def queue(tag: str) -> Queue:
    lane = QueueLane(
        tag=tag,
        required_programs=[tag],
        n_waiting=1_200,
        n_running=0,
        n_paused=0,
        oldest_id=411,
        oldest_created_at=NOW,
        oldest={},
        n_managers=0,
        manager_ids=[],
        blocked=tag,
    )
    totals = QueueAnswer(
        lanes=[lane], n_lanes=1, n_blocked=0, n_waiting=1_200, n_paused=0, n_managers=2
    )
    return Queue([lane], totals)


TIMELINE = History(
    411,
    (
        event(1, "created", 0, kind="task", function="m:f", tag="gpu", priority="high", retries=2),
        event(2, "claimed", 75, attempt=1, manager_id=3, lease_expires_at=NOW),
        event(
            3,
            "errored",
            75.02,
            attempt=1,
            outcome={"error_type": "ValueError", "error_message": "no", "compute_s": 0.02},
        ),
        event(4, "reset", 7_500, retry=None),
    ),
)


def test_a_timeline_tells_what_was_erased() -> None:
    erased = {"digest": "ab" * 32, "size_bytes": 2, "erased": True}
    outcome = {"error_type": "ValueError", "error_message": erased}
    told = [event(1, "errored", 0, outcome=outcome), event(2, "commented", 1, text=erased)]
    assert [each.summary for each in told] == ["ValueError: (erased)", "(erased)"]


def test_a_record_in_one_line() -> None:
    assert repr(record()) == (
        "<Record 411 complete package.module:function tag=gpu attempt=1 0.5 s>"
    )
    errored = record(status="error", error_type="ValueError", error_message="bad\nluck")
    assert r"ValueError: bad\nluck>" in repr(errored)
    assert record(status="held").is_finished
    assert not record(status="running").is_finished


def test_records_as_a_table_and_many_of_them_shortened() -> None:
    records = Records([record(id=n) for n in range(1, 101)])
    lines = repr(records).splitlines()
    assert lines[0] == "100 records: 100 complete"
    assert lines[1].split() == list(Records.columns)
    assert len(lines) == 22
    assert lines[-2].startswith("…")
    assert lines[-1].startswith("100 ")
    nothing: Records[Record] = Records()
    assert repr(nothing) == "no records"
    assert repr(Records([None])).startswith("1 record: none of them found")


def test_a_timeline_reads_well() -> None:
    lines = [" ".join(line.split()) for line in repr(TIMELINE).splitlines()]
    assert lines == [
        "Record 411",
        "# when (UTC) after what by",
        "1 2026-11-21 12:00:00.000 created user:alice "
        "m:f, tag gpu, priority high, retries 2 (first try)",
        "2 2026-11-21 12:01:15.000 1 min 15 s claimed manager:3 attempt 1, manager 3",
        "3 2026-11-21 12:01:15.020 20 ms errored manager:3 "
        "attempt 1, ValueError: no, computed in 20 ms",
        "4 2026-11-21 14:05:00.000 2 h 3 min reset manager:3",
    ]
    assert TIMELINE[1].kind == "claimed"
    assert [each.version for each in TIMELINE[1:3]] == [2, 3]


def test_counts_and_metadata_show_what_matters() -> None:
    assert repr(Counts({Status.waiting: 1_200})) == "Counts(waiting=1,200, total=1,200)"
    errors = [Refusal(idx=n, code="invalid_input", message="no tag") for n in range(7)]
    metadata = InsertMetadata(["o"], errors, [None] * 7, [], [])
    lines = repr(metadata).splitlines()
    assert lines[0].startswith("InsertMetadata(ids=[None, ")
    assert lines[0].endswith("inserted=0, existing=0, errors=7)")
    assert lines[1] == "  0: invalid_input: no tag"
    assert lines[-1] == "  and 2 more in .errors"
    returned = ReturnMetadata(["o"], [], [0], [1], [])
    assert repr(returned) == "ReturnMetadata(accepted=1, late=1, duplicate=0, errors=0)"


def html_of(thing: Any) -> str:
    """Return what a notebook asks a value for."""
    return str(thing._repr_html_())


SHOWING_EVIL: list[Any] = [
    record(function=EVIL, error_type=EVIL, tag=EVIL),
    Records([record(function=EVIL, tag=EVIL)]),
    manager(name=EVIL, tags=[EVIL], programs={EVIL: EVIL}),
    Managers([manager(name=EVIL)]),
    History(1, (event(1, "created", 0, function=EVIL, tag=EVIL),)),
    History(1, (event(2, EVIL, 0, text=EVIL, **{EVIL: EVIL}),)),
    ManagerHistory(1, (event(1, EVIL, 0, name=EVIL),)),
    queue(EVIL),
    explanation(code=EVIL, text=EVIL, remedy=EVIL, error_message=EVIL),
    explanation(
        nearest=[
            {
                "manager_id": 7,
                "name": EVIL,
                "state": "active",
                "tags": [EVIL],
                "claims_tag": True,
                "lacks": [{"requirement": EVIL, "is_absent": True, "version": None}],
                "suspended_until": NOW,
                "heartbeat_at": NOW,
            }
        ]
    ),
    InsertMetadata([EVIL], [Refusal(idx=0, code=EVIL, message=EVIL)], [None], [], []),
]


@pytest.mark.parametrize("thing", SHOWING_EVIL, ids=lambda thing: type(thing).__name__)
def test_nothing_from_the_ledger_acts_in_a_notebook_or_a_terminal(thing: Any) -> None:
    html = html_of(thing)
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\x1b" not in repr(thing)
    assert "\x1b" not in str(thing)


def test_html_shows_what_the_text_shows() -> None:
    assert "<td>gpu</td>" in html_of(Records([record()]))
    assert "Record 411" in html_of(record())
    assert "psi4 1.9, dftd4" in html_of(manager())
    assert "1 min 15 s" in html_of(TIMELINE)
    assert "<td>1</td>" in html_of(Counts({Status.error: 1}))


# Errors


@pytest.mark.parametrize(
    "error",
    [
        NotConnected("no answer", url="http://a"),
        Refused("no", code="transition_forbidden", status=409, errors=[{"where": "x"}]),
        Forbidden("no", status=403),
        RecordsNotFound("gone", ids=(1, 2)),
        WaitTimeout("late", open_ids=(3,), finished=Records([record()])),
        InvalidArgument("nan", idx=4),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_between_processes(error: ClientError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy).keys() == vars(error).keys()
    assert (copy.code, copy.detail, copy.status) == (error.code, error.detail, error.status)


# Progress


def test_a_bar_is_for_people_and_for_calls_that_last(capfd: pytest.CaptureFixture[str]) -> None:
    for wanted in (None, False):
        with bar(wanted, 10, "counting") as shown:
            shown.update(10)
    assert capfd.readouterr().err == ""
    with bar(True, 10, "counting") as shown:
        shown.update(10)
    assert "counting" in capfd.readouterr().err


def test_a_bar_does_not_slow_short_calls_down() -> None:
    started_at = time.perf_counter()
    for _ in range(1_000):
        with bar(None, 1, "counting") as shown:
            shown.update(1)
    assert time.perf_counter() - started_at < 1


# Examples; those of the client's methods are run by test_examples


@pytest.mark.parametrize("name", ["connection", "results", "tables"])
def test_the_examples_in_the_docstrings_are_right(name: str) -> None:
    module = importlib.import_module(f"recordledger.api.client.{name}")
    assert doctest.testmod(module).failed == 0
