"""A graph: tasks that run after others, and take their results by reference.

The conditions mean what those of IPython's scheduler mean: `all` or any of some tasks, their
success or failure; a task that can never run is `ImpossibleDependency` as soon as that is certain,
one that could not run in time is `TaskTimeout`, and both are failures for what comes after them.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Self, cast

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from recordledger.domain.records.events import Payload
from recordledger.domain.records.status import Status
from recordledger.domain.specs.service import (
    Broken,
    Done,
    Ended,
    Now,
    Reference,
    Service,
    Step,
    Wait,
)

from .task import Name, ResultUnusable, Specified, StatePart, TaskRequest, result_of, short, shown
from .task import Step as PathStep

NODES_MAX: Final = 2_000
_FROM: Final = "$from"


class Condition(Specified):
    """What other nodes must have come to, with the words of IPython's `Dependency`.

    Attributes:
        nodes: which ones.
        all: whether all of them are needed, or any of them is enough.
        success, failure: which ends count. A failure is every end without a result:
            `ImpossibleDependency` and `TaskTimeout` too.
    """

    nodes: Annotated[list[str], Field(min_length=1)]
    all: bool = True
    success: bool = True
    failure: bool = False

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if not (self.success or self.failure):
            raise ValueError("neither success nor failure of the nodes would count")
        return self

    def is_met(self, standings: Mapping[str, NodeStanding]) -> bool:
        """Whether it is met, for good."""
        counting = (self._counts(standings[name]) is True for name in self.nodes)
        return all(counting) if self.all else any(counting)

    def made_impossible_by(self, standings: Mapping[str, NodeStanding]) -> dict[str, NodeStanding]:
        """Return the nodes because of which it can never be met; none if it can be, or is."""
        against = {
            name: standings[name] for name in self.nodes if self._counts(standings[name]) is False
        }
        return against if self.all or len(against) == len(self.nodes) else {}

    def _counts(self, standing: NodeStanding) -> bool | None:
        """Whether the end of a node counts; None as long as it has not ended."""
        if standing.succeeded is None:
            return None
        return self.success if standing.succeeded else self.failure

    def __str__(self) -> str:
        """Return the condition in words."""
        quantity = "" if len(self.nodes) == 1 else "all of " if self.all else "any of "
        ends = "success" if not self.failure else "end" if self.success else "failure"
        return f"the {ends} of {quantity}{', '.join(sorted(self.nodes))}"


class GraphNode(TaskRequest):
    """One task, or one service.

    Its `kwargs` may have, anywhere, `{"$from": "other", "path": ["energy"]}` (the path may be left
    out): the result of another node, or a part of it, put in place when this one is claimed. It
    then runs after the success of that node, whatever else it runs after.

    Attributes:
        after: all of these conditions must be met.
        timeout_s: how long they may take, from the start of the graph. It does not limit the task.
    """

    after: list[Condition] = Field(default_factory=list[Condition])
    timeout_s: Annotated[float, Field(gt=0, le=10**9)] | None = None

    @model_validator(mode="after")
    def _has_references_that_can_be_read(self) -> Self:
        for _ in _references(self.kwargs):
            pass
        return self

    @property
    def conditions(self) -> list[Condition]:
        """What `after` says, and what the references need."""
        sources = sorted({source for source, _ in _references(self.kwargs)})
        return [*self.after, *([Condition(nodes=sources)] if sources else [])]

    @property
    def predecessors(self) -> list[str]:
        """The nodes that the conditions name, each once."""
        return sorted({name for condition in self.conditions for name in condition.nodes})


class GraphSpec(Specified):
    """What to run.

    Attributes:
        nodes: by name; no more than 2,000.
        outputs: those whose results are in the result of the graph. Of the others it has the
            record, and its outcome.
        required: those that must succeed, or the graph is an error in the end. It goes on when the
            failed tasks are reset.
    """

    nodes: Annotated[dict[Name, GraphNode], Field(min_length=1, max_length=NODES_MAX)]
    outputs: list[str] = Field(default_factory=list[str])
    required: list[str] = Field(default_factory=list[str])

    @model_validator(mode="after")
    def _has_an_order(self) -> Self:
        for name, node in self.nodes.items():
            self._require_known(node.predecessors, f"the node {name!r} runs after")
        self._require_known(self.outputs, "`outputs` names")
        self._require_known(self.required, "`required` names")
        try:
            self.order()
        except graphlib.CycleError as error:
            circle = " -> ".join(cast("Sequence[str]", error.args[1]))
            raise ValueError(f"nodes wait for each other in a circle: {circle}") from None
        return self

    def _require_known(self, names: Sequence[str], who: str) -> None:
        for name in names:
            if name not in self.nodes:
                raise ValueError(f"{who} {name!r}, which is no node of this graph")

    def order(self) -> list[str]:
        """Return the names so that each comes after those it waits for; always the same way."""
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        for name in sorted(self.nodes):
            sorter.add(name, *self.nodes[name].predecessors)
        return list(sorter.static_order())


class Fate(StatePart):
    """The outcome of a record that was asked for. The payload is the result's, in hexadecimal."""

    record_id: int
    status: str
    digest: str | None = None
    size_bytes: int = 0
    error_type: str | None = None
    error_message: str | None = None

    @classmethod
    def of(cls, ended: Ended) -> Fate:
        """Return what to keep of what the runner reports."""
        payload = ended.payload
        return cls(
            record_id=ended.record_id,
            status=str(ended.status),
            digest=payload.digest.hex() if ended.is_complete and payload else None,
            size_bytes=payload.size_bytes if payload else 0,
            error_type=None if ended.is_complete else ended.error_type,
            error_message=None if ended.is_complete else short(ended.error_message),
        )

    @property
    def is_complete(self) -> bool:
        """Whether it succeeded."""
        return self.status == Status.complete

    @property
    def report(self) -> dict[str, Any]:
        """What the result of the graph says about it."""
        said: dict[str, Any] = {"outcome": self.status, "record_id": self.record_id}
        if not self.is_complete:
            said |= {"error_type": self.error_type, "error_message": self.error_message}
        return said

    @property
    def payload(self) -> Payload | None:
        """Where the result is; None if it failed, or returned nothing."""
        if self.digest is None:
            return None
        return Payload(digest=bytes.fromhex(self.digest), size_bytes=self.size_bytes)


class GraphState(StatePart):
    """What is known, from which everything else follows.

    Attributes:
        started_at: from when timeouts count.
        asked: the nodes whose records were asked for.
        ended: the outcome of those that have ended.
        late: the nodes that could not run in time.
    """

    started_at: AwareDatetime
    asked: list[str]
    ended: dict[str, Fate]
    late: list[str]


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """Where a node stands: whether it is open still, and if not, its outcome.

    Attributes:
        succeeded: None as long as it has not ended.
        is_ready: it can be asked for now.
        is_waiting: its conditions can be met, and are not.
        report: what the result of the graph says about it.
    """

    succeeded: bool | None = None
    is_ready: bool = False
    is_waiting: bool = False
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def outcome(self) -> str | None:
        """Its outcome: a status, `impossible` or `timeout`; None while it is open."""
        return self.report.get("outcome")

    def __str__(self) -> str:
        """Return its outcome."""
        outcome = str(self.report.get("error_type") or self.outcome)
        record_id = self.report.get("record_id")
        return outcome if record_id is None else f"{outcome} (record {record_id})"


class Graph(Service[GraphSpec, GraphState]):
    """Each task as soon as its conditions are met."""

    name = "graph"
    version = "1"
    Spec: ClassVar[type[BaseModel]] = GraphSpec
    State: ClassVar[type[BaseModel]] = GraphState

    def start(self, spec: GraphSpec, now: Now) -> Step[GraphState]:
        """Ask for the nodes that wait for nothing."""
        return _go_on(spec, GraphState(started_at=now.at, asked=[], ended={}, late=[]), now)

    def advance(self, spec: GraphSpec, state: GraphState, now: Now) -> Step[GraphState]:
        """Ask for what can run now; when nothing is open any more, return the outcome of all."""
        return _go_on(spec, state, now)


def _go_on(spec: GraphSpec, before: GraphState, now: Now) -> Step[GraphState]:
    order = spec.order()
    ended = before.ended | {name: Fate.of(found) for name, found in now.ended.items()}
    known = before.model_copy(update={"ended": ended})
    standings = _standings(spec, known, order, now.at)
    ready = [name for name in order if standings[name].is_ready]
    open_ = frozenset(name for name in before.asked if name not in ended)
    late = [name for name in order if standings[name].outcome == "timeout"]
    state = known.model_copy(update={"asked": [*before.asked, *ready], "late": late})
    told = _standings(spec, before, order)
    output = "".join(
        f"{name}: {standings[name]}\n"
        for name in order
        if standings[name].outcome is not None and standings[name].outcome != told[name].outcome
    )
    if not ready and not open_:
        return _finish(spec, state, standings, now, output)
    deadlines = [
        deadline
        for name in order
        if standings[name].is_waiting and (deadline := _deadline(spec.nodes[name], state))
    ]
    n_ended = sum(standing.succeeded is not None for standing in standings.values())
    try:
        children = {name: spec.nodes[name].child(_referring(spec, state, name)) for name in ready}
    except ResultUnusable as unusable:
        return unusable.broken()
    return Wait(
        state,
        children,
        awaited=open_,
        until="any",
        wake_at=min(deadlines, default=None),
        takes_errors=True,
        output=output,
        progress=n_ended / len(order),
    )


def _finish(
    spec: GraphSpec,
    state: GraphState,
    standings: Mapping[str, NodeStanding],
    now: Now,
    output: str,
) -> Step[GraphState]:
    missed = [name for name in spec.required if not standings[name].succeeded]
    failed = [name for name, fate in state.ended.items() if not fate.is_complete]
    outputs = [name for name in spec.outputs if standings[name].succeeded]
    # Those whose results are wanted, and those that can be reset, are looked at once more.
    needed = frozenset([*outputs, *(failed if missed else ())])
    if not needed <= now.ended.keys():
        return Wait(state, awaited=needed, takes_errors=True, output=output, progress=1.0)
    if missed:
        what = "; ".join(f"{name}: {standings[name]}" for name in missed[:10])
        more = f"; and {len(missed) - 10} more" if len(missed) > 10 else ""
        return Broken("NodesFailed", f"required nodes did not succeed: {what}{more}", output)
    return Done(
        {
            "nodes": {name: dict(standing.report) for name, standing in standings.items()},
            "results": {name: result_of(now.ended[name]) for name in outputs},
            "n_failed": sum(not standing.succeeded for standing in standings.values()),
        },
        output,
    )


def _standings(
    spec: GraphSpec, state: GraphState, order: Sequence[str], at: datetime | None = None
) -> dict[str, NodeStanding]:
    """Return where each node stands; with `at`, those out of time by then have timed out."""
    standings: dict[str, NodeStanding] = {}
    for name in order:
        standings[name] = _standing(spec.nodes[name], name, state, standings, at)
    return standings


def _standing(
    node: GraphNode,
    name: str,
    state: GraphState,
    others: Mapping[str, NodeStanding],
    at: datetime | None,
) -> NodeStanding:
    if fate := state.ended.get(name):
        return NodeStanding(succeeded=fate.is_complete, report=fate.report)
    if name in state.asked:
        return NodeStanding()
    if name in state.late:
        return _timed_out(node)
    for condition in node.conditions:
        if against := condition.made_impossible_by(others):
            return _impossible(condition, against)
    if all(condition.is_met(others) for condition in node.conditions):
        return NodeStanding(is_ready=True)
    deadline = _deadline(node, state)
    if at is not None and deadline is not None and at >= deadline:
        return _timed_out(node)
    return NodeStanding(is_waiting=True)


def _impossible(condition: Condition, against: Mapping[str, NodeStanding]) -> NodeStanding:
    became = ", ".join(f"{name}: {standing}" for name, standing in list(against.items())[:5])
    return NodeStanding(
        succeeded=False,
        report={
            "outcome": "impossible",
            "error_type": "ImpossibleDependency",
            "error_message": short(f"it runs after {condition}; but {became}"),
        },
    )


def _timed_out(node: GraphNode) -> NodeStanding:
    wanted = " and ".join(str(condition) for condition in node.conditions)
    return NodeStanding(
        succeeded=False,
        report={
            "outcome": "timeout",
            "error_type": "TaskTimeout",
            "error_message": short(f"not met within {node.timeout_s:g} s: {wanted}"),
        },
    )


def _deadline(node: GraphNode, state: GraphState) -> datetime | None:
    if node.timeout_s is None:
        return None
    return state.started_at + timedelta(seconds=node.timeout_s)


def _references(value: Any) -> Iterator[tuple[str, tuple[PathStep, ...]]]:
    """Yield node and path of each reference in a JSON value."""
    reference = _reference(value)
    if reference is not None:
        yield reference
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _references(item)


def _referring(spec: GraphSpec, state: GraphState, name: str) -> dict[str, Any]:
    """Return the arguments of a node, with what the results of others are known by."""

    def put(value: Any) -> Any:
        if (reference := _reference(value)) is not None:
            source, path = reference
            fate = state.ended[source]
            if fate.payload is not None:
                return Reference(fate.payload, path)
            if path:
                raise ResultUnusable(
                    f"the node {name!r} takes {list(path)} of the result of {source!r}, which does "
                    f"not exist (record {fate.record_id})"
                )
            return None
        if isinstance(value, dict):
            return {key: put(item) for key, item in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [put(item) for item in cast("list[object]", value)]
        return value

    return cast("dict[str, Any]", put(spec.nodes[name].kwargs))


def _reference(value: Any) -> tuple[str, tuple[PathStep, ...]] | None:
    """Return node and path if the value is a reference.

    Raises:
        ValueError: it looks like one, but is malformed.
    """
    if not (isinstance(value, dict) and _FROM in value):
        return None
    mapping = cast("dict[str, Any]", value)
    source, path = mapping[_FROM], mapping.get("path", [])
    if not (
        mapping.keys() <= {_FROM, "path"}
        and isinstance(source, str)
        and isinstance(path, list)
        and all(type(step) in (str, int) for step in cast("list[object]", path))
    ):
        raise ValueError(
            f'{shown(mapping)} is not a reference: write {{"$from": "node", "path": ["key", 0]}}'
        )
    return source, tuple(cast("list[PathStep]", path))
