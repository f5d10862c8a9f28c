"""Handles of datasets: what `client.dataset(...)` gives, blocking and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from .calls import datasets, management
from .calls.datasets import Within
from .calls.records import Pages
from .exchange import Operation
from .results.management import UpdateMetadata
from .signatures import documented, present

if TYPE_CHECKING:
    from .asynchronous import AsyncClient, AsyncFoundRecords
    from .blocking import Client, FoundRecords

P = ParamSpec("P")
T = TypeVar("T")

Verb = Callable[..., Operation[UpdateMetadata]]


def _blocking(
    call: Callable[Concatenate[Within, P], Operation[T]],
) -> Callable[Concatenate[Dataset, P], T]:
    def method(dataset: Dataset, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return dataset.client.run(call(dataset.within, *args, **kwargs))

    present(method, call, "{}")
    return method


def _awaited(
    call: Callable[Concatenate[Within, P], Operation[T]],
) -> Callable[Concatenate[AsyncDataset, P], Coroutine[Any, Any, T]]:
    async def method(dataset: AsyncDataset, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await dataset.client.run(call(dataset.within, *args, **kwargs))

    present(method, call, "{}")
    return method


def _finding(
    call: Callable[Concatenate[Within, P], Pages],
) -> Callable[Concatenate[Dataset, P], FoundRecords]:
    def method(dataset: Dataset, /, *args: P.args, **kwargs: P.kwargs) -> FoundRecords:
        return dataset.client.found(lambda: call(dataset.within, *args, **kwargs))

    present(method, call, "FoundRecords")
    return method


def _finding_later(
    call: Callable[Concatenate[Within, P], Pages],
) -> Callable[Concatenate[AsyncDataset, P], AsyncFoundRecords]:
    def method(dataset: AsyncDataset, /, *args: P.args, **kwargs: P.kwargs) -> AsyncFoundRecords:
        return dataset.client.found(lambda: call(dataset.within, *args, **kwargs))

    present(method, call, "AsyncFoundRecords")
    return method


def _managing(verb: Verb) -> Callable[..., UpdateMetadata]:
    """Return a verb over records as a method: over those of the dataset, or some of them."""

    def method(dataset: Dataset, /, **given: Any) -> UpdateMetadata:
        return dataset.client.run(_of_dataset(verb, dataset.within, given))

    _explain(method, verb)
    return method


def _managing_later(verb: Verb) -> Callable[..., Coroutine[Any, Any, UpdateMetadata]]:
    async def method(dataset: AsyncDataset, /, **given: Any) -> UpdateMetadata:
        return await dataset.client.run(_of_dataset(verb, dataset.within, given))

    _explain(method, verb)
    return method


def _of_dataset(verb: Verb, within: Within, given: dict[str, Any]) -> Operation[UpdateMetadata]:
    return verb(within.session, dataset=within.dataset_id, **given)


def _explain(method: Callable[..., Any], verb: Verb) -> None:
    first, _, rest = documented(verb).partition("\n")
    method.__name__ = verb.__name__
    method.__doc__ = (
        f"{first}\n\nOf this dataset: all its records, or those that meet conditions, like "
        f'`specification="hf", entry=[...], status="error"`.\n{rest}'
    )


class Dataset:
    """A dataset on the server. It is a handle: each call asks anew, and nothing is kept here.

    >>> from recordledger import Client
    >>> with Client() as client:  # doctest: +SKIP
    ...     dataset = client.add_dataset("water clusters")
    ...     dataset.add_entries({"dimer": {"n": 2}, "trimer": {"n": 3}})
    ...     dataset.add_specification("hf", "package.module:energy", {"basis": "sto-3g"})
    ...     dataset.submit()
    ...     dataset.status()
    """

    def __init__(self, client: Client, dataset_id: int) -> None:
        """Speak of this dataset through this client."""
        self.client = client
        self.within = Within(client.session, dataset_id)

    @property
    def id(self) -> int:
        """Which dataset it is."""
        return self.within.dataset_id

    def __repr__(self) -> str:
        """Return which dataset this is."""
        return f"Dataset({self.id})"

    info = _blocking(datasets.info)
    history = _blocking(datasets.history)
    add_entries = _blocking(datasets.add_entries)
    entries = _blocking(datasets.entries)
    rename_entries = _blocking(datasets.rename_entries)
    remove_entries = _blocking(datasets.remove_entries)
    add_specification = _blocking(datasets.add_specification)
    remove_specifications = _blocking(datasets.remove_specifications)
    submit = _blocking(datasets.submit)
    status = _blocking(datasets.status)
    wait = _blocking(datasets.wait)
    table = _blocking(datasets.table)
    results = _blocking(datasets.results)
    records = _finding(datasets.records)
    unlink_records = _blocking(datasets.unlink_records)
    lock = _blocking(datasets.lock)
    rename = _blocking(datasets.rename)
    describe = _blocking(datasets.describe)
    delete = _blocking(datasets.delete)

    reset_records = _managing(management.reset_records)
    cancel_records = _managing(management.cancel_records)
    uncancel_records = _managing(management.uncancel_records)
    delete_records = _managing(management.delete_records)
    undelete_records = _managing(management.undelete_records)
    invalidate_records = _managing(management.invalidate_records)
    uninvalidate_records = _managing(management.uninvalidate_records)
    hold_records = _managing(management.hold_records)
    release_records = _managing(management.release_records)
    fail_records = _managing(management.fail_records)
    revive_records = _managing(management.revive_records)
    modify_records = _managing(management.modify_records)
    add_comment = _managing(management.add_comment)
    resubmit_records = _managing(management.resubmit_records)
    adopt_results = _managing(management.adopt_results)

    def clone(
        self,
        name: str,
        description: str | None = None,
        *,
        version: int | None = None,
        link_records: bool = False,
        reason: str | None = None,
    ) -> Dataset:
        """See below: the operation's own docstring is put here."""
        call = datasets.clone(
            self.within,
            name,
            description,
            version=version,
            link_records=link_records,
            reason=reason,
        )
        return Dataset(self.client, self.client.run(call))

    clone.__doc__ = documented(datasets.clone)


class AsyncDataset:
    """A dataset on the server, for asyncio: the calls of `Dataset`, to be awaited."""

    def __init__(self, client: AsyncClient, dataset_id: int) -> None:
        """Speak of this dataset through this client."""
        self.client = client
        self.within = Within(client.session, dataset_id)

    @property
    def id(self) -> int:
        """Which dataset it is."""
        return self.within.dataset_id

    def __repr__(self) -> str:
        """Return which dataset this is."""
        return f"AsyncDataset({self.id})"

    info = _awaited(datasets.info)
    history = _awaited(datasets.history)
    add_entries = _awaited(datasets.add_entries)
    entries = _awaited(datasets.entries)
    rename_entries = _awaited(datasets.rename_entries)
    remove_entries = _awaited(datasets.remove_entries)
    add_specification = _awaited(datasets.add_specification)
    remove_specifications = _awaited(datasets.remove_specifications)
    submit = _awaited(datasets.submit)
    status = _awaited(datasets.status)
    wait = _awaited(datasets.wait)
    table = _awaited(datasets.table)
    results = _awaited(datasets.results)
    records = _finding_later(datasets.records)
    unlink_records = _awaited(datasets.unlink_records)
    lock = _awaited(datasets.lock)
    rename = _awaited(datasets.rename)
    describe = _awaited(datasets.describe)
    delete = _awaited(datasets.delete)

    reset_records = _managing_later(management.reset_records)
    cancel_records = _managing_later(management.cancel_records)
    uncancel_records = _managing_later(management.uncancel_records)
    delete_records = _managing_later(management.delete_records)
    undelete_records = _managing_later(management.undelete_records)
    invalidate_records = _managing_later(management.invalidate_records)
    uninvalidate_records = _managing_later(management.uninvalidate_records)
    hold_records = _managing_later(management.hold_records)
    release_records = _managing_later(management.release_records)
    fail_records = _managing_later(management.fail_records)
    revive_records = _managing_later(management.revive_records)
    modify_records = _managing_later(management.modify_records)
    add_comment = _managing_later(management.add_comment)
    resubmit_records = _managing_later(management.resubmit_records)
    adopt_results = _managing_later(management.adopt_results)

    async def clone(
        self,
        name: str,
        description: str | None = None,
        *,
        version: int | None = None,
        link_records: bool = False,
        reason: str | None = None,
    ) -> AsyncDataset:
        """See below: the operation's own docstring is put here."""
        call = datasets.clone(
            self.within,
            name,
            description,
            version=version,
            link_records=link_records,
            reason=reason,
        )
        return AsyncDataset(self.client, await self.client.run(call))

    clone.__doc__ = documented(datasets.clone)
