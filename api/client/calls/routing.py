"""What waits, who could take it, and why a record is where it is, as operations."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from ...schemas.routing import QueueAnswer
from .. import exchange, wire
from ..arguments import listed
from ..exchange import Operation, Session
from ..results.routing import Explanation, Queue, QueueLane

_LANES_MAX = 1_000


class _QueueAnswer(QueueAnswer):
    lanes: list[QueueLane]  # type: ignore[assignment]


def why(session: Session, record_id: int) -> Operation[Explanation]:
    """Return why a record waits, runs or is gone: in words, with a code, and who is nearest.

    Of an erased record, its bare events say who did it.

    Raises:
        NotFound: there never was such a record.

    >>> print(client.why(414))
    """
    path = f"/v1/records/{wire.record_id(record_id)}/why"
    return (yield from exchange.get(session, path, Explanation))


def queue(
    session: Session, tag: str | Iterable[str] | None = None, *, limit: int = 100
) -> Operation[Queue]:
    """Return what waits, by tag and required programs, and who could take it.

    First come the lanes that nobody can take, with the reason as `blocked`, then the deepest.

    Args:
        tag: only of this tag, or of several.
        limit: maximum number of lanes.

    >>> print(client.queue(tag="gpu"))
    """
    query = [("limit", str(min(limit, _LANES_MAX))), *(("tag", each) for each in listed(tag) or ())]
    answer = yield from exchange.get(session, f"/v1/queue?{urlencode(query)}", _QueueAnswer)
    return Queue(answer.lanes, answer)
