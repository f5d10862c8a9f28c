"""Types of fields, and limits, that several requests share."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from recordledger.domain.streams import ID_MAX

RecordId = Annotated[int, Field(ge=1, le=ID_MAX)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")
]
PriorityName = Literal["low", "normal", "high"]
# Limits that hold whatever the settings say: they keep one request's cost bounded.
IDS_MAX: Final = 10_000
CLAIM_MAX: Final = 1_000
PAGE_MAX: Final = 1_000
MANAGED_MAX: Final = 1_000_000
