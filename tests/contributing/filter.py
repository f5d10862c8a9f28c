"""The filter that CONTRIBUTING.md adds: on HTTP, in both clients, commands, datasets, the past."""

from __future__ import annotations

from recordledger.api.client import Client
from tests.api.service import Service, Visit
from tests.workers.commands.test_record_conditions import Scene, found_with, parameters_of, scene
from tests.workers.conftest import Cli, ann, cli, service

__all__ = ["ann", "cli", "scene", "service"]


def test_records_are_found_by_their_kind(
    scene: Scene, service: Service, ann: Visit, cli: Cli
) -> None:
    # HTTP, the command, both clients and the dataset, at an earlier moment and now.
    for as_of in (scene.position, None):
        for kind, is_it in (("task", True), ("service", False)):
            answers = list(found_with("kind", kind, as_of, scene, cli, service, ann))
            assert [scene.record["id"] in found for found in answers] == [is_it] * 5

    # Actions take it too, and exports.
    with Client(service.url, ann.secret, progress=False) as client:
        for kind, n_selected in (("task", 5), ("service", 0)):
            held = client.hold_records(tag=scene.record["tag"], kind=kind, dry_run=True)
            assert held.n_selected == n_selected
    assert "kind" in parameters_of("hold")
    assert "kind" in parameters_of("export")

    # What is no kind is refused.
    assert ann.post("/v1/records/query", {"query": {"kind": ["tusk"]}}).status_code == 422
    help_text = cli("list", "--help").stdout
    assert "Only of this kind, task or service." in " ".join(help_text.split())
