"""From the situation of a service to what it decides, ready to be stored; its code runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.events import Payload, Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.retries import parse_retry
from recordledger.domain.routing.lanes import parse_requirements, parse_tag
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.specs.fingerprint import specify
from recordledger.domain.specs.references import as_json
from recordledger.domain.specs.service import Child, Ended, Now, Step, Wait
from recordledger.domain.specs.service_rules import (
    DECISION_INVALID,
    SPEC_INVALID,
    STATE_INVALID,
    ChildStanding,
    ServiceFault,
    ServiceLimits,
    require_children,
    require_decision,
    require_version,
    standing_of,
)
from recordledger.projections.actions.service_steps import Iteration, NewChild, Situation
from recordledger.projections.actions.submission import NewRecord

from ..tasks.capture import readable
from .service_registry import AnyService

# Results that are read together when the first of them is asked for.
_AT_ONCE_BYTES: Final = 16 * 1024 * 1024

Load = Callable[[Iterable[bytes]], Mapping[bytes, bytes]]


def next_step(
    service: type[AnyService], situation: Situation, load: Load, limits: ServiceLimits
) -> Step[Any]:
    """Return what a service decides.

    Args:
        service: its class.
        situation: what it decides from.
        load: reads payloads.
        limits: of what it may decide.

    Raises:
        Fault: it cannot go on, or has decided what cannot be.
        Exception: whatever its code raises.
    """
    record = situation.record
    if not situation.begins:
        require_version(service, situation.code_version)
        if not situation.takes_errors:
            require_children(situation.awaited)
    kwargs: Any = from_json(situation.spec)["kwargs"] if situation.spec else None
    spec = _valid(service.Spec, kwargs, SPEC_INVALID, "the specification's kwargs")
    now = _now(situation, load)
    if situation.begins:
        step: object = service().start(spec, now)
    else:
        if situation.state is None:
            raise ServiceFault(STATE_INVALID, "its state was destroyed")
        state = _valid(service.State, from_json(situation.state), STATE_INVALID, "its state")
        step = service().advance(spec, state, now)
    return require_decision(step, service.State, record.iteration, situation.n_children, limits)


def _valid(model: type[BaseModel], value: Any, error_type: str, what: str) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}"
            for each in error.errors(include_url=False, include_context=False)[:5]
        )
        raise ServiceFault(error_type, f"{what} does not validate: {faults}") from error


def _now(situation: Situation, load: Load) -> Now:
    results = _Results(situation.results, load)
    ended: dict[str, Ended] = {}
    for child in situation.awaited:
        if standing_of(child.status) is ChildStanding.open:
            continue
        ended[child.key] = Ended(
            record_id=child.record_id,
            status=child.status,
            payload=situation.results.get(child.key),
            load=results.loader(child.key),
            error_type=child.error_type,
            error_message=child.error_message,
        )
    return Now(
        at=situation.now,
        iteration=situation.record.iteration + 1,
        ended=ended,
        open=frozenset(child.key for child in situation.awaited) - ended.keys(),
    )


class _Results:
    """The results of children: read together if they are small, else one by one."""

    def __init__(self, payloads: Mapping[str, Payload], load: Load) -> None:
        self._payloads = payloads
        self._load = load
        total = sum(payload.size_bytes for payload in payloads.values())
        self._at_once = total <= _AT_ONCE_BYTES
        self._kept: Mapping[bytes, bytes] | None = None

    def loader(self, key: str) -> Callable[[], Any]:
        return lambda: self._read(key)

    def _read(self, key: str) -> Any:
        payload = self._payloads.get(key)
        if payload is None:
            raise LookupError(f"the child {key!r} has no result")
        if not self._at_once:
            found = self._load([payload.digest])
        else:
            if self._kept is None:
                self._kept = self._load({each.digest for each in self._payloads.values()})
            found = self._kept
        if payload.digest not in found:
            raise LookupError(f"the result of the child {key!r} was destroyed")
        return from_json(found[payload.digest])


def iteration_of(
    step: Wait[Any], service: type[AnyService], record: RecordAggregate, limits: ServiceLimits
) -> Iteration:
    """Return a decision to wait as it is stored.

    Raises:
        Fault: it has no form in which it could be.
    """
    try:
        state = canonical_json(step.state.model_dump(mode="json"))
    except (InvalidInput, ValueError) as error:
        raise ServiceFault(STATE_INVALID, f"the state cannot be stored as JSON: {error}") from error
    if len(state) > limits.bytes:
        raise ServiceFault(
            STATE_INVALID, f"the state is {len(state):,} bytes, and the limit is {limits.bytes:,}"
        )
    return Iteration(
        state=state,
        children=[_child(key, child, record, limits) for key, child in step.children.items()],
        awaited=frozenset(step.awaited),
        any_child=step.until == "any",
        takes_errors=step.takes_errors,
        wake_at=step.wake_at,
        output=readable(step.output).encode(),
        progress=step.progress,
        code_version=service.version,
    )


def _child(key: str, child: object, parent: RecordAggregate, limits: ServiceLimits) -> NewChild:
    if not isinstance(child, Child):
        raise ServiceFault(
            DECISION_INVALID, f"the child {key!r} is a {type(child).__name__}, not a Child"
        )
    try:
        entry = NewRecord(
            specification=specify(
                child.function,
                as_json(child.kwargs),
                parse_requirements(child.required_programs),
                size_bytes_max=limits.bytes,
            ),
            tag=parent.tag if child.tag is None else parse_tag(child.tag),
            priority=parent.priority if child.priority is None else Priority(child.priority),
            retry=parse_retry(child.retries, child.retry_delay_s or 0.0, child.retry_on or ()),
            kind=child.kind,
        )
    except (InvalidInput, TypeError, ValueError) as error:
        raise ServiceFault(
            DECISION_INVALID, f"the child {key!r} cannot be created: {error}"
        ) from error
    return NewChild(key, entry, child.find_existing)
