"""How much the tests do: little in `make test`, much in `make soak`.

`RECORDLEDGER_TEST_SIZE=large` asks for much. The promises are the same; only the numbers of
examples, records and kills are not.
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
    """Return a number of examples, records or kills, for this run."""
    return large if LARGE else small
