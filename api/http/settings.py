"""The server's settings: from the environment, or given by whoever starts it."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from recordledger.domain.admin.addresses import parse_allowed
from recordledger.domain.records.policies import PolicySettings
from recordledger.domain.routing.breaker import INPUT_ERRORS, Breaker
from recordledger.projections.store.database import DEFAULT_SCHEMA

ENV_PREFIX: Final = "RECORDLEDGER_"
_MIB: Final = 1024 * 1024


class Settings(BaseSettings):
    """Each is read from the environment variable `RECORDLEDGER_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    database_url: str = Field(
        description="URL of the PostgreSQL database, 15 or newer: postgresql://user:secret@host/db",
        repr=False,
    )
    database_schema: str = Field(
        default=DEFAULT_SCHEMA,
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="PostgreSQL schema that holds everything of the ledger.",
    )
    pool_size: int = Field(
        default=10,
        ge=2,
        le=200,
        description="Connections to the database at the most, for one process. One request less "
        "than this is served at a time; the others wait.",
    )
    database_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=600,
        description="Seconds that a request waits for a connection before it is answered 503.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Others than this machine reach it through a proxy that "
        "does TLS: tokens travel in every request.",
    )
    port: int = Field(
        default=7420, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one."
    )
    shutdown_timeout_s: int = Field(
        default=20,
        ge=1,
        le=3600,
        description="Seconds that running requests get to end after SIGTERM.",
    )
    records_per_request: int = Field(
        default=5_000, ge=1, le=100_000, description="Records in one submission at the most."
    )
    results_per_request: int = Field(
        default=2_000, ge=1, le=100_000, description="Results in one return at the most."
    )
    body_bytes_max: int = Field(
        default=64 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Bytes of a request's body at the most, before and after decompression.",
    )
    payload_bytes_max: int = Field(
        default=32 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Bytes of one payload at the most: a specification, a result. Longer output "
        "and tracebacks are cut in the middle.",
    )
    answer_bytes_max: int = Field(
        default=64 * _MIB,
        ge=1024,
        le=1024 * _MIB,
        description="Bytes of the payloads in one answer at the most, unless it has one record.",
    )
    lease_s: float = Field(
        default=120.0,
        gt=0,
        le=86_400,
        description="Seconds that a manager may be silent before its tasks are given to others.",
    )
    heartbeat_s: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="Seconds between two signs of life of a manager; shorter than the lease.",
    )
    idempotency_ttl_s: float = Field(
        default=7 * 86_400.0,
        ge=60,
        description="Seconds for which the answer to a request with an idempotency key is kept.",
    )
    token_cache_s: float = Field(
        default=5.0,
        ge=0,
        le=300,
        description="Seconds for which a valid token is not looked up again. A token that was "
        "revoked through another process opens this one for so long.",
    )
    followers_max: int = Field(
        default=2_000,
        ge=0,
        le=100_000,
        description="Followers of the log at the most, for one process. All of them cost one "
        "reader; each has a connection open.",
    )
    follow_heartbeat_s: float = Field(
        default=15.0,
        gt=0,
        le=60,
        description="Seconds after which a follower hears from the server if nothing happens. So "
        "often its token is looked at again.",
    )
    follow_buffer: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Newest events that are kept in memory for followers; who is behind reads "
        "the log in pages until it has caught up.",
    )
    webhooks_max: int = Field(
        default=50, ge=0, le=1_000, description="Webhooks at the most; each has a thread at work."
    )
    webhook_allow_private: str = Field(
        default="false",
        max_length=2_000,
        description="Where webhooks may be besides the public Internet, and without TLS: networks "
        "with commas, like 10.1.0.0/16, or true for everywhere. Set it for `recordledger work`, "
        "which sends the messages; the API takes it from there, unless no `work` runs.",
    )
    auto_reset: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(
        default_factory=dict[str, int],
        max_length=100,
        description="Policy, off if empty: errors whose type matches a pattern are reset, at most "
        "so often for one record until a person resets it. JSON, and the first pattern that "
        'matches counts: {"MemoryError": 0, "*Error": 2}.',
    )
    adopt_late_results: bool = Field(
        default=False,
        description="Policy: whether a good result that comes after its attempt was over becomes "
        "the record's result, instead of being kept aside.",
    )
    failed_after_s: float | None = Field(
        default=None,
        gt=0,
        description="Policy, off if not set: seconds after which a record in error becomes failed. "
        "Carried out by `recordledger work`.",
    )

    breaker_failures: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="Circuit breaker: so many failures in a row of tasks of one program keep a "
        "manager from getting more of them for a while; 0 switches it off.",
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
        description="Patterns of error types that tell of a task's input and not of the manager: "
        "they do not count. JSON.",
    )

    @field_validator("webhook_allow_private")
    @classmethod
    def _networks(cls, given: str) -> str:
        parse_allowed(given)
        return given

    @property
    def breaker(self) -> Breaker:
        """When a manager gets no more tasks of a program."""
        return Breaker(
            self.breaker_failures,
            self.breaker_pause_s,
            self.breaker_pause_s_max,
            self.breaker_ignores,
        )

    @property
    def policies(self) -> PolicySettings:
        """What the server does to records by itself."""
        return PolicySettings(self.auto_reset, self.failed_after_s, self.adopt_late_results)
