"""Managers as jobs of Slurm: the script of a pilot job, and what its signals mean."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PLAIN: Final = re.compile(r"[^\s#]+")
_SECRETS: Final = ("--token", "--database-url")

# Given back a little before the signal's grace is over, so that the server is notified.
SPARE_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotJob:
    """A job that runs one manager.

    Attributes:
        manager: options of `recordledger manager`.
        time_min: the job's limit in minutes.
        cores: processor cores of the job, and workers of its manager.
        mem_gb: memory in GB; None for the cluster's default.
        n_jobs: how many such jobs, as an array.
        grace_s: seconds before the limit at which the manager is asked to end.
        partition, account, name: as Slurm knows them.
        setup: lines of shell to run first, such as `module load psi4`.
        program: how `recordledger` is called there.
    """

    manager: Sequence[str] = ()
    time_min: int = 60
    cores: int = 1
    mem_gb: int | None = None
    n_jobs: int = 1
    grace_s: float = 120.0
    partition: str | None = None
    account: str | None = None
    name: str = "recordledger-manager"
    setup: Sequence[str] = ()
    program: str = "recordledger"


def pilot_script(job: PilotJob) -> str:
    """Return the script for `sbatch`.

    The manager takes the place of the script's shell (`exec`), so that Slurm's signals reach it
    directly and once: SIGUSR1 before the time limit, SIGTERM at a preemption or `scancel`. Either
    makes it give back what it cannot finish, so that no record becomes an error of it.

    Raises:
        ValueError: a value cannot be written into the script, or a secret would stand in it.
    """
    for option in job.manager:
        if option.partition("=")[0] in _SECRETS:
            raise ValueError(
                f"{option.partition('=')[0]} would be readable in the script: use --token-file, or "
                "set RECORDLEDGER_TOKEN in the environment of sbatch"
            )
    if not SPARE_S < job.grace_s < 60 * job.time_min:
        raise ValueError(
            f"the grace of {job.grace_s:g} s must be longer than {SPARE_S:g} s, and shorter than "
            f"the job's {job.time_min} minutes"
        )
    days, minutes = divmod(job.time_min, 24 * 60)
    options = {
        "job-name": job.name,
        "partition": job.partition,
        "account": job.account,
        "time": f"{days}-{minutes // 60:02}:{minutes % 60:02}:00",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(job.cores),
        "mem": None if job.mem_gb is None else f"{job.mem_gb}G",
        "array": None if job.n_jobs == 1 else f"1-{job.n_jobs}",
        # B: to the batch shell alone, whose place the manager takes.
        "signal": f"B:USR1@{math.ceil(job.grace_s)}",
        # What the job had is given back; Slurm need not start it again.
        "no-requeue": "",
        "open-mode": "append",
    }
    for name, value in options.items():
        if value and not _PLAIN.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the job's {name}: it has spaces or a #")
    if any("\n" in line for line in job.setup):
        raise ValueError("give each line of the setup as an option of its own")
    command = [
        *shlex.split(job.program),
        "manager",
        f"--workers={job.cores}",
        f"--grace-s={job.grace_s - SPARE_S:g}",
        *job.manager,
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            "# A manager of Record Ledger for as long as this job runs.",
            *(
                f"#SBATCH --{name}" + (f"={value}" if value else "")
                for name, value in options.items()
                if value is not None
            ),
            "",
            *job.setup,
            "# exec: Slurm's signals shall reach the manager itself.",
            f"exec {shlex.join(command)}",
            "",
        ]
    )


def stop_reasons() -> dict[signal.Signals, str]:
    """Return what the signals that end a manager mean here."""
    reasons = {
        signal.SIGTERM: "the manager was told to stop",
        signal.SIGINT: "the manager was told to stop",
    }
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None:
        reasons[signal.SIGTERM] = f"Slurm job {job} was preempted or cancelled"
        reasons[signal.SIGUSR1] = f"Slurm job {job} is near its time limit"
    return reasons
