"""The settings of a manager."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recordledger.api.client.connection import (
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    home_folder,
)
from recordledger.api.settings import On

from ..tasks.engine_names import ENGINES, PROCESSES
from .programs import KNOWN_DISTRIBUTIONS, KNOWN_EXECUTABLES, ProgramSearch

log = logging.getLogger(__name__)


class ManagerConfig(BaseModel):
    """The settings of a manager; most are options of `recordledger manager`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str | None, On("manager", unset="the local one", variable=URL_VARIABLE)] = Field(
        default=None, description="Address of the API."
    )
    token: Annotated[str | None, On("manager", variable=TOKEN_VARIABLE)] = Field(
        default=None, description="Token of role compute, or admin.", repr=False
    )
    token_file: Annotated[Path | None, On("manager", variable=TOKEN_FILE_VARIABLE)] = Field(
        default=None,
        description="File with the token, instead of it; it may be replaced while the manager "
        "runs.",
    )
    name: Annotated[str, On("manager", unset="the host's name")] = Field(
        default_factory=platform.node, description="Name of the manager, for people."
    )
    tags: Annotated[tuple[str, ...], On("manager", option="tag", unset="*")] = Field(
        default=("*",), description="Tag to claim, in this order; * is every tag. Repeatable."
    )
    n_workers: Annotated[
        int | None,
        On("manager", option="workers", unset="the processors, or the workers at --engine-address"),
    ] = Field(default=None, ge=1, description="Number of tasks that run at once.")
    n_workers_min: Annotated[
        int | None, On("manager", option="workers-min", unset="as many as --workers")
    ] = Field(
        default=None, ge=0, description="Number of processes to keep when there are fewer tasks."
    )
    engine: Annotated[str, On("manager", choices=ENGINES)] = Field(
        default=PROCESSES, description="What runs the tasks; see docs/engines.md."
    )
    engine_address: Annotated[str | None, On("manager", unset="one on this machine is started")] = (
        Field(
            default=None,
            description="Address of a running cluster: a scheduler of Dask; a configuration of "
            "Parsl, module:attribute; a connection file or a profile of ipyparallel.",
        )
    )
    engine_folder: Annotated[Path | None, On("manager")] = Field(
        default=None,
        description="Folder that this machine and the workers at --engine-address share. It shows "
        "which tasks have begun and which can still be given back.",
    )
    engine_silence_s: Annotated[float, On("manager")] = Field(
        default=30.0,
        description="Seconds without an answer from the engine after which the manager ends.",
    )
    threads_per_worker: Annotated[int | None, On("manager", unset="the processors, divided")] = (
        Field(default=None, ge=1, description="Threads of numerical libraries in each worker.")
    )
    programs: Annotated[Mapping[str, str | None], On("manager", option="program")] = Field(
        default_factory=dict[str, str | None],
        description="Program that tasks may require, NAME or NAME=VERSION, besides those found and "
        "those that provide the allowed entry points. Repeatable.",
    )
    executables: Annotated[Mapping[str, str], On("manager", option="executable")] = Field(
        default_factory=lambda: dict(KNOWN_EXECUTABLES),
        description="Executable to look for, and the command that prints its version: "
        "NAME='COMMAND --version'. Repeatable; many are known.",
    )
    distributions: Annotated[tuple[str, ...], On("manager", option="distribution")] = Field(
        default=KNOWN_DISTRIBUTIONS,
        description="Installed Python packages to offer as programs, with wildcards. Repeatable; "
        "many are known.",
    )
    survey_s: Annotated[float, On("manager")] = Field(
        default=600.0, gt=0, description="Seconds between two searches for programs."
    )
    allow: Annotated[tuple[str, ...], On("manager")] = Field(
        default=(),
        description="Functions that may be run besides entry points, 'module:function' with "
        "wildcards. Repeatable.",
    )
    state_dir: Annotated[Path, On("manager", unset="in the user's data directory")] = Field(
        default_factory=lambda: home_folder() / "manager",
        description="Folder where results are kept until the server has acknowledged them.",
    )
    lease_s: Annotated[float | None, On("manager", unset="the server's")] = Field(
        default=None,
        gt=0,
        description="Seconds without a heartbeat after which the tasks go to other managers.",
    )
    heartbeat_s: Annotated[float | None, On("manager", unset="the server's")] = Field(
        default=None, gt=0, description="Seconds between two heartbeats; shorter than the lease."
    )
    grace_s: Annotated[float, On("manager")] = Field(
        default=30.0, description="Seconds that running tasks may go on after SIGTERM."
    )
    end_when_idle_s: Annotated[float | None, On("manager", unset="never")] = Field(
        default=None, gt=0, description="Seconds without a task after which the manager ends."
    )
    deliver_s: float = Field(
        default=10.0,
        description="Seconds to wait for the server to take the results when stopping.",
    )
    poll_min_s: float = Field(
        default=0.05, description="Shortest pause between two claims when no task fits."
    )
    poll_max_s: float = Field(
        default=1.5, description="Longest pause between two claims when no task fits."
    )
    flush_s: float = Field(
        default=0.05,
        description="Seconds that a result may wait for others to be returned with.",
    )
    results_per_return: int = Field(
        default=200, description="Maximum number of results in one return."
    )
    prefetch_s: float = Field(
        default=0.5, description="How much work to have ready, in seconds of computing."
    )
    prefetch_max: int = Field(
        default=500, description="Maximum number of tasks beyond those that run."
    )
    unsaved_bytes_max: int = Field(
        default=256 * 1024 * 1024,
        description="Nothing is claimed while more bytes of results than this are in memory only, "
        "because the disk is full and the server does not take them.",
    )
    hold_s: float = Field(
        default=15.0,
        description="Seconds after which tasks that have not begun are given back, when no task "
        "begins or ends.",
    )
    output_bytes_max: int = Field(
        default=1024 * 1024, description="How much of stdout, and of stderr, to keep, in bytes."
    )
    tasks_per_worker_max: int | None = Field(
        default=None, description="Number of tasks after which a worker gets a new process."
    )
    summary_s: float = Field(default=60.0, description="Seconds between two summaries in the log.")

    @property
    def wanted(self) -> ProgramSearch:
        """Which programs to look for."""
        return ProgramSearch(self.programs, self.distributions, self.executables)


def parse_program(text: str) -> tuple[str, str | None]:
    """Return a program and its version: as given, or of the installed package of that name.

    >>> parse_program("Psi4=1.9.1")
    ('psi4', '1.9.1')

    Raises:
        ValueError: there is no name.
    """
    name, given, found = (part.strip() for part in text.partition("="))
    if not name or (given and not found):
        raise ValueError(f"{text!r} is not a program: write NAME or NAME=VERSION")
    if found:
        return name.lower(), found.lstrip("=")
    try:
        return name.lower(), version(name)
    except PackageNotFoundError:
        log.warning(
            "the Python package %s is not installed here, so its version is unknown; give it with "
            "--program %s=VERSION",
            name,
            name,
        )
        return name.lower(), None
