"""All settings of the server, each declared once: the API and `recordledger work` read this model.

A field has a name, a type, bounds, a default and a meaning. From it come the environment variable,
the option of the commands that its `On` names (`workers/commands/options.py`), and a line of
`docs/reference/settings.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from recordledger.domain.admin.addresses import parse_allowed
from recordledger.domain.records.policies import PolicySettings
from recordledger.domain.routing.breaker import INPUT_ERRORS, Breaker
from recordledger.domain.specs.service_rules import ServiceLimits

ENV_PREFIX: Final = "RECORDLEDGER_"
_MIB: Final = 1024 * 1024
_SERVICES: Final = ServiceLimits()


@dataclass(frozen=True, slots=True)
class On:
    """On which commands a setting is an option.

    Attributes:
        commands: their names, with spaces between them.
        option: its name there; None for the field's own, `seal_every_s` being `--seal-every-s`.
        unset: what holds if nothing is given, as the help says it.
        variable: its environment variable, if the model does not read one itself.
        choices: the values that it may have.
    """

    commands: str
    option: str | None = None
    unset: str | None = None
    variable: str | None = None
    choices: tuple[str, ...] = ()


class _Group(BaseSettings):
    """A theme: its docstring is the heading of its options, and of its part of the page."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)


class DatabaseGroup(_Group):
    """Database."""

    database_url: Annotated[str, On("serve work")] = Field(
        description="URL of the PostgreSQL database, 15 or newer: "
        "postgresql://user:secret@host/name",
        repr=False,
    )
    database_schema: Annotated[str, On("serve work")] = Field(
        default="recordledger",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="PostgreSQL schema with all of the ledger's tables.",
    )
    pool_size: int = Field(
        default=10,
        ge=2,
        le=200,
        description="Maximum number of database connections of one API process. It serves one "
        "request less than this at a time; the others wait.",
    )
    database_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=600,
        description="Seconds that a request waits for a connection before it is answered 503.",
    )


class ApiGroup(_Group):
    """HTTP API."""

    host: Annotated[str, On("serve up")] = Field(
        default="127.0.0.1",
        description="Address that the API listens on. Let other machines reach it through a proxy "
        "that does TLS: every request carries a token.",
    )
    port: Annotated[int, On("serve up")] = Field(
        default=7420,
        ge=0,
        le=65_535,
        description="TCP port that the API listens on; 0 takes a free one.",
    )
    shutdown_timeout_s: int = Field(
        default=20,
        ge=1,
        le=3600,
        description="Seconds that running requests may go on after SIGTERM.",
    )
    records_per_request: int = Field(
        default=5_000, ge=1, le=100_000, description="Maximum number of records in one submission."
    )
    results_per_request: int = Field(
        default=2_000, ge=1, le=100_000, description="Maximum number of results in one return."
    )
    body_bytes_max: int = Field(
        default=64 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Maximum size of a request's body in bytes, before and after decompression.",
    )
    payload_bytes_max: int = Field(
        default=32 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Maximum size of one payload in bytes: a specification, a result. Longer "
        "output and tracebacks are cut in the middle.",
    )
    answer_bytes_max: int = Field(
        default=64 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Maximum size of the payloads in one answer in bytes; one record is always "
        "answered.",
    )
    token_cache_s: float = Field(
        default=5.0,
        ge=0,
        le=300,
        description="Seconds for which a valid token is not looked up again. A token that was "
        "revoked through another API process is accepted by this one for that long.",
    )
    followers_max: int = Field(
        default=2_000,
        ge=0,
        le=100_000,
        description="Maximum number of followers of the log of one API process. Each has a "
        "connection open; one reader serves them all.",
    )
    follow_heartbeat_s: float = Field(
        default=15.0,
        gt=0,
        le=60,
        description="Seconds between two heartbeats to a follower when there are no events. Its "
        "token is checked again each time.",
    )


class ManagersGroup(_Group):
    """Managers and their tasks."""

    lease_s: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        description="Seconds without a heartbeat after which the tasks of a manager go to others.",
    )
    heartbeat_s: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="Seconds between two heartbeats of a manager; shorter than the lease.",
    )
    breaker_failures: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="Circuit breaker: after this many failures in a row of tasks of one program, a "
        "manager gets no more of them for a while; 0 switches it off.",
    )
    breaker_pause_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds until the manager gets one task to try; the pause doubles with each "
        "that fails.",
    )
    breaker_pause_s_max: float = Field(
        default=3_600.0, gt=0, le=86_400, description="The longest such pause, in seconds."
    )
    breaker_ignores: tuple[str, ...] = Field(
        default=INPUT_ERRORS,
        max_length=100,
        description="Patterns of error types that are about a task's input and not about the "
        "manager: they do not count. JSON.",
    )

    @property
    def breaker(self) -> Breaker:
        """When a manager gets no more tasks of a program."""
        return Breaker(
            self.breaker_failures,
            self.breaker_pause_s,
            self.breaker_pause_s_max,
            self.breaker_ignores,
        )


class PolicyGroup(_Group):
    """Policies, all of them off by default."""

    auto_reset: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(
        default_factory=dict[str, int],
        max_length=100,
        description="Resets errors whose type matches a pattern, at most this often for one record "
        "until a person resets it. JSON, and the first pattern that matches counts: "
        '{"MemoryError": 0, "*Error": 2}.',
    )
    adopt_late_results: bool = Field(
        default=False,
        description="Whether a good result that comes after its attempt was over becomes the "
        "record's result, instead of being kept aside.",
    )
    failed_after_s: Annotated[float | None, On("work", unset="never")] = Field(
        default=None,
        gt=0,
        description="Seconds after which a record in error becomes failed. Carried out by "
        "`recordledger work`.",
    )

    @property
    def policies(self) -> PolicySettings:
        """What the server does to records by itself."""
        return PolicySettings(self.auto_reset, self.failed_after_s, self.adopt_late_results)


class WebhookGroup(_Group):
    """Webhooks."""

    webhooks_max: int = Field(
        default=50,
        ge=0,
        le=1_000,
        description="Maximum number of webhooks; each that is due has a thread in `work`.",
    )
    webhook_allow_private: Annotated[str, On("work")] = Field(
        default="false",
        max_length=2_000,
        description="Where webhooks may be besides the public Internet, and without TLS: networks "
        "with commas, like 10.1.0.0/16, or true for everywhere. Set it for `recordledger work`, "
        "which sends the messages; the API takes it from there, unless no `work` runs.",
    )
    webhook_timeout_s: Annotated[float, On("work")] = Field(
        default=15.0,
        ge=0.1,
        le=600,
        description="Seconds that sending a message to a webhook may take.",
    )
    webhook_failing_s: Annotated[float, On("work")] = Field(
        default=5 * 86_400.0,
        ge=1,
        description="Seconds without a message that arrived after which a webhook is disabled.",
    )

    @field_validator("webhook_allow_private")
    @classmethod
    def _networks(cls, given: str) -> str:
        parse_allowed(given)
        return given


class JobGroup(_Group):
    """Jobs of the server."""

    idempotency_ttl_s: Annotated[float, On("work")] = Field(
        default=7 * 86_400.0,
        ge=60,
        description="Seconds for which a request may be repeated under its idempotency key.",
    )
    seal: Annotated[bool, On("work")] = Field(default=True, description="Whether to seal the log.")
    seal_every_s: Annotated[float, On("work")] = Field(
        default=10.0,
        ge=0.1,
        le=86_400,
        description="Seconds between two seals, if there are new events.",
    )
    seal_key_file: Annotated[Path | None, On("work", unset="seals/LEDGER_ID.key below --home")] = (
        Field(default=None, description="Secret key for seals; created if missing.")
    )
    checkpoint_dir: Annotated[Path | None, On("work", unset="nowhere")] = Field(
        default=None,
        description="Folder where each new checkpoint is written, as a file that is never changed.",
    )
    self_audit_every_s: Annotated[float, On("work")] = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="Seconds between two self-audit passes, each comparing every table with the "
        "log; 0 switches it off.",
    )
    self_audit_share: Annotated[float, On("work")] = Field(
        default=0.2,
        ge=0.001,
        le=1,
        description="Share of one processor core that the self-audit may use.",
    )
    services: Annotated[bool, On("work")] = Field(
        default=True, description="Whether to advance services."
    )
    max_active_services: Annotated[int, On("work")] = Field(
        default=1_000,
        ge=1,
        description="Maximum number of services that run at once, of all runners. Services that "
        "others wait for are not held back.",
    )
    service_lease_s: Annotated[float, On("work")] = Field(
        default=15.0,
        ge=0.1,
        description="Seconds after which others take over the services of a runner that was lost.",
    )


class LimitGroup(_Group):
    """Limits, which few need to change."""

    sweep_s: Annotated[float, On("work")] = Field(
        default=2.0,
        gt=0,
        description="Seconds between two checks for managers whose lease is over.",
    )
    follow_buffer: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Number of newest events that an API process keeps in memory for followers; "
        "a follower that is further behind reads the log in pages.",
    )
    service_threads: Annotated[int, On("work")] = Field(
        default=2, ge=1, le=64, description="Threads that run service code."
    )
    service_step_warning_s: Annotated[float, On("work")] = Field(
        default=1.0,
        ge=0,
        description="Seconds after which the log warns of a service's slow iteration.",
    )
    service_children_per_iteration: Annotated[int, On("work")] = Field(
        default=_SERVICES.children_per_iteration,
        ge=1,
        description="Maximum number of new children in one iteration of a service.",
    )
    service_children: Annotated[int, On("work")] = Field(
        default=_SERVICES.children, ge=1, description="Maximum number of children of one service."
    )
    service_depth: Annotated[int, On("work")] = Field(
        default=_SERVICES.depth, ge=1, description="Maximum nesting depth of services."
    )
    service_iterations: Annotated[int, On("work")] = Field(
        default=_SERVICES.iterations,
        ge=1,
        description="Maximum number of iterations of one service.",
    )

    @property
    def service_limits(self) -> ServiceLimits:
        """How much a service may ask for."""
        return ServiceLimits(
            children_per_iteration=self.service_children_per_iteration,
            children=self.service_children,
            depth=self.service_depth,
            iterations=self.service_iterations,
        )


class WorkSettings(LimitGroup, JobGroup, WebhookGroup, PolicyGroup):
    """What `recordledger work` does, apart from where."""


# The fields of the last base come first.
class Settings(WorkSettings, ManagersGroup, ApiGroup, DatabaseGroup):
    """Each is read from the environment variable `RECORDLEDGER_` + its name in capitals."""


def option_of(field: FieldInfo) -> On | None:
    """Return on which commands a field is an option, if it is one on any."""
    return next((each for each in field.metadata if isinstance(each, On)), None)


def option_name(name: str, field: FieldInfo) -> str:
    """Return the option of a field as it is written on the command line."""
    found = option_of(field)
    return f"--{(found and found.option) or name.replace('_', '-')}"


def variable_of(model: type[BaseModel], name: str) -> str | None:
    """Return the environment variable of a field, if it has one."""
    if issubclass(model, BaseSettings):
        return f"{ENV_PREFIX}{name.upper()}"
    found = option_of(model.model_fields[name])
    return found.variable if found else None


def groups_of(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], list[str]]]:
    """Yield the groups of a model, with the names of their fields; or the model alone."""
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel):
            own = [name for name in base.__annotations__ if name in model.model_fields]
            if own:
                yield base, own
