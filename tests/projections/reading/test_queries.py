"""What can be read: pages by every condition, histories, payloads and counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
import zstandard

from recordledger.domain.errors import InvalidInput, RecordNotFound, TooLarge
from recordledger.domain.records import events as e
from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.projections.actions.submission import create_records
from recordledger.projections.reading.queries import (
    counts,
    get_records,
    head,
    history,
    ledger_id,
    query_records,
)
from recordledger.projections.tables.payloads import compress, decompress
from tests.postgres import new_database

from ..stage import BOB, Stage, entry, staged

MIB: Final = 1 << 20


@pytest.fixture(scope="module")
def varied(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A stage with thirty records that differ in everything that one can ask for."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as stage,
    ):
        for x in range(5):
            create_records(stage.ledger, [entry(x, tag="theirs")], actor=BOB)
        ids = stage.submit(15, tag="gpu") + stage.submit(10, tag="cpu", programs=["psi4"])
        for number, event_type in enumerate((e.Held, e.Cancelled, e.SoftDeleted)):
            for record_id in ids[number::6]:
                stage.happen(record_id, event_type)
        one, other = stage.manager("gpu"), stage.manager("cpu", programs={"psi4": "1"})
        stage.hand_in(one, stage.claim(one, 4))
        stage.claim(one, 2)
        stage.claim(other, 3)
        yield stage


def everything(stage: Stage) -> list[RecordAggregate]:
    """Return all records, newest first."""
    ids = [row[0] for row in stage.ask("SELECT id FROM records")]
    return sorted(get_records(stage.ledger, ids).values(), key=lambda record: -record.id)


def middle(stage: Stage, what: str) -> Any:
    """Return the time in the middle of all records."""
    times = sorted(getattr(record, what) for record in everything(stage))
    return times[len(times) // 2]


CONDITIONS: Final[dict[str, Any]] = {
    "all": {},
    "one status": {"status": (Status.waiting,)},
    "several statuses": {"status": (Status.held, Status.complete, Status.running)},
    "a status twice": {"status": (Status.held, Status.held)},
    "no status": {"status": ()},
    "a tag": {"tag": ("gpu",)},
    "several tags": {"tag": ("gpu", "theirs")},
    "a tag that nobody has": {"tag": ("other",)},
    "an owner": {"owner": (BOB,)},
    "a manager": {"manager_id": (1,)},
    "several managers": {"manager_id": (1, 2)},
    "a function": {"function": ("psi4",)},
    "ids": {"ids": (3, 7, 8, 10**12)},
    "one id": {"ids": (3,)},
    "no ids": {"ids": ()},
    "statuses and a tag": {"status": (Status.waiting, Status.running), "tag": ("cpu",)},
    "all together": {
        "status": (Status.complete, Status.running),
        "tag": ("gpu",),
        "manager_id": (1,),
        "function": ("psi4", "xtb"),
        "ids": tuple(range(5, 25)),
    },
}


def expected(stage: Stage, conditions: dict[str, Any]) -> list[int]:
    """Return the ids that meet all conditions, newest first, found the slow way."""
    return [
        record.id
        for record in everything(stage)
        if all(
            (record.id if name == "ids" else getattr(record, name)) in values
            for name, values in conditions.items()
        )
    ]


@pytest.mark.parametrize("which", CONDITIONS)
def test_a_page_has_what_meets_all_conditions_newest_first(varied: Stage, which: str) -> None:
    conditions = CONDITIONS[which]
    found = query_records(varied.ledger, RecordFilter(**conditions), 100)
    assert [record.id for record in found] == expected(varied, conditions)
    assert found == [record for record in everything(varied) if record in found]


@pytest.mark.parametrize("which", CONDITIONS)
def test_pages_one_after_the_other_are_the_whole(varied: Stage, which: str) -> None:
    conditions = CONDITIONS[which]
    seen: list[int] = []
    before_id: int | None = None
    while True:
        page = query_records(varied.ledger, RecordFilter(**conditions), 4, before_id)
        seen += [record.id for record in page]
        if len(page) < 4:
            break
        before_id = page[-1].id
    assert seen == expected(varied, conditions)


@pytest.mark.parametrize("what", ["created", "modified"])
def test_a_time_is_included_at_the_beginning_and_not_at_the_end(varied: Stage, what: str) -> None:
    moment = middle(varied, f"{what}_at")
    after = query_records(varied.ledger, RecordFilter(**{f"{what}_after": moment}), 100)
    before = query_records(varied.ledger, RecordFilter(**{f"{what}_before": moment}), 100)
    assert {record.id for record in before}.isdisjoint(record.id for record in after)
    assert len(before) + len(after) == len(everything(varied))
    assert any(getattr(record, f"{what}_at") == moment for record in after)
    later = moment + timedelta(microseconds=1)
    fewer = query_records(varied.ledger, RecordFilter(**{f"{what}_after": later}), 100)
    assert len(fewer) < len(after)


def test_records_that_are_not_there_are_left_out(varied: Stage) -> None:
    assert get_records(varied.ledger, []) == {}
    assert set(get_records(varied.ledger, [2, 1, 2, 10**15, 0])) == {1, 2}


def test_a_history_has_positions_that_ascend(varied: Stage) -> None:
    record = next(each for each in everything(varied) if each.status is Status.complete)
    placed = history(varied.ledger, record.id)
    assert [each.recorded.version for each in placed] == list(range(1, record.version + 1))
    positions = [each.position for each in placed]
    assert positions == sorted(positions)
    assert positions[-1] <= head(varied.ledger)
    with pytest.raises(RecordNotFound):
        history(varied.ledger, 10**15)


def test_the_counts_have_every_status(varied: Stage) -> None:
    found = counts(varied.ledger)
    assert list(found) == list(Status)
    assert found[Status.failed] == 0
    assert sum(found.values()) == len(everything(varied))


def test_a_ledger_knows_who_it_is(varied: Stage, stage: Stage) -> None:
    assert ledger_id(varied.ledger) == ledger_id(varied.ledger)
    with staged(varied.url) as again:
        assert ledger_id(again.ledger) == ledger_id(varied.ledger)


# Bytes


def frame(size: int, *, says_size: bool = True) -> bytes:
    """Return zeros as a zstd frame."""
    writer = zstandard.ZstdCompressor(write_content_size=says_size)
    if says_size:
        return writer.compress(bytes(size))
    stream = writer.compressobj()
    return stream.compress(bytes(size)) + stream.flush()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 100_000])
def test_what_is_compressed_comes_back(size: int) -> None:
    data = bytes(size)
    codec, small = compress(data)
    assert (codec == "zstd") == (size >= 256)
    assert (small if codec == "raw" else decompress(small, size)) == data


@pytest.mark.parametrize("says_size", [False, True])
def test_a_bomb_is_refused_before_it_has_grown(*, says_size: bool) -> None:
    bomb = frame(200 * MIB, says_size=says_size)
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match="more than the limit of 1048576"):
        decompress(bomb, MIB)


@pytest.mark.parametrize("says_size", [False, True])
def test_exactly_the_limit_is_not_too_much(*, says_size: bool) -> None:
    assert len(decompress(frame(MIB, says_size=says_size), MIB)) == MIB
    with pytest.raises(TooLarge):
        decompress(frame(MIB + 1, says_size=says_size), MIB)


@pytest.mark.parametrize(
    "data", [b"", b"no zstd", frame(100_000)[:-3], frame(1000)[:5], b"\x28\xb5\x2f\xfd"]
)
def test_what_is_no_whole_frame_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decompress(data, MIB)
