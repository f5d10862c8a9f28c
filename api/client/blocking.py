"""The blocking client."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
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


def _blocking(
    call: Callable[Concatenate[Session, P], Operation[T]],
) -> Callable[Concatenate[Client, P], T]:
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.run(call(client.session, *args, **kwargs))

    return presented(method, call, "{}")


def _querying(
    call: Callable[Concatenate[Session, P], records.Pages],
) -> Callable[Concatenate[Client, P], FoundRecords]:
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> FoundRecords:
        return client.found(lambda: call(client.session, *args, **kwargs))

    return presented(method, call, "FoundRecords")


def _following(
    call: Callable[Concatenate[Session, P], event_calls.Feed],
) -> Callable[Concatenate[Client, P], Iterator[LogEvent]]:
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[LogEvent]:
        feed = call(client.session, *args, **kwargs)
        return client.followed(feed) if kwargs.get("follow") else client.paged(feed)

    return presented(method, call, "Iterator[LogEvent]")


class Client(LedgerActions["UpdateMetadata"], bind=_blocking):
    """A connection to the ledger. Threads may share it; closing it ends their calls.

    >>> from recordledger import Client
    >>> with Client() as client:  # doctest: +SKIP
    ...     added = client.add_records("package.module:function", [{"x": 1.0}, {"x": 2.0}])
    ...     records = client.wait(added.ids)
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
        """Find the server; nothing is sent yet.

        Args:
            url: its address; None for RECORDLEDGER_URL, or what `recordledger up` has written.
            token: as `url`, from RECORDLEDGER_TOKEN.
            token_file: a file with the token, instead of it; None for RECORDLEDGER_TOKEN_FILE. It
                is read again when the server refuses the token, so that it can be replaced.
            timeout_s: for how long one request may be unanswered, in seconds.
            retries_s: for how long to try again when there is no answer, in seconds; every
                request may be sent twice without harm. None: 60 s, and 5 s as long as the server
                has never answered. 0: not at all.
            progress: whether long calls show a bar; None: where a person may see it.

        Raises:
            NotConnected: nothing says where the server is.
        """
        self.session, options = open_session(url, token, token_file, timeout_s, retries_s, progress)
        self._http = httpx2.Client(**options)
        self._closing = threading.Event()
        self._n_sending = 0
        self._sending = threading.Lock()

    @property
    def url(self) -> str:
        """The server's address."""
        return self.session.url

    def __repr__(self) -> str:
        """Return which server this talks to."""
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        """Return the client itself; it is closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Give the connections back; calls that wait to try again end with `NotConnected`.

        Where another thread waits for an answer, it closes the connections when it has it: one
        that were opened just now would stay open otherwise.
        """
        self._closing.set()
        with self._sending:
            is_idle = not self._n_sending
        if is_idle:
            self._http.close()

    server = _blocking(server_calls.server)
    counts = _blocking(count_calls.counts)
    add_records = _blocking(records.add_records)
    query_records = _querying(records.query_records)
    history = _blocking(records.history)
    timeline = _blocking(histories.timeline)
    operation_history = _blocking(histories.operation_history)
    user_history = _blocking(histories.user_history)
    attempts = _blocking(records.attempts)
    wait = _blocking(records.wait)
    events = _following(event_calls.events)
    diff = _blocking(diff_calls.diff)

    undo = _blocking(operation_calls.undo)
    operations = _blocking(operation_calls.operations)
    operation = _blocking(operation_calls.operation)
    jobs = _blocking(operation_calls.jobs)
    job = _blocking(operation_calls.job)
    cancel_job = _blocking(operation_calls.cancel_job)
    comments = _blocking(operation_calls.comments)
    children = _blocking(operation_calls.children)
    parents = _blocking(operation_calls.parents)
    error_groups = _blocking(operation_calls.error_groups)
    policies = _blocking(operation_calls.policies)
    wait_for_job = _blocking(management.wait_for_job)

    managers = _blocking(manager_calls.managers)
    manager = _blocking(manager_calls.manager)
    manager_history = _blocking(histories.manager_history)
    register_manager = _blocking(presence.register_manager)
    heartbeat = _blocking(presence.heartbeat)
    claim = _blocking(claims.claim)
    return_results = _blocking(claims.return_results)
    relinquish = _blocking(claims.relinquish)
    deactivate_manager = _blocking(presence.deactivate_manager)
    drain_manager = _blocking(presence.drain_manager)
    report_programs = _blocking(presence.report_programs)
    rescues = _blocking(manager_calls.rescues)

    add_service = _blocking(services.add_service)
    service = _blocking(services.service)
    tree = _blocking(services.tree)

    receipt = _blocking(seals.receipt)
    checkpoint = _blocking(seals.checkpoint)
    consistency = _blocking(seals.consistency)

    why = _blocking(routing.why)
    queue = _blocking(routing.queue)

    datasets = _blocking(dataset_calls.datasets)

    @documented_as(dataset_calls.add_dataset)
    def add_dataset(
        self, name: str, description: str = "", *, reason: str | None = None
    ) -> Dataset:
        call = dataset_calls.add_dataset(self.session, name, description, reason=reason)
        return Dataset(self, self.run(call))

    @documented_as(dataset_calls.dataset)
    def dataset(self, name_or_id: str | int) -> Dataset:
        return Dataset(self, self.run(dataset_calls.dataset(self.session, name_or_id)))

    def found(self, ask: Callable[[], records.Pages]) -> FoundRecords:
        """Return what a query finds; `ask` makes its pages again for each loop."""
        # Made once here, so that a wrong condition is refused by the call and not by the loop.
        ask()
        return FoundRecords(self, ask)

    issue_token = _blocking(token_calls.issue_token)
    tokens = _blocking(token_calls.tokens)
    revoke_token = _blocking(token_calls.revoke_token)

    add_webhook = _blocking(webhook_calls.add_webhook)
    webhooks = _blocking(webhook_calls.webhooks)
    webhook = _blocking(webhook_calls.webhook)
    modify_webhook = _blocking(webhook_calls.modify_webhook)
    remove_webhook = _blocking(webhook_calls.remove_webhook)
    webhook_deliveries = _blocking(webhook_calls.webhook_deliveries)
    test_webhook = _blocking(webhook_calls.test_webhook)
    self_audit = _blocking(self_audit_calls.self_audit)
    repair = _blocking(self_audit_calls.repair)
    origins = _blocking(origin_calls.origins)

    @overload
    def get_records(
        self,
        ids: int,
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: Literal[False] = False,
        as_of: AsOf = None,
    ) -> Record: ...
    @overload
    def get_records(
        self,
        ids: int,
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool,
        as_of: AsOf = None,
    ) -> Record | None: ...
    @overload
    def get_records(
        self,
        ids: Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: Literal[False] = False,
        as_of: AsOf = None,
    ) -> Records[Record]: ...
    @overload
    def get_records(
        self,
        ids: Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool,
        as_of: AsOf = None,
    ) -> Records[Record | None]: ...
    @documented_as(records.get_records)
    def get_records(
        self,
        ids: int | Iterable[int | None],
        include: Include | Iterable[Include] = (),
        *,
        missing_ok: bool = False,
        as_of: AsOf = None,
    ) -> Any:
        call = records.get_records(self.session, ids, include, missing_ok=missing_ok, as_of=as_of)
        return self.run(call)

    def paged(self, feed: event_calls.Feed) -> Iterator[LogEvent]:
        """Iterate over the events that there are."""
        while not feed.is_last:
            yield from self.run(feed.fetch())

    def followed(self, feed: event_calls.Feed) -> Iterator[LogEvent]:
        """Iterate over the events that there are and will be, over one connection after another."""
        while True:
            source: httpx2.Response = self.run(feed.open())
            with contextlib.closing(source), self._in_flight():
                try:
                    for chunk in source.iter_bytes():
                        yield from feed.events_in(chunk)
                        if self._closing.is_set():
                            raise closed(self.session)
                except httpx2.TransportError:
                    continue

    def run(self, operation: Operation[T]) -> T:
        """Do what an operation asks for, step by step, and return its result."""
        outcome: Outcome = None
        try:
            while True:
                step = operation.send(outcome)
                outcome = self._perform(step)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()

    def _perform(self, step: Step) -> Outcome:
        match step:
            case Sleep(seconds=seconds):
                if self._closing.wait(seconds):
                    raise closed(self.session)
                return None
            case Send():
                with self._in_flight():
                    try:
                        return self._sent(step)
                    except httpx2.TransportError as error:
                        return fault_of(error)

    def _sent(self, send: Send) -> Reply:
        if not send.is_stream:
            response = self._http.request(
                send.method, send.path, content=send.body or None, headers=send.headers
            )
            return Reply(response.status_code, response.headers, response.content)
        request = self._http.build_request(
            send.method, send.path, headers=send.headers, timeout=STREAM_TIMEOUT
        )
        response = self._http.send(request, stream=True)
        if response.is_success:
            return Reply(response.status_code, response.headers, b"", response)
        return Reply(response.status_code, response.headers, response.read())

    @contextlib.contextmanager
    def _in_flight(self) -> Generator[None]:
        with self._sending:
            if self._closing.is_set():
                raise closed(self.session)
            self._n_sending += 1
        try:
            yield
        finally:
            with self._sending:
                self._n_sending -= 1
                is_last = self._closing.is_set() and not self._n_sending
            if is_last:
                self._http.close()


class FoundRecords:
    """The records that a query finds. Each loop over it asks again."""

    def __init__(self, client: Client, ask: Callable[[], records.Pages]) -> None:
        self._client = client
        self._ask = ask

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records; pages are fetched as needed."""
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[Records[Record]]:
        """Iterate over the pages."""
        pages = self._ask()
        while not pages.is_last:
            if page := self._client.run(pages.fetch()):
                yield page

    def all(self) -> Records[Record]:
        """Return all of them at once."""
        from .results.records import Records

        found: Records[Record] = Records()
        for page in self.pages():
            found += page
            found.as_of = page.as_of
        return found


def _of_it(
    call: Callable[Concatenate[dataset_calls.Within, P], Operation[T]],
) -> Callable[Concatenate[Dataset, P], T]:
    def method(dataset: Dataset, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return dataset.client.run(call(dataset.within, *args, **kwargs))

    return presented(method, call, "{}")


def _finding(
    call: Callable[Concatenate[dataset_calls.Within, P], records.Pages],
) -> Callable[Concatenate[Dataset, P], FoundRecords]:
    def method(dataset: Dataset, /, *args: P.args, **kwargs: P.kwargs) -> FoundRecords:
        return dataset.client.found(lambda: call(dataset.within, *args, **kwargs))

    return presented(method, call, "FoundRecords")


def _managing(verb: Callable[..., Operation[UpdateMetadata]]) -> Callable[..., UpdateMetadata]:
    """Return a verb over records as a method: over those of the dataset, or some of them."""

    def method(dataset: Dataset, /, **given: Any) -> UpdateMetadata:
        return dataset.client.run(verb(dataset.client.session, dataset=dataset.id, **given))

    return presented(method, verb, "{}")


class Dataset(DatasetActions["UpdateMetadata"], bind=_managing):
    """A dataset on the server. It is a handle: each call asks again, and nothing is kept here.

    >>> from recordledger import Client
    >>> with Client() as client:  # doctest: +SKIP
    ...     dataset = client.add_dataset("water clusters")
    ...     dataset.add_entries({"dimer": {"n": 2}, "trimer": {"n": 3}})
    ...     dataset.add_specification("hf", "package.module:energy", {"basis": "sto-3g"})
    ...     dataset.submit()
    ...     dataset.status()
    """

    def __init__(self, client: Client, dataset_id: int) -> None:
        """Make a handle of this dataset for this client."""
        self.client = client
        self.within = dataset_calls.Within(client.session, dataset_id)

    @property
    def id(self) -> int:
        """Which dataset it is."""
        return self.within.dataset_id

    def __repr__(self) -> str:
        """Return which dataset this is."""
        return f"Dataset({self.id})"

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
    def clone(
        self,
        name: str,
        description: str | None = None,
        *,
        version: int | None = None,
        link_records: bool = False,
        reason: str | None = None,
    ) -> Dataset:
        call = dataset_calls.clone(
            self.within,
            name,
            description,
            version=version,
            link_records=link_records,
            reason=reason,
        )
        return Dataset(self.client, self.client.run(call))
