"""The surfaces in a formula have the gradients they say, and the demo's band is drawn."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from recordledger.domain.specs.service import Service
from recordledger.workers.demo.band import SERVICE, draw_band, neb_specification
from recordledger.workers.demo.gradients import harmonic_well, mueller_brown, rosenbrock
from recordledger.workers.services.band import BandSpec

from .driver import Driver, provided

SERVICES: Final = "recordledger.workers.services"
WITH_EXAMPLES: Final = (
    f"{SERVICES}.task",
    f"{SERVICES}.coordinates",
    f"{SERVICES}.band",
    "recordledger.workers.demo.band",
)


def well(coordinates: list[float]) -> dict[str, Any]:
    return harmonic_well(coordinates, [1.0, -0.5], [2.0, 0.3])


@pytest.mark.parametrize("surface", [well, rosenbrock, mueller_brown])
@pytest.mark.parametrize("place", [[0.3, 0.7], [-0.8, 1.1]])
def test_the_gradient_is_the_slope_of_the_energy(
    surface: Callable[[list[float]], dict[str, Any]], place: list[float]
) -> None:
    found = surface(place)["gradient"]
    for axis in range(2):
        left, right = list(place), list(place)
        left[axis] -= 1e-6
        right[axis] += 1e-6
        slope = (surface(right)["energy"] - surface(left)["energy"]) / 2e-6
        assert found[axis] == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("name", ["scan", "optimization", "nudged_elastic_band", "graph"])
def test_services_are_found_by_their_names(name: str) -> None:
    service = provided("recordledger.services")[name]
    assert issubclass(service, Service)
    assert service.name == name
    assert service().version
    assert set(provided("recordledger.services")) >= {name}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted >= 1
    assert found.failed == 0


@pytest.mark.parametrize("smoke", [True, False])
def test_the_demo_finds_and_draws_the_way_over_a_formula_where_there_is_no_pyscf(
    tmp_path: Path, smoke: bool
) -> None:
    pytest.importorskip("matplotlib")
    demo = neb_specification(smoke=smoke, engine="scipy")
    found = Driver().run(SERVICE, demo.kwargs).result
    assert found["barrier"] == pytest.approx(106.03, abs=0.05)
    draw_band(tmp_path / "band.png", found, demo)
    assert (tmp_path / "band.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_turns_ammonia_inside_out_where_there_is_pyscf() -> None:
    demo = neb_specification(engine="pyscf")
    spec = BandSpec.model_validate(demo.kwargs)
    up, down = spec.path
    assert down == [[x, y, -z] for x, y, z in up]  # type: ignore[misc]
    assert demo.level == "RHF/6-31g*"
    assert neb_specification(smoke=True, engine="pyscf").level == "RHF/sto-3g"
    with pytest.raises(ValueError, match="choose one of auto, pyscf, scipy"):
        neb_specification(engine="psi4")
    assert neb_specification().kwargs
