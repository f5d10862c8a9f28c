"""The table `webhooks`: who receives events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from recordledger.domain.admin.webhook import WebhookAggregate, WebhookFilter, WebhookState
from recordledger.domain.streams import Stream

from ..store.database import Db
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.webhooks")
_COLUMNS: Final = ("id", "version", "state", "url", "owner", "why", "created_at", "modified_at")


def write(db: Db, changes: Changes) -> None:
    """Bring the rows of webhooks to what they are now."""
    for webhook in changes.after(WebhookAggregate):
        which = webhook.filter
        parameters: dict[str, Any] = {name: getattr(webhook, name) for name in _COLUMNS}
        parameters |= {
            "kinds": list(which.kinds),
            "tags": list(which.tags),
            "actors": list(which.actors),
            "dataset_id": which.dataset_id,
        }
        db.execute(_SQL["write"], parameters)


TABLE: Final = ProjectionTable(
    name="webhooks", key=("id",), owner=Owner("id", Stream.webhook), write=write
)


def filter_of(kinds: Any, tags: Any, actors: Any, dataset_id: Any) -> WebhookFilter:
    """Return the filter that columns hold."""
    return WebhookFilter(
        kinds=tuple(kinds), tags=tuple(tags), actors=tuple(actors), dataset_id=dataset_id
    )


def from_row(row: Sequence[Any]) -> WebhookAggregate:
    """Return the webhook that a row of `webhooks` holds."""
    id_, version, state, url, kinds, tags, actors, dataset_id, owner, why, *times = row
    which = filter_of(kinds, tags, actors, dataset_id)
    return WebhookAggregate(id_, version, WebhookState(state), url, which, owner, why, *times)
