"""Record Ledger: the event-sourced system of record for large numbers of computations."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recordledger.api.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]

__version__: str = version("recordledger")


def __getattr__(name: str) -> object:
    """Import the clients when they are asked for: a worker process needs none of them."""
    if name in ("AsyncClient", "Client"):
        from recordledger.api import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
