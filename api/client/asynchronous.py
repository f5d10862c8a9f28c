"""The client for asyncio: the same calls, to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import httpx2

from .actions import DatasetActions, LedgerActions
from .arguments import AsOf
from .exchange import TIMEOUT_S, Operation, Outcome, Reply, Send, Session, Sleep, Step
from .on_demand import claims, histories, management, presence, records, routing, seals, services
from .on_demand import counts as count_calls
from .on_demand import datasets as dataset_calls
from .on_demand import diff as diff_calls
from .on_demand import events as event_calls
from .on_demand import managers as manager_calls
from .on_demand import operations as operation_calls
from .on_demand import origins as origin_calls
from .on_demand import self_audit as self_audit_calls
from .on_demand import server as server_calls
from .on_demand import tokens as token_calls
from .on_demand import webhooks as webhook_calls
from .options import STREAM_TIMEOUT, closed, fault_of, open_session
from .signatures import documented_as, presented

if TYPE_CHECKING:
    from ..schemas.records import Include
    from .results.events import LogEvent
    from .results.management import UpdateMetadata
    from .results.records import Record, Records

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    call: Callable[Concatenate[Session, P], Operation[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.run(call(client.session, *args, **kwargs))

    return presented(method, call, "{}")


def _querying(
    call: Callable[Concatenate[Session, P], records.Pages],
) -> Callable[Concatenate[AsyncClient, P], AsyncFoundRecords]:
    def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncFoundRecords:
        return client.found(lambda: call(client.session, *args, **kwargs))

    return presented(method, call, "AsyncFoundRecords")


def _following(
    call: Callable[Concatenate[Session, P], event_calls.Feed],
) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[LogEvent]]:
    def method(
        client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[LogEvent]:
        feed = call(client.session, *args, **kwargs)
        return client.followed(feed) if kwargs.get("follow") else client.paged(feed)

    return presented(method, call, "AsyncGenerator[LogEvent]")


class AsyncClient(LedgerActions["Coroutine[Any, Any, UpdateMetadata]"], bind=_awaited):
    """A connection to the ledger for asyncio. Tasks of one event loop may share it.

    >>> from recordledger import AsyncClient
    >>> async def compute():
    ...     async with AsyncClient() as client:
    ...         added = await client.add_records("package.module:function", [{"x": 1.0}])
    ...         return await client.wait(added.ids)
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        token_file: str | Path | None = None,
        timeout_s: float = TIMEOUT_S,
        retries_s: float | None = None,
        progress: bool | None = None,
    ) -> None:
        """Find the server; nothing is sent yet. The arguments are those of `Client`."""
        self.session, options = open_session(url, token, token_file, timeout_s, retries_s, progress)
        self._http = httpx2.AsyncClient(**options)

    @property
    def url(self) -> str:
        """The server's address."""
        return self.session.url

    def __repr__(self) -> str:
        """Return which server this talks to."""
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> AsyncClient:
        """Return the client itself; it is closed at the end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    server = _awaited(server_calls.server)
    counts = _awaited(count_calls.counts)
    add_records = _awaited(records.add_records)
    query_records = _querying(records.query_records)
    history = _awaited(records.history)
    timeline = _awaited(histories.timeline)
    operation_history = _awaited(histories.operation_history)
    user_history = _awaited(histories.user_history)
    attempts = _awaited(records.attempts)
    wait = _awaited(records.wait)
    events = _following(event_calls.events)
    diff = _awaited(diff_calls.diff)

    undo = _awaited(operation_calls.undo)
    operations = _awaited(operation_calls.operations)
    operation = _awaited(operation_calls.operation)
    jobs = _awaited(operation_calls.jobs)
    job = _awaited(operation_calls.job)
    cancel_job = _awaited(operation_calls.cancel_job)
    comments = _awaited(operation_calls.comments)
    children = _awaited(operation_calls.children)
    parents = _awaited(operation_calls.parents)
    error_groups = _awaited(operation_calls.error_groups)
    policies = _awaited(operation_calls.policies)
    wait_for_job = _awaited(management.wait_for_job)

    managers = _awaited(manager_calls.managers)
    manager = _awaited(manager_calls.manager)
    manager_history = _awaited(histories.manager_history)
    register_manager = _awaited(presence.register_manager)
    heartbeat = _awaited(presence.heartbeat)
    claim = _awaited(claims.claim)
    return_results = _awaited(claims.return_results)
    relinquish = _awaited(claims.relinquish)
    deactivate_manager = _awaited(presence.deactivate_manager)
    drain_manager = _awaited(presence.drain_manager)
    report_programs = _awaited(presence.report_programs)
    rescues = _awaited(manager_calls.rescues)

    add_service = _awaited(services.add_service)
    service = _awaited(services.service)
    tree = _awaited(services.tree)

    receipt = _awaited(seals.receipt)
    checkpoint = _awaited(seals.checkpoint)
    consistency = _awaited(seals.consistency)

    why = _awaited(routing.why)
    queue = _awaited(routing.queue)

    datasets = _awaited(dataset_calls.datasets)

    @documented_as(dataset_calls.add_dataset)
    async def add_dataset(
        self, name: str, description: str = "", *, reason: str | None = None
    ) -> AsyncDataset:
        call = dataset_calls.add_dataset(self.session, name, description, reason=reason)
        return AsyncDataset(self, await self.run(call))

    @documented_as(dataset_calls.dataset)
    async def dataset(self, name_or_id: str | int) -> AsyncDataset:
        return AsyncDataset(self, await self.run(dataset_calls.dataset(self.session, name_or_id)))

    def found(self, ask: Callable[[], records.Pages]) -> AsyncFoundRecords:
        """Return what a query finds; `ask` makes its pages again for each loop."""
        # Made once here, so that a wrong condition is refused by the call and not by the loop.
        ask()
        return AsyncFoundRecords(self, ask)

    issue_token = _awaited(token_calls.issue_token)
    tokens = _awaited(token_calls.tokens)
    revoke_token = _awaited(token_calls.revoke_token)

    add_webhook = _awaited(webhook_calls.add_webhook)
    webhooks = _awaited(webhook_calls.webhooks)
    webhook = _awaited(webhook_calls.webhook)
    modify_webhook = _awaited(webhook_calls.modify_webhook)
    remove_webhook = _awaited(webhook_calls.remove_webhook)
    webhook_deliveries = _awaited(webhook_calls.webhook_deliveries)
    test_webhook = _awaited(webhook_calls.test_webhook)
    self_audit = _awaited(self_audit_calls.self_audit)
    repair = _awaited(self_audit_calls.repair)
    origins = _awaited(origin_calls.origins)

    @overload
    async def get_records(
        self,
        ids: int,
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: Literal[False] = False,
        as_of: AsOf = None,
    ) -> Record: ...
    @overload
    async def get_records(
        self,
        ids: int,
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool,
        as_of: AsOf = None,
    ) -> Record | None: ...
    @overload
    async def get_records(
        self,
        ids: Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: Literal[False] = False,
        as_of: AsOf = None,
    ) -> Records[Record]: ...
    @overload
    async def get_records(
        self,
        ids: Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool,
        as_of: AsOf = None,
    ) -> Records[Record | None]: ...
    @documented_as(records.get_records)
    async def get_records(
        self,
        ids: int | Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool = False,
        as_of: AsOf = None,
    ) -> Any:
        call = records.get_records(self.session, ids, include, missing_ok=missing_ok, as_of=as_of)
        return await self.run(call)

    async def paged(self, feed: event_calls.Feed) -> AsyncGenerator[LogEvent]:
        """Iterate over the events that there are."""
        while not feed.is_last:
            for event in await self.run(feed.fetch()):
                yield event

    async def followed(self, feed: event_calls.Feed) -> AsyncGenerator[LogEvent]:
        """Iterate over the events that there are and will be, over one connection after another."""
        while True:
            source: httpx2.Response = await self.run(feed.open())
            async with contextlib.aclosing(source):
                try:
                    async for chunk in source.aiter_bytes():
                        for event in feed.events_in(chunk):
                            yield event
                except httpx2.TransportError:
                    continue

    async def run(self, operation: Operation[T]) -> T:
        """Do what an operation asks for, step by step, and return its result."""
        outcome: Outcome = None
        try:
            while True:
                step = operation.send(outcome)
                outcome = await self._perform(step)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()

    async def _perform(self, step: Step) -> Outcome:
        match step:
            case Sleep(seconds=seconds):
                await asyncio.sleep(seconds)
                return None
            case Send():
                if self._http.is_closed:
                    raise closed(self.session)
                try:
                    return await self._sent(step)
                except httpx2.TransportError as error:
                    return fault_of(error)

    async def _sent(self, send: Send) -> Reply:
        if not send.is_stream:
            response = await self._http.request(
                send.method, send.path, content=send.body or None, headers=send.headers
            )
            return Reply(response.status_code, response.headers, response.content)
        request = self._http.build_request(
            send.method, send.path, headers=send.headers, timeout=STREAM_TIMEOUT
        )
        response = await self._http.send(request, stream=True)
        if response.is_success:
            return Reply(response.status_code, response.headers, b"", response)
        return Reply(response.status_code, response.headers, await response.aread())


class AsyncFoundRecords:
    """The records that a query finds. Each loop over it asks again."""

    def __init__(self, client: AsyncClient, ask: Callable[[], records.Pages]) -> None:
        self._client = client
        self._ask = ask

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Iterate over the records; pages are fetched as needed."""
        async for page in self.pages():
            for record in page:
                yield record

    async def pages(self) -> AsyncIterator[Records[Record]]:
        """Iterate over the pages."""
        pages = self._ask()
        while not pages.is_last:
            if page := await self._client.run(pages.fetch()):
                yield page

    async def all(self) -> Records[Record]:
        """Return all of them at once."""
        from .results.records import Records

        found: Records[Record] = Records()
        async for page in self.pages():
            found += page
            found.as_of = page.as_of
        return found


def _of_it(
    call: Callable[Concatenate[dataset_calls.Within, P], Operation[T]],
) -> Callable[Concatenate[AsyncDataset, P], Coroutine[Any, Any, T]]:
    async def method(dataset: AsyncDataset, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await dataset.client.run(call(dataset.within, *args, **kwargs))

    return presented(method, call, "{}")


def _finding(
    call: Callable[Concatenate[dataset_calls.Within, P], records.Pages],
) -> Callable[Concatenate[AsyncDataset, P], AsyncFoundRecords]:
    def method(dataset: AsyncDataset, /, *args: P.args, **kwargs: P.kwargs) -> AsyncFoundRecords:
        return dataset.client.found(lambda: call(dataset.within, *args, **kwargs))

    return presented(method, call, "AsyncFoundRecords")


def _managing(
    verb: Callable[..., Operation[UpdateMetadata]],
) -> Callable[..., Coroutine[Any, Any, UpdateMetadata]]:
    """Return a verb over records as a method: over those of the dataset, or some of them."""

    async def method(dataset: AsyncDataset, /, **given: Any) -> UpdateMetadata:
        return await dataset.client.run(verb(dataset.client.session, dataset=dataset.id, **given))

    return presented(method, verb, "{}")


class AsyncDataset(DatasetActions["Coroutine[Any, Any, UpdateMetadata]"], bind=_managing):
    """A dataset on the server, for asyncio: the calls of `Dataset`, to be awaited."""

    def __init__(self, client: AsyncClient, dataset_id: int) -> None:
        """Make a handle of this dataset for this client."""
        self.client = client
        self.within = dataset_calls.Within(client.session, dataset_id)

    @property
    def id(self) -> int:
        """Which dataset it is."""
        return self.within.dataset_id

    def __repr__(self) -> str:
        """Return which dataset this is."""
        return f"AsyncDataset({self.id})"

    info = _of_it(dataset_calls.info)
    history = _of_it(dataset_calls.history)
    add_entries = _of_it(dataset_calls.add_entries)
    entries = _of_it(dataset_calls.entries)
    rename_entries = _of_it(dataset_calls.rename_entries)
    remove_entries = _of_it(dataset_calls.remove_entries)
    add_specification = _of_it(dataset_calls.add_specification)
    remove_specifications = _of_it(dataset_calls.remove_specifications)
    submit = _of_it(dataset_calls.submit)
    status = _of_it(dataset_calls.status)
    wait = _of_it(dataset_calls.wait)
    table = _of_it(dataset_calls.table)
    results = _of_it(dataset_calls.results)
    records = _finding(dataset_calls.records)
    unlink_records = _of_it(dataset_calls.unlink_records)
    lock = _of_it(dataset_calls.lock)
    rename = _of_it(dataset_calls.rename)
    describe = _of_it(dataset_calls.describe)
    delete = _of_it(dataset_calls.delete)

    @documented_as(dataset_calls.clone)
    async def clone(
        self,
        name: str,
        description: str | None = None,
        *,
        version: int | None = None,
        link_records: bool = False,
        reason: str | None = None,
    ) -> AsyncDataset:
        call = dataset_calls.clone(
            self.within,
            name,
            description,
            version=version,
            link_records=link_records,
            reason=reason,
        )
        return AsyncDataset(self.client, await self.client.run(call))
