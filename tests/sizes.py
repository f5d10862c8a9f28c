"""How much the tests do: little in `make test`, much in `make soak`.

`RECORDLEDGER_TEST_SIZE=large` asks for much. The promises are the same; only the numbers of
examples, records and kills are not. All of them are here.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

LARGE: Final = os.environ.get("RECORDLEDGER_TEST_SIZE") == "large"

PROFILE: Final = "large" if LARGE else "small"

settings.register_profile("small", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("large", deadline=None, max_examples=1_000, print_blob=True)
settings.register_profile("quick", deadline=None, max_examples=10)


def size(small: int, large: int) -> int:
    """Return one of the two, for this run."""
    return large if LARGE else small


# Examples of Hypothesis where the profile's number is too small or too large.
N_FLIPPED_NOTES: Final = size(100, 3_000)
N_FAMILIES_TAKEN_BACK: Final = size(100, 2_000)
N_NESTED_REQUESTS: Final = size(80, 1_000)
N_SPOILT_REQUESTS: Final = size(200, 4_000)
N_HISTORIES_REPLAYED: Final = size(8, 100)
N_BUSY_DAYS: Final = size(1, 20)

# Runs of the machines that send random requests to a ledger, and requests in each.
N_LEDGER_RUNS: Final = size(10, 300)
N_LEDGER_STEPS: Final = 15
N_MANAGEMENT_RUNS: Final = size(4, 100)
N_MANAGEMENT_STEPS: Final = 25
N_DATASET_RUNS: Final = size(4, 100)
N_DATASET_STEPS: Final = 20
N_SERVICE_RUNS: Final = size(3, 60)
N_SERVICE_STEPS: Final = 25

# Processes that are killed in `tests/acceptance`: at least each kind of them once.
N_CRASHES: Final = size(3, 20)
N_CRASH_TASKS: Final = size(200, 2_000)
N_CRASH_SERVICES: Final = size(25, 100)
N_FOLLOWED_EVENTS: Final = size(1_000, 10_000)
N_BAND_KILLS: Final = size(4, 12)
N_SOAK_MANAGERS: Final = size(16, 60)
N_SOAK_TASKS: Final = size(2_000, 20_000)
