"""What the routes of histories share: conditions on events, and how far a page has come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import AwareDatetime

from recordledger.domain.errors import InvalidInput
from recordledger.projections.reading import event_log

from ..schemas.fields import ShortText

_MANY: Final = 100
# Events come into the log in the order of commits: an older one can be this much later, and more.
_SLACK: Final = timedelta(hours=1)

Kinds = Annotated[list[str] | None, Query(max_length=_MANY, description="Like completed.")]
Actors = Annotated[list[ShortText] | None, Query(max_length=_MANY, description="Like user:ann.")]
After = Annotated[AwareDatetime | None, Query(description="Only from then on.")]
Before = Annotated[AwareDatetime | None, Query(description="Only before then.")]


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which events of a history are wanted: those that meet every condition that is given."""

    kinds: frozenset[str] = frozenset()
    actors: frozenset[str] = frozenset()
    start: datetime | None = None
    end: datetime | None = None

    def admits(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event, as it is shown, meets the conditions."""
        return (
            (not self.kinds or event["kind"] in self.kinds)
            and (not self.actors or event["actor"] in self.actors)
            and (self.start is None or event["timestamp"] >= self.start)
            and (self.end is None or event["timestamp"] < self.end)
        )

    def is_past(self, times: Iterable[datetime], newest_first: bool) -> bool:
        """Return whether a page of the log has gone so far that the rest is beyond the times."""
        bound = self.start if newest_first else self.end
        if bound is None:
            return False
        if newest_first:
            return any(time < bound - _SLACK for time in times)
        return any(time > bound + _SLACK for time in times)

    def through(self, events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the events that meet the conditions."""
        return list(filter(self.admits, events))


async def _history_filter(
    kind: Kinds = None, actor: Actors = None, after: After = None, before: Before = None
) -> Sieve:
    return Sieve(
        kinds_of(kind),
        frozenset(actor or ()),
        None if after is None else in_utc(after, "after"),
        None if before is None else in_utc(before, "before"),
    )


Wanted = Annotated[Sieve, Depends(_history_filter)]
"""The conditions of a request: `kind`, `actor`, `after`, `before`."""


def kinds_of(given: list[str] | None) -> frozenset[str]:
    """Return the kinds of events that are asked for.

    Raises:
        InvalidInput: there is no such kind.
    """
    for each in given or ():
        if each not in event_log.KINDS:
            raise InvalidInput(
                f"there is no kind of event {each[:80]!r}; docs/reference/events.md lists all"
            )
    return frozenset(given or ())


def in_utc(moment: datetime, where: str) -> datetime:
    """Return the same moment in UTC.

    Raises:
        InvalidInput: there it is in no year that a date can have.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{where}: {moment} is beyond the years 1 to 9999 in UTC") from None
