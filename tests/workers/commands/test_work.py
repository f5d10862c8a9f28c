"""`recordledger work` in a process of its own: what it does is what the API shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.api.service import Service, Visit, eventually, is_problem

URL = "http://127.0.0.1:9/"


@contextmanager
def working(service: Service, *options: str) -> Generator[subprocess.Popen[bytes]]:
    """Run `recordledger work` with these options, and nothing of them in the environment."""
    command = [
        sys.executable,
        "-m",
        "recordledger.workers.cli",
        "work",
        "--no-services",
        "--no-seal",
    ]
    url = f"--database-url={service.settings.database_url}"
    process = subprocess.Popen([*command, url, *options])  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def failed_after_s(visit: Visit) -> Any:
    return visit.get("/v1/policies").json()["failed_after_s"]


def test_the_api_shows_the_policy_that_work_was_given_on_its_command_line(
    service: Service, ann: Visit
) -> None:
    assert failed_after_s(ann) is None
    with working(service, "--failed-after-s=7200"):
        eventually(lambda: failed_after_s(ann) == 7200.0)
    # It was killed: nothing is carried out any more.
    eventually(lambda: failed_after_s(ann) is None)


def test_the_api_takes_webhooks_where_work_may_send_to(service: Service, ann: Visit) -> None:
    is_problem(ann.post("/v1/webhooks", {"url": URL}), 422, "address_refused")
    with working(service, "--webhook-allow-private=127.0.0.0/8"):
        eventually(lambda: ann.post("/v1/webhooks", {"url": URL}).status_code == 200)
    eventually(lambda: ann.post("/v1/webhooks", {"url": URL}).status_code == 422)
