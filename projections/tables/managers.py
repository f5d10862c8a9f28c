"""The table `managers`, and the table of heartbeats beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal

from psycopg.types.json import Jsonb

from recordledger.domain.errors import ManagerNotActive, ManagerNotFound
from recordledger.domain.routing.manager import ManagerAggregate, Suspension
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.routing.matching import ManagerSigns
from recordledger.domain.streams import Stream

from ..store.database import Db
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.managers")


def next_id(db: Db) -> int:
    """Return a new manager id."""
    return int(_one(db, "next_id", {}))


def write(db: Db, changes: Changes) -> None:
    """Bring the rows of managers to what they are now."""
    for manager in changes.after(ManagerAggregate):
        db.execute(
            _SQL["write"],
            {
                "id": manager.id,
                "version": manager.version,
                "state": manager.state,
                "name": manager.name,
                "hostname": manager.hostname,
                "tags": list(manager.tags),
                "programs": Jsonb(manager.programs),
                "lease_s": manager.lease_s,
                "heartbeat_s": manager.heartbeat_s,
                "owner": manager.owner,
                "registered_at": manager.registered_at,
                "modified_at": manager.modified_at,
                "suspended": Jsonb(
                    {name: _plain(each) for name, each in manager.suspended.items()}
                ),
            },
        )


TABLE: Final = ProjectionTable(
    name="managers", key=("id",), owner=Owner("id", Stream.manager), write=write
)


def get(db: Db, manager_id: int, how: Literal["get", "lock"] = "get") -> ManagerAggregate:
    """Return a manager, and keep it from being changed if `how` is lock.

    Raises:
        ManagerNotFound: there is none with this id.
    """
    row = db.execute(_SQL[how], {"id": manager_id}, prepare=True).fetchone()
    if row is None:
        raise ManagerNotFound(manager_id)
    return from_row(row)


def page(
    db: Db, after: int, limit: int, states: Collection[ManagerState] | None = None
) -> list[ManagerSigns]:
    """Return the managers with ids above `after`, at most `limit`; only in these states."""
    wanted = None if states is None else [str(state) for state in states]
    rows = db.execute(_SQL["page"], {"after": after, "limit": limit, "states": wanted})
    return [ManagerSigns(from_row(row[:-2]), *row[-2:]) for row in rows]


def alive(db: Db) -> list[ManagerSigns]:
    """Return all managers that have a lease, by id."""
    rows = db.execute(_SQL["alive"], prepare=True)
    return [ManagerSigns(from_row(row[:-2]), *row[-2:]) for row in rows]


def one(db: Db, manager_id: int) -> ManagerSigns | None:
    """Return a manager and its heartbeats; None if there is none with this id."""
    found = page(db, manager_id - 1, 1)
    return found[0] if found and found[0].manager.id == manager_id else None


def first_beat(db: Db, manager: ManagerAggregate) -> None:
    """Begin the lease of a manager that was just registered."""
    db.execute(_SQL["first_beat"], {"id": manager.id, "lease_s": manager.lease_s})


def beat(db: Db, manager_id: int) -> tuple[ManagerAggregate, datetime]:
    """Note a heartbeat; return the manager, and until when its lease is extended.

    Raises:
        ManagerNotFound: there is none with this id.
        ManagerNotActive: it was deactivated or declared lost.
    """
    row = db.execute(_SQL["beat"], {"id": manager_id}, prepare=True).fetchone()
    if row is None:
        raise ManagerNotActive(manager_id, str(get(db, manager_id).state))
    return from_row(row[1:]), row[0]


def silent(db: Db, limit: int) -> list[int]:
    """Return managers whose lease is over."""
    return [row[0] for row in db.execute(_SQL["silent"], {"limit": limit}, prepare=True)]


def lock_heartbeat(db: Db, manager_id: int) -> bool | None:
    """Keep a lease from being extended; return whether it is over, None if there is none."""
    over: bool | None = _one(db, "lock_heartbeat", {"id": manager_id})
    return over


def forget_heartbeat(db: Db, manager_id: int) -> None:
    """Remove the heartbeats and the failures of a manager that has ended."""
    db.execute(_SQL["forget_heartbeat"], {"id": manager_id})
    db.execute(_SQL["forget_failures"], {"id": manager_id})


def failures(db: Db, manager_id: int) -> dict[str, int]:
    """Return how many tasks in a row have failed, by program; those with none are left out."""
    return dict(db.execute(_SQL["failures"], {"id": manager_id}, prepare=True))


def keep_failures(db: Db, manager_id: int, before: Mapping[str, int], now: dict[str, int]) -> None:
    """Write how many tasks in a row have failed; the manager's row must be locked."""
    if gone := [program for program in before if program not in now]:
        db.execute(_SQL["end_failures"], {"id": manager_id, "programs": gone})
    for program, n_in_a_row in now.items():
        if before.get(program) != n_in_a_row:
            db.execute(
                _SQL["keep_failures"],
                {"id": manager_id, "program": program, "n_in_a_row": n_in_a_row},
            )


def from_row(row: Sequence[Any]) -> ManagerAggregate:
    """Return the manager that a row of `managers` holds."""
    id_, version, state, name, hostname, tags, programs, lease_s, heartbeat_s, *rest = row
    owner, registered_at, modified_at, suspended = rest
    return ManagerAggregate(
        id=id_,
        version=version,
        state=ManagerState(state),
        name=name,
        hostname=hostname,
        tags=tuple(tags),
        programs=programs,
        suspended={name: _suspension(each) for name, each in suspended.items()},
        lease_s=lease_s,
        heartbeat_s=heartbeat_s,
        owner=owner,
        registered_at=registered_at,
        modified_at=modified_at,
    )


def _plain(suspension: Suspension) -> dict[str, Any]:
    return {
        **asdict(suspension),
        "since": suspension.since.isoformat(),
        "until": suspension.until.isoformat(),
    }


def _suspension(plain: Mapping[str, Any]) -> Suspension:
    fields: dict[str, Any] = dict(plain)
    for name in ("since", "until"):
        fields[name] = datetime.fromisoformat(plain[name])
    return Suspension(**fields)


def _one(db: Db, statement: str, parameters: dict[str, Any]) -> Any:
    row = db.execute(_SQL[statement], parameters, prepare=True).fetchone()
    return row[0] if row else None
