"""Proofs of consistency."""

from __future__ import annotations

from .base import Answer


class ConsistencyAnswer(Answer):
    """What proves that the log of `second` events begins with that of `first`: hashes, base64."""

    first: int
    second: int
    proof: list[str]
