"""Services, as operations: adding them, where they stand, and the tree below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from ...schemas.fields import PriorityName
from .. import exchange, wire
from ..arguments import is_one
from ..exchange import Operation, Session
from ..results.bulk import InsertMetadata
from ..results.services import ServiceView, Tree
from .records import RecordSpec, add_specs


def add_service(
    session: Session,
    name: str,
    spec: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
    *,
    tag: str = "default",
    priority: PriorityName = "normal",
    find_existing: bool = True,
    reason: str | None = None,
) -> Operation[InsertMetadata]:
    """Add a service, or many: workflows that the server advances, with children that managers run.

    Args:
        name: of a service that is installed where `recordledger work` runs.
        spec: its specification: one mapping, or a list of them for as many services.
        tag: routing string, which its children inherit.
        priority: "low", "normal" or "high", which its children inherit.
        find_existing: return an existing service of the same specification, unless it is cancelled,
            deleted or invalid; False always makes a new one.
        reason: kept with the event.

    Returns:
        `ids` in the order given, which are new and which were there, and the refused by index.

    Raises:
        InvalidArgument: a value has no form in JSON, or is too large; nothing was sent.

    >>> added = client.add_service("optimization", {"x0": [0.0, 0.0]})
    """
    given: list[Any] = [{} if spec is None else spec] if is_one(spec) else list(spec or ())
    specs = [
        RecordSpec(function=name, kwargs=each, tag=tag, priority=priority, kind="service")
        for each in given
    ]
    return (yield from add_specs(session, specs, find_existing=find_existing, reason=reason))


def service(
    session: Session, record_id: int, *, iteration: int | None = None
) -> Operation[ServiceView]:
    """Return where a service stands: state, what it waits for, and what it has said so far.

    Args:
        record_id: which service.
        iteration: where it stood after this one, instead.

    Raises:
        NotFound: there is no such record.
        Refused: the record is not a service, or has no such iteration.

    >>> client.service(415).iteration
    """
    path = f"/v1/records/{wire.record_id(record_id)}/service"
    query = "" if iteration is None else f"?{urlencode({'iteration': iteration})}"
    return (yield from exchange.get(session, path + query, ServiceView))


def tree(
    session: Session, record_id: int, *, limit: int = 1_000, children_limit: int = 100
) -> Operation[Tree]:
    """Return a service, its children with their statuses, and theirs; it shows itself as a tree.

    Args:
        record_id: which record.
        limit: maximum number of records; those that are left out are counted.
        children_limit: maximum number of children of one service at most.

    Raises:
        NotFound: there is no such record.

    >>> print(client.tree(415))
    """
    query = urlencode({"limit": limit, "children_limit": children_limit})
    path = f"/v1/records/{wire.record_id(record_id)}/tree?{query}"
    return (yield from exchange.get(session, path, Tree))
