"""The demo: potential energy curves of real molecules, computed through the ledger and drawn.

One point is made to fail, so that one sees how errors are shown.
"""

from __future__ import annotations

import csv
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recordledger.api.client import Client, ClientError, Record

from .functions import available_engine

FUNCTION: Final = "potential_energy"
TAG: Final = "demo"
TIMEOUT_S: Final = 600.0
METHODS: Final = ("RHF", "MP2")
COLORS: Final = {"RHF": "#2b6cb0", "MP2": "#c05621"}
_EV_IN_HARTREE: Final = 27.211386245988


@dataclass(frozen=True, slots=True)
class Molecule:
    """A molecule, where its curve is computed, and what was measured.

    Attributes:
        name: as `potential_energy` knows it.
        title: above its panel.
        first, last: distances in angstrom.
        failing: the distance at which the point is made to fail; None for no such point.
        measured: equilibrium distance from spectroscopy, in angstrom.
    """

    name: str
    title: str
    first: float
    last: float
    failing: float | None
    measured: float

    def distances(self, n_points: int) -> list[float]:
        """Return equally spaced distances, in angstrom."""
        step = (self.last - self.first) / (n_points - 1)
        return [round(self.first + step * number, 4) for number in range(n_points)]


MOLECULES: Final = (
    Molecule("N2", "N₂: stretching the triple bond", 0.84, 1.80, 1.60, 1.0977),
    Molecule("H2O", "H₂O: stretching both O-H bonds", 0.70, 1.90, None, 0.9572),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve, and its record. Angstrom and hartree; no energy if it failed."""

    molecule: str
    method: str
    distance: float
    record: Record
    is_to_fail: bool

    @property
    def energy(self) -> float | None:
        """The energy; None if there is none."""
        return self.record.result["energy"] if self.record.status == "complete" else None

    @property
    def is_as_expected(self) -> bool:
        """Whether it is complete with a number, or failed as it should."""
        if self.is_to_fail:
            return self.record.status == "error" and self.record.error_type == "ConvergenceError"
        return self.energy is not None and math.isfinite(self.energy)


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one molecule by one method, by distance."""

    molecule: Molecule
    method: str
    points: tuple[Point, ...]

    @property
    def computed(self) -> list[tuple[float, float]]:
        """Distance and energy of the points that have one."""
        return [(point.distance, point.energy) for point in self.points if point.energy is not None]

    @property
    def level(self) -> str:
        """The level of theory, as the results say it."""
        levels = (point.record.result["level"] for point in self.points if point.energy is not None)
        return next(levels, self.method)

    def minimum(self) -> tuple[float, float] | None:
        """Return distance and energy at the bottom of the well; None if there is no well."""
        found = self.computed
        lowest = min(range(len(found)), key=lambda idx: found[idx][1], default=0)
        if not 0 < lowest < len(found) - 1:
            return None
        return _vertex(found[lowest - 1], found[lowest], found[lowest + 1])


def run_demo(client: Client, output: Path, *, smoke: bool = False) -> int:
    """Compute the curves through the ledger of `client`; return the exit status.

    Args:
        client: of a ledger whose managers have the demo's functions.
        output: folder for `curves.png` and `curves.csv`; it is made.
        smoke: 8 points in a small basis instead of 124.

    Returns:
        0 if every point came out as it should, one of them failing; 1 if not.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    if available_engine() == "scipy":
        console.print(
            "PySCF is not installed, so SciPy computes model curves instead. For real ones: "
            "pip install 'recordledger[chemistry]'",
            markup=False,
        )
    began = time.perf_counter()
    try:
        points = _compute(client, console, 2 if smoke else 31, "sto-3g" if smoke else "cc-pvtz")
    except ClientError as error:
        console.print(Text("The demo ends early: ", "red") + Text(str(error), "default"))
        return 1
    curves = [
        Curve(molecule, method, tuple(found))
        for molecule in MOLECULES
        for method in METHODS
        if (found := [p for p in points if (p.molecule, p.method) == (molecule.name, method)])
    ]
    took_s = time.perf_counter() - began
    _show(console, curves, points, took_s)
    _write_csv(output / "curves.csv", points)
    _draw(console, output / "curves.png", curves)
    failed = next((point for point in points if point.record.status == "error"), None)
    shown = (failed or points[0]).record
    console.print(f"\n[bold]What happened to record {shown.id}[/], by client.history({shown.id}):")
    print(repr(client.history(shown.id)))
    return _judge(console, points)


def _compute(client: Client, console: Console, n_points: int, basis: str) -> list[Point]:
    wanted = [
        (molecule, method, distance)
        for molecule, method in itertools.product(MOLECULES, METHODS)
        for distance in molecule.distances(n_points)
    ]
    fails = _failing_index(wanted)
    # Three iterations are not enough for any molecule whose bond is stretched.
    added = client.add_records(
        FUNCTION,
        [
            {"molecule": molecule.name, "distance": distance, "method": method, "basis": basis}
            | {"max_cycle": 3 if idx == fails else 200}
            for idx, (molecule, method, distance) in enumerate(wanted)
        ],
        tag=TAG,
        reason="the demo",
    )
    for error in added.errors:
        console.print(f"refused: {error.code}: {error.message}", style="red", markup=False)
    new, there = len(added.inserted_idx), len(added.existing_idx)
    console.print(
        f"Submitted {new} records in one call"
        + (f", and found {there} that were computed before" if there else "")
        + "; waiting for them."
    )
    client.wait(added.ids, timeout_s=TIMEOUT_S)
    records = client.get_records(added.ids, include=("result", "provenance"))
    return [
        Point(molecule.name, method, distance, record, is_to_fail=idx == fails)
        for idx, ((molecule, method, distance), record) in enumerate(
            zip(wanted, records, strict=True)
        )
    ]


def _failing_index(wanted: Sequence[tuple[Molecule, str, float]]) -> int:
    """Return which point is made to fail: the one nearest to where the molecule says."""

    def off(idx: int) -> float:
        molecule, method, distance = wanted[idx]
        if molecule.failing is None or method != METHODS[0]:
            return math.inf
        return abs(distance - molecule.failing)

    return min(range(len(wanted)), key=off)


def _vertex(*points: tuple[float, float]) -> tuple[float, float]:
    """Return the lowest point of the parabola through three points.

    >>> _vertex((-1.0, 4.0), (0.0, 1.0), (1.0, 0.0))
    (1.0, 0.0)
    """
    (x0, y0), (x1, y1), (x2, y2) = points
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    lowest = (x0 + x1 - left / curvature) / 2
    return lowest, y0 + left * (lowest - x0) + curvature * (lowest - x0) * (lowest - x1)


def _show(
    console: Console, curves: Iterable[Curve], points: Sequence[Point], took_s: float
) -> None:
    table = Table(title="Potential energy curves", title_justify="left", box=SIMPLE, pad_edge=False)
    for heading in ("", "level"):
        table.add_column(heading, no_wrap=True)
    for heading in ("n", "r_e / Å", "exp.", "E / hartree", "depth / eV", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        bottom = curve.minimum()
        highest = curve.computed[-1][1] if curve.computed else math.nan
        table.add_row(
            curve.molecule.name,
            curve.level,
            f"{len(curve.computed)}/{len(curve.points)}",
            f"{bottom[0]:.4f}" if bottom else "",
            f"{curve.molecule.measured:.4f}",
            f"{bottom[1]:.6f}" if bottom else "",
            f"{(highest - bottom[1]) * _EV_IN_HARTREE:.2f}" if bottom else "",
            f"{sum(point.record.compute_s or 0.0 for point in curve.points):.1f}",
        )
    console.print(table)
    console.print(
        "[dim]r_e, E: at the minimum; exp.: r_e as measured; depth: of the minimum below the "
        "longest distance; s: of computing[/]"
    )
    counts = Counter(str(point.record.status) for point in points)
    programs = {point.record.result["program"] for point in points if point.energy is not None}
    console.print(
        f"{len(points)} records in {took_s:.1f} s by {', '.join(sorted(programs)) or 'nothing'}: "
        + ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    )
    for point in points:
        if point.energy is None:
            record = point.record
            console.print(
                Text(f"record {record.id} ({record.status}): ", "red")
                + Text(f"{record.error_type}: {record.error_message}", "default")
            )


def _write_csv(path: Path, points: Iterable[Point]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                "record_id",
                "molecule",
                "method",
                "distance_angstrom",
                "energy_hartree",
                "status",
                "error_type",
                "error_message",
                "compute_s",
            )
        )
        for point in points:
            record = point.record
            writer.writerow(
                (
                    record.id,
                    point.molecule,
                    point.method,
                    point.distance,
                    point.energy,
                    record.status,
                    record.error_type,
                    record.error_message,
                    record.compute_s,
                )
            )


def _draw(console: Console, path: Path, curves: Sequence[Curve]) -> None:
    try:
        # No pyplot: it would look for a display.
        from matplotlib.figure import Figure
    except ImportError:
        console.print(
            f"Matplotlib is not installed, so there is no plot; the numbers are in {path.parent}."
        )
        return
    figure: Any = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, len(MOLECULES))
    for panel, molecule in zip(panels, MOLECULES, strict=True):
        own = [curve for curve in curves if curve.molecule is molecule]
        # Relative to each curve's own minimum: what they differ by in all is of no interest.
        for curve in own:
            _draw_curve(panel, curve)
        panel.axvline(molecule.measured, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        panel.annotate(
            "measured $r_e$",
            (molecule.measured, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            fontsize=8,
            color="0.4",
        )
        panel.set_title(molecule.title, loc="left", fontsize=11, fontweight="bold")
        panel.set_xlabel("bond length / Å")
        panel.set_ylabel("energy above the minimum / eV")
        panel.set_ylim(-0.6, 14)
        panel.grid(color="0.92", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        if any(curve.computed for curve in own):
            panel.legend(frameon=False, fontsize=9, loc="lower right")
    n_records = sum(len(curve.points) for curve in curves)
    figure.suptitle(
        f"{n_records} records, computed through a Record Ledger",
        x=0.01,
        ha="left",
        fontsize=9,
        color="0.4",
    )
    figure.savefig(path, dpi=160)
    console.print(f"plot: {path}\nnumbers: {path.parent / 'curves.csv'}", highlight=False)


def _draw_curve(panel: Any, curve: Curve) -> None:
    if not curve.computed:
        return
    color = COLORS[curve.method]
    distances = [distance for distance, _ in curve.computed]
    lowest = (curve.minimum() or min(curve.computed, key=lambda found: found[1]))[1]
    heights = [(energy - lowest) * _EV_IN_HARTREE for _, energy in curve.computed]
    panel.plot(distances, heights, "-o", color=color, markersize=3, label=curve.level)
    for point in curve.points:
        if point.energy is None:
            height = _between(distances, heights, point.distance)
            panel.plot(
                [point.distance],
                [height],
                "X",
                color="#c53030",
                markersize=9,
                markeredgecolor="white",
                label=f"record {point.record.id}: {point.record.error_type}",
                zorder=5,
            )


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return the height of a line through the points, at `x`."""
    for (x0, x1), (y0, y1) in zip(itertools.pairwise(xs), itertools.pairwise(ys), strict=True):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return ys[-1] if x > xs[-1] else ys[0]


def _judge(console: Console, points: Sequence[Point]) -> int:
    strange = [point for point in points if not point.is_as_expected]
    if not strange:
        console.print("[green]All as expected: one point was to fail, and that one did.[/]")
        return 0
    console.print(f"[red]{len(strange)} points are not as expected[/], for example:")
    for point in strange[:5]:
        record = point.record
        console.print(
            f"  record {record.id}: {point.molecule} {point.method} at {point.distance:g} Å is "
            f"{record.status} {record.error_type or ''} {record.error_message or ''}",
            markup=False,
        )
    return 1
