"""Proofs over HTTP and by the clients: receipts, the newest checkpoint, and consistency."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Final

import pytest
from click.testing import CliRunner

from recordledger.api.client import (
    AsyncClient,
    Client,
    InvalidArgument,
    NotFound,
    Refused,
    ServerFault,
)
from recordledger.domain.proof.merkle import require_consistent
from recordledger.domain.proof.notes import SigningKey
from recordledger.domain.proof.seals import Checkpoint, origin_of
from recordledger.projections.proof.receipts import verify_receipt
from recordledger.projections.proof.seals import newest_seal, seal_next
from recordledger.projections.reading.queries import ledger_id
from recordledger.workers.cli import main
from tests.postgres import new_database

from ..service import Service, Visit, is_problem, serving, task

SEED: Final = b"s" * 32


@pytest.fixture
def unsealed(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A served ledger of which the log has no seal."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4) as made,
    ):
        yield made


def key_of(service: Service) -> SigningKey:
    return SigningKey(origin_of(ledger_id(service.ledger)), SEED)


def seal(service: Service) -> Checkpoint:
    """Seal what is new; return the newest checkpoint."""
    while seal_next(service.ledger, key_of(service)):
        pass
    newest = newest_seal(service.ledger)
    assert newest is not None
    return Checkpoint.open(newest.note, [key_of(service).verifier])


def client_of(service: Service, visit: Visit, retries_s: float = 30) -> Client:
    return Client(service.url, visit.secret, retries_s=retries_s)


def test_a_receipt_comes_as_it_is_to_be_kept(service: Service, ann: Visit) -> None:
    [record_id] = ann.create(task())
    is_problem(ann.get(f"/v1/records/{record_id}/receipt"), 503, "not_sealed_yet")
    seal(service)
    answer = ann.get(f"/v1/records/{record_id}/receipt", headers={"Accept": "application/msgpack"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = verify_receipt(answer.content, key=str(key_of(service).verifier))
    assert found.record_id == record_id


@pytest.mark.parametrize(
    "path", ["/v1/records/987654/receipt", "/v1/records/9223372036854775807/receipt"]
)
def test_what_never_was_has_no_receipt(ann: Visit, path: str) -> None:
    is_problem(ann.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/records/0/receipt",
        "/v1/records/x/receipt",
        "/v1/records/9223372036854775808/receipt",
        "/v1/proofs/consistency",
        "/v1/proofs/consistency?first=0&second=1",
        "/v1/proofs/consistency?first=2&second=1",
        "/v1/proofs/consistency?first=1&second=9223372036854775807",
        "/v1/proofs/consistency?first=x&second=1",
    ],
)
def test_what_cannot_be_is_refused(service: Service, ann: Visit, path: str) -> None:
    ann.create(task())
    seal(service)
    is_problem(ann.get(path), 422, "invalid_input")


def test_the_newest_checkpoint_is_plain_text(unsealed: Service) -> None:
    ann = unsealed.visit()
    is_problem(ann.get("/v1/checkpoint"), 503, "nothing_sealed")
    checkpoint = seal(unsealed)
    answer = ann.get("/v1/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert Checkpoint.open(answer.text, [key_of(unsealed).verifier]) == checkpoint


def test_two_checkpoints_are_shown_to_agree(service: Service, ann: Visit, tmp_path: Path) -> None:
    checkpoints: list[Checkpoint] = []
    notes: list[Path] = []
    with client_of(service, ann) as client:
        for name in ("old", "new"):
            ann.create(task(), task())
            checkpoints.append(seal(service))
            notes.append(tmp_path / name)
            notes[-1].write_text(client.checkpoint())
        first, second = checkpoints
        proof = client.consistency(first.size, second.size)
        require_consistent(first.size, first.root, second.size, second.root, proof)
        with pytest.raises(Refused):
            client.consistency(1, second.size + 1)
        with pytest.raises(InvalidArgument):
            client.consistency(0, 1)

    def verify(*files: Path) -> str:
        arguments = ["verify", "--consistency", *map(str, files)]
        arguments += ["--key", str(key_of(service).verifier)]
        env = {"RECORDLEDGER_URL": service.url, "RECORDLEDGER_TOKEN": ann.secret}
        return CliRunner().invoke(main, arguments, env=env).output

    assert verify(*notes).startswith(f"The log of {second.size:,} events begins with")
    assert "give the older checkpoint first" in verify(*notes[::-1])
    forged = Checkpoint(first.origin, first.size, b"f" * 32)
    notes[0].write_text(forged.signed(key_of(service)))
    assert "do not agree" in verify(*notes)
    notes[0].write_text("nothing")
    assert verify(*notes).startswith("Error: the note")


def test_the_client_waits_for_the_seal(service: Service, ann: Visit, tmp_path: Path) -> None:
    [record_id] = ann.create(task())
    timer = Timer(0.5, seal, [service])
    timer.start()
    with client_of(service, ann) as client:
        receipt = client.receipt(record_id)
        with pytest.raises(NotFound):
            client.receipt(987_654)
    timer.join()
    assert receipt.record_id == receipt.content["record_id"] == record_id
    assert "proof" not in repr(receipt)
    path = receipt.save(tmp_path / "receipt.json")
    assert verify_receipt(path.read_bytes()).n_events == 1


def test_the_client_does_not_wait_for_ever(unsealed: Service) -> None:
    ann = unsealed.visit()
    [record_id] = ann.create(task())
    with client_of(unsealed, ann, retries_s=0.1) as client:
        with pytest.raises(ServerFault) as fault:
            client.receipt(record_id)
        assert fault.value.code == "not_sealed_yet"
        with pytest.raises(ServerFault, match="the log has no seal"):
            client.checkpoint()


def test_the_asynchronous_client_has_the_same(service: Service, ann: Visit) -> None:
    [record_id] = ann.create(task())
    checkpoint = seal(service)

    async def ask() -> None:
        async with AsyncClient(service.url, ann.secret) as client:
            receipt = await client.receipt(record_id)
            assert verify_receipt(receipt.text).record_id == record_id
            assert str(checkpoint.size) in await client.checkpoint()
            assert await client.consistency(checkpoint.size, checkpoint.size) == []

    asyncio.run(ask())


def test_a_receipt_is_written_from_the_command_line(
    service: Service, ann: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [record_id] = ann.create(task())
    seal(service)
    env = {"RECORDLEDGER_URL": service.url, "RECORDLEDGER_TOKEN": ann.secret}

    def receipt(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["receipt", str(record_id), *options], env=env)
        return done.exit_code, done.output.strip()

    assert receipt() == (0, f"receipt-{record_id}.json")
    assert receipt("-o", "mine.json") == (0, "mine.json")
    assert json.loads((tmp_path / "mine.json").read_text())["record_id"] == record_id
    assert receipt("-o", "nowhere/mine.json")[0] == 1
    done = CliRunner().invoke(main, ["verify", "mine.json"])
    assert done.exit_code == 0, done.output
