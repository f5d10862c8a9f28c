"""Who comes in over HTTP: tokens, roles, and routes that must say what they need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from recordledger.api.app import create_app
from recordledger.api.http.auth import (
    Visitor,
    allowed,
    open_to_all,
    permissions_of,
    require_permissions,
)
from recordledger.domain.admin.access import PERMISSIONS, Permission, Role

from ..service import Service, Visit, eventually, is_problem, latin_1, serving, task

# What needs what, once more and by hand.
NEEDS: Final[dict[tuple[str, str], set[Permission]]] = {
    ("POST", "/v1/records"): {Permission.submit},
    ("POST", "/v1/records/get"): {Permission.read},
    ("POST", "/v1/records/query"): {Permission.read},
    ("GET", "/v1/records/counts"): {Permission.read},
    ("GET", "/v1/records/{record_id}"): {Permission.read},
    ("GET", "/v1/records/{record_id}/events"): {Permission.read},
    ("GET", "/v1/records/{record_id}/attempts"): {Permission.read},
    ("GET", "/v1/records/{record_id}/timeline"): {Permission.read},
    ("GET", "/v1/operations/{operation_id}/events"): {Permission.read},
    ("GET", "/v1/users/events"): {Permission.read},
    ("GET", "/v1/records/{record_id}/why"): {Permission.read},
    ("GET", "/v1/records/{record_id}/receipt"): {Permission.read},
    ("GET", "/v1/checkpoint"): {Permission.read},
    ("GET", "/v1/proofs/consistency"): {Permission.read},
    ("GET", "/v1/queue"): {Permission.read},
    ("GET", "/v1/events"): {Permission.read},
    ("GET", "/v1/diff"): {Permission.read},
    ("GET", "/v1/origins"): {Permission.read},
    ("POST", "/v1/records/reset"): {Permission.submit},
    ("POST", "/v1/records/cancel"): {Permission.submit},
    ("POST", "/v1/records/uncancel"): {Permission.submit},
    ("POST", "/v1/records/delete"): {Permission.submit},
    ("POST", "/v1/records/undelete"): {Permission.submit},
    ("POST", "/v1/records/invalidate"): {Permission.submit},
    ("POST", "/v1/records/uninvalidate"): {Permission.submit},
    ("POST", "/v1/records/hold"): {Permission.submit},
    ("POST", "/v1/records/release"): {Permission.submit},
    ("POST", "/v1/records/fail"): {Permission.submit},
    ("POST", "/v1/records/modify"): {Permission.submit},
    ("POST", "/v1/records/comment"): {Permission.submit},
    ("POST", "/v1/records/resubmit"): {Permission.submit},
    ("POST", "/v1/records/adopt"): {Permission.submit},
    ("POST", "/v1/records/erase"): {Permission.admin},
    ("POST", "/v1/records/revive"): {Permission.admin},
    ("GET", "/v1/records/errors"): {Permission.read},
    ("GET", "/v1/records/{record_id}/comments"): {Permission.read},
    ("GET", "/v1/records/{record_id}/children"): {Permission.read},
    ("GET", "/v1/records/{record_id}/parents"): {Permission.read},
    ("GET", "/v1/records/{record_id}/service"): {Permission.read},
    ("GET", "/v1/records/{record_id}/tree"): {Permission.read},
    ("GET", "/v1/operations"): {Permission.read},
    ("GET", "/v1/operations/{operation_id}"): {Permission.read},
    ("GET", "/v1/jobs"): {Permission.read},
    ("GET", "/v1/jobs/{job_id}"): {Permission.read},
    ("GET", "/v1/jobs/{job_id}/refusals"): {Permission.read},
    ("GET", "/v1/policies"): {Permission.read},
    ("POST", "/v1/operations/{operation_id}/undo"): {Permission.submit},
    ("POST", "/v1/jobs/{job_id}/cancel"): {Permission.submit},
    ("POST", "/v1/datasets"): {Permission.submit},
    ("GET", "/v1/datasets"): {Permission.read},
    ("GET", "/v1/datasets/{dataset_id}"): {Permission.read},
    ("POST", "/v1/datasets/{dataset_id}/modify"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/delete"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/entries"): {Permission.submit},
    ("GET", "/v1/datasets/{dataset_id}/entries"): {Permission.read},
    ("POST", "/v1/datasets/{dataset_id}/entries/rename"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/entries/remove"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/specifications"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/specifications/remove"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/submit"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/unlink"): {Permission.submit},
    ("GET", "/v1/datasets/{dataset_id}/status"): {Permission.read},
    ("GET", "/v1/datasets/{dataset_id}/table"): {Permission.read},
    ("POST", "/v1/datasets/{dataset_id}/clone"): {Permission.submit},
    ("POST", "/v1/datasets/{dataset_id}/lock"): {Permission.submit},
    ("GET", "/v1/datasets/{dataset_id}/events"): {Permission.read},
    ("POST", "/v1/services/{record_id}/start"): {Permission.admin},
    ("POST", "/v1/services/{record_id}/iterate"): {Permission.admin},
    ("POST", "/v1/services/{record_id}/finish"): {Permission.admin},
    ("POST", "/v1/managers"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/heartbeat"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/claim"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/results"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/relinquish"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/deactivate"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/drain"): {Permission.compute},
    ("POST", "/v1/managers/{manager_id}/programs"): {Permission.compute},
    ("GET", "/v1/rescues"): {Permission.read},
    ("GET", "/v1/managers"): {Permission.read},
    ("GET", "/v1/managers/{manager_id}"): {Permission.read},
    ("GET", "/v1/managers/{manager_id}/events"): {Permission.read},
    ("POST", "/v1/tokens"): {Permission.admin},
    ("GET", "/v1/tokens"): {Permission.admin},
    ("POST", "/v1/tokens/{token_id}/revoke"): {Permission.admin},
    ("POST", "/v1/webhooks"): {Permission.admin},
    ("GET", "/v1/webhooks"): {Permission.admin},
    ("GET", "/v1/webhooks/{webhook_id}"): {Permission.admin},
    ("PATCH", "/v1/webhooks/{webhook_id}"): {Permission.admin},
    ("DELETE", "/v1/webhooks/{webhook_id}"): {Permission.admin},
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): {Permission.admin},
    ("POST", "/v1/webhooks/{webhook_id}/test"): {Permission.admin},
    ("GET", "/v1/self-audit"): {Permission.admin},
    ("POST", "/v1/self-audit/repair"): {Permission.admin},
    ("GET", "/v1/server"): set(Permission),
    ("GET", "/health"): set(),
    ("GET", "/ready"): set(),
    ("GET", "/metrics"): set(),
    ("GET", "/openapi.json"): set(),
}


def test_every_route_needs_what_it_should(service: Service) -> None:
    found = {
        (method, route.path): set(permissions_of(route))
        for route in create_app(service.settings).routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert found == NEEDS


@pytest.mark.parametrize("method_and_path", [key for key, needs in NEEDS.items() if needs])
def test_without_a_valid_token_nothing_is_answered(
    service: Service, method_and_path: tuple[str, str]
) -> None:
    method, path = method_and_path
    for secret in (None, "rl_wrong"):
        visit = service.visit_with(secret)
        answer = visit.http.request(method, path.replace("{", "").replace("}", ""))
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic YTpi", "Bearer rl_x y", "rl_x", "Bearer \u00fc\u00ff"],
)
def test_a_malformed_authorization_is_as_good_as_none(service: Service, header: str) -> None:
    visit = service.visit(None)
    answer = visit.get("/v1/server", headers=latin_1({"Authorization": header}))
    is_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("role", Role)
def test_a_role_opens_what_it_includes_and_nothing_else(service: Service, role: Role) -> None:
    visit = service.visit(role)
    for (method, path), needs in NEEDS.items():
        numbers = {
            "record_id": 1,
            "manager_id": 1,
            "job_id": 1,
            "dataset_id": 1,
            "token_id": 2**60,
            "webhook_id": 2**60,
        }
        answer = visit.http.request(method, path.format(operation_id=UUID(int=1), **numbers))
        if not needs or needs & PERMISSIONS[role]:
            assert answer.status_code not in (401, 403), (method, path)
        else:
            assert role in is_problem(answer, 403, "forbidden")


def test_the_token_is_looked_at_before_the_body(service: Service) -> None:
    visit = service.visit(Role.reader)
    is_problem(visit.send("/v1/records", b"{" * 1000), 403, "forbidden")
    is_problem(service.visit(None).send("/v1/records", b"{" * 1000), 401, "unauthenticated")


def test_an_administrator_issues_and_revokes_tokens(service: Service, ann: Visit) -> None:
    new = ann.post("/v1/tokens", {"user": "dora", "role": "user"}).json()
    dora = service.visit_with(new["secret"])
    assert dora.get("/v1/server").json()["user"] == "dora"
    (record_id,) = dora.create(task())
    assert ann.record(record_id)["owner"] == "user:dora"
    token_id = new["token"]["id"]
    listed = ann.get("/v1/tokens", params={"limit": 1000})
    assert new["secret"] not in listed.text
    assert token_id in [token["id"] for token in listed.json()["tokens"]]
    revoked = ann.post(f"/v1/tokens/{token_id}/revoke").json()
    assert revoked["revoked_at"] is not None
    assert ann.post(f"/v1/tokens/{token_id}/revoke").json() == revoked
    is_problem(dora.get("/v1/server"), 401, "unauthenticated")
    is_problem(ann.post(f"/v1/tokens/{2**62}/revoke"), 404, "token_not_found")


def test_a_token_ends_when_it_expires(service: Service, ann: Visit) -> None:
    def server_with(seconds: float) -> int:
        expires_at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        body = {"user": "eve", "role": "reader", "expires_at": expires_at}
        secret = ann.post("/v1/tokens", body).json()["secret"]
        return service.visit_with(secret).get("/v1/server").status_code

    assert server_with(-1) == 401
    assert server_with(60) == 200


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_token_cannot_expire_beyond_the_calendar(ann: Visit, moment: str) -> None:
    body = {"user": "eve", "role": "reader", "expires_at": moment}
    is_problem(ann.post("/v1/tokens", body), 422, "invalid_input")


def test_a_token_revoked_elsewhere_is_remembered_for_a_moment_only(
    database_url: str,
) -> None:
    with (
        serving(database_url, pool_size=2, token_cache_s=0.2) as here,
        serving(database_url, pool_size=2, token_cache_s=0.2) as there,
    ):
        ann = here.visit(Role.admin)
        new = ann.post("/v1/tokens", {"user": "dora", "role": "user"}).json()
        dora = there.visit_with(new["secret"])
        assert dora.get("/v1/server").status_code == 200
        ann.post(f"/v1/tokens/{new['token']['id']}/revoke")
        eventually(lambda: dora.get("/v1/server").status_code == 401)


def _silent() -> None: ...


def _twice(
    _: Annotated[Visitor, allowed(Permission.read)], __: Annotated[Visitor, allowed()]
) -> None: ...


@open_to_all
def _both(_: Annotated[Visitor, allowed(Permission.read)]) -> None: ...


@pytest.mark.parametrize("endpoint", [_silent, _twice, _both])
def test_an_app_with_a_route_that_does_not_say_who_may_use_it_does_not_start(
    endpoint: object,
) -> None:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/wrong", endpoint)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="must declare its permission"):
        require_permissions(app)


def test_a_route_that_cannot_say_who_may_use_it_does_not_start_either() -> None:
    with pytest.raises(RuntimeError, match="not a route that can declare"):
        require_permissions(FastAPI())
