"""What the server says of itself, as an operation."""

from __future__ import annotations

from .. import exchange
from ..exchange import Operation, Session
from ..results.server import Server


def server(session: Session) -> Operation[Server]:
    """Return which server this is, who one is to it, and its limits.

    >>> client.server().version
    """
    session.server = None
    return (yield from exchange.server(session))
