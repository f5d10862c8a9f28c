"""The action that CONTRIBUTING.md adds: over HTTP, in both clients, as a command and in the log."""

from __future__ import annotations

import asyncio

from recordledger.api.client import AsyncClient, Client
from recordledger.api.client.words import in_words
from recordledger.domain.records.events import Approved
from recordledger.projections.replay.replay import check_replay
from tests.api.routes.test_management import made
from tests.api.service import Service, Visit
from tests.workers.conftest import Cli, ann, cli, service

__all__ = ["ann", "cli", "service"]


def test_results_are_approved(service: Service, ann: Visit, cli: Cli) -> None:
    token = ann.secret or ""
    by_client, by_program, by_command, over_http = made(ann, "complete", 4)
    (waiting,) = made(ann, "waiting")

    answer = ann.post("/v1/records/approve", {"ids": [over_http, waiting]}).json()
    assert answer["updated_idx"] == [0]
    assert answer["errors"][0]["code"] == "transition_forbidden"

    async def approve() -> None:
        async with AsyncClient(service.url, token=token) as client:
            approved = await client.approve_records(by_program)
            assert approved.n_updated == 1

    asyncio.run(approve())
    ran = cli("approve", by_command, "--reason", "checked by hand")
    assert ran.exit_code == 0, ran.output
    assert "1 of 1 records approved" in ran.stdout

    with Client(service.url, token=token) as client:
        assert client.approve_records(by_client, dry_run=True).dry_run
        approved = client.approve_records(by_client)
        for record_id in (by_client, by_program, by_command, over_http):
            event = client.history(record_id).events[-1]
            assert event.kind == Approved.topic
            assert in_words(event).startswith("ann approved the result")
            assert client.get_records(record_id).status == "complete"
        assert approved.operation_id is not None
        assert client.undo(approved.operation_id).conflicts[0].code == "not_undoable"
        dataset = client.add_dataset("approved")
        assert dataset.approve_records(all=True).n_selected == 0

    # The tables are what a replay makes of the log.
    assert not check_replay(service.ledger).differences
