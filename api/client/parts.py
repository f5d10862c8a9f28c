"""Calls that are cut into several requests: their errors, as those of the one call."""

from __future__ import annotations

from ..schemas.base import Refusal
from .errors import ClientError


def moved(error: Refusal, start: int) -> Refusal:
    """Return the refusal by its index in the whole call, of which its part began at `start`."""
    return error.model_copy(update={"idx": start + error.idx}) if start else error


def add_progress(error: ClientError, partial: object | None, count: int) -> None:
    """Add to an error what the requests of the same call before it had achieved."""
    if partial is not None:
        error.partial = partial
        error.add_note(f"The first {count:,} were already done; see `partial` of this error.")
