"""The states of a manager."""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Final


class ManagerState(StrEnum):
    """Whether a manager may claim. Its id is new at every boot, so nobody comes back."""

    active = auto()
    draining = auto()
    inactive = auto()
    lost = auto()


ALIVE: Final = frozenset({ManagerState.active, ManagerState.draining})
