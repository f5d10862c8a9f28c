"""The demo's functions compute what they say."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest

from recordledger.workers.demo import functions
from recordledger.workers.demo.functions import (
    ConvergenceError,
    morse_energy,
    potential_energy,
    quadratic,
    sleep,
)

needs_pyscf = pytest.mark.skipif(
    importlib.util.find_spec("pyscf") is None, reason="PySCF is not installed"
)
needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="SciPy is not installed"
)
engines = pytest.mark.parametrize(
    "engine", [pytest.param("pyscf", marks=needs_pyscf), pytest.param("scipy", marks=needs_scipy)]
)


def test_the_small_ones() -> None:
    assert quadratic(1.5) == 2.25
    assert sleep(0) == 0
    assert functions.noop() is None  # type: ignore[func-returns-value]


def test_a_morse_curve_has_its_depth_at_its_minimum_and_vanishes_far_away() -> None:
    assert morse_energy(0.7414)["energy"] == -0.1745
    assert math.isclose(morse_energy(50.0)["energy"], 0.0, abs_tol=1e-9)


@needs_pyscf
@pytest.mark.parametrize(
    ("molecule", "distance", "method", "basis", "energy"),
    [
        # Total energies in hartree, at the measured distances. STO-3G as in Szabo and Ostlund,
        # Modern Quantum Chemistry.
        ("N2", 1.0977, "RHF", "sto-3g", -107.496),
        ("H2O", 0.9572, "RHF", "sto-3g", -74.963),
        # As PySCF 2.14 has them: what is asked for must reach it.
        ("N2", 1.0977, "RHF", "cc-pvdz", -108.9538),
        ("N2", 1.0977, "MP2", "cc-pvdz", -109.2649),
    ],
)
def test_energies_are_those_of_the_literature(
    molecule: str, distance: float, method: str, basis: str, energy: float
) -> None:
    found = potential_energy(molecule, distance, method, basis, engine="pyscf")
    assert math.isclose(found["energy"], energy, abs_tol=1e-3)
    assert found["level"] == f"{method}/{basis}"
    assert found["program"].startswith("PySCF")


@engines
@pytest.mark.parametrize("molecule", ["N2", "H2O"])
def test_a_curve_has_a_well_near_where_it_was_measured(engine: str, molecule: str) -> None:
    measured = {"N2": 1.0977, "H2O": 0.9572}[molecule]

    def energy(distance: float) -> float:
        found = potential_energy(molecule, distance, "RHF", "6-31g", engine=engine)
        assert set(found) >= {"energy", "level", "program", "n_iterations"}
        return float(found["energy"])

    assert energy(0.8 * measured) > energy(measured) < energy(1.4 * measured)


@engines
def test_what_does_not_converge_says_so(engine: str) -> None:
    with pytest.raises(ConvergenceError, match=r"did not converge within 3.*max_cycle"):
        potential_energy("N2", 1.6, max_cycle=3, engine=engine)


@needs_scipy
def test_the_model_has_the_zero_point_energy_of_its_vibration() -> None:
    level = potential_energy("N2", 1.098, "MP2", engine="scipy")
    bottom = potential_energy("N2", 1.098, "RHF", engine="scipy")
    assert level["program"].endswith("(a model)")
    # 1,175.8 per centimetre for nitrogen.
    zero_point_hartree = level["energy"] - bottom["energy"]
    assert math.isclose(zero_point_hartree, 0.00536, rel_tol=0.02)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"molecule": "F2"}, "choose one of N2, H2O"),
        ({"method": "CCSD"}, "choose RHF or MP2"),
        ({"distance": 0}, "a length"),
        ({"distance": math.nan}, "a length"),
        ({"engine": "psi4"}, "choose one of auto, pyscf, scipy"),
    ],
)
def test_what_it_does_not_know_is_refused(wrong: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"molecule": "N2", "distance": 1.1, **wrong}
    with pytest.raises(ValueError, match=says):
        potential_energy(**arguments)


def test_without_pyscf_it_takes_scipy_and_without_both_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"scipy"}

    def find(name: str) -> str | None:
        return name if name in there else None

    monkeypatch.setattr("importlib.util.find_spec", find)
    functions.available_engine.cache_clear()
    try:
        assert functions.available_engine() == "scipy"
        functions.available_engine.cache_clear()
        there.clear()
        with pytest.raises(RuntimeError, match=r"recordledger\[demo\]"):
            functions.available_engine()
    finally:
        functions.available_engine.cache_clear()
