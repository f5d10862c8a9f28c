"""How many records there are, as an operation."""

from __future__ import annotations

from ...schemas.counts import CountsAnswer
from .. import exchange, wire
from ..arguments import AsOf, query_of
from ..exchange import Operation, Session
from ..results.counts import Counts


def counts(session: Session, *, as_of: AsOf = None) -> Operation[Counts]:
    """Return how many records are in each status, or were.

    Args:
        as_of: as it was then: a position of the log, or a time; in UTC if it does not say.

    Raises:
        InvalidArgument: `as_of` is neither.
        Refused: that moment has not come, or is before the first event of the log.

    >>> client.counts()["complete"]
    >>> client.counts(as_of=20)
    """
    path = "/v1/records/counts" + query_of([("as_of", wire.as_of(as_of))])
    answer = yield from exchange.get(session, path, CountsAnswer)
    return Counts(answer.counts, answer.as_of)
