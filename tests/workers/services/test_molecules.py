"""Real molecules: what the services find is what PySCF finds when it is asked directly."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest

from recordledger.workers.demo.functions import ConvergenceError
from recordledger.workers.demo.gradients import energy_and_gradient

from .driver import Driver

pytest.importorskip("pyscf", reason="PySCF is not installed")
optimize = pytest.importorskip("scipy.optimize")

AMMONIA: Final = ["N", "H", "H", "H"]
# The minimum of ammonia in STO-3G, in bohr, to three digits: an end of the band.
PYRAMID: Final = [
    [0.0, 0.0, 0.6040],
    [0.0, 1.7774, -0.2013],
    [1.5393, -0.8887, -0.2013],
    [-1.5393, -0.8887, -0.2013],
]


def gradient_of(symbols: list[str]) -> dict[str, Any]:
    return {"function": "energy_and_gradient", "kwargs": {"symbols": symbols}}


def test_the_gradient_is_the_slope_of_the_energy() -> None:
    symbols, place = ["H", "F"], [[0.1, -0.2, 0.3], [0.4, 0.9, 1.6]]
    found = energy_and_gradient(symbols, place)
    assert found["level"] == "RHF/sto-3g"
    assert found["program"].startswith("PySCF")
    for atom, axis in ((0, 1), (1, 2)):
        energies: list[float] = []
        for shift in (-1e-3, 1e-3):
            moved = [list(row) for row in place]
            moved[atom][axis] += shift
            energies.append(energy_and_gradient(symbols, moved)["energy"])
        slope = (energies[1] - energies[0]) / 2e-3
        assert found["gradient"][atom][axis] == pytest.approx(slope, abs=1e-5)


def test_what_is_no_molecule_is_refused() -> None:
    with pytest.raises(ValueError, match="2 symbols, but coordinates of 1 atoms"):
        energy_and_gradient(["H", "H"], [[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="1 electrons are an odd number"):
        energy_and_gradient(["H"], [[0.0, 0.0, 0.0]])
    with pytest.raises(ConvergenceError, match="within 1 iterations"):
        energy_and_gradient(["H", "F"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.7]], max_cycle=1)
    ion = energy_and_gradient(["He", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]], charge=1)
    assert ion["energy"] == pytest.approx(-2.84, abs=0.02)


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "CG"])
def test_a_molecule_is_relaxed_to_the_minimum_that_a_search_in_one_dimension_finds(
    method: str,
) -> None:
    def energy(distance: float) -> float:
        place = [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]
        return float(energy_and_gradient(["H", "H"], place)["energy"])

    directly = optimize.minimize_scalar(energy, bracket=(1.2, 1.5), options={"xtol": 1e-5})
    spec = {
        "gradient": gradient_of(["H", "H"]),
        "start": [[0.0, 0.0, 0.0], [0.3, 0.2, 1.7]],
        "method": method,
    }
    found = Driver().run("optimization", spec).result
    assert math.dist(*found["coordinates"]) == pytest.approx(float(directly.x), abs=2e-3)
    assert found["energy"] == pytest.approx(float(directly.fun), abs=1e-6)


def test_the_barrier_of_ammonia_is_that_of_the_planar_molecule() -> None:
    def energy_of_planar(distance: float) -> float:
        angles = [math.pi / 2 + number * 2 * math.pi / 3 for number in range(3)]
        ring = [[distance * math.cos(a), distance * math.sin(a), 0.0] for a in angles]
        return float(energy_and_gradient(AMMONIA, [[0.0, 0.0, 0.0], *ring])["energy"])

    directly = optimize.minimize_scalar(
        energy_of_planar, bracket=(1.8, 1.95), options={"xtol": 1e-4}
    )
    below = [[x, y, -z] for x, y, z in PYRAMID]
    spec = {
        "gradient": gradient_of(AMMONIA),
        "path": [PYRAMID, below],
        "n_images": 1,
        "climb_below": 0.1,
    }
    found = Driver().run("nudged_elastic_band", spec).result
    top = found["images"][found["saddle"]]
    assert max(abs(z) for _, _, z in top) < 1e-3
    assert found["energies"][1] == pytest.approx(float(directly.fun), abs=2e-5)
    lengths = [math.dist(top[0], hydrogen) for hydrogen in top[1:]]
    assert lengths == pytest.approx([float(directly.x)] * 3, abs=5e-3)
    pyramid = energy_and_gradient(AMMONIA, PYRAMID)["energy"]
    assert found["barrier"] == pytest.approx(float(directly.fun) - pyramid, abs=2e-5)
    # 11 kcal/mol, as this small basis has it.
    assert found["barrier"] * 627.5 == pytest.approx(11.1, abs=0.1)
