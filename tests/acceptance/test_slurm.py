"""Pilot jobs: managers that a batch system starts, warns and ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from tests.postgres import new_database

from .installation import CLI, ROOT, TASKS, Installation, Site, family, kill_family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")

FAKE = Path(__file__).with_name("fake_sbatch.py")


@pytest.fixture(scope="module")
def installation(postgres_server_url: str, migrated_template: str) -> Iterator[Installation]:
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        contextlib.ExitStack() as stack,
    ):
        yield Installation(url, stack)


@pytest.fixture
def site(installation: Installation, tmp_path: Path) -> Iterator[Site]:
    made = Site(installation, f"t{abs(hash(tmp_path.name))}", tmp_path)
    yield made
    made.end()


class Job:
    """A pilot job that was submitted as its user would: `slurm-script ... | sbatch`."""

    def __init__(self, site: Site, *slurm: str, manager: tuple[str, ...] = ()) -> None:
        self.folder = site.folder / "slurm"
        self.folder.mkdir()
        path = self.folder / "sbatch"
        path.write_text(f"#!/bin/sh\nexec {sys.executable} {FAKE}\n")
        path.chmod(0o755)
        token_file = site.folder / "token"
        token_file.write_text(issue_token(site.installation.ledger, "pilot", Role.compute).secret)
        written = subprocess.run(  # noqa: S603
            [
                *CLI,
                "manager",
                "slurm-script",
                f"--program={' '.join(CLI)}",
                *slurm,
                "--",
                f"--url={site.installation.url}",
                f"--token-file={token_file}",
                f"--tag={site.tag}",
                f"--allow={TASKS}:*",
                f"--state-dir={site.folder / 'state'}",
                *manager,
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        self._log = (self.folder / "log").open("w+")
        site.at_end(self._log.close)
        self._sbatch = subprocess.Popen(
            ["sbatch"],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("RECORDLEDGER_")},
                "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "FAKE_SLURM": str(self.folder),
            },
        )
        site.at_end(self._kill)
        assert self._sbatch.stdin is not None
        self._sbatch.stdin.write(written.stdout)
        self._sbatch.stdin.close()

    def has(self, what: str) -> None:
        """Let this come over the job."""
        (self.folder / what).touch()

    def has_said(self, what: str) -> bool:
        """Whether it has written this so far."""
        return what in (self.folder / "log").read_text()

    def status(self) -> int:
        """Wait for the end; return the job's exit status."""
        self._sbatch.wait(timeout=60)
        self._log.seek(0)
        print(self._log.read())
        return int((self.folder / "status").read_text())

    def _kill(self) -> None:
        """End it with its manager, if the test did not come to its end."""
        if self._sbatch.poll() is None:
            kill_family(family(self._sbatch.pid))
        self._sbatch.wait()

    def was_killed(self) -> bool:
        """Whether the job did not end by itself in its grace."""
        return (self.folder / "killed").exists()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("limit", "Slurm job 4711 is near its time limit"),
        ("preempt", "Slurm job 4711 was preempted or cancelled"),
    ],
)
def test_what_a_pilot_job_cannot_finish_is_given_back_and_is_no_error(
    site: Site, what: str, reason: str
) -> None:
    short, long = site.meetings("ab")
    waiting = site.add("echo", n=1)
    job = Job(site, "--grace-s=19", "--cores=2", "--time-min=5", manager=("--workers=2",))
    site.begin("ab")
    job.has(what)
    site.eventually(lambda: job.has_said(reason), "the manager was warned")
    # The first ends within the grace. The second does not, and nothing else is begun.
    site.may_end("a")
    assert job.status() == 0
    assert not job.was_killed()
    assert site.events(short) == ["created", "claimed", "completed"]
    assert site.events(long) == ["created", "claimed", "relinquished"]
    assert site.client.history(long)[-1].reason == reason
    assert "claimed" not in site.events(waiting) or site.events(waiting)[-1] == "relinquished"
    # Another manager finishes it.
    site.may_end("b")
    site.manager()
    site.settle()


def test_a_pilot_job_with_nothing_to_do_ends_and_frees_its_node(site: Site) -> None:
    done = site.add("echo", n=1)
    job = Job(site, manager=("--end-when-idle-s=0.5",))
    assert job.status() == 0
    assert site.events(done) == ["created", "claimed", "completed"]


def test_a_script_holds_no_secret_and_no_broken_line() -> None:
    for options, complaint in (
        (("--", "--token=s3cret"), "--token would be readable in the script"),
        (("--partition=a b",), "has spaces"),
        (("--grace-s=5",), "must be longer than 15 s"),
        (("--time-min=1", "--grace-s=60"), "shorter than the job's 1 minutes"),
        (("--setup=a\nb",), "each line of the setup"),
    ):
        refused = subprocess.run(  # noqa: S603
            [*CLI, "manager", "slurm-script", *options],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert refused.returncode == 2
        assert complaint in refused.stderr
        assert refused.stdout == ""
