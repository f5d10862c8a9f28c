"""Managing records: cancel, reset, delete and so on, in bulk; comments, families and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from starlette.responses import Response

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import InvalidInput, RecordNotFound, TooLarge
from recordledger.domain.records.actions import NEW_PRIORITY, NEW_TAG, ON_RECORDS, Action
from recordledger.domain.records.events import Priority
from recordledger.domain.routing.lanes import parse_tag
from recordledger.projections.actions import bulk
from recordledger.projections.actions.bulk import OperationOutcome
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.reading import queries
from recordledger.projections.tables import comments, families

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit, Listing
from ..http.openapi import answer_body, request_body
from ..http.request_context import Call, endpoint
from ..http.wire import Accepted, Reply
from ..schemas.comments import CommentsAnswer
from ..schemas.fields import MANAGED_MAX, PAGE_MAX
from ..schemas.management import OPTIONS, ManageAnswer, ManageRequest
from ..schemas.records import ErrorsAnswer, RecordQuery, RelativesAnswer
from .records import Reader, RecordIdInPath, filter_of

router = APIRouter(prefix="/v1", tags=["managing records"])

_MANAGED: Final[dict[str, Any]] = {
    "operation_id": "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70",
    "updated_idx": [0],
    "errors": [{"idx": 1, "code": "not_found", "message": "there is no record 412"}],
    "n_selected": 2,
    "n_children_updated": 0,
    "n_parents_updated": 0,
}


def _endpoint(action: Action) -> Callable[..., Awaitable[Response]]:
    permission = Permission.admin if action.row.for_administrators else Permission.submit

    def manage(call: Call) -> Reply:
        return _manage(call, action)

    manage.__name__ = manage.__qualname__ = f"{action}_records"
    undo = "can be undone" if action.row.undoable else "cannot be undone"
    manage.__doc__ = (
        f"{action.row.text}.\n\n"
        f"The call is one operation, which is applied as a whole and {undo}. A record that the "
        "rules "
        "refuse is reported by its index and does not affect the others; a repeated id counts "
        "once. More than 10,000 records are changed by a job: the answer is 202 and its id."
    )
    return endpoint(Annotated[Visitor, allowed(permission)])(manage)


# Undoing has a route of its own.
for _action in ON_RECORDS:
    _example: dict[str, Any] = {"ids": [411, 412], "reason": "wrong basis set"}
    for _option in _action.row.options:
        if _option.example is not None:
            _example[_option.name] = _option.example
    router.add_api_route(
        f"/records/{_action}",
        _endpoint(_action),
        methods=["POST"],
        response_model=ManageAnswer,
        responses=answer_body(_MANAGED, job=ManageAnswer),
        openapi_extra=request_body(ManageRequest, example=_example, changes=True),
    )


@router.get("/records/errors", response_model=ErrorsAnswer)
@endpoint(Reader)
def get_errors(call: Call, limit: Limit = 100) -> Reply:
    """Get what the newest 100,000 records in error say, by type and message, with numbers."""
    groups = queries.error_groups(call.desk.ledger, limit)
    return {"groups": [group._asdict() for group in groups]}


@router.get("/records/{record_id}/comments", response_model=CommentsAnswer)
@endpoint(Reader)
def get_comments(
    call: Call,
    record_id: RecordIdInPath,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the comments on a record, oldest first."""
    pages = call.pages(Listing.comments)
    after = pages.last_id(cursor, 0)
    _require_record(call, record_id)
    with call.desk.ledger.datastore.reading() as db:
        found = comments.page(db, record_id, after, limit + 1)
    shown, next_cursor = pages.cut(found, limit, lambda comment: comment.version)
    return {"comments": [each._asdict() for each in shown], "next_cursor": next_cursor}


@router.get("/records/{record_id}/children", response_model=RelativesAnswer)
@endpoint(Reader)
def get_children(
    call: Call,
    record_id: RecordIdInPath,
    limit: Limit = PAGE_MAX,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the records that a service has asked for, by ascending id."""
    return _relatives(call, record_id, Listing.children, limit, cursor)


@router.get("/records/{record_id}/parents", response_model=RelativesAnswer)
@endpoint(Reader)
def get_parents(
    call: Call,
    record_id: RecordIdInPath,
    limit: Limit = PAGE_MAX,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the services that have asked for a record, by ascending id."""
    return _relatives(call, record_id, Listing.parents, limit, cursor)


def _manage(call: Call, action: Action) -> Reply:
    asked = call.parse(ManageRequest)
    what = _order(action, asked)
    ledger = call.desk.ledger
    ids = _selected(call, asked)
    ordered = bulk.order(
        ledger,
        what,
        ids,
        actor=call.visitor.actor,
        reason=asked.reason,
        request=call.key,
        dry_run=asked.dry_run,
        tell_ids=asked.query is not None,
    )
    return _answer(ordered, asked, len(ids) if action is Action.resubmit else 0)


def _order(action: Action, asked: ManageRequest) -> OperationRequest:
    own = {option.name: option for option in action.row.options}
    given = asked.model_fields_set & {option.name for option in OPTIONS}
    if foreign := sorted(given - own.keys()):
        raise InvalidInput(f"{action} takes no {' and no '.join(foreign)}; leave it out")
    values = {name: value for name in own if (value := getattr(asked, name)) is not None}
    if action.row.needs_option and not values:
        both = " or both" if len(own) == 2 else ""
        raise InvalidInput(f"give what to {action}: {', '.join(own)}{both}")
    if NEW_TAG.name in values:
        values[NEW_TAG.name] = parse_tag(values[NEW_TAG.name])
    if NEW_PRIORITY.name in values:
        values[NEW_PRIORITY.name] = Priority[values[NEW_PRIORITY.name]]
    return OperationRequest(action, **{own[name].field: value for name, value in values.items()})


def _selected(call: Call, asked: ManageRequest) -> list[int]:
    if (asked.ids is None) == (asked.query is None):
        raise InvalidInput("select records by exactly one of ids and query")
    if asked.ids is not None:
        if asked.all:
            raise InvalidInput("`all` can only be used with a query; leave it out with ids")
        return asked.ids
    query = asked.query or RecordQuery()
    if not asked.all and not query.model_dump(exclude_none=True):
        raise InvalidInput(
            "the query has no condition, so it would find every record; set all=true if that is "
            "intended"
        )
    found = queries.select_ids(
        call.desk.ledger, filter_of(call.desk.ledger, query), MANAGED_MAX + 1
    )
    if len(found) > MANAGED_MAX:
        raise TooLarge(
            "the records that the query finds (add a condition)",
            len(found),
            MANAGED_MAX,
            "MANAGED_MAX",
        )
    return found


def _answer(ordered: OperationOutcome, asked: ManageRequest, n_new: int) -> Reply:
    managed = ordered["managed"]
    if managed is None:
        return Accepted(
            {
                "operation_id": ordered["operation_id"],
                "updated_idx": [],
                "errors": [],
                "n_selected": ordered["n_selected"],
                "n_children_updated": 0,
                "n_parents_updated": 0,
                "new_ids": [],
                "ids": None,
                "job_id": ordered["job_id"],
            }
        )
    new_ids: list[int | None] = []
    if managed["new_ids"] and not asked.dry_run:
        n_ids = len(ordered["ids"]) if ordered["ids"] is not None else n_new
        new_ids = [managed["new_ids"].get(index) for index in range(n_ids)]
    return {
        "operation_id": ordered["operation_id"] if ordered["changed"] else None,
        "updated_idx": managed["updated_idx"],
        "errors": [
            {"idx": index, "code": code, "message": message}
            for index, code, message in managed["errors"]
        ],
        "n_selected": ordered["n_selected"],
        "n_children_updated": managed["n_children_updated"],
        "n_parents_updated": managed["n_parents_updated"],
        "new_ids": new_ids,
        "ids": ordered["ids"],
        "job_id": None,
    }


def _relatives(call: Call, record_id: int, which: Listing, limit: int, cursor: str | None) -> Reply:
    pages = call.pages(which)
    after = pages.last_id(cursor, 0)
    _require_record(call, record_id)
    name: Literal["children", "parents"]
    name = "children" if which is Listing.children else "parents"
    with call.desk.ledger.datastore.reading() as db:
        found = families.relatives(db, record_id, name, after, limit + 1)
    shown, next_cursor = pages.cut(found, limit, lambda relative: relative)
    return {"ids": shown, "next_cursor": next_cursor}


def _require_record(call: Call, record_id: int) -> None:
    if record_id not in queries.get_records(call.desk.ledger, [record_id]):
        raise RecordNotFound(record_id)
