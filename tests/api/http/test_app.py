"""The application as a whole: what it says of itself, errors, metrics, its start and its end."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Final, cast
from uuid import UUID

import psycopg
import pytest
import zstandard
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from recordledger import __version__
from recordledger.api import schemas
from recordledger.api.app import create_app
from recordledger.api.http import errors as api_errors
from recordledger.api.http.auth import open_to_all
from recordledger.api.schemas.base import Message
from recordledger.api.schemas.server import ServerAnswer
from recordledger.api.server import serve
from recordledger.api.settings import Settings
from recordledger.domain import errors as domain_errors
from recordledger.domain.admin.access import Role
from recordledger.domain.errors import ImpossibleHistory, LedgerError, SchemaMismatch
from recordledger.projections.ledger import Ledger
from recordledger.projections.tables import families, jobs
from recordledger.projections.tables import operations as past_operations

from ..service import Service, Visit, is_problem, serving, task

# Every request and answer, by name.
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    name: found
    for module in pkgutil.iter_modules(schemas.__path__, f"{schemas.__name__}.")
    for name, found in vars(importlib.import_module(module.name)).items()
    if inspect.isclass(found) and issubclass(found, BaseModel)
}


def test_the_server_says_which_ledger_it_is_and_what_it_takes(service: Service) -> None:
    bob = service.visit(Role.reader, "bob")
    answer = ServerAnswer.model_validate(bob.get("/v1/server").json())
    assert answer.version == __version__
    assert str(UUID(answer.ledger_id)) == answer.ledger_id
    assert (answer.user, answer.role) == ("bob", Role.reader)
    assert abs(datetime.now(UTC) - answer.time) < timedelta(minutes=1)
    assert answer.limits.records_per_request == service.settings.records_per_request
    assert answer.limits.payload_bytes == service.settings.payload_bytes_max


def test_anybody_may_ask_how_the_server_is(service: Service) -> None:
    nobody = service.visit(None)
    assert nobody.get("/health").json() == {"status": "ok"}
    assert nobody.get("/ready").json() == {"status": "ok"}


# Errors


RAISING = (domain_errors, api_errors, families, jobs, past_operations)


def codes(module: ModuleType) -> Iterator[type[LedgerError]]:
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, LedgerError):
            yield found


def test_every_error_has_a_meaning_over_http_and_every_meaning_an_error() -> None:
    raised = {each.code for module in RAISING for each in codes(module)}
    of_http_itself = {"no_such_route", "method_not_allowed", "internal_error"}
    assert set(api_errors.MEANINGS) == raised | of_http_itself


def test_refusals_are_the_clients_fault_and_faults_the_servers() -> None:
    for module in RAISING:
        for each in codes(module):
            status = api_errors.MEANINGS[each.code].status
            assert (status < 500) == issubclass(each, domain_errors.CommandRefused)


@open_to_all
async def _bug(request: Request) -> Response:
    raise ZeroDivisionError("secret detail")


@open_to_all
async def _damage(request: Request) -> Response:
    raise ImpossibleHistory("record 1", 7, "secret detail")


@pytest.mark.parametrize(
    ("endpoint", "code"), [(_bug, "internal_error"), (_damage, "impossible_history")]
)
def test_a_bug_is_told_by_an_incident_id_and_the_log_knows_more(
    database_url: str, caplog: pytest.LogCaptureFixture, endpoint: Any, code: str
) -> None:
    with serving(database_url, pool_size=2) as service:
        app = service.server.config.app
        app.router.routes.append(APIRoute("/bug", endpoint))  # type: ignore[union-attr]
        visit = service.visit(None)
        detail = is_problem(visit.get("/bug"), 500, code)
        assert "secret" not in detail
        incident = re.search(r"incident (\w{32})", detail)
        assert incident is not None
        assert incident[1] in caplog.text
        assert "secret detail" in caplog.text
        assert 'route="/bug",status="500"' in visit.get("/metrics").text


# Metrics


def metric(visit: Visit, name: str) -> float:
    text = visit.get("/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_count_what_happens(database_url: str) -> None:
    with serving(database_url, pool_size=2) as service:
        ann = service.visit()
        ann.post("/v1/records", {"records": [task(), {}, task()]})
        manager_id = ann.register()
        (attempt, _) = (
            {"record_id": each["record_id"], "attempt": each["attempt"]}
            for each in ann.claim(manager_id)
        )
        for _ in range(2):
            ann.post(f"/v1/managers/{manager_id}/results", {"results": [attempt, {}]})
        expected = {
            'recordledger_records_submitted_total{outcome="inserted"}': 2,
            'recordledger_records_submitted_total{outcome="refused"}': 1,
            "recordledger_tasks_claimed_total": 2,
            'recordledger_results_returned_total{outcome="accepted"}': 1,
            'recordledger_results_returned_total{outcome="duplicate"}': 1,
            'recordledger_results_returned_total{outcome="refused"}': 2,
            'recordledger_records{status="complete"}': 1,
            'recordledger_records{status="running"}': 1,
            'recordledger_records{status="waiting"}': 0,
            "recordledger_database_up": 1,
            'recordledger_request_seconds_count{route="/v1/records"}': 1,
        }
        assert {name: metric(ann, name) for name in expected} == expected
        assert metric(ann, "recordledger_log_position") >= 6
        assert metric(ann, "recordledger_database_pool_size") >= 1
        by_route = 'method="POST",route="/v1/managers/{manager_id}/results",status="200"'
        assert metric(ann, f"recordledger_requests_total{{{by_route}}}") == 2


def test_what_strangers_ask_for_does_not_become_a_metric(service: Service) -> None:
    nobody = service.visit(None)
    nobody.get("/wp-admin")
    nobody.http.request("REPORT", "/wp-admin")
    text = nobody.get("/metrics").text
    assert "wp-admin" not in text
    assert 'method="other",route="none",status="404"' in text


# The description


@pytest.fixture(scope="module")
def described(service: Service) -> dict[str, Any]:
    answer = service.visit(None).get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        if isinstance(ref := members.get("$ref"), str):
            yield ref
        for item in members.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from references(item)


def test_the_description_refers_to_nothing_that_it_does_not_have(
    described: dict[str, Any],
) -> None:
    schemas_ = described["components"]["schemas"]
    missing = {ref.rpartition("/")[2] for ref in references(described)} - schemas_.keys()
    assert missing == set()


def test_the_description_has_every_message(described: dict[str, Any]) -> None:
    requests = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for path in described["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    }
    names = {ref.rpartition("/")[2] for ref in requests}
    assert names == {
        name for name, model in MODELS.items() if issubclass(model, Message) and "Request" in name
    }


def test_the_examples_in_the_description_are_right(described: dict[str, Any]) -> None:
    parts: list[dict[str, Any]] = [
        part
        for path in described["paths"].values()
        for operation in path.values()
        for part in (operation.get("requestBody", {}), operation["responses"]["200"])
    ]
    contents: list[dict[str, Any]] = [
        part.get("content", {}).get("application/json", {}) for part in parts
    ]
    with_example = [content for content in contents if "example" in content]
    for content in with_example:
        model = MODELS[content["schema"]["$ref"].rpartition("/")[2]]
        model.model_validate(content["example"])
    assert len(with_example) >= 5


def test_every_route_is_described_with_its_errors_and_its_permissions(
    described: dict[str, Any],
) -> None:
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["responses"].keys() - {"202"} == {"200", "default"}, path
            assert operation["description"], path
            assert bool(operation["x-permissions"]) == path.startswith("/v1"), path


# Large answers


def test_a_large_answer_is_compressed_for_those_who_take_it(service: Service, ann: Visit) -> None:
    tags = [f"large{index}" for index in range(10)]
    for tag in tags:
        ann.create(task(tag=tag, kwargs={"pad": tag * 20_000}))
    body = {"query": {"tag": tags}, "include": ["kwargs"], "limit": 9}
    sent: list[bytes] = []
    for accepted in ("identity", "gzip", "zstd"):
        with ann.http.stream(
            "POST", "/v1/records/query", json=body, headers={"Accept-Encoding": accepted}
        ) as answer:
            data = b"".join(answer.iter_raw())
            coding = answer.headers.get("content-encoding")
            assert coding == ("zstd" if accepted == "zstd" else None)
        if coding:
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        sent.append(data)
    assert sent[0] == sent[1] == sent[2]


# Start and end


def newer_schema(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO recordledger.schema_migrations (version, name) VALUES (9999, 'later')"
        )


def test_a_database_that_is_newer_than_the_code_is_refused_at_the_start(
    database_url: str,
) -> None:
    newer_schema(database_url)
    with pytest.raises(SchemaMismatch, match="Upgrade recordledger"):
        serve(Settings(database_url=database_url, port=0))


def test_a_database_without_the_schema_is_refused_at_the_start(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="recordledger migrate"):
        serve(Settings(database_url=empty_database_url, port=0))


def test_a_given_ledger_is_used_and_left_open(database_url: str) -> None:
    settings = Settings(database_url=database_url, pool_size=2)
    ledger = Ledger(database_url, pool_size=2)
    try:
        assert create_app(settings, ledger).state.desk.ledger is ledger
    finally:
        ledger.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_a_served_process_ends_in_order_when_it_is_told_to(
    database_url: str, ended_by: signal.Signals
) -> None:
    code = (
        "from recordledger.api.server import serve\n"
        "from recordledger.api.settings import Settings\n"
        "serve(Settings(port=0), on_ready=lambda url: print(url, flush=True))\n"
        "print('over')"
    )
    environment = {**os.environ, "RECORDLEDGER_DATABASE_URL": database_url}
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(ended_by)
        assert process.stdout.read() == "over\n"
        assert process.wait(30) == 0


def test_settings_describe_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(field.description for field in Settings.model_fields.values())
    monkeypatch.setenv("RECORDLEDGER_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("RECORDLEDGER_PORT", "99")
    settings = Settings()  # type: ignore[call-arg]
    assert settings.port == 99
    assert "secret" not in repr(settings)
