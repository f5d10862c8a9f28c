"""Managers."""

from __future__ import annotations

from ...schemas.managers import ManagerOut
from ..tables import LONG, html_fields, shown
from .table import Table


class Manager(ManagerOut):
    """A manager as it was when it was read."""

    def __repr__(self) -> str:
        """Return one line with what one wants to know first."""
        return (
            f"<Manager {self.id} {self.state} {shown(self.name)}@{shown(self.hostname)} "
            f"tags={shown(self.tags)}>"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        fields = {
            name: shown(getattr(self, name), LONG)
            for name in type(self).model_fields
            if name != "id"
        }
        return html_fields(fields, title=f"Manager {self.id}")


class Managers(Table[Manager]):
    """Managers, oldest first."""

    noun = "managers"
    columns = ("id", "state", "name", "hostname", "tags", "programs", "heartbeat_at")
