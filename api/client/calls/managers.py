"""What managers say to the ledger, and what it says about them, as operations."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from recordledger.domain.routing.manager_state import ManagerState

from ...schemas.base import Answer
from ...schemas.managers import RescuesAnswer
from .. import exchange, wire
from ..arguments import listed
from ..exchange import Operation, Session
from ..results.managers import Manager, Managers


class _ManagersAnswer(Answer):
    managers: list[Manager]
    next_cursor: str | None


def managers(
    session: Session, state: ManagerState | str | Iterable[ManagerState | str] | None = None
) -> Operation[Managers]:
    """Return managers, oldest first: all, whether or not they are still active, or some.

    Args:
        state: only those in this state, or in one of several: "active", "draining", "inactive",
            "lost".

    >>> [manager.name for manager in client.managers("active")]
    """
    query: list[tuple[str, str]] = [("state", str(each)) for each in listed(state) or ()]
    found = Managers()
    cursor: str | None = None
    while True:
        page = query if cursor is None else [*query, ("cursor", cursor)]
        path = f"/v1/managers?{urlencode(page)}".rstrip("?")
        answer = yield from exchange.get(session, path, _ManagersAnswer)
        found += answer.managers
        cursor = answer.next_cursor
        if cursor is None:
            return found


def manager(session: Session, manager_id: int) -> Operation[Manager]:
    """Return one manager.

    Raises:
        NotFound: there is no such manager.

    >>> client.manager(7).programs
    """
    return (yield from exchange.get(session, path_of(manager_id), Manager))


def rescues(session: Session) -> Operation[RescuesAnswer]:
    """Return how many results came late, how many of these were adopted, and what they had cost.

    >>> client.rescues()
    """
    return (yield from exchange.get(session, "/v1/rescues", RescuesAnswer))


def path_of(manager_id: int, verb: str = "") -> str:
    return f"/v1/managers/{wire.record_id(manager_id, what='manager_id')}/{verb}".rstrip("/")
