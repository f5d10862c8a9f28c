"""A ledger with a service runner, and a manager that does what it is told; all in one thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.status import Status
from recordledger.domain.specs.fingerprint import specify
from recordledger.projections.actions.submission import NewRecord, create_records
from recordledger.projections.reading import queries
from recordledger.workers.jobs.service_registry import AnyService, ServiceRegistry
from recordledger.workers.jobs.service_runner import RunnerSettings, ServiceRunner
from tests.projections.stage import ALICE, Stage, bad, good

from .invented_services import SERVICES


class House:
    """A ledger with a runner, and a manager that does what it is told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.runner = self.another("first")
        self.manager_id = stage.manager()

    def another(
        self, name: str, services: Mapping[str, type[AnyService]] = SERVICES, **settings: Any
    ) -> ServiceRunner:
        registry = ServiceRegistry(services)
        return ServiceRunner(self.stage.ledger, registry, RunnerSettings(**settings), name=name)

    def add(
        self, name: str, *, tag: str = "gpu", priority: Priority = Priority.normal, **kwargs: Any
    ) -> int:
        entry = NewRecord(
            specify(name, kwargs, (), size_bytes_max=1 << 20), tag, priority, kind=Kind.service
        )
        return create_records(self.stage.ledger, [entry], actor=ALICE)["ids"][0]

    def compute(self, *, fine: bool = True, limit: int = 100) -> list[int]:
        held = self.stage.claim(self.manager_id, limit)
        self.stage.hand_in(self.manager_id, held, good() if fine else bad())
        return list(held)

    def go(self) -> None:
        """Let everybody do everything until there is nothing to do."""
        while self.runner.run_until_idle() or self.compute():
            pass

    def result(self, service_id: int) -> Any:
        outcome = self.stage.record(service_id).outcome
        return self.content_of(outcome and outcome.result)

    def said(self, service_id: int) -> str:
        outcome = self.stage.record(service_id).outcome
        found = self.bytes_of(outcome and outcome.stdout)
        return "" if found is None else found.decode()

    def error(self, service_id: int) -> tuple[str | None, str]:
        record = self.stage.record(service_id)
        assert record.status is Status.error
        assert record.outcome is not None
        message = self.bytes_of(record.outcome.error_message)
        return record.outcome.error_type, (message or b"").decode()

    def bytes_of(self, payload: Any) -> bytes | None:
        if payload is None:
            return None
        return queries.payload_contents(self.stage.ledger, [payload.digest])[payload.digest]

    def content_of(self, payload: Any) -> Any:
        data = self.bytes_of(payload)
        return None if data is None else json.loads(data)

    def children(self, service_id: int) -> list[int]:
        rows = self.stage.ask(
            "SELECT child_id FROM service_children WHERE service_id = %s ORDER BY child_id",
            [service_id],
        )
        return [row[0] for row in rows]
