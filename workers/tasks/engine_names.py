"""The names of the engines, apart from the engines: what only names them need not import them."""

from __future__ import annotations

from typing import Final

PROCESSES: Final = "processes"
POOL: Final = "pool"
DASK: Final = "dask"
PARSL: Final = "parsl"
IPYPARALLEL: Final = "ipyparallel"
ENGINES: Final = (PROCESSES, POOL, DASK, PARSL, IPYPARALLEL)
