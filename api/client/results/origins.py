"""Where imported records, managers and datasets came from."""

from __future__ import annotations

from ...schemas.origins import OriginOut
from .table import Table


class Origin(OriginOut):
    """Where something that was imported came from."""


class Origins(Table[Origin]):
    """Where imported records, managers or datasets came from, by their ids here."""

    noun = "origins"
    columns = ("kind", "id", "origin_id", "ledger_id", "imported_at", "imported_by")
