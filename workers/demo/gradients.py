"""Functions that return an energy and its gradient: of molecules, and of surfaces in a formula.

They are entry points of the group `recordledger.functions`: what `optimization` and
`nudged_elastic_band` ask for.
"""

from __future__ import annotations

import importlib
import math
from importlib.metadata import version
from typing import Any, Final

from .functions import ConvergenceError

# Four terms of height, widths xx, xy, yy, and centre.
# K. Mueller and L. D. Brown, Theor. Chim. Acta 53, 75 (1979).
_MUELLER_BROWN: Final = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)


def energy_and_gradient(
    symbols: list[str],
    coordinates: list[list[float]],
    basis: str = "sto-3g",
    charge: int = 0,
    max_cycle: int = 100,
) -> dict[str, Any]:
    """Return energy and gradient of a molecule by restricted Hartree-Fock (PySCF).

    Args:
        symbols: of the elements, one for each atom.
        coordinates: x, y and z of each atom, in bohr.
        basis: the name of a basis set.
        charge: in elementary charges; the number of electrons must be even.
        max_cycle: how many iterations the self-consistent field may take.

    Returns:
        `energy` in hartree; `gradient` in hartree/bohr, in rows as the coordinates; level of theory
        and program.

    Raises:
        ConvergenceError: not within `max_cycle` iterations.
        ValueError: as many symbols as coordinates are needed, and an even number of electrons.
    """
    if len(symbols) != len(coordinates):
        raise ValueError(
            f"there are {len(symbols)} symbols, but coordinates of {len(coordinates)} atoms"
        )
    # PySCF has no types, and need not be installed.
    gto, scf = (importlib.import_module(f"pyscf.{name}") for name in ("gto", "scf"))
    atoms = gto.M(
        atom=list(zip(symbols, coordinates, strict=True)),
        unit="Bohr",
        basis=basis,
        charge=charge,
        spin=None,
        verbose=0,
    )
    if atoms.nelectron % 2:
        raise ValueError(f"{atoms.nelectron} electrons are an odd number; choose another charge")
    field = scf.RHF(atoms)
    field.max_cycle = max_cycle
    # Noise in the gradient is what keeps an optimizer from its end.
    field.conv_tol = 1e-10
    field.kernel()
    if not field.converged:
        raise ConvergenceError(
            f"the self-consistent field did not converge within {max_cycle} iterations ({basis}; "
            f"last energy {field.e_tot:.6f} hartree); raise max_cycle"
        )
    slope = field.nuc_grad_method()
    slope.verbose = 0
    return {
        "energy": float(field.e_tot),
        "gradient": slope.kernel().tolist(),
        "level": f"RHF/{basis}",
        "program": f"PySCF {version('pyscf')}",
    }


def harmonic_well(
    coordinates: list[float], minimum: list[float], stiffness: list[float]
) -> dict[str, Any]:
    """Return energy and gradient of half the sum of `stiffness * (coordinate - minimum)**2`."""
    parts = list(zip(coordinates, minimum, stiffness, strict=True))
    return {
        "energy": sum(k * (x - x0) ** 2 for x, x0, k in parts) / 2,
        "gradient": [k * (x - x0) for x, x0, k in parts],
    }


def rosenbrock(coordinates: list[float]) -> dict[str, Any]:
    """Return energy and gradient in the valley of Rosenbrock, lowest at (1, 1): hard to follow."""
    x, y = coordinates
    return {
        "energy": (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        "gradient": [-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)],
    }


def mueller_brown(coordinates: list[float]) -> dict[str, Any]:
    """Return energy and gradient on the surface of Mueller and Brown: three minima, two saddles.

    The lowest minimum is at (-0.558, 1.442), and the others are at (0.623, 0.028) and
    (-0.050, 0.467); the saddle points are at (-0.822, 0.624) and (0.212, 0.293).
    """
    x, y = coordinates
    energy = slope_x = slope_y = 0.0
    for height, a, b, c, x0, y0 in _MUELLER_BROWN:
        dx, dy = x - x0, y - y0
        term = height * math.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        energy += term
        slope_x += term * (2 * a * dx + b * dy)
        slope_y += term * (b * dx + 2 * c * dy)
    return {"energy": energy, "gradient": [slope_x, slope_y]}
