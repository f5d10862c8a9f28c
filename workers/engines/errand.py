"""What an executor carries to its workers: a task with all it needs, as bytes, and its outcome.

Requests are JSON, for its integers have no bound; outcomes are msgpack. Executors look into the
arguments that they carry, for futures and similar objects; bytes they leave alone.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

import msgpack

from recordledger import __version__

from ..tasks.running import Report, run_task
from .process import SECRET_VARIABLES
from .tickets import Begun, TicketFolderMissing, take

# Output is caught for the whole process, so a process with several threads runs one task at a time.
_one_at_a_time: Final = threading.Lock()


class ErrandOutcome(TypedDict):
    """What a worker says of an errand.

    Attributes:
        report: the outcome of the task; missing if it was not run.
        begun: which process ran it: id, birth and host.
        missing_folder: why the ticket could not be looked for.
    """

    report: NotRequired[Report]
    begun: NotRequired[tuple[int, int, str]]
    missing_folder: NotRequired[str]


class Introduction(TypedDict):
    """What a worker says of itself."""

    version: str
    hostname: str
    pid: int
    sees_folder: bool


def errand(
    function: str, kwargs: Mapping[str, Any], settings: Mapping[str, Any], ticket: Path | None
) -> bytes:
    """Return the request to run a task, if its ticket can be taken."""
    return json.dumps(
        {
            "function": function,
            "kwargs": kwargs,
            "settings": settings,
            "ticket": None if ticket is None else str(ticket),
            "hostname": platform.node(),
        }
    ).encode()


def carry_out(request: bytes) -> bytes:
    """Run a task in this process; return an `ErrandOutcome`."""
    given: dict[str, Any] = json.loads(bytes(request))
    with _one_at_a_time:
        return msgpack.packb(_carry_out(given))


def _carry_out(given: dict[str, Any]) -> ErrandOutcome:
    settings: dict[str, Any] = given["settings"]
    outcome = ErrandOutcome()
    if given["ticket"] is not None:
        ticket = Path(given["ticket"])
        try:
            begun = take(ticket)
        except TicketFolderMissing as error:
            return ErrandOutcome(missing_folder=str(error))
        if begun is None:
            return outcome  # it was cancelled, or has been begun before
        outcome["begun"] = (begun.pid, begun.born, begun.hostname)
        if begun.hostname == given["hostname"]:
            settings = {**settings, "output_folder": str(begun.output_folder(ticket.parent))}
    for variable in SECRET_VARIABLES:
        os.environ.pop(variable, None)
    outcome["report"] = run_task(given["function"], given["kwargs"], settings)
    return outcome


def introduce(request: bytes) -> bytes:
    """Return an `Introduction` of this process, which shows that it can run tasks."""
    folder: str | None = json.loads(bytes(request))
    begun = Begun.by_this_process()
    return msgpack.packb(
        Introduction(
            version=__version__,
            hostname=begun.hostname,
            pid=begun.pid,
            sees_folder=folder is None or Path(folder).is_dir(),
        )
    )
