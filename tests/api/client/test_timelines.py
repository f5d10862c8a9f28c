"""Timelines and sentences: how the client draws a life, and says what has happened."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from recordledger.api.client import Timeline, Timelines
from recordledger.api.client.results.events import HistoryEvent, LogEvent, LogEvents
from recordledger.api.client.results.timelines import LOOKS, PAUSE, Axis, Period
from recordledger.api.client.words import in_words, sentences
from recordledger.domain.records.status import Status
from recordledger.projections.reading.event_log import KINDS

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def life(*parts: tuple[str, float], record_id: int = 411, start_s: float = 0) -> Timeline:
    """Return a timeline of statuses and how long each was; the last one goes on."""
    periods: list[Period] = []
    moment, attempt = T0 + timedelta(seconds=start_s), 0
    for index, (name, seconds) in enumerate(parts):
        is_last = index == len(parts) - 1
        status = Status.waiting if name == "pause" else Status(name)
        attempt += status is Status.running
        end = moment + timedelta(seconds=seconds)
        periods.append(
            Period(
                status=status,
                start=moment,
                end=None if is_last else end,
                duration_s=seconds,
                attempt=attempt if status is Status.running else None,
                manager_id=3 if status is Status.running else None,
                is_pause=name == "pause",
                began_by="created",
                ended_by=None if is_last else "lease_expired",
            )
        )
        moment = end
    return Timeline(record_id=record_id, as_of=moment, periods=periods)


DONE = life(
    ("waiting", 60), ("running", 20), ("error", 0), ("pause", 10), ("running", 30), ("complete", 9)
)


def bar(timeline: Timeline, width: int = 60) -> str:
    axis = Timelines([timeline]).axis(width)
    segments = timeline.segments(axis)
    return " " * segments[0].start + "".join(each.text for each in segments)


def test_a_bar_has_a_letter_for_each_status_and_the_numbers_of_the_attempts() -> None:
    assert bar(DONE) == "w" * 30 + "r1" + "r" * 8 + "p" * 5 + "r2" + "r" * 13 + "C"
    assert DONE.n_attempts == 2
    assert (DONE.waiting_s, DONE.running_s) == (70, 50)


def test_what_took_no_time_is_not_drawn_and_what_took_little_is() -> None:
    drawn = bar(life(("waiting", 86_400), ("running", 1), ("waiting", 86_400), ("held", 1)))
    assert drawn == "w" * 30 + "r" + "w" * 29 + "h"
    late = life(("waiting", 10), ("running", 0.1), ("waiting", 0.1), ("running", 0.1), ("error", 1))
    assert bar(late, 20) == "w" * 17 + "rwr" + "e"


def test_a_record_that_waits_or_runs_is_drawn_until_now() -> None:
    assert bar(life(("waiting", 10), ("running", 10)), 20) == "w" * 10 + "r1" + "r" * 8
    assert bar(life(("waiting", 0)), 20) == "w"


def test_more_periods_than_columns_share_them() -> None:
    parts = [("waiting", 1.0), ("running", 3.0)] * 100
    assert bar(life(*parts, ("complete", 1)), 40) == "r" * 40 + "C"


@pytest.mark.parametrize("width", [1, 2, 7, 60, 200])
def test_every_bar_fits(width: int) -> None:
    for n_parts in range(1, 30):
        parts = [
            (name, (n * step) % 5)
            for n in range(n_parts)
            for name, step in (("waiting", 3), ("running", 7), ("error", 1))
        ]
        found = life(*parts[: 1 + 2 * n_parts])
        segments = found.segments(Timelines([found]).axis(width))
        assert segments[0].start >= 0
        assert segments[-1].end <= width + 1
        assert all(before.end == after.start for before, after in pairwise(segments))


def test_records_are_drawn_on_one_axis() -> None:
    later = life(("waiting", 60), ("running", 30), ("cancelled", 1), record_id=7, start_s=90)
    text = str(Timelines([DONE, later]))
    first, one, other, legend, rest, *words = text.splitlines()
    assert first.split() == ["2026-03-01", "12:00:00", "UTC", "2026-03-01", "12:03:00"]
    assert other.index("w") > one.index("C") - 20
    assert other.startswith("7  ")
    assert legend == "w waiting  r running  p pause before a retry  C complete  x cancelled"
    assert rest == "number: attempt"
    assert words == [
        "record 411: complete; waited 1 min 10 s, ran 50.0 s in 2 attempts",
        "record 7: cancelled; waited 1 min, ran 30.0 s in 1 attempt",
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_a_single_record_is_told_period_by_period() -> None:
    assert str(DONE).splitlines()[-5:] == [
        "  2026-03-01 12:00:00  w  waited for 1 min, until lease expired",
        "  2026-03-01 12:01:00  r  attempt 1 ran on manager 3 for 20.0 s, until lease expired",
        "  2026-03-01 12:01:20  p  paused before its next retry for 10.0 s, until lease expired",
        "  2026-03-01 12:01:30  r  attempt 2 ran on manager 3 for 30.0 s, until lease expired",
        "  2026-03-01 12:02:00  C  was complete for 9.0 s so far",
    ]


@pytest.mark.parametrize("width", [20, 80, 132])
@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_shows_the_same_with_and_without_colours(width: int, colour: bool) -> None:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=True, no_color=not colour, color_system="standard"
    )
    console.print(DONE)
    shown = file.getvalue()
    assert ("\x1b[30;103m" in shown) is colour
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"w+r1?r*p+r2?r*C", plain.replace("\n", ""))


def test_every_status_has_a_letter_and_a_colour_of_its_own() -> None:
    looks = [*LOOKS.values(), PAUSE]
    assert set(LOOKS) == set(Status)
    for part in ("letter", "style", "fill"):
        assert len({getattr(look, part) for look in looks}) == len(looks)


def test_the_picture_is_one_of_xml_without_scripts_and_readable_on_any_ground() -> None:
    root = ElementTree.fromstring(DONE._repr_svg_())  # noqa: S314  # pyright: ignore[reportPrivateUsage]
    tags = [each.tag.rpartition("}")[2] for each in root.iter()]
    assert set(tags) == {"svg", "title", "rect", "text", "g"}
    boxes = [each for each in root.iter() if each.tag.endswith("rect")]
    assert len(boxes) == 1 + 5
    assert boxes[0].get("fill") == "#f6f8fa"
    assert all(luminance(str(each.get("fill"))) < 0.45 for each in boxes[1:])
    html = Timelines([DONE, life(("held", 1), record_id=1)])._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert html.count("<li>") == 2
    assert "<script" not in html
    assert "attempt 1 ran" in DONE._repr_html_()  # pyright: ignore[reportPrivateUsage]


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)


def test_an_axis_of_no_length_has_one_column() -> None:
    assert Axis(T0, T0, 10).column(T0) == 0


def event(kind: str, actor: str = "user:ann", reason: str | None = None, **data: Any) -> LogEvent:
    return LogEvent(
        position=1,
        version=1,
        kind=kind,
        timestamp=T0,
        actor=actor,
        operation_id="x",
        reason=reason,
        data=data,
        stream="record",
        id=411,
    )


def test_there_is_a_sentence_for_every_kind_of_event() -> None:
    assert set(sentences()) == set(KINDS)


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        (
            event("created", function="f", tag="gpu", priority="high", retries=0),
            "ann created it: f, tag gpu, priority high",
        ),
        (
            event("claimed", "manager:3", attempt=2, manager_id=3),
            "manager 3 claimed it as attempt 2",
        ),
        (
            event(
                "errored",
                "manager:3",
                attempt=1,
                outcome={"error_type": "OSError", "error_message": "disk", "compute_s": 2.0},
            ),
            "attempt 1 of manager 3 ended in an error: OSError: disk, computed in 2.0 s",
        ),
        (
            event("cancelled", reason="wrong basis"),
            "ann cancelled it (wrong basis)",
        ),
        (
            event("manager_lost", "server:lease-reaper", attempt=1, manager_id=3),
            "manager 3 was lost with attempt 1, and it waits again",
        ),
        (event("reset", "policy:retry", retry=1), "policy retry reset it: retry 1"),
        (event("held", "server:x"), "the server (x) held it"),
        (event("released", "somebody"), "somebody released it"),
        (event("new_kind", a=1), "new kind, by ann: a 1"),
        (event("lease_expired"), "the lease of attempt ? expired, and it waits again"),
    ],
)
def test_an_event_is_told_in_a_sentence(happened: LogEvent, words: str) -> None:
    assert in_words(happened) == words
    assert happened.in_words == f"record 411: {words}"
    plain = happened.model_dump(exclude={"stream", "id"})
    assert HistoryEvent.model_validate(plain).in_words == words


def test_events_are_told_line_by_line_and_no_terminal_takes_them_for_commands() -> None:
    found = LogEvents("User ann", [event("held", reason="\x1b[31m"), event("released")])
    assert found.in_words.splitlines() == [
        "2026-03-01 12:00:00  record 411: ann held it (\\x1b[31m)",
        "2026-03-01 12:00:00  record 411: ann released it",
    ]
    assert repr(found).startswith("User ann: 2 events")
