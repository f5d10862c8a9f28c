"""The ledger's own work, measured over HTTP with the Python client."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from recordledger import Client
from recordledger.api.client import UpdateMetadata
from recordledger.api.schemas.claims import AttemptRef, TaskOut
from recordledger.api.schemas.returns import ResultIn

from .measuring import Measurement

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier, Event

FUNCTION: Final = "recordledger.workers.demo.functions:noop"
SUBMIT_BATCH: Final = 1_000
CLAIM_BATCH: Final = 200
SMALL_CLAIM: Final = 20
N_MANAGERS: Final = 4
# A JSON string of 1 KiB: with its two quotes.
RESULT_1_KIB: Final = b'"' + b"0123456789abcdef" * 63 + b"01234567890123" + b'"'


def submit(client: Client, n_records: int, tag: str) -> Measurement:
    """Submit distinct tasks, in batches."""
    measured = Measurement()
    for first in range(0, n_records, SUBMIT_BATCH):
        batch = min(SUBMIT_BATCH, n_records - first)
        kwargs = [{"mark": f"{tag}-{index}"} for index in range(first, first + batch)]
        with measured.call(batch):
            answer = client.add_records(FUNCTION, kwargs, tag=tag)
        assert len(answer.inserted_idx) == batch, answer
    return measured


def small_claims(client: Client, manager_id: int, n_claims: int) -> Measurement:
    """Claim a few at a time, as a manager of a cluster does, and give them back."""
    measured = Measurement()
    for _ in range(n_claims):
        with measured.call(SMALL_CLAIM):
            tasks = client.claim(manager_id, SMALL_CLAIM).tasks
        given_back = [AttemptRef(record_id=task.record_id, attempt=task.attempt) for task in tasks]
        client.relinquish(manager_id, given_back)
    return measured


def claim(client: Client, manager_id: int, n_records: int) -> tuple[Measurement, list[TaskOut]]:
    """Claim everything, in batches."""
    measured = Measurement()
    tasks: list[TaskOut] = []
    while len(tasks) < n_records:
        with measured.call(CLAIM_BATCH):
            got = client.claim(manager_id, CLAIM_BATCH).tasks
        assert got, f"only {len(tasks)} of {n_records} could be claimed"
        measured.n_items += len(got) - CLAIM_BATCH
        tasks += got
    return measured, tasks


def hand_in(client: Client, manager_id: int, tasks: list[TaskOut]) -> Measurement:
    """Return a result of 1 KiB for each task, in batches; every result is different."""
    measured = Measurement()
    for first in range(0, len(tasks), CLAIM_BATCH):
        results = [
            ResultIn(
                record_id=task.record_id,
                attempt=task.attempt,
                result=RESULT_1_KIB.replace(b"0123456789", b"%010d" % task.record_id, 1),
                compute_s=0.001,
            )
            for task in tasks[first : first + CLAIM_BATCH]
        ]
        with measured.call(len(results)):
            answer = client.return_results(manager_id, results)
        assert len(answer.accepted_idx) == len(results), answer
    return measured


def manage(client: Client, n_records: int) -> dict[str, Measurement]:
    """Do to many records in one call each what people do: each call is one operation."""
    manager_id = client.register_manager("bench-managing", ["managing"]).manager_id
    kwargs = [{"mark": f"managing-{index}"} for index in range(n_records)]
    ids = [id_ for id_ in client.add_records(FUNCTION, kwargs, tag="managing").ids if id_]
    figures: dict[str, Measurement] = {}

    def measure(name: str, call: Callable[[list[int]], UpdateMetadata]) -> None:
        figures[name] = Measurement()
        with figures[name].call(len(ids)):
            answer = call(ids)
        assert len(answer.updated_idx) == len(ids), answer

    measure("cancel", client.cancel_records)
    measure("uncancel", client.uncancel_records)
    measure("delete", client.delete_records)
    measure("undelete", client.undelete_records)
    _, tasks = claim(client, manager_id, n_records)
    for first in range(0, len(tasks), CLAIM_BATCH):
        wrong = [
            ResultIn(record_id=task.record_id, attempt=task.attempt, error_type="Wrong")
            for task in tasks[first : first + CLAIM_BATCH]
        ]
        client.return_results(manager_id, wrong)
    measure("reset", client.reset_records)
    return figures


def cycle(client: Client, url: str, token: str, n_records: int) -> Measurement:
    """Run no-op tasks from submission to result, by several managers side by side."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(N_MANAGERS + 1), context.Event()
    latencies: Queue[tuple[int, list[float]]] = context.Queue()
    processes = [
        context.Process(target=_manage, args=(url, token, index, ready, go, latencies))
        for index in range(N_MANAGERS)
    ]
    for process in processes:
        process.start()
    ready.wait()
    submit(client, n_records, "cycle")
    measured = Measurement(n_items=n_records)
    go.set()
    began = perf_counter()
    n_done = 0
    for _ in processes:
        n_tasks, took = latencies.get()
        n_done += n_tasks
        measured.latencies_s += took
    measured.seconds = perf_counter() - began
    for process in processes:
        process.join()
    assert n_done == n_records, f"{n_done} of {n_records} came back"
    return measured


def _manage(
    url: str,
    token: str,
    index: int,
    ready: Barrier,
    go: Event,
    latencies: Queue[tuple[int, list[float]]],
) -> None:
    """Claim and return until nothing is left: a manager whose tasks take no time."""
    took: list[float] = []
    n_tasks = 0
    with Client(url, token, progress=False) as client:
        manager_id = client.register_manager(f"bench-{index}", ["cycle"]).manager_id
        ready.wait()
        go.wait()
        while True:
            began = perf_counter()
            tasks = client.claim(manager_id, CLAIM_BATCH).tasks
            if not tasks:
                break
            results = [
                ResultIn(record_id=task.record_id, attempt=task.attempt, result=b"null")
                for task in tasks
            ]
            accepted = client.return_results(manager_id, results).accepted_idx
            n_tasks += len(accepted)
            took.append(perf_counter() - began)
        client.deactivate_manager(manager_id)
    latencies.put((n_tasks, took))
