"""What changed between two moments of the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.status import Status
from recordledger.projections.reading import diff
from recordledger.projections.reading.diff import Between, ChangeFilter, Place, RecordDifference

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit, Listing
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.diff import DiffAnswer
from ..schemas.fields import ShortText
from ..schemas.moments import AsOf
from .records import moment_of, moment_out

router = APIRouter(prefix="/v1/diff", tags=["diff"])

NOWHERE: Final = "none"
_MANY: Final = 100

Reader = Annotated[Visitor, allowed(Permission.read)]
Places = Annotated[
    list[Status | Literal["none"]] | None,
    Query(
        max_length=10, description="`none`: the record did not exist, not yet or not any longer."
    ),
]
Tags = Annotated[
    list[ShortText] | None, Query(max_length=_MANY, description="At any time between.")
]


@router.get("", response_model=DiffAnswer)
@endpoint(Reader)
def get_diff(
    call: Call,
    a: Annotated[AsOf, Query()],
    b: Annotated[AsOf, Query()],
    from_status: Places = None,
    to_status: Places = None,
    tag: Tags = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get the records to which something happened after `a` and up to `b`, by id.

    Each condition may be repeated and is then met by any.
    """
    which = ChangeFilter(
        from_statuses=_places(from_status),
        to_statuses=_places(to_status),
        tags=None if tag is None else tuple(each.lower() for each in tag),
    )
    ledger = call.desk.ledger
    between = Between(moment_of(ledger, a, "a"), moment_of(ledger, b, "b"))
    positions = between.a.position, between.b.position
    if positions[0] > positions[1]:
        raise InvalidInput(f"a is later than b: position {positions[0]} and {positions[1]}")
    pages = call.pages(Listing.changes, *positions)
    after_id = pages.last_id(cursor, 0)
    # One more than the page, to know whether there is another page.
    found = diff.changes(ledger, between, limit + 1, after_id, which)
    shown, next_cursor = pages.cut(found, limit, lambda each: each.record_id)
    return {
        "a": moment_out(between.a),
        "b": moment_out(between.b),
        "changes": [_change_out(each) for each in shown],
        "counts": None if cursor else _counts_out(diff.counts(ledger, between, which)),
        "next_cursor": next_cursor,
    }


def _places(given: Iterable[Status | str] | None) -> tuple[Place, ...] | None:
    if given is None:
        return None
    return tuple(None if each == NOWHERE else Status(each) for each in given)


def _change_out(change: RecordDifference) -> dict[str, Any]:
    last = change.newest[0]
    return {
        "record_id": change.record_id,
        "from_status": change.from_status,
        "to_status": change.to_status,
        "from_tag": change.from_tag,
        "to_tag": change.to_tag,
        "n_events": change.n_events,
        "actors": list(dict.fromkeys(event.actor for event in change.newest)),
        "kind": last.topic,
        "happened_at": last.timestamp,
        "actor": last.actor,
        "action": last.action,
        "reason": last.reason,
        "operation_id": str(last.operation_id),
    }


def _counts_out(counts: Mapping[tuple[Place, Place], int]) -> list[dict[str, Any]]:
    return [
        {"from_status": before, "to_status": after, "n_records": n}
        for (before, after), n in counts.items()
    ]
