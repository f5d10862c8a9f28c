"""Filling empty projections from the log, fast: records by ranges of ids, in several processes.

What a record's events make of it is for `evolve` and `to_row` to say, and what they mean for the
other tables for the functions with which live operations write them. Only the way in is another
one: rows go in by COPY, into tables that have no keys yet, and counts are added up at the end.

`python -m recordledger.projections.replay.filling` is one of the processes: a line of JSON on its
standard input says what to do, and lines of JSON on its standard output say what was done.
"""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow, tuple_row

from recordledger.domain import errors
from recordledger.domain.errors import ImpossibleHistory, LedgerError
from recordledger.domain.records.events import Event
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log.mapper import Recorded
from ..log.user_blocks import BLOCK_SIZE, USER
from ..store.database import as_ledger_errors, connect, copy_rows, cursor_of
from ..store.statements import statements
from ..tables.changes import Changes
from ..tables.inline import USER_BLOCKS, concerned
from ..tables.lanes import LaneRegistry

_SQL: Final = statements("replay.replay")

AGGREGATES_MAX: Final = 5_000
EVENTS_MAX: Final = 25_000
"""Number of events that are kept and written together; more only if one aggregate has more."""

_ROWS: Final = 10_000
# Number of new objects after which a process of the replay collects garbage.
_GARBAGE_OBJECTS: Final = 100_000
# Events that are not read again if another record has the same.
_REMEMBERED: Final = 8_192


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Records from one id to another, both included, up to a position of the log."""

    first: int
    last: int
    position: int


def histories(
    rows: Iterable[Any],
    event_of: Callable[[str, bytes], Event],
    blocks: set[tuple[str, int]] | None = None,
) -> Iterator[tuple[tuple[Stream, int], list[Recorded]]]:
    """Give each aggregate's whole history, one after the other.

    Args:
        rows: stream, version, topic, state and position of events, in the order of streams and
            versions.
        event_of: what they are.
        blocks: where to note in which blocks of the log users have done something.

    Raises:
        ImpossibleHistory: a version is missing, or there is no such kind of stream.
        UnknownEvent: this version of the code does not know one of the events.
        UnreadableEvent: the bytes of one are no event.
    """
    current: UUID | None = None
    history: list[Recorded] = []
    key = (Stream.record, 0)
    for originator_id, version, topic, state, position in rows:
        if originator_id != current:
            if history:
                yield key, history
            current, history, key = originator_id, [], aggregate_of(originator_id, version)
        if version != len(history) + 1:
            raise ImpossibleHistory(
                f"{key[0].name} {key[1]}", version, f"version {len(history) + 1} is missing"
            )
        event = event_of(topic, state)
        if blocks is not None and event.actor.startswith(USER):
            blocks.add((event.actor, position // BLOCK_SIZE))
        history.append(Recorded(*key, version, event))
    if history:
        yield key, history


def aggregate_of(originator_id: UUID, version: int) -> tuple[Stream, int]:
    """Return the kind and number of a stream.

    Raises:
        ImpossibleHistory: there is no such kind.
    """
    try:
        return stream_number(originator_id)
    except ValueError:
        raise ImpossibleHistory(
            f"stream {originator_id}", version, "there is no such kind of stream"
        ) from None


class Filler:
    """Folds records and writes them, on one connection whose search path is the shadow."""

    def __init__(self, ledger: Ledger, connection: Connection[TupleRow]) -> None:
        """Begin with nothing."""
        self._connection = connection
        # Not the ledger's own registry: what it remembers may not be what the table has.
        self._lanes = LaneRegistry(ledger.datastore)
        # Records that were changed in one operation have the same event, byte for byte.
        self._event_of = lru_cache(maxsize=_REMEMBERED)(ledger.event_mapper.event_of)
        self._user_blocks: set[tuple[str, int]] = set()

    def fill(self, part: RecordRange, tell: Callable[[int], None]) -> None:
        """Fold and write a range of records, in a transaction of its own."""
        parameters = {
            "first": stream_uuid(Stream.record, part.first),
            "last": stream_uuid(Stream.record, part.last),
            "position": part.position,
        }
        changes = Changes(self._lanes)
        with (
            self._connection.transaction(),
            rows_of(self._connection, "of_streams", parameters) as rows,
        ):
            for (_, number), history in histories(rows, self._event_of, self._user_blocks):
                record = fold(number, (recorded.event for recorded in history))
                changes.add(RecordAggregate(number), record, history)
                if len(changes) >= AGGREGATES_MAX or len(changes.happened) >= EVENTS_MAX:
                    tell(self._write(changes))
            tell(self._write(changes))

    def _write(self, changes: Changes) -> int:
        """Write what was folded, and begin again with nothing; return how many events it was."""
        db, n_events = cursor_of(self._connection), len(changes.happened)
        changes.lanes.intern(after for _, after in changes.records if after.exists)
        for table in concerned(changes):
            if table.rows is not None:
                name = table.name if table.parts is None else table.parts.name
                copy_rows(db, name, table.columns, table.rows(db, changes))
        if self._user_blocks and USER_BLOCKS.parts is not None:
            copy_rows(db, USER_BLOCKS.parts.name, USER_BLOCKS.columns, self._user_blocks)
        self._user_blocks.clear()
        changes.clear()
        return n_events


@contextmanager
def rows_of(
    connection: Connection[TupleRow], statement: str, parameters: dict[str, Any]
) -> Generator[Iterable[Any]]:
    """Yield the rows of a query in bounded memory."""
    # All of them will be needed: what plan gives the first ones soonest does not matter.
    connection.execute("SET LOCAL cursor_tuple_fraction = 1")
    with connection.cursor("log", row_factory=tuple_row) as rows:
        rows.execute(_SQL[statement], parameters, binary=True)
        # Not by the cursor's own iteration, which is Python for each row.
        yield chain.from_iterable(iter(lambda: rows.fetchmany(_ROWS), []))


# Several processes


def share(
    ledger: Ledger,
    shadow: str,
    parts: Iterable[RecordRange],
    jobs: int,
    tell: Callable[[int], None],
) -> None:
    """Let several processes fill the parts, each one after the other as it is done.

    Raises:
        LedgerError: what one of them has met; the others are ended.
    """
    waiting: SimpleQueue[RecordRange] = SimpleQueue()
    for part in parts:
        waiting.put(part)
    said: SimpleQueue[int | Exception | None] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(jobs):
            process = stack.enter_context(_process(ledger, shadow))
            feeder = Thread(target=_feed, args=(process, waiting, said), daemon=True)
            feeder.start()
            stack.callback(feeder.join)
            stack.enter_context(_ended_on_error(process))
        n_working = jobs
        while n_working:
            match said.get():
                case None:
                    n_working -= 1
                case Exception() as error:
                    raise error
                case n:
                    tell(n)


@contextmanager
def _process(ledger: Ledger, shadow: str) -> Generator[subprocess.Popen[str]]:
    """Start a process that fills parts; at the end, wait for it to end by itself."""
    command = [sys.executable, "-m", "recordledger.projections.replay.filling"]
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        # Not in the arguments, where everybody could read a password.
        _print_line(process.stdin, url=ledger.url, schema=ledger.schema, shadow=shadow)
        yield process
    finally:
        with suppress(BrokenPipeError), process:
            process.stdin.close()


@contextmanager
def _ended_on_error(process: subprocess.Popen[str]) -> Generator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        raise


def _feed(
    process: subprocess.Popen[str],
    waiting: SimpleQueue[RecordRange],
    said: SimpleQueue[int | Exception | None],
) -> None:
    """Give a process one part after the other, and pass on what it says."""
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        while True:
            try:
                part = waiting.get_nowait()
            except Empty:
                said.put(None)
                return
            _print_line(process.stdin, **asdict(part))
            for line in process.stdout:
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    said.put(_error_of(answer))
                    return
                if "n_events" not in answer:
                    break
                said.put(answer["n_events"])
            else:
                status = process.wait()
                said.put(LedgerError(f"a process of the replay ended with status {status}"))
                return
    except Exception as error:
        said.put(error)


def _print_line(to: IO[str], **what: Any) -> None:
    to.write(json.dumps(what) + "\n")
    to.flush()


def _error_of(answer: dict[str, Any]) -> LedgerError:
    """Return the error that another process has met, with its facts."""
    kind: type[LedgerError] = getattr(errors, answer["error"])
    error = kind.__new__(kind)
    Exception.__init__(error, answer["message"])
    vars(error).update(answer["facts"])
    return error


def main() -> None:
    """Fill parts of a shadow, one for each line of the standard input, until there are no more."""
    # Ctrl-C reaches all processes of a terminal: the one that has started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is held until it is written is no garbage. To walk over it again and again took over
    # a quarter of the time.
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS)
    told: dict[str, str] = json.loads(sys.stdin.readline())
    ledger = Ledger(told["url"], told["schema"], pool_size=1)
    try:
        with as_ledger_errors(), connect(told["url"], told["shadow"]) as connection:
            filler = Filler(ledger, connection)
            for line in sys.stdin:
                filler.fill(
                    RecordRange(**json.loads(line)), lambda n: _print_line(sys.stdout, n_events=n)
                )
                _print_line(sys.stdout)
    except LedgerError as error:
        _print_line(sys.stdout, error=type(error).__name__, message=str(error), facts=vars(error))
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
