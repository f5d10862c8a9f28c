"""The circuit breaker: a manager whose tasks fail in a row gets no more of them for a while.

Failures are counted for each manager and program, so that a node without scratch space, or with a
broken installation, does not turn a whole queue into errors. After a pause one task is tried; if it
ends well all is as before, and if not the pause doubles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from ..records.events import Event, Stamp
from .lanes import program_names
from .manager import ManagerAggregate, ProgramProbed, ProgramResumed, ProgramSuspended

# Stands for "no program" among the programs of a task that requires none.
NO_PROGRAM: Final = "(none)"

# Error types that are usually about a task's input and not about the node.
INPUT_ERRORS: Final = (
    "ValueError",
    "TypeError",
    "KeyError",
    "IndexError",
    "AttributeError",
    "AssertionError",
    "ArithmeticError",
    "ZeroDivisionError",
    "OverflowError",
    "FloatingPointError",
    "NotImplementedError",
    "*Convergence*",
    "ResultTooLarge",
    "ResultNotSerializable",
)


@dataclass(frozen=True, slots=True)
class Breaker:
    """When to stop giving tasks to a manager, and for how long.

    Attributes:
        failures: number in a row that suspends a program; 0 switches the breaker off.
        pause_s, pause_s_max: seconds until it is tried again; they double from the one to the
            other.
        ignores: patterns of error types that neither count nor end a row.
    """

    failures: int = 10
    pause_s: float = 60.0
    pause_s_max: float = 3_600.0
    ignores: tuple[str, ...] = INPUT_ERRORS

    def counts(self, error_type: str | None) -> bool:
        """Return whether an error of this type counts as a failure of the node.

        >>> Breaker().counts("FileNotFoundError"), Breaker().counts("ValueError")
        (True, False)
        """
        if self.failures == 0 or error_type is None:
            return False
        return not any(fnmatchcase(error_type, pattern) for pattern in self.ignores)

    def pause(self, n_times: int) -> timedelta:
        """Return for how long a program rests that is suspended for the nth time on end."""
        return timedelta(seconds=min(self.pause_s * 2.0 ** min(n_times - 1, 60), self.pause_s_max))


class AttemptEnd(NamedTuple):
    """How an attempt of this manager has ended; `error_type` is None if it went well."""

    required_programs: Sequence[str]
    error_type: str | None


def programs_of(required_programs: Iterable[str]) -> list[str]:
    """Return the names of the programs that failures of such a task are counted for.

    >>> programs_of(["psi4>=1.9", "dftd3"]), programs_of([])
    (['dftd3', 'psi4'], ['(none)'])
    """
    return sorted(program_names(required_programs)) or [NO_PROGRAM]


def judge(
    manager: ManagerAggregate,
    streaks: Mapping[str, int],
    ended: Iterable[AttemptEnd],
    breaker: Breaker,
    stamp: Stamp,
) -> tuple[list[Event], dict[str, int]]:
    """Return what follows for a manager from how its attempts have ended.

    Args:
        manager: as it is.
        streaks: how many failures in a row there are of each program; none is 0.
        ended: in the order in which they were returned.
        breaker: the rules.
        stamp: of this operation.

    Returns:
        The events of the manager, and the failures in a row after all this.
    """
    events: list[Event] = []
    counted = dict(streaks)
    suspended = dict(manager.suspended)
    for required_programs, error_type in ended:
        for program in programs_of(required_programs):
            suspension = suspended.get(program)
            if error_type is None:
                counted.pop(program, None)
                if suspended.pop(program, None) is not None:
                    events.append(ProgramResumed(program=program, **stamp.model_dump()))
                continue
            if not breaker.counts(error_type):
                continue
            counted[program] = counted.get(program, 0) + 1
            if suspension is None:
                is_over, n_times = counted[program] >= breaker.failures, 1
            else:
                # What was claimed before the suspension says nothing new; a probe does.
                is_over, n_times = suspension.probing, suspension.n_times + 1
            if is_over:
                event = ProgramSuspended(
                    program=program,
                    n_times=n_times,
                    n_failures=counted[program],
                    error_type=error_type,
                    until=stamp.timestamp + breaker.pause(n_times),
                    **stamp.model_dump(),
                )
                events.append(event)
                suspended[program] = event.suspension
    return events, counted


def due_probes(manager: ManagerAggregate, now: datetime) -> list[str]:
    """Return the suspended programs of which one task may be tried now."""
    return sorted(name for name, each in manager.suspended.items() if each.until <= now)


def probe(
    manager: ManagerAggregate, program: str, record_id: int, breaker: Breaker, stamp: Stamp
) -> Event:
    """Return the event that a task is tried: until it ends, or the pause is over, no other is."""
    pause = breaker.pause(manager.suspended[program].n_times)
    return ProgramProbed(
        program=program, record_id=record_id, until=stamp.timestamp + pause, **stamp.model_dump()
    )
