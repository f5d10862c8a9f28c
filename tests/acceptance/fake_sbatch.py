"""A stand-in for Slurm's `sbatch`: runs the script here, and ends it as Slurm ends jobs.

It reads a script, checks the #SBATCH lines as far as they matter here, and runs it with bash. It
signals the job when a file appears in the folder FAKE_SLURM: `limit` for the time limit, which the
job was to be told of before, `preempt` for a preemption. When the grace is over it kills what is
left, and it writes the job's exit status.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05
# Between SIGTERM and SIGKILL at a preemption (Slurm's GraceTime).
PREEMPTION_GRACE_S: Final = 15


def options_of(script: str) -> dict[str, str]:
    """Return what the #SBATCH lines before the first command ask for."""
    found: dict[str, str] = {}
    for line in script.splitlines()[1:]:
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            option = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=([^\s#]+))?", line)
            if option is None:
                sys.exit(f"sbatch: error: unrecognized option: {line}")
            found[option[1]] = option[2] or ""
    return found


def main() -> None:
    """Run one job to its end."""
    folder = Path(os.environ["FAKE_SLURM"])
    script = sys.stdin.read()
    if not script.startswith("#!"):
        sys.exit("sbatch: error: This does not look like a batch script.")
    options = options_of(script)
    early = re.fullmatch(r"B:USR1@(\d+)", options["signal"])
    if early is None or not re.fullmatch(r"\d+-\d\d:\d\d:\d\d", options["time"]):
        sys.exit("sbatch: error: Invalid specification")
    path = folder / "slurm_script"
    path.write_text(script)
    job = subprocess.Popen(  # noqa: S603
        ["/bin/bash", str(path)],
        env={
            **os.environ,
            "SLURM_JOB_ID": "4711",
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
        },
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    print("Submitted batch job 4711", flush=True)
    (folder / "pid").write_text(str(job.pid))
    kill_at: float | None = None
    while job.poll() is None:
        time.sleep(POLL_S)
        if kill_at is None and (folder / "limit").exists():
            job.send_signal(signal.SIGUSR1)
            kill_at = time.monotonic() + int(early[1])
        elif kill_at is None and (folder / "preempt").exists():
            job.send_signal(signal.SIGCONT)
            job.send_signal(signal.SIGTERM)
            kill_at = time.monotonic() + PREEMPTION_GRACE_S
        elif kill_at is not None and time.monotonic() > kill_at:
            os.killpg(job.pid, signal.SIGKILL)
            (folder / "killed").touch()
    (folder / "status").write_text(str(job.wait()))


if __name__ == "__main__":
    main()
