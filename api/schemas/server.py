"""The server: what it is, what it takes, and whether it works."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from recordledger.domain.admin.access import Role

from .base import Answer


class Limits(Answer):
    """What the server takes; the client cuts long calls to fit."""

    records_per_request: int
    results_per_request: int
    ids_per_request: int
    claim_per_request: int
    page: int
    body_bytes: int
    payload_bytes: int


class ServerAnswer(Answer):
    """Which server and which ledger this is, and what it takes."""

    version: str
    ledger_id: str
    time: datetime
    user: str
    role: Role
    limits: Limits


class HealthAnswer(Answer):
    """Whether the process lives (health), or can serve requests now (readiness)."""

    status: Literal["ok", "unavailable"]
