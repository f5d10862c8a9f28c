"""Record Ledger: the event-sourced system of record for large numbers of computations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recordledger.api.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    """Import the clients when they are asked for: a worker process needs none of them."""
    if name in ("AsyncClient", "Client"):
        from recordledger.api import client

        return getattr(client, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("recordledger")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names too that are not imported yet."""
    return sorted({*globals(), *__all__})
