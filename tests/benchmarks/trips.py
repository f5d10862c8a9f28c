"""Which files a call goes through, from the Python client to the database and back.

A real client calls a real server, which runs in a thread of this process, over a real PostgreSQL.
Each call is made once, so that everything is imported and the token is known, and then traced:

    python -m tests.benchmarks.trips --files claim

A *room* is a package or a module directly in a layer: a word on a ladder of docs/ARCHITECTURE.md,
like `projections.tables`, `projections.ledger` or `api.http`. A file is entered when a function in
it runs. A *crossing* is a call from a function in one of our files to one in another, whatever
libraries are between them; resuming a generator is a call as well.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from recordledger.api.client import Client
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.tables.schema import migrate
from tests.api.service import serving
from tests.postgres import new_database, running_server

ROOT: Final = Path(__file__).resolve().parents[2]
LAYERS: Final = ("domain", "projections", "api", "workers")
FUNCTION: Final = "demo:square"
# What else runs in the server, now and then, is not in all of them.
N_RUNS: Final = 3


@dataclass(frozen=True)
class Trip:
    """What one call went through.

    Attributes:
        files: paths below the root, in the order in which they were first entered.
        crossings: number of calls from one file to another.
    """

    files: tuple[str, ...]
    crossings: int

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that were entered, in that order."""
        return tuple(dict.fromkeys(room_of(file) for file in self.files))


def room_of(file: str) -> str:
    """Return the room of a file.

    >>> room_of("projections/tables/records.py"), room_of("projections/ledger.py")
    ('projections.tables', 'projections.ledger')
    """
    layer, room, *_ = file.removesuffix(".py").split("/")
    return f"{layer}.{room}"


class Tracer:
    """Notes calls of functions of ours in all threads that begin after it was installed."""

    def __init__(self) -> None:
        self._files: dict[str, None] = {}
        self._n_crossings = 0
        self._is_on = False
        self._ours: dict[str, str | None] = {}

    @contextmanager
    def installed(self) -> Generator[None]:
        """Be called for each call in threads that begin now; it costs little until `trace`."""
        threading.setprofile(self._note)
        try:
            yield
        finally:
            threading.setprofile(None)

    def trace(self, call: Callable[[], object]) -> Trip:
        """Make a call, and return what it went through."""
        self._files, self._n_crossings, self._is_on = {}, 0, True
        sys.setprofile(self._note)
        try:
            call()
        finally:
            sys.setprofile(None)
            self._is_on = False
        return Trip(tuple(self._files), self._n_crossings)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._is_on or event != "call" or (file := self._file_of(frame)) is None:
            return
        self._files[file] = None
        caller, before = None, frame.f_back
        while before is not None and caller is None:
            caller, before = self._file_of(before), before.f_back
        self._n_crossings += caller not in (None, file)

    def _file_of(self, frame: FrameType) -> str | None:
        """Return the path of a frame's file if it is in a layer."""
        name = frame.f_code.co_filename
        if name not in self._ours:
            # A file may be reached through the links of the package.
            path = Path(name).resolve()
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in LAYERS
            self._ours[name] = path.relative_to(ROOT).as_posix() if inside else None
        return self._ours[name]


def trips(database_url: str) -> dict[str, Trip]:
    """Return what each kind of call goes through; the database has the schema and no rows."""
    tracer = Tracer()
    with ExitStack() as stack:
        stack.enter_context(tracer.installed())
        service = stack.enter_context(serving(database_url, pool_size=4))
        token = issue_token(service.ledger, "ann", Role.admin).secret
        client = stack.enter_context(Client(service.url, token, progress=False))
        return {name: _traced(tracer, make) for name, make in _calls(client).items()}


def _traced(tracer: Tracer, calls: Iterator[Callable[[], object]]) -> Trip:
    """Return what all of the calls but the first go through."""
    next(calls)()
    found = [tracer.trace(next(calls)) for _ in range(N_RUNS)]
    shortest = min(found, key=lambda trip: trip.crossings)
    always = [file for file in shortest.files if all(file in trip.files for trip in found)]
    return Trip(tuple(always), shortest.crossings)


def _calls(client: Client) -> Mapping[str, Iterator[Callable[[], object]]]:
    """Return the kinds of calls, each as what yields such calls; what they need is done before."""
    numbers = iter(range(1_000_000))

    def add(n_records: int) -> list[int]:
        added = client.add_records(FUNCTION, [{"n": next(numbers)} for _ in range(n_records)])
        return [id_ for id_ in added.ids if id_ is not None]

    def submit() -> Iterator[Callable[[], object]]:
        while True:
            kwargs = [{"n": next(numbers)}, {"n": next(numbers)}]
            yield partial(client.add_records, FUNCTION, kwargs)

    def claim() -> Iterator[Callable[[], object]]:
        manager_id = client.register_manager("node", ["*"]).manager_id
        while True:
            add(1)
            yield partial(client.claim, manager_id, 1)

    def give_back() -> Iterator[Callable[[], object]]:
        manager_id = client.register_manager("node", ["*"]).manager_id
        while True:
            add(1)
            (task,) = client.claim(manager_id, 1).tasks
            result = ResultIn(record_id=task.record_id, attempt=task.attempt, result={"y": 1})
            yield partial(client.return_results, manager_id, [result])

    def cancel() -> Iterator[Callable[[], object]]:
        while True:
            ids = add(2)
            yield partial(client.cancel_records, ids)

    def question(ask: Callable[[int, int], object]) -> Iterator[Callable[[], object]]:
        (id_,) = add(1)
        position = client.history(id_)[-1].position
        add(1)
        while True:
            yield partial(ask, id_, position)

    return {
        "submit 2 records": submit(),
        "claim 1": claim(),
        "return 1 result": give_back(),
        "cancel 2, no family": cancel(),
        "query a page": question(lambda _, __: list(client.query_records(limit=10))),
        "the same, as of a position": question(
            lambda _, position: list(client.query_records(limit=10, as_of=position))
        ),
        "get one": question(lambda id_, _: client.get_records(id_)),
        "why": question(lambda id_, _: client.why(id_)),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--files", metavar="CALL", default="", help="list files whose call has this"
    )
    given = parser.parse_args()
    with running_server() as server, new_database(server) as url:
        migrate(url)
        found = trips(url)
    print("| call | rooms | files | crossings |\n| --- | ---: | ---: | ---: |")
    for name, trip in found.items():
        print(f"| {name} | {len(trip.rooms)} | {len(trip.files)} | {trip.crossings} |")
    for name, trip in found.items():
        if given.files and given.files in name:
            print(f"\n{name}: {', '.join(trip.rooms)}", *trip.files, sep="\n  ")


if __name__ == "__main__":
    main()
