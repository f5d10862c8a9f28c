"""The life of a record as a picture: a bar in a terminal or a notebook, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from recordledger.domain.records.status import Status

from ...schemas.timelines import PeriodOut, TimelineAnswer
from ..words import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_WIDTH: Final = 80
_WIDTH_MIN: Final = 30
_OPEN: Final = frozenset({Status.waiting, Status.running})
_WHEN: Final = "%Y-%m-%d %H:%M:%S"


class Look(NamedTuple):
    """How a status looks: a letter, a colour in a terminal, and one in a picture."""

    letter: str
    style: str
    fill: str


LOOKS: Final[dict[Status, Look]] = {
    Status.waiting: Look("w", "black on bright_yellow", "#d9a400"),
    Status.running: Look("r", "white on blue", "#1f6feb"),
    Status.complete: Look("C", "white on green", "#1a7f37"),
    Status.error: Look("e", "white on red", "#cf222e"),
    Status.cancelled: Look("x", "white on bright_black", "#6e7781"),
    Status.deleted: Look("d", "white on black", "#24292f"),
    Status.invalid: Look("i", "white on magenta", "#8250df"),
    Status.held: Look("h", "black on cyan", "#1b7c83"),
    Status.failed: Look("f", "bold white on red", "#82071e"),
}
PAUSE: Final = Look("p", "black on yellow", "#9a6700")


class Period(PeriodOut):
    """A time in which a record was in one status, and in one attempt if it ran."""

    @property
    def look(self) -> Look:
        """How it is drawn."""
        return PAUSE if self.is_pause else LOOKS[self.status]

    @property
    def in_words(self) -> str:
        """What it was and how long it took, in a few words."""
        took = duration(self.duration_s)
        match self.status:
            case Status.waiting:
                what = "paused before its next retry" if self.is_pause else "waited"
                text = f"{what} for {took}"
            case Status.running:
                who = "" if self.manager_id is None else f" on manager {self.manager_id}"
                text = f"attempt {self.attempt} ran{who} for {took}"
            case _:
                text = f"was {self.status} for {took}"
        if self.ended_by is None:
            return f"{text} so far"
        return f"{text}, until {self.ended_by.replace('_', ' ')}"


class Segment(NamedTuple):
    """A part of a bar: its columns from `start` up to `end`, and the period that it stands for."""

    start: int
    end: int
    period: Period

    @property
    def text(self) -> str:
        """The letter of the status, as often as there are columns; the attempt's number inside."""
        letter, width = self.period.look.letter, self.end - self.start
        number = "" if self.period.attempt is None else str(self.period.attempt)
        marked = letter + number if len(number) < width else letter
        return marked.ljust(width, letter)


class Axis(NamedTuple):
    """What the columns of a bar stand for: the time from `start` to `end`."""

    start: datetime
    end: datetime
    width: int

    def column(self, moment: datetime) -> int:
        """Return the column in which a moment is."""
        span_s = (self.end - self.start).total_seconds()
        if span_s <= 0:
            return 0
        return round((moment - self.start).total_seconds() / span_s * self.width)


class Timeline(TimelineAnswer):
    """The life of a record in periods. It shows itself as a bar, with the durations in words."""

    periods: list[Period]  # type: ignore[assignment]

    @property
    def waiting_s(self) -> float:
        """For how long it waited in all, in seconds; pauses before retries are in it."""
        return self._sum(Status.waiting)

    @property
    def running_s(self) -> float:
        """For how long it ran in all, in seconds."""
        return self._sum(Status.running)

    @property
    def n_attempts(self) -> int:
        """How many attempts there were."""
        return len({each.attempt for each in self.periods if each.attempt is not None})

    @property
    def in_words(self) -> str:
        """Where the record stands, and how long it waited and ran, on one line."""
        last = self.periods[-1]
        stands = "erased" if last.ended_by is not None else str(last.status)
        attempts = "1 attempt" if self.n_attempts == 1 else f"{self.n_attempts:,} attempts"
        return (
            f"{stands}; waited {duration(self.waiting_s)}, ran {duration(self.running_s)} "
            f"in {attempts}"
        )

    def drawn_until(self) -> datetime:
        """Return until when the bar goes: now, or where the record came to rest."""
        last = self.periods[-1]
        if last.ended_by is not None and last.end is not None:
            return last.end
        return self.as_of if last.status in _OPEN else last.start

    def segments(self, axis: Axis) -> list[Segment]:
        """Return the bar on an axis, oldest first: every period that took time has a column.

        Short periods are drawn longer than they were. Where there are more of them than columns,
        neighbours share one, which is drawn as the longest of them. One more column stands for
        what the record came to rest in.
        """
        *moving, last = self.periods
        is_open = last.ended_by is not None or last.status in _OPEN
        moving = [each for each in (*moving, *([last] if is_open else [])) if each.duration_s > 0]
        moving = _merged(moving or [last] * is_open, axis.width)
        edges = [axis.column(each.start) for each in moving]
        edges.append(axis.column(self.drawn_until()))
        for index in range(1, len(edges)):
            edges[index] = max(edges[index], edges[index - 1] + 1)
        edges[-1] = min(edges[-1], axis.width)
        for index in range(len(edges) - 2, -1, -1):
            edges[index] = min(edges[index], edges[index + 1] - 1)
        drawn = [
            Segment(start, end, period)
            for (start, end), period in zip(pairwise(edges), moving, strict=True)
        ]
        if not is_open:
            drawn.append(Segment(edges[-1], edges[-1] + 1, last))
        return drawn

    def lines(self) -> Iterator[str]:
        """Give what the bar shows in words: a line for each period that took time."""
        for each in self.periods:
            if each.duration_s > 0 or each.end is None:
                yield f"{each.start.strftime(_WHEN)}  {each.look.letter}  {each.in_words}"

    def __str__(self) -> str:
        """Return the bar and the words, as text of 80 columns without colours."""
        return str(Timelines([self]))

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the bar in colours, as wide as the terminal."""
        return Timelines([self]).__rich_console__(console, options)

    def _repr_svg_(self) -> str:
        return Timelines([self]).svg()

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{escape(line)}</li>" for line in self.lines())
        return f"{self._repr_svg_()}<ul style='font-family:monospace'>{rows}</ul>"

    def _sum(self, status: Status) -> float:
        return sum(each.duration_s for each in self.periods if each.status is status)


@dataclass(frozen=True, slots=True, repr=False)
class Timelines:
    """Timelines of several records, on one axis."""

    timelines: Sequence[Timeline]

    def axis(self, width: int) -> Axis:
        """Return the axis that all of them are on."""
        starts = [each.periods[0].start for each in self.timelines]
        return Axis(min(starts), max(each.drawn_until() for each in self.timelines), width)

    def __str__(self) -> str:
        """Return the bars and the words, as text of 80 columns without colours."""
        return "\n".join(text for text, _ in self._lines(_WIDTH))

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the bars in colours, as wide as the terminal."""
        from rich.text import Text

        del console
        for text, segments in self._lines(max(options.max_width, _WIDTH_MIN)):
            line = Text(text, no_wrap=not segments and len(text) <= options.max_width)
            for start, each in segments:
                line.stylize(each.period.look.style, start, start + each.end - each.start)
            yield line

    def _repr_html_(self) -> str:
        words = "".join(
            f"<li>record {each.record_id}: {escape(each.in_words)}</li>" for each in self.timelines
        )
        return f"{self.svg()}<ul style='font-family:monospace'>{words}</ul>"

    def _repr_svg_(self) -> str:
        return self.svg()

    def _lines(self, width: int) -> Iterator[tuple[str, list[tuple[int, Segment]]]]:
        """Give lines of text, and where in them segments are."""
        names = [str(each.record_id) for each in self.timelines]
        indent = max(map(len, names)) + 2
        axis = self.axis(width - indent - 1)
        start, end = axis.start.strftime(_WHEN), axis.end.strftime(_WHEN)
        gap = axis.width - len(start) - len(end)
        head = f"{start}{'UTC'.center(gap)}{end}" if gap >= 5 else f"{start} UTC"
        yield " " * indent + head, []
        for name, timeline in zip(names, self.timelines, strict=True):
            segments = timeline.segments(axis)
            bar = " " * segments[0].start + "".join(each.text for each in segments)
            places = [(indent + each.start, each) for each in segments]
            yield name.ljust(indent) + bar, places
        for line in _wrapped(self._legend(), width):
            yield line, []
        if len(self.timelines) == 1:
            yield f"record {names[0]}: {self.timelines[0].in_words}", []
            for line in self.timelines[0].lines():
                yield f"  {line}", []
            return
        for name, timeline in zip(names, self.timelines, strict=True):
            yield f"record {name}: {timeline.in_words}", []

    def _legend(self) -> list[str]:
        used = {
            each.look.letter: "pause before a retry" if each.is_pause else str(each.status)
            for timeline in self.timelines
            for each in timeline.periods
            if each.duration_s > 0 or each.end is None
        }
        words = [f"{letter} {name}" for letter, name in used.items()]
        return [*words, *(["number: attempt"] if "r" in used else [])]

    def svg(self) -> str:
        """Return the bars as a picture, on a ground of its own: readable wherever it is shown."""
        width, left, row, top = 640, 90, 24, 26
        axis = self.axis(width)
        height = top + row * len(self.timelines) + 24
        parts = [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{left + width + 24}' "
            f"height='{height}' viewBox='0 0 {left + width + 24} {height}' role='img' "
            "font-family='monospace' font-size='12'>",
            f"<title>{escape('; '.join(each.in_words for each in self.timelines[:20]))}</title>",
            "<rect width='100%' height='100%' rx='4' fill='#f6f8fa' stroke='#8c959f'/>",
            _label(left, 17, axis.start.strftime(_WHEN) + " UTC"),
            _label(left + width, 17, axis.end.strftime(_WHEN) + " UTC", anchor="end"),
        ]
        for index, timeline in enumerate(self.timelines):
            y = top + index * row
            parts.append(_label(8, y + 15, str(timeline.record_id)))
            for start, end, period in timeline.segments(axis):
                # What it came to rest in is a column of the text, and a box here.
                right = end if end <= width and end - start > 1 else max(end, start + 2)
                right = start + 12 if start == end - 1 and start >= axis.width else right
                parts.append(
                    f"<g><title>{escape(period.in_words)}</title>"
                    f"<rect x='{left + start}' y='{y}' width='{right - start}' height='{row - 6}' "
                    f"fill='{period.look.fill}'/></g>"
                )
                number = "" if period.attempt is None else str(period.attempt)
                text = period.look.letter + number
                if right - start >= 8 * len(text) + 2:
                    parts.append(_label(left + start + 2, y + 13, text, fill="#ffffff"))
        parts.append(_label(8, height - 9, "  ".join(self._legend())))
        return "".join([*parts, "</svg>"])


def _wrapped(words: Sequence[str], width: int) -> Iterator[str]:
    """Give lines of words, two spaces between, that are no wider than that if words are not."""
    line = ""
    for word in words:
        if line and len(line) + 2 + len(word) > width:
            yield line
            line = ""
        line += f"  {word}" if line else word
    yield line


def _label(x: int, y: int, text: str, *, anchor: str = "start", fill: str = "#1f2328") -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='{fill}'>{escape(text)}</text>"


def _merged(periods: list[Period], n_max: int) -> list[Period]:
    """Return at most `n_max` periods: the longest of each group of neighbours."""
    if len(periods) <= n_max:
        return periods
    size = -(-len(periods) // n_max)
    groups = (periods[at : at + size] for at in range(0, len(periods), size))
    return [
        max(group, key=lambda each: each.duration_s).model_copy(update={"start": group[0].start})
        for group in groups
    ]
