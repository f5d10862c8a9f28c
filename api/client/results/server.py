"""The server."""

from __future__ import annotations

from ...schemas.policies import PoliciesAnswer
from ...schemas.server import ServerAnswer


class Server(ServerAnswer):
    """Which server and which ledger this is, who one is to it, and what it takes."""


class Policies(PoliciesAnswer):
    """What the server does to records by itself."""
