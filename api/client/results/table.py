"""A list of results that shows itself as a table."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from ..tables import html_table, shown, text_table

T = TypeVar("T")


class Table(list[T], Generic[T]):
    """A list that shows itself as a table."""

    noun: ClassVar[str] = "rows"
    columns: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        """Return a table in text."""
        if not self:
            return f"no {self.noun}"
        return text_table(self.columns, self._rows(), title=self._title())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(self.columns, self._rows(), title=self._title())

    def _rows(self) -> list[list[str]]:
        return [[shown(getattr(item, name, None)) for name in self.columns] for item in self]

    def _title(self) -> str:
        return f"{len(self):,} {self.noun.removesuffix('s') if len(self) == 1 else self.noun}"
