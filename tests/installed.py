"""Packages that are installed for a test, as far as entry points are concerned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GROUP = "recordledger.services"


def install_services(folder: Path, services: Mapping[str, str]) -> str:
    """Make a folder that, on PYTHONPATH, installs services by name: `module:Class`; return it."""
    metadata = folder / "services_of_tests-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: services-of-tests\nVersion: 1\n"
    )
    lines = [f"[{GROUP}]", *(f"{name} = {target}" for name, target in services.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return str(folder)
