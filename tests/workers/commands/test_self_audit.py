"""`recordledger self-audit`, both clients and the metrics: what was found, and putting it right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import InvalidArgument, Refused
from recordledger.domain.admin.access import Role
from recordledger.projections.self_audit.self_audit import SelfAuditor
from recordledger.projections.store.database import connect
from tests.api.service import Service, Visit, is_problem, task

from ..conftest import Cli, printed


@pytest.fixture
def audit(service: Service) -> Iterator[SelfAuditor]:
    """The self-audit of the served ledger; it never rests."""
    made = SelfAuditor(service.ledger, share=1)
    yield made
    made.close()


def spoil(service: Service, audit: SelfAuditor, ids: list[int]) -> None:
    """Change the owners of records, and let it be found."""
    with connect(service.settings.database_url) as connection:
        connection.execute("UPDATE records SET owner = 'eve' WHERE id = ANY(%s)", [ids])
    assert {each.key for each in audit.lap().found} == {(str(id_),) for id_ in ids}


def test_what_was_found_is_shown_and_put_right(
    cli: Cli, service: Service, ann: Visit, audit: SelfAuditor
) -> None:
    one, two = ann.create(task(), task())
    audit.lap()
    fine = cli("self-audit")
    assert fine.exit_code == 0
    assert "No rows are known to differ from the log." in fine.stdout
    spoil(service, audit, [one, two])
    shown = cli("self-audit")
    assert shown.exit_code == 1
    assert "2 rows are known" in shown.stdout
    assert f"│ records │ {one} " in shown.stdout
    found = printed(cli("self-audit", "--json"))
    assert [each["columns"] for each in found["divergences"]] == [["owner"]] * 2
    text = service.visit(None).get("/metrics").text
    assert 'recordledger_divergent_rows{table="records"} 2.0' in text
    assert 'recordledger_divergent_rows{table="managers"} 0.0' in text
    assert "recordledger_self_audit_age_seconds" in text
    assert "recordledger_self_audit_unproved 2.0" in text
    done = cli("self-audit", "--repair", "--table", "records", "--key", str(one), "--reason", "x")
    assert done.exit_code == 0
    assert done.stdout == f"records {one}: differs from the log in owner: repaired\n"
    (left,) = printed(cli("self-audit", "--repair", "--json"))
    assert (left["divergence"]["state"], left["refusal"]) == ("repaired", None)
    assert cli("self-audit").exit_code == 0
    told = printed_lines(cli("events", "--kind", "divergence_repaired", "--json").stdout)
    assert told[-2]["reason"] == "x"
    assert [each["stream"] for each in told[-2:]] == ["divergence"] * 2
    assert ann.record(one)["owner"] == ann.record(two)["owner"] == "user:ann"


def printed_lines(text: str) -> list[dict[str, str]]:
    """Return what was printed as one JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_both_clients_tell_and_repair(service: Service, ann: Visit, audit: SelfAuditor) -> None:
    one, two = ann.create(task(), task())
    spoil(service, audit, [one, two])
    secret = ann.http.headers["authorization"].partition(" ")[2]
    with Client(service.url, secret, progress=False) as client:
        assert [each.key for each in client.self_audit().divergences] == [[str(one)], [str(two)]]
        (done,) = client.repair("records", [one], reason="mine")
        assert (done.divergence.state, done.refusal) == ("repaired", None)
        with pytest.raises((InvalidArgument, Refused), match="a key can only be used with a table"):
            client.repair(key=["1"])

    async def rest() -> None:
        async with AsyncClient(service.url, secret, progress=False) as client:
            assert len((await client.self_audit()).divergences) == 1
            assert [each.divergence.key for each in await client.repair()] == [[str(two)]]
            assert await client.repair() == []

    asyncio.run(rest())


def test_a_table_that_there_is_not_is_said(ann: Visit) -> None:
    answer = ann.post("/v1/self-audit/repair", {"table": "payloads"})
    assert "there is no table 'payloads'" in is_problem(answer, 422, "invalid_input")


def test_only_administrators_repair(service: Service) -> None:
    user = service.visit(Role.user)
    is_problem(user.get("/v1/self-audit"), 403, "forbidden")
    is_problem(user.post("/v1/self-audit/repair", {}), 403, "forbidden")


@pytest.mark.parametrize("options", [("--table", "records"), ("--repair", "--key", "1")])
def test_options_that_mean_nothing_are_refused(cli: Cli, options: tuple[str, ...]) -> None:
    assert cli("self-audit", *options).exit_code == 2
