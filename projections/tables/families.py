"""The table `dependencies`: who is whose parent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from recordledger.domain.errors import CircularFamily
from recordledger.domain.records.events import Erased, ServiceIterated
from recordledger.domain.records.propagation import Family
from recordledger.domain.streams import Stream

from ..store.database import Db, one
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.families")
_FAMILY_LOCK: Final = 7_301_956_005
# Ids in one query of a walk through a family.
_SLICE: Final = 10_000


def family_of(db: Db, ids: Iterable[int]) -> Family:
    """Return these records' ancestors, the descendants of all these, and the parents of those.

    Records without relatives are not in it. Level by level, so the depth has no limit.
    """
    edges: set[tuple[int, int]] = set()
    lineage = _walk(db, "edges_up", set(ids), edges)
    below = _walk(db, "edges_down", lineage, edges)
    edges |= _edges(db, "edges_up", below)
    return Family.of(edges)


def descendants_of(db: Db, ids: Iterable[int]) -> Family:
    """Return the descendants of these records, and nobody who is not concerned from above."""
    edges: set[tuple[int, int]] = set()
    _walk(db, "edges_down", set(ids), edges)
    return Family.of(edges)


def _walk(
    db: Db,
    direction: Literal["edges_up", "edges_down"],
    start: set[int],
    edges: set[tuple[int, int]],
) -> set[int]:
    seen, level = set(start), set(start)
    while level:
        found = _edges(db, direction, level)
        edges |= found
        level = {edge[direction == "edges_down"] for edge in found} - seen
        seen |= level
    return seen


def _edges(db: Db, statement: str, ids: Iterable[int]) -> set[tuple[int, int]]:
    ordered = sorted(ids)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(ordered), _SLICE):
        parameters = {"ids": ordered[start : start + _SLICE]}
        found.update(db.execute(_SQL[statement], parameters, prepare=True))
    return found


def has_relatives(db: Db, ids: Sequence[int]) -> bool:
    """Return whether any of these records has a parent or a child."""
    return bool(one(db, _SQL["has_relatives"], {"ids": ids}, prepare=True)[0])


def require_no_circle(db: Db, parent_id: int, children: Sequence[int]) -> None:
    """Return if these records may become children of this one; keep others from it meanwhile.

    Raises:
        CircularFamily: one of them is an ancestor of the parent, or the parent itself.
    """
    db.execute(_SQL["lock"], {"lock": _FAMILY_LOCK})
    ancestors = _walk(db, "edges_up", {parent_id}, set())
    for child in children:
        if child in ancestors:
            raise CircularFamily(parent_id, child)


def n_levels_above(db: Db, record_id: int) -> int:
    """Return how many levels of ancestors a record has."""
    n_levels, level = 0, {record_id}
    seen = set(level)
    while level := {parent for parent, _ in _edges(db, "edges_up", level)} - seen:
        seen |= level
        n_levels += 1
    return n_levels


def relatives(
    db: Db, record_id: int, which: Literal["children", "parents"], after: int, limit: int
) -> list[int]:
    """Return a page of a record's children or parents, by ascending id."""
    parameters = {"id": record_id, "after": after, "limit": limit}
    return [row[0] for row in db.execute(_SQL[f"page_of_{which}"], parameters)]


def new_edges(db: Db, changes: Changes) -> list[tuple[int, int]]:
    """Return the relations that services made, as (parent, child), each once and in order."""
    erased = changes.erased
    return sorted(
        {
            (recorded.number, child)
            for recorded in changes.happened
            if type(recorded.event) is ServiceIterated and recorded.stream is Stream.record
            for child in recorded.event.children
            if recorded.number not in erased
        }
    )


def write(db: Db, changes: Changes) -> None:
    """Add the relations that services made, and drop those of erased records."""
    if edges := new_edges(db, changes):
        parents, children = map(list[Any], zip(*edges, strict=True))
        db.execute(_SQL["insert"], {"parents": parents, "children": children}, prepare=True)
    if gone := [
        after.id for before, after in changes.records if before.exists and not after.exists
    ]:
        db.execute(_SQL["forget"], {"ids": gone})


TABLE: Final = ProjectionTable(
    name="dependencies",
    key=("parent_id", "child_id"),
    owner=Owner("parent_id", Stream.record),
    events=frozenset({ServiceIterated, Erased}),
    write=write,
    columns={"parent_id": "bigint", "child_id": "bigint"},
    rows=new_edges,
    key_last=True,
)
