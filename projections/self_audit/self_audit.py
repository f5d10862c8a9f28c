"""The continuous self-audit: the rows of all tables are compared with the log, again and again.

Aggregates are looked at in ranges of their numbers. An aggregate is proved by folding its history
and comparing the result with its rows; then a checksum of these is kept. From then on it is enough
that the checksum is still the same, as long as the log has nothing new of the aggregate. A checksum
is never taken from rows that were not compared in the same snapshot, so that nothing that is wrong
can become what is right.

What is counted over all aggregates is compared with what they add up to (`counted`). What differs
there without being known is looked into in one snapshot, with all ranges: a count may be right and
the row that is counted wrong.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event as Signal
from typing import Any, Final, NamedTuple

from recordledger.domain.admin.divergence import (
    DivergenceAggregate,
    DivergenceFound,
    DivergenceGone,
    RowFault,
)
from recordledger.domain.streams import Stream, stream_number

from ..ledger import Ledger, Operation
from ..replay.replay import Difference
from ..store.database import Db, as_ledger_errors
from ..store.statements import statements
from ..tables import divergences
from ..tables.service_queue import COUNTED_OF_CHILDREN
from .aggregates import (
    DIFFERENCES_MAX,
    OWNED,
    Expected,
    head_of,
    newest_of,
    owner_of,
)
from .counts import COUNTED, Counted

log = logging.getLogger(__name__)

_SQL: Final = statements("self_audit.self_audit")
_DIVERGENCE_LOCK: Final = 7_301_956_009
ACTOR: Final = "server:self-audit"
"""Who finds divergences."""

EVERY_S: Final = 20.0
SHARE: Final = 0.2
"""Seconds from one lap to the next, and how much of one processor core they may take."""

# A dataset may have very many rows; of all others there are a few for each.
SIZES: Final[dict[Stream, int]] = {
    stream: 8 if stream is Stream.dataset else 1024 for stream in OWNED
}
"""How many aggregates of each kind are a range."""

# After so many known ranges one that is new has its turn, however long the known ones take.
_KNOWN_BEFORE_NEW: Final = 32
# Maximum number of divergences that are logged at once.
_SAID_MAX: Final = 20
# Number of positions of the log that one query reads.
_FOLLOWED_AT_ONCE: Final = 100_000
# So many stretches of the log are searched for what users did, or the laps would be longer while a
# process has not read all of a long log yet.
_STRETCHES_A_LAP: Final = 4
# With more aggregates than this unproved or wrong, counts are not looked into.
_UNSURE_MAX: Final = 20_000


class Range(NamedTuple):
    """Aggregates of one kind with consecutive numbers."""

    stream: Stream
    number: int

    @property
    def low(self) -> int:
        """The first of them."""
        return self.number * SIZES[self.stream]

    @property
    def high(self) -> int:
        """The last of them."""
        return self.low + SIZES[self.stream] - 1


@dataclass(slots=True)
class Lap:
    """The outcome of one lap.

    Attributes:
        position: the newest position of the log when it began.
        n_ranges: how many ranges were looked at.
        n_folded: how many aggregates were folded.
        busy_s: seconds of work, without the pauses in between.
        found: divergences that were found now.
        gone: divergences that are no more.
        unreadable: aggregates whose history cannot be folded, and why.
        n_new: ranges that were not looked at yet, for want of time.
        certain: whether all was looked at in one snapshot.
        is_whole: whether it came to its end.
    """

    position: int = 0
    n_ranges: int = 0
    n_folded: int = 0
    busy_s: float = 0.0
    found: list[DivergenceAggregate] = field(default_factory=list[DivergenceAggregate])
    gone: list[DivergenceAggregate] = field(default_factory=list[DivergenceAggregate])
    unreadable: dict[tuple[Stream, int], str] = field(default_factory=dict[tuple[Stream, int], str])
    n_new: int = 0
    certain: bool = False
    is_whole: bool = False

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{self.n_ranges} ranges up to position {self.position}, {self.n_folded} aggregates "
            f"folded, {self.busy_s:.2f} s of work, {len(self.found)} new divergences"
        )


class SelfAuditor:
    """Looks at all tables, lap by lap, with a share of one processor core."""

    def __init__(self, ledger: Ledger, *, every_s: float = EVERY_S, share: float = SHARE) -> None:
        """Begin with what earlier laps have proved, also those of other processes.

        Args:
            ledger: which.
            every_s: for so long a lap may prove what was not looked at yet.
            share: of one core that it may take, of this process and of the database together.
        """
        self._ledger = ledger
        self._every_s = every_s
        self._share = share
        self._shadow: Expected | None = None
        self._counted: Counted | None = None
        # Up to where the log was followed, and who was touched since its range was looked at last.
        self._followed: int | None = None
        self._touched: dict[Range, int] = {}
        self._wrong: dict[Stream, set[int]] = {stream: set() for stream in OWNED}
        self._stop = Signal()

    def close(self) -> None:
        """Close the connection; the next lap opens another."""
        shadow, self._shadow, self._counted = self._shadow, None, None
        if shadow is not None:
            shadow.close()

    def lap(self, stop: Signal | None = None) -> Lap:
        """Look at everything that was proved before, and at some of what was not."""
        self._stop = stop or Signal()
        lap = Lap()
        try:
            with as_ledger_errors():
                if not self._run_lap(lap):
                    lap.certain = True
                    with self._tools()[0].held():
                        self._run_lap(lap)
        except BaseException:
            self.close()
            raise
        return lap

    def _tools(self) -> tuple[Expected, Counted]:
        if self._shadow is None or self._counted is None:
            self._shadow = Expected(self._ledger)
            self._counted = Counted(self._ledger, self._shadow)
        return self._shadow, self._counted

    def _run_lap(self, lap: Lap) -> bool:
        """Do a lap; return False if counts are wrong and only a complete lap can find which."""
        shadow, counted = self._tools()
        begun = time.monotonic()
        with self._work(lap), shadow.snapshot() as db:
            lap.position = self._follow(db)
            known = {Range(Stream(s), n) for s, n in db.execute(_SQL["ranges"])}
            ranges = [
                Range(stream, number)
                for stream in OWNED
                for number in range(newest_of(db, stream) // SIZES[stream] + 1)
            ]
        new = deque(each for each in ranges if each not in known)
        for each in self._in_turn(lap, [each for each in ranges if each in known], new, begun):
            if self._stop.is_set():
                return True
            with self._work(lap):
                self._look(each, lap)
        lap.n_new = len(new)
        for stream in OWNED:
            with self._work(lap):
                self._look_outside(stream, lap)
        is_searched = False
        while not is_searched and not self._stop.is_set():
            with self._work(lap), shadow.snapshot() as db:
                is_searched = counted.search(db, self._follow(db))
        for _ in range(_STRETCHES_A_LAP):
            if self._stop.is_set():
                return True
            with self._work(lap), shadow.snapshot() as db:
                if counted.search_blocks(db, self._follow(db)):
                    break
        if self._stop.is_set():
            return True
        with self._work(lap):
            is_clear = self._look_at_counts(lap)
        lap.is_whole = True
        return is_clear

    @contextmanager
    def _work(self, lap: Lap) -> Generator[None]:
        """Rest afterwards for as long as the share demands."""
        begun = time.monotonic()
        yield
        busy_s = time.monotonic() - begun
        lap.busy_s += busy_s
        if not lap.certain and self._share < 1:
            self._stop.wait(busy_s * (1 / self._share - 1))

    def _in_turn(
        self, lap: Lap, known: Iterable[Range], new: deque[Range], begun: float
    ) -> Iterable[Range]:
        for place, each in enumerate(known, start=1):
            yield each
            if place % _KNOWN_BEFORE_NEW == 0 and new:
                yield new.popleft()
        while new and (lap.certain or time.monotonic() < begun + self._every_s):
            yield new.popleft()

    # Following the log

    def _follow(self, db: Db) -> int:
        """Note who was touched since the last time; return the newest position."""
        head, _ = head_of(db)
        followed = self._followed
        if followed is None:
            row = db.execute(_SQL["oldest_position"]).fetchone()
            followed = head if row is None or row[0] is None else min(int(row[0]), head)
        while head > followed:
            upto = min(head, followed + _FOLLOWED_AT_ONCE)
            parameters = {"after": followed, "upto": upto}
            for (originator_id,) in db.execute(_SQL["touched"], parameters):
                try:
                    stream, number = stream_number(originator_id)
                except ValueError:
                    # The stream of no kind: the audit of the log says so.
                    continue
                each = Range(stream, number // SIZES[stream])
                # One bit an aggregate, so that it does not matter how far behind one is.
                self._touched[each] = self._touched.get(each, 0) | 1 << number - each.low
            followed = upto
        self._followed = followed
        return head

    def _touched_in(self, which: Range) -> list[int]:
        bits = self._touched.get(which, 0)
        return [which.low + place for place in range(bits.bit_length()) if bits >> place & 1]

    # Looking

    def _look(self, which: Range, lap: Lap) -> None:
        """Look at a range: fold what was touched, or is not what it was, and keep the checksums."""
        shadow, _ = self._tools()
        stream, low = which.stream, which.low
        found: list[Difference] = []
        known: list[DivergenceAggregate] = []
        kept: list[int | None] | None = None
        numbers: list[int] = []
        is_whole = True
        with shadow.snapshot() as db:
            position, looked_at = self._follow(db), head_of(db)[1]
            suspects = shadow.suspects(db, stream, which.number, low, which.high)
            numbers = sorted({*suspects, *self._touched_in(which)})
            if numbers:
                found, wrong, unreadable, is_whole = shadow.compare(db, stream, numbers)
                known = divergences.open_now(db)
                kept = self._kept(db, which)
                for number, checksum in shadow.checksums(db, stream, numbers).items():
                    kept[number - low] = None if number in wrong else checksum
                self._wrong[stream].difference_update(numbers)
                self._wrong[stream] |= wrong
                lap.unreadable |= {(stream, number): why for number, why in unreadable.items()}
        self._keep(which, position, looked_at, kept)
        self._touched.pop(which, None)
        lap.n_ranges += 1
        lap.n_folded += len(numbers)
        # Of what cannot be folded nobody can say that it is right again.
        judged = {number for number in numbers if (stream, number) not in lap.unreadable}
        self._append_changes(
            lap,
            found,
            known,
            lambda each: is_whole and _is_of(each, stream, judged.__contains__),
        )

    def _look_outside(self, stream: Stream, lap: Lap) -> None:
        """Look for rows of aggregates that the log has not come to."""
        shadow, _ = self._tools()
        with shadow.snapshot() as db:
            newest = newest_of(db, stream)
            high = Range(stream, newest // SIZES[stream]).high
            numbers = shadow.outside(db, stream, high)
            compared = shadow.compare(db, stream, numbers) if numbers else None
            known = divergences.open_now(db)
        wrong = compared.wrong if compared else set[int]()
        self._wrong[stream] = {n for n in self._wrong[stream] if 0 <= n <= high} | wrong
        self._append_changes(
            lap,
            compared.differences if compared else [],
            known,
            lambda each: (
                (compared is None or compared.is_whole)
                and _is_of(each, stream, lambda number: not 0 <= number <= high)
            ),
        )

    def _look_at_counts(self, lap: Lap) -> bool:
        """Compare what is counted; return whether nothing is left to be looked into."""
        shadow, counted = self._tools()
        if sum(map(len, self._wrong.values())) > _UNSURE_MAX:
            return True
        with shadow.snapshot() as db:
            position, looked_at = self._follow(db), head_of(db)[1]
            while not counted.search(db, position):
                pass
            counted.search_blocks(db, position)
            wrong: dict[Stream, set[int]] = {}
            for place, (stream, numbers) in enumerate(self._wrong.items()):
                unreadable = shadow.fold(db, stream, sorted(numbers), besides=place > 0)
                # Of those nobody knows what they should be.
                wrong[stream] = numbers - unreadable.keys()
            found = counted.compare(db, wrong)
            known = divergences.open_now(db)
        open_keys = {(each.table, each.key) for each in known}
        if not lap.certain and any((each.table, each.key) not in open_keys for each in found):
            # With too much that is not proved, it will be looked into when that is.
            return lap.n_new * max(SIZES.values()) > _UNSURE_MAX
        self._keep(None, position, looked_at, [])
        n_of_table = {table: sum(each.table == table for each in found) for table in COUNTED}
        self._append_changes(
            lap,
            found,
            known,
            lambda each: (
                is_counted(each)
                and n_of_table[each.table] < DIFFERENCES_MAX
                and counted.can_compare(each.table, each.key, position)
            ),
        )
        return True

    # Keeping

    def _kept(self, db: Db, which: Range) -> list[int | None]:
        parameters = {"stream": int(which.stream), "range": which.number}
        row = db.execute(_SQL["kept"], parameters).fetchone()
        kept: list[int | None] = list(row[0]) if row else []
        size = SIZES[which.stream]
        return [*kept[:size], *[None] * (size - len(kept))]

    def _keep(
        self,
        which: Range | None,
        position: int,
        looked_at: datetime,
        checksums: list[int | None] | None,
    ) -> None:
        parameters: dict[str, Any] = {
            "stream": 0 if which is None else int(which.stream),
            "range": 0 if which is None else which.number,
            "position": position,
            "looked_at": looked_at,
        }
        with self._ledger.datastore.writing() as db:
            if checksums is None:
                db.execute(_SQL["keep_on"], parameters, prepare=True)
                return
            parameters |= {"checksums": checksums, "n_unproved": checksums.count(None)}
            db.execute(_SQL["keep"], parameters, prepare=True)

    # Telling

    def _append_changes(
        self,
        lap: Lap,
        found: Sequence[Difference],
        already: Sequence[DivergenceAggregate],
        was_looked_at: Callable[[DivergenceAggregate], bool],
    ) -> None:
        """Append what is new, and what is no more; `already` was open in the snapshot."""
        open_keys = {(each.table, each.key) for each in already}
        found_keys = {(each.table, each.key) for each in found}
        new = [each for each in found if (each.table, each.key) not in open_keys]
        gone = [
            each
            for each in already
            if was_looked_at(each) and (each.table, each.key) not in found_keys
        ]
        # Both were read without a lock, so they are checked again under it.
        if not new and not gone:
            return

        def work(
            operation: Operation,
        ) -> tuple[list[DivergenceAggregate], list[DivergenceAggregate]]:
            lock_divergences(operation.db)
            still = {(each.table, each.key): each for each in divergences.open_now(operation.db)}
            ended: list[DivergenceAggregate] = []
            for known in gone:
                if still.pop((known.table, known.key), None) == known:
                    end = DivergenceGone(**operation.stamp.model_dump())
                    ended.append(operation.happen(known, [end]))
            begun: list[DivergenceAggregate] = []
            for each in new:
                if (each.table, each.key) in still or len(still) >= divergences.OPEN_MAX:
                    continue
                divergence = DivergenceAggregate(divergences.next_id(operation.db))
                event = DivergenceFound(
                    table=each.table,
                    key=each.key,
                    fault=fault_of(each),
                    columns=each.columns if fault_of(each) is RowFault.changed else (),
                    **operation.stamp.model_dump(),
                )
                begun.append(operation.happen(divergence, [event]))
                still[each.table, each.key] = begun[-1]
            return begun, ended

        begun, ended = self._ledger.operate(work, actor=ACTOR)
        lap.found += begun
        lap.gone += ended
        # At once: who knows whether this process comes to the end of the lap.
        for each in begun[:_SAID_MAX]:
            log.error("divergence %d: %s", each.id, each)
        if len(begun) > _SAID_MAX:
            log.error("and %d more divergences", len(begun) - _SAID_MAX)
        for each in ended[:_SAID_MAX]:
            log.info("divergence %d has ended: %s", each.id, each)


def fault_of(difference: Difference) -> RowFault:
    """Return what is wrong with a row."""
    if difference.live is None:
        return RowFault.missing
    return RowFault.extra if difference.replayed is None else RowFault.changed


def lock_divergences(db: Db) -> None:
    """Keep others from finding and ending divergences until the transaction ends."""
    db.execute(_SQL["lock"], {"lock": _DIVERGENCE_LOCK})


def is_counted(divergence: DivergenceAggregate) -> bool:
    """Return whether a divergence is one of what is counted over many aggregates."""
    if divergence.table == "services":
        return bool(divergence.columns) and {*COUNTED_OF_CHILDREN, "due"} >= {*divergence.columns}
    return divergence.table in COUNTED


def _is_of(divergence: DivergenceAggregate, stream: Stream, which: Callable[[int], bool]) -> bool:
    """Return whether a divergence is one of an aggregate of a kind, with such a number."""
    if is_counted(divergence):
        return False
    owner = owner_of(divergence.table, divergence.key)
    return owner is not None and owner[0] is stream and which(owner[1])


class SelfAuditState(NamedTuple):
    """How far the self-audit is.

    Attributes:
        n_ranges: ranges that were looked at.
        n_unproved: aggregates that are not proved, or not known yet.
        position: up to here in the log all that was looked at was looked at.
        age_s: seconds since that was looked at which was not looked at for longest; None if
            nothing was looked at yet.
        divergences: how many are open, by table.
    """

    n_ranges: int
    n_unproved: int
    position: int
    age_s: float | None
    divergences: dict[str, int]


def state(ledger: Ledger) -> SelfAuditState:
    """Return how far the self-audit is."""
    with ledger.datastore.reading() as db:
        rows = {row[0]: row[1:] for row in db.execute(_SQL["state"]).fetchall()}
        n_unproved = 0
        for stream, size in SIZES.items():
            n_ranges, n_known, *_ = rows.get(int(stream), (0, 0))
            n_in_log = newest_of(db, stream) // size + 1
            n_unproved += n_known + max(n_in_log - n_ranges, 0) * size
        return SelfAuditState(
            sum(row[0] for stream, row in rows.items() if stream),
            n_unproved,
            min((row[2] for row in rows.values()), default=0),
            max((row[3] for row in rows.values()), default=None),
            divergences.counts(db),
        )
