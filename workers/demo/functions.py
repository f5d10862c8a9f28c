"""Functions that every manager can run: small ones to try the ledger with, and the demo's.

They are entry points of the group `recordledger.functions`, so no manager has to allow them.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from functools import cache
from importlib.metadata import version
from typing import Any, Final

ENGINES: Final = ("pyscf", "scipy")

# The angle between the bonds of water, kept while both are stretched: degrees.
_WATER_ANGLE: Final = 104.5
_BOHR_IN_ANGSTROM: Final = 0.529177210903
_KELVIN_IN_HARTREE: Final = 3.166811563e-6

# Morse curves (depth in hartree, width in 1/angstrom, distance at the minimum in angstrom,
# reduced mass in electron masses), from spectroscopic constants. For where there is no PySCF.
_MORSE: Final = {
    "N2": (0.364, 2.70, 1.098, 12_764.0),
    "H2O": (0.369, 2.15, 0.958, 1_728.0),
}


class ConvergenceError(Exception):
    """The self-consistent field, or its counterpart, did not converge."""


def noop() -> None:
    """Do nothing: for measuring everything else."""


def sleep(seconds: float) -> float:
    """Sleep, and return for how long."""
    time.sleep(seconds)
    return seconds


def quadratic(x: float) -> float:
    """Return x squared."""
    return x * x


def morse_energy(
    distance: float, *, depth: float = 0.1745, width: float = 1.9426, minimum: float = 0.7414
) -> dict[str, float]:
    """Return the energy of a diatomic molecule by the formula of Morse; hydrogen, if not told.

    Args:
        distance: between the nuclei, in angstrom.
        depth: of the well, in hartree.
        width: 1/angstrom.
        minimum: where the energy is lowest, in angstrom.
    """
    return {"distance": distance, "energy": _morse(distance, depth, width, minimum)}


def potential_energy(
    molecule: str,
    distance: float,
    method: str = "RHF",
    basis: str = "cc-pvdz",
    max_cycle: int = 50,
    engine: str = "auto",
) -> dict[str, Any]:
    """Return one point of a potential energy curve: N2, or H2O with both bonds stretched alike.

    Args:
        molecule: N2 or H2O.
        distance: length of the bond, or of both bonds, in angstrom.
        method: RHF (Hartree-Fock) or MP2 (and second-order perturbation theory on top of it).
        basis: the name of a basis set.
        max_cycle: how many iterations the self-consistent field may take.
        engine: pyscf; scipy, which computes a *model*: a Morse curve for RHF, and for MP2 the same
            with the energy of the stretching vibration's ground state, a Schroedinger equation
            solved numerically; auto takes the first that is installed.

    Returns:
        Energy in hartree, in how many iterations, at which level of theory and by which program.

    Raises:
        ConvergenceError: not within `max_cycle` iterations.
        ValueError: molecule, method, distance or engine is not known.
    """
    if molecule not in _MORSE:
        raise ValueError(f"molecule is {molecule!r}; choose one of {', '.join(_MORSE)}")
    if method not in ("RHF", "MP2"):
        raise ValueError(f"method is {method!r}; choose RHF or MP2")
    if not (math.isfinite(distance) and distance > 0):
        raise ValueError(f"distance is {distance}; it is a length in angstrom")
    engine = available_engine() if engine == "auto" else engine
    match engine:
        case "pyscf":
            found = _energy_by_pyscf(molecule, distance, method, basis, max_cycle)
        case "scipy":
            found = _energy_by_scipy(molecule, distance, method, max_cycle)
        case _:
            raise ValueError(f"engine is {engine!r}; choose one of auto, {', '.join(ENGINES)}")
    return {"molecule": molecule, "distance": distance, **found}


@cache
def available_engine() -> str:
    """Return what computes energies here.

    Raises:
        RuntimeError: nothing is installed that could.
    """
    for name in ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise RuntimeError("neither PySCF nor SciPy is installed: pip install 'recordledger[demo]'")


def geometry(molecule: str, distance: float) -> list[tuple[str, tuple[float, float, float]]]:
    """Return the atoms and where they are, in angstrom."""
    if molecule == "N2":
        return [("N", (0.0, 0.0, 0.0)), ("N", (0.0, 0.0, distance))]
    half = math.radians(_WATER_ANGLE / 2)
    across, along = distance * math.sin(half), distance * math.cos(half)
    return [
        ("O", (0.0, 0.0, 0.0)),
        ("H", (across, along, 0.0)),
        ("H", (-across, along, 0.0)),
    ]


def _energy_by_pyscf(
    molecule: str, distance: float, method: str, basis: str, max_cycle: int
) -> dict[str, Any]:
    # Neither PySCF nor SciPy has types, and neither need be installed.
    gto, mp, scf = (_module(f"pyscf.{name}") for name in ("gto", "mp", "scf"))
    atoms = gto.M(atom=geometry(molecule, distance), basis=basis, verbose=0)
    field = scf.RHF(atoms)
    field.max_cycle = max_cycle
    field.kernel()
    if not field.converged:
        raise ConvergenceError(
            f"the self-consistent field of {molecule} at {distance:g} angstrom did not converge "
            f"within {max_cycle} iterations ({basis}; last energy {field.e_tot:.6f} hartree); "
            "raise max_cycle"
        )
    energy = float(field.e_tot)
    if method == "MP2":
        correlated = mp.MP2(field)
        correlated.verbose = 0
        energy += float(correlated.kernel()[0])
    return {
        "energy": energy,
        "n_iterations": int(field.cycles),
        "n_basis_functions": int(atoms.nao),
        "level": f"{method}/{basis}",
        "program": f"PySCF {version('pyscf')}",
    }


def _energy_by_scipy(molecule: str, distance: float, method: str, max_cycle: int) -> dict[str, Any]:
    np, linalg = _module("numpy"), _module("scipy.linalg")
    depth, width, minimum, mass = _MORSE[molecule]
    energy = _morse(distance, depth, width, minimum)
    # The ground state of the stretching vibration, on grids that get finer until it stands still.
    n_points, before = 64, math.inf
    for iteration in range(1, max_cycle + 1):
        grid = np.linspace(0.5 * minimum, 2.5 * minimum, n_points)
        step = float(grid[1] - grid[0]) / _BOHR_IN_ANGSTROM
        potential = np.array([_morse(float(x), depth, width, minimum) for x in grid])
        kinetic = 1 / (mass * step**2)
        levels = linalg.eigh_tridiagonal(
            potential + kinetic,
            np.full(n_points - 1, -kinetic / 2),
            select="i",
            select_range=(0, 0),
            eigvals_only=True,
        )
        ground = float(levels[0])
        if abs(ground - before) < _KELVIN_IN_HARTREE:
            return {
                "energy": energy + (ground + depth if method == "MP2" else 0.0),
                "n_iterations": iteration,
                "n_basis_functions": n_points,
                "level": "Morse + ZPE" if method == "MP2" else "Morse",
                "program": f"SciPy {version('scipy')} (a model)",
            }
        n_points, before = 2 * n_points, ground
    raise ConvergenceError(
        f"the vibration of {molecule} did not converge within {max_cycle} grids; raise max_cycle"
    )


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _morse(distance: float, depth: float, width: float, minimum: float) -> float:
    """Return the energy relative to the separated atoms, in hartree."""
    return depth * ((1 - math.exp(-width * (distance - minimum))) ** 2 - 1)
