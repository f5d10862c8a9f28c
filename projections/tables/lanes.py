"""Lanes: routing keys (a tag and the programs it needs) as small numbers, known to each process."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Final, Protocol, TypeAlias

from recordledger.domain.routing.breaker import programs_of
from recordledger.domain.routing.lanes import Lane, lanes_by_tag
from recordledger.domain.routing.manager import ManagerAggregate

from ..store.database import Db, LedgerDatastore
from ..store.statements import statements

_SQL = statements("tables.lanes")
_LANES_LOCK: Final = 7_301_956_003
# How many different managers' lanes are remembered between claims.
_MANAGERS_MAX: Final = 1024


class Routed(Protocol):
    """What is in a lane: a record, or the lane itself."""

    @property
    def tag(self) -> str:
        """Its tag."""
        ...

    @property
    def required_programs(self) -> tuple[str, ...]:
        """The programs that it needs."""
        ...


# A manager's tags, its programs with their versions, and those of them that are suspended.
_Abilities: TypeAlias = tuple[tuple[str, ...], frozenset[tuple[str, str | None]], frozenset[str]]


class UnknownLanes(Exception):
    """Routing keys without an id turned up in a transaction, which must not give them one."""

    def __init__(self, lanes: set[Lane]) -> None:
        """Say which."""
        super().__init__(lanes)
        self.lanes = lanes


class LaneRegistry:
    """The lanes of the database, read when an unknown one is asked for.

    Lanes are added and never change, so what is known stays true.
    """

    def __init__(self, datastore: LedgerDatastore) -> None:
        """Know nothing yet."""
        self._datastore = datastore
        self._by_id: dict[int, Lane] = {}
        self._ids: dict[Lane, int] = {}
        self._newest = 0
        self._open: dict[_Abilities, list[list[int]]] = {}
        self._lock = Lock()

    def open_to(self, manager: ManagerAggregate, suspended: Iterable[str] = ()) -> list[list[int]]:
        """Return, for each tag of a manager in its order, the lanes it can take; see `refresh`.

        Lanes that require a suspended program are left out.
        """
        without = frozenset(suspended)
        key = (manager.tags, frozenset(manager.programs.items()), without)
        with self._lock:
            if key not in self._open:
                if len(self._open) >= _MANAGERS_MAX:
                    self._open.clear()
                self._open[key] = [
                    [id_ for id_ in ids if without.isdisjoint(self._programs_of(id_))]
                    if without
                    else ids
                    for ids in lanes_by_tag(manager.tags, manager.programs, self._by_id)
                ]
            return self._open[key]

    def _programs_of(self, lane_id: int) -> list[str]:
        return programs_of(self._by_id[lane_id].required_programs)

    def refresh(self, db: Db) -> None:
        """Read the lanes that are new since the last time.

        Threads that do it at once read the same lanes, or one more of them: numbers appear in
        order. No lock is held meanwhile, since that would make all wait for the slowest.
        """
        known = self._newest
        found = db.execute(_SQL["after"], {"known": known}, prepare=True).fetchall()
        if not found:
            return
        new = {id_: Lane(tag, tuple(programs)) for id_, tag, programs in found}
        with self._lock:
            if found[-1][0] > self._newest:
                # Other threads iterate over the old mappings: they are replaced, not changed.
                self._by_id = self._by_id | new
                self._ids = self._ids | {lane: id_ for id_, lane in new.items()}
                self._newest = found[-1][0]
                self._open.clear()

    def learn(self, db: Db, lane_ids: Iterable[int]) -> None:
        """Read the new lanes if one of these is unknown.

        On the caller's own connection: a transaction that held one and waited for a second could
        wait for others that do the same.
        """
        if not self._by_id.keys() >= set(lane_ids):
            self.refresh(db)

    def lane(self, lane_id: int) -> Lane:
        """Return the lane with this id, which must have been learnt."""
        return self._by_id[lane_id]

    def require(self, routed: Iterable[Routed]) -> None:
        """Return if the lane of each of these has an id.

        Raises:
            UnknownLanes: some have none; intern them outside of the transaction, and try again.
        """
        if unknown := set(map(_lane_of, routed)) - self._ids.keys():
            raise UnknownLanes(unknown)

    def id_of(self, routed: Routed) -> int:
        """Return the id of the lane that a record is in, which must have been interned."""
        return self._ids[_lane_of(routed)]

    def intern(self, routed: Iterable[Routed]) -> None:
        """Give the lane of each of these an id, if it has none, in a transaction of its own."""
        unknown = set(map(_lane_of, routed)) - self._ids.keys()
        if not unknown:
            return
        with self._datastore.reading() as db:
            self.refresh(db)
            if missing := sorted(unknown - set(self._ids), key=lambda lane: lane.tag):
                parameters = {
                    "lock": _LANES_LOCK,
                    "tags": [lane.tag for lane in missing],
                    "required_programs": [" ; ".join(lane.required_programs) for lane in missing],
                }
                db.execute(_SQL["intern"], parameters)
                self.refresh(db)


def _lane_of(routed: Routed) -> Lane:
    return Lane(routed.tag, routed.required_programs)
