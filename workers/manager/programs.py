"""What a manager can offer: installed distributions, executables, and stated programs."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from threading import Event, Thread
from typing import Final

from recordledger.domain.errors import InvalidInput
from recordledger.domain.routing.lanes import parse_programs

log = logging.getLogger(__name__)

Programs = dict[str, str | None]

COMMAND_S_MAX: Final = 30.0
OUTPUT_CHARACTERS_MAX: Final = 100_000
_AT_ONCE: Final = 4
_VERSION: Final = re.compile(
    r"(?<![\w.])v?(\d+(?:\.\d+)+(?:(?:a|b|rc|\.post|\.dev)\d+)?)", re.IGNORECASE
)

# What is looked for without being asked. A program is a distribution, an executable, or both.
KNOWN_DISTRIBUTIONS: Final = (
    "ase",
    "dftd3",
    "dftd4",
    "geometric",
    "openmm",
    "psi4",
    "pyscf",
    "qcengine",
    "rdkit",
    "tblite",
    "torchani",
    "xtb",
)
KNOWN_EXECUTABLES: Final[Mapping[str, str]] = {
    "cp2k": "cp2k.psmp --version",
    "dftb+": "dftb+ --version",
    "dftd3": "s-dftd3 --version",
    "dftd4": "dftd4 --version",
    "gromacs": "gmx --version",
    "lammps": "lmp -h",
    "mopac": "mopac --version",
    "psi4": "psi4 --version",
    "xtb": "xtb --version",
}


@dataclass(frozen=True, slots=True)
class ProgramSearch:
    """What to look for.

    Attributes:
        stated: programs with their versions, as configured; they override what is found.
        distributions: patterns of names of installed distributions.
        executables: program to the command that prints its version.
    """

    stated: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    distributions: Sequence[str] = KNOWN_DISTRIBUTIONS
    executables: Mapping[str, str] = field(default_factory=lambda: dict(KNOWN_EXECUTABLES))


def survey(wanted: ProgramSearch) -> Programs:
    """Return what is there now: name, in lower case, to version, or to None if that is unknown.

    An executable is there if the shell would find it; what its version command prints is searched
    for the first thing that looks like a version. A command that fails or takes longer than
    `COMMAND_S_MAX` seconds leaves the version unknown.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="survey") as pool:
        present = {
            name: command
            for name, command in wanted.executables.items()
            if shutil.which(shlex.split(command)[0]) is not None
        }
        versions = dict(zip(present, pool.map(version_of, present.values()), strict=True))
    stated = parse_programs(wanted.stated)
    return parse_programs({**versions, **_installed(wanted.distributions), **stated})


def version_of(command: str) -> str | None:
    """Return the version that a command prints; None if it does not, or cannot be run.

    What it prints is searched whatever its exit status is: `--version` is an error to some.
    """
    try:
        with subprocess.Popen(  # noqa: S603 - it is what the manager's owner wrote
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                output = process.communicate(timeout=COMMAND_S_MAX)[0]
            except subprocess.TimeoutExpired:
                _kill(process)
                log.warning("%s did not end within %g s", command, COMMAND_S_MAX)
                return None
    except OSError as error:
        log.warning("cannot run %s: %s", command, error)
        return None
    found = _VERSION.search(output.decode("utf-8", "replace")[:OUTPUT_CHARACTERS_MAX])
    return found[1] if found else None


def parse_executable(text: str) -> tuple[str, str]:
    """Return a program and the command that prints its version.

    >>> parse_executable("XTB=xtb --version")
    ('xtb', 'xtb --version')

    Raises:
        ValueError: there is no name, or no command.
    """
    name, _, command = (part.strip() for part in text.partition("="))
    try:
        if not shlex.split(command):
            raise ValueError(f"{text!r} has no command: write NAME=COMMAND")
        (name,) = parse_programs({name: None})
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return name, command


class Surveyor:
    """The thread that searches again at intervals, and reports what has changed.

    Args:
        look: returns what is there.
        tell: called with all of it if it is not what it was.
        interval_s: seconds between two looks.
        programs: what was there at first.
    """

    def __init__(
        self,
        look: Callable[[], Programs],
        tell: Callable[[Programs], None],
        interval_s: float,
        programs: Programs,
    ) -> None:
        self._look = look
        self._tell = tell
        self._interval_s = interval_s
        self._programs = programs
        self._ended = Event()
        self._thread = Thread(target=self._run, name="surveyor", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                found = self._look()
            except Exception:
                # It looks at whatever is installed there; what it meets must not end it.
                log.exception("cannot search for programs")
                continue
            if found != self._programs and not self._ended.is_set():
                self._programs = found
                self._tell(found)


def _installed(patterns: Iterable[str]) -> Programs:
    wanted = [pattern.lower().replace("_", "-") for pattern in patterns]
    found: Programs = {}
    for distribution in distributions():
        plain = str(distribution.metadata["Name"]).lower().replace("_", "-")
        # The first on the path is the one that is imported.
        if plain not in found and any(fnmatchcase(plain, pattern) for pattern in wanted):
            found[plain] = distribution.version
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        # It may have started others, which hold its output open.
        os.killpg(process.pid, signal.SIGKILL)
