"""The demo's nudged elastic band: ammonia turns inside out, and its energy path is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from recordledger.api.client import Client, ClientError
from recordledger.domain.records.status import Status

from .functions import available_engine

SERVICE: Final = "nudged_elastic_band"
TAG: Final = "demo"
Follow = Callable[[Client, int, Callable[[str], object]], object]
_COLOR: Final = "#2b6cb0"
_KJ_PER_MOL_IN_HARTREE: Final = 2625.4996394799

# A rough pyramid of ammonia, in bohr: the nitrogen above the plane of the hydrogens. The service
# relaxes it, so it need not be better.
_AMMONIA: Final = (
    ("N", (0.0, 0.0, 0.52)),
    ("H", (0.0, 1.80, -0.18)),
    ("H", (1.56, -0.90, -0.18)),
    ("H", (-1.56, -0.90, -0.18)),
)


@dataclass(frozen=True, slots=True)
class BandDemo:
    """What to submit, and what a plot of it says.

    Attributes:
        kwargs: the specification of `nudged_elastic_band`.
        title: above the plot.
        level: the level of theory.
        length: the unit of the distances.
        energy, energies_in_unit: the unit of the plotted energies, and how many of them are 1 in
            the result.
    """

    kwargs: Mapping[str, Any]
    title: str
    level: str
    length: str
    energy: str
    energies_in_unit: float


def neb_specification(*, smoke: bool = False, engine: str = "auto") -> BandDemo:
    """Return the band that the demo computes.

    Args:
        smoke: a small basis and three images instead of five.
        engine: `pyscf`: the inversion of ammonia; `scipy`, without PySCF: the surface of Mueller
            and Brown, which is a formula; `auto`: the first that is installed.

    Raises:
        RuntimeError: nothing is installed.
        ValueError: there is no such engine.
    """
    engine = available_engine() if engine == "auto" else engine
    match engine:
        case "pyscf":
            return _ammonia("sto-3g" if smoke else "6-31g*", 3 if smoke else 5)
        case "scipy":
            return _formula(3 if smoke else 7)
        case _:
            raise ValueError(f"engine is {engine!r}; choose one of auto, pyscf, scipy")


def run_band(client: Client, output: Path, follow: Follow, *, smoke: bool = False) -> int:
    """Let a service of the ledger find the path, and draw it; return the exit status.

    Args:
        client: of a ledger with a service runner, whose managers have the demo's functions.
        output: folder for `band.png`; it is made.
        follow: writes what the service of an id says while it runs, and returns when it has ended.
        smoke: a small basis, and fewer images.

    Returns:
        0 if the path was found, 1 if not.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    demo = neb_specification(smoke=smoke)
    console.print(f"\n[bold]{demo.title}[/], by the service {SERVICE}:")
    try:
        added = client.add_service(SERVICE, demo.kwargs, tag=TAG, reason="the demo")
        for error in added.errors:
            console.print(f"refused: {error.code}: {error.message}", style="red", markup=False)
        ids = [id_ for id_ in added.ids if id_ is not None]
        if not ids:
            return 1
        follow(client, ids[0], lambda said: console.print(said, end="", markup=False))
        record = client.get_records(ids[0], include=("result",))
        history = client.history(ids[0])
    except ClientError as error:
        console.print(Text("The demo ends early: ", "red") + Text(str(error), "default"))
        return 1
    if record.status != Status.complete:
        said = f"service {record.id} is {record.status}: {record.error_type}"
        console.print(Text(f"{said}: {record.error_message}", "red"))
        return 1
    height = record.result["barrier"] * demo.energies_in_unit
    console.print(f"The barrier is {height:.1f} {demo.energy} high ({demo.level}).")
    path = output / "band.png"
    try:
        draw_band(path, record.result, demo)
    except ImportError:
        console.print("Matplotlib is not installed, so there is no plot.")
    else:
        console.print(f"plot: {path}", highlight=False)
    console.print(f"\n[bold]What happened to service {record.id}[/], by client.history:")
    print(repr(history))
    return 0


def draw_band(path: Path, result: Mapping[str, Any], demo: BandDemo) -> None:
    """Draw the energy along the path of a finished band, through its images with their slopes.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    # No pyplot: it would look for a display. It has no types that are strict.
    from matplotlib.figure import Figure

    unit, first = demo.energies_in_unit, result["energies"][0]
    distances = result["distances"]
    energies = [(energy - first) * unit for energy in result["energies"]]
    slopes = [slope * unit for slope in result["slopes"]]
    top = result["saddle"]
    figure: Any = Figure(figsize=(6.4, 4.4), layout="constrained")
    panel = figure.subplots()
    panel.plot(*_curve(distances, energies, slopes), color=_COLOR, linewidth=1.6)
    panel.plot(distances, energies, "o", color=_COLOR, markersize=5)
    panel.plot([distances[top]], [energies[top]], "D", color="#c05621", markersize=8, zorder=5)
    panel.annotate(
        f"saddle point: {energies[top]:.1f} {demo.energy}",
        (distances[top], energies[top]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=9,
    )
    panel.margins(y=0.12)
    panel.set_xlabel(f"distance along the path / {demo.length}")
    panel.set_ylabel(f"energy above the first end / {demo.energy}")
    panel.set_title(demo.title, loc="left", fontsize=11, fontweight="bold")
    panel.grid(color="0.92", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{demo.level}: {result['n_gradients']} gradients in {result['n_iterations']} iterations",
        x=0.01,
        ha="left",
        fontsize=9,
        color="0.4",
    )
    figure.savefig(path, dpi=160)


def _ammonia(basis: str, n_images: int) -> BandDemo:
    up = [list(where) for _, where in _AMMONIA]
    # About the plane through the centre of the coordinates: neither end is shifted.
    middle = math.fsum(z for _, _, z in up) / len(up)
    up = [[x, y, z - middle] for x, y, z in up]
    down = [[x, y, -z] for x, y, z in up]
    symbols = [symbol for symbol, _ in _AMMONIA]
    gradient = {"function": "energy_and_gradient", "kwargs": {"symbols": symbols, "basis": basis}}
    return BandDemo(
        {
            "gradient": gradient,
            "path": [up, down],
            "n_images": n_images,
            "ends": "relaxed",
        },
        title="NH₃: the pyramid turns inside out",
        level=f"RHF/{basis}",
        length="bohr",
        energy="kJ/mol",
        energies_in_unit=_KJ_PER_MOL_IN_HARTREE,
    )


def _formula(n_images: int) -> BandDemo:
    return BandDemo(
        {
            "gradient": {"function": "mueller_brown"},
            "path": [[-0.55822, 1.44173], [-0.05001, 0.46669]],
            "n_images": n_images,
            "spring": 50.0,
            "time_step": 0.01,
            "step_max": 0.1,
            "climb_below": 30.0,
            "force_max": 0.5,
        },
        title="The surface of Müller and Brown: from the deepest minimum to the next",
        level="a formula",
        length="1",
        energy="1",
        energies_in_unit=1.0,
    )


def _curve(
    xs: Sequence[float], ys: Sequence[float], slopes: Sequence[float], n_between: int = 40
) -> tuple[list[float], list[float]]:
    """Return points of the cubic pieces that have these heights and slopes.

    >>> _curve([0.0, 2.0], [0.0, 4.0], [0.0, 4.0], n_between=2)
    ([0.0, 1.0, 2.0], [0.0, 1.0, 4.0])
    """
    drawn = [(xs[0], ys[0])]
    ends = list(zip(xs, ys, slopes, strict=True))
    for (x0, y0, slope0), (x1, y1, slope1) in itertools.pairwise(ends):
        width = x1 - x0
        for number in range(1, n_between + 1):
            t = number / n_between
            from_left = (1 + 2 * t) * (1 - t) ** 2 * y0 + t * (1 - t) ** 2 * width * slope0
            from_right = t * t * (3 - 2 * t) * y1 + t * t * (t - 1) * width * slope1
            drawn.append((x0 + t * width, from_left + from_right))
    return [x for x, _ in drawn], [y for _, y in drawn]
