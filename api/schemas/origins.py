"""Where imported records, managers and datasets came from."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from .base import Answer

ImportedKind = Literal["record", "manager", "dataset"]
"""What archives bring."""


class OriginOut(Answer):
    """Where something that was imported came from.

    `id` is its id here, `origin_id` that in the ledger `ledger_id`. `archive_hash` is the
    SHA-256 of the manifest of the archive in which it came, in hexadecimal digits.
    """

    kind: ImportedKind
    id: int
    ledger_id: str
    origin_id: int
    archive_hash: str
    imported_at: AwareDatetime
    imported_by: str


class OriginsAnswer(Answer):
    """One page of origins, by ids here; `next_cursor` is None on the last."""

    origins: list[OriginOut]
    next_cursor: str | None
