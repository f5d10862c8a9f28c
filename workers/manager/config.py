"""What a manager is told when it is started."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recordledger.api.client import home_folder

from ..tasks.engine_names import PROCESSES
from .programs import KNOWN_DISTRIBUTIONS, KNOWN_EXECUTABLES, ProgramSearch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """What a manager is told. Durations are in seconds.

    Attributes:
        url: the server's address; None finds it as every client does.
        token: likewise.
        token_file: a file with the token, which may be replaced while the manager runs.
        name: as people know it.
        tags: what to claim, in this order; `*` is everything.
        n_workers: how many tasks to run at the same time; None for the processors, or for as many
            as the cluster at `engine_address` has workers.
        n_workers_min: how many processes to keep when there is less to do; None for all.
        engine: what runs the tasks, one of `engine_names.ENGINES`; see `docs/engines.md`.
        engine_address: of a cluster that runs, as the engine understands it; None starts one here.
        engine_folder: a folder that this machine and the workers of that cluster see.
        engine_silence_s: how long the engine may show no sign of life before the manager ends.
        threads_per_worker: for numerical libraries; None divides the processors.
        programs: what tasks may require, name to version; what is found is added, and so is what
            provides the allowed entry points.
        distributions: patterns of installed Python packages that are offered as programs.
        executables: programs, and the commands that print their versions.
        survey_s: how often to look which programs there are.
        allow: `module:function` patterns of what may be run besides entry points.
        state_dir: where results are until they are acknowledged.
        lease_s, heartbeat_s: None for the server's defaults.
        grace_s: how long running tasks may go on when the manager is stopped.
        deliver_s: how long to wait for the server to take the results when stopping.
        poll_min_s, poll_max_s: pauses between claims when nothing fits.
        flush_s: how long a result may wait for others to be returned with.
        results_per_return: at most.
        prefetch_s: how much work to have ready, in seconds of computing.
        prefetch_max: at most so many tasks beyond those that run.
        unsaved_bytes_max: claim nothing while more bytes of results than that are in memory only,
            because the disk is full and the server does not take them.
        hold_s: give tasks back that did not begin within this time, when nothing moves.
        output_bytes_max: how much of stdout, and of stderr, to keep.
        tasks_per_worker_max: give a slot a new process after so many tasks; None for never.
        end_when_idle_s: end when there was nothing to do for so long; None for never.
        summary_s: how often to log what was done.
    """

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    name: str = field(default_factory=platform.node)
    tags: tuple[str, ...] = ("*",)
    n_workers: int | None = None
    engine: str = PROCESSES
    engine_address: str | None = None
    engine_folder: Path | None = None
    engine_silence_s: float = 30.0
    threads_per_worker: int | None = None
    n_workers_min: int | None = None
    programs: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    distributions: tuple[str, ...] = KNOWN_DISTRIBUTIONS
    executables: Mapping[str, str] = field(default_factory=lambda: dict(KNOWN_EXECUTABLES))
    survey_s: float = 600.0
    allow: tuple[str, ...] = ()
    state_dir: Path = field(default_factory=lambda: home_folder() / "manager")
    lease_s: float | None = None
    heartbeat_s: float | None = None
    grace_s: float = 30.0
    deliver_s: float = 10.0
    poll_min_s: float = 0.05
    poll_max_s: float = 1.5
    flush_s: float = 0.05
    results_per_return: int = 200
    prefetch_s: float = 0.5
    prefetch_max: int = 500
    unsaved_bytes_max: int = 256 * 1024 * 1024
    hold_s: float = 15.0
    output_bytes_max: int = 1024 * 1024
    tasks_per_worker_max: int | None = None
    end_when_idle_s: float | None = None
    summary_s: float = 60.0

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
        raise ValueError(f"{text!r} is no program: write NAME or NAME=VERSION")
    if found:
        return name.lower(), found.lstrip("=")
    try:
        return name.lower(), version(name)
    except PackageNotFoundError:
        log.warning(
            "%s is no Python package that is installed here, so its version is unknown; "
            "give it with --program %s=VERSION",
            name,
            name,
        )
        return name.lower(), None
