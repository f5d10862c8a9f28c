"""The server's own jobs: what nobody asks for, done at intervals by one elected process.

A job is safe to run twice at once, so the election only saves work: a process that loses the
database's connection stops leading, and another process takes over at its next round.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import Any, Final

from recordledger.api.settings import WorkSettings
from recordledger.domain.errors import LedgerError
from recordledger.projections.actions import bulk, managing, policies
from recordledger.projections.actions.policies import FAILED_AFTER_JOB
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import timeline
from recordledger.projections.self_audit.self_audit import SelfAuditor
from recordledger.projections.store.election import Election
from recordledger.projections.tables import idempotency

from .sealing import Sealer

log = logging.getLogger(__name__)

BULK_S: Final = 0.3
RETRY_S: Final = 0.5
# Of the time, so much is spent on the tables of the past.
TIMELINE_SHARE: Final = 0.15
TIMELINE_S: Final = 1.0
# So often it is checked whether it is time for the next lap of the self-audit.
LAP_LOOK_S: Final = 2.0
FAIL_S: Final = 60.0
PURGE_S: Final = 600.0
_PURGE_SLICE: Final = 5_000
# A faulty job is tried again after this, however short its interval.
_PAUSE_S: Final = 5.0
# Maximum number of impossible histories that are logged at once.
_SAID_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """Something to do every `interval_s` seconds.

    Attributes:
        name: by which one process is elected to do it.
        interval_s: seconds between two runs.
        run: does it once; it returns a line for the log, or nothing.
        settings: published while this process is the elected one; see `election`.
    """

    name: str
    interval_s: float
    run: Callable[[Ledger], str | None]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def reap_leases(ledger: Ledger) -> str | None:
    """Give back the tasks of managers whose lease ran out: they wait again, at their old place."""
    lost = managing.lose_silent_managers(ledger)
    if not lost:
        return None
    n_records = sum(map(len, lost.values()))
    return f"lost managers {', '.join(map(str, lost))}; {n_records} records wait again"


def purge_idempotency_keys(older_than_s: float) -> Callable[[Ledger], str | None]:
    """Return the job that forgets the answers that nobody will ask for again."""

    def run(ledger: Ledger) -> str | None:
        n_forgotten = 0
        while True:
            with ledger.datastore.writing() as db:
                n_in_slice = idempotency.forget(db, older_than_s, _PURGE_SLICE)
            n_forgotten += n_in_slice
            if n_in_slice < _PURGE_SLICE:
                return f"forgot {n_forgotten} idempotency keys" if n_forgotten else None

    return run


def advance_bulk_operations(stop: Event) -> Callable[[Ledger], str | None]:
    """Return the job that does operations on many records, slice by slice, until `stop` is set."""

    def run(ledger: Ledger) -> str | None:
        n_slices = 0
        while not stop.is_set() and (n_jobs := bulk.advance_jobs(ledger)):
            n_slices += n_jobs
        return f"processed {n_slices} slices of jobs" if n_slices else None

    return run


def fail_old_errors(failed_after_s: float, stop: Event) -> Callable[[Ledger], str | None]:
    """Return the job that declares errors final when they are `failed_after_s` old."""

    def run(ledger: Ledger) -> str | None:
        n_failed = 0
        while not stop.is_set() and (
            n_in_slice := policies.fail_old_errors(ledger, failed_after_s)
        ):
            n_failed += n_in_slice
        return f"{n_failed} errors became failures" if n_failed else None

    return run


def end_retry_pauses(stop: Event) -> Callable[[Ledger], str | None]:
    """Return the job that lets records be claimed whose pause before a retry is over."""

    def run(ledger: Ledger) -> str | None:
        n_due = 0
        while not stop.is_set() and (n_in_slice := policies.end_retry_pauses(ledger)):
            n_due += n_in_slice
        return f"{n_due} records can be claimed for a retry" if n_due else None

    return run


def seal_the_log(sealer: Sealer, stop: Event) -> Callable[[Ledger], str | None]:
    """Return the job that seals what is new in the log, and exports checkpoints."""

    def run(_ledger: Ledger) -> str | None:
        n_sealed = sealer.run(stop)
        return f"sealed {n_sealed} events" if n_sealed else None

    return run


def follow_timeline(stop: Event) -> Callable[[Ledger], str | None]:
    """Return the job that keeps the tables of the past near the end of the log."""

    def run(ledger: Ledger) -> str | None:
        n_events = 0
        began = monotonic()
        while not stop.is_set() and (n_in_batch := timeline.advance(ledger)):
            n_events += n_in_batch
            # Running jobs have the processors first: queries can wait, or do it themselves.
            stop.wait((monotonic() - began) * (1 / TIMELINE_SHARE - 1))
            if n_in_batch < timeline.BATCH:
                break
            began = monotonic()
        # What people and managers do all day is not worth a line each time.
        return f"caught up with {n_events} events" if n_events > timeline.CATCH_UP_MAX else None

    return run


class SelfAuditing:
    """The job that compares all tables with the log, again and again, until `stop` is set."""

    def __init__(self, every_s: float, share: float, stop: Event) -> None:
        """Take these settings; see `SelfAuditor`."""
        self._every_s = every_s
        self._share = share
        self._stop = stop
        self._audit: SelfAuditor | None = None
        self._has_seen_all = False
        self._next_at = 0.0

    def __call__(self, ledger: Ledger) -> str | None:
        """Do one lap if it is time for the next; it says what it finds.

        From beginning to beginning: a lap that takes longer is followed by the next at once.
        """
        if monotonic() < self._next_at:
            return None
        self._next_at = monotonic() + self._every_s
        if self._audit is None:
            self._audit = SelfAuditor(ledger, every_s=self._every_s, share=self._share)
        lap = self._audit.lap(self._stop)
        if self._stop.is_set():
            self._audit.close()
        for (stream, number), why in [*lap.unreadable.items()][:_SAID_MAX]:
            log.error("self-audit: %s %d cannot be folded: %s", stream.name, number, why)
        has_seen_all = lap.is_whole and lap.n_new == 0
        is_news = lap.found or (has_seen_all and not self._has_seen_all)
        self._has_seen_all = self._has_seen_all or has_seen_all
        return str(lap) if is_news else None


def server_jobs(
    settings: WorkSettings | None = None,
    *,
    sealer: Sealer | None = None,
    stop: Event | None = None,
) -> list[ScheduledJob]:
    """Return the jobs of the server, without that of webhooks.

    Args:
        settings: how often and for how long; None for the defaults.
        sealer: seals the log; None for no seals.
        stop: ends long jobs between two slices when it is set.
    """
    settings = settings or WorkSettings.model_construct()
    stop = stop or Event()
    purge = purge_idempotency_keys(settings.idempotency_ttl_s)
    jobs = [
        ScheduledJob("lease-reaper", settings.sweep_s, reap_leases),
        ScheduledJob("retries", RETRY_S, end_retry_pauses(stop)),
        ScheduledJob("bulk-operations", BULK_S, advance_bulk_operations(stop)),
        ScheduledJob("timeline", TIMELINE_S, follow_timeline(stop)),
        ScheduledJob("idempotency-purge", PURGE_S, purge),
    ]
    if sealer is not None:
        jobs.append(ScheduledJob("sealer", settings.seal_every_s, seal_the_log(sealer, stop)))
    if (failed_after_s := settings.failed_after_s) is not None:
        interval_s = min(FAIL_S, max(failed_after_s / 10, BULK_S))
        run = fail_old_errors(failed_after_s, stop)
        published = {"failed_after_s": failed_after_s}
        jobs.append(ScheduledJob(FAILED_AFTER_JOB, interval_s, run, published))
    if (every_s := settings.self_audit_every_s) > 0:
        auditing = SelfAuditing(every_s, settings.self_audit_share, stop)
        jobs.append(ScheduledJob("self-audit", min(every_s, LAP_LOOK_S), auditing))
    return jobs


def run_jobs(ledger: Ledger, jobs: Iterable[ScheduledJob], stop: Event) -> None:
    """Run the jobs, each in a thread of its own, until `stop` is set."""
    threads = [
        Thread(target=_run_job, args=(ledger, job, stop), name=job.name, daemon=True)
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _run_job(ledger: Ledger, job: ScheduledJob, stop: Event) -> None:
    election = Election(ledger.url, job.name, ledger.schema, job.settings)
    pause_s = 0.0
    # Jitter: processes that were started together do not come together for ever.
    while not stop.wait(pause_s * random.uniform(0.9, 1.1)):  # noqa: S311 - not for secrets
        pause_s = job.interval_s
        try:
            if election.leading() and (done := job.run(ledger)):
                log.info("%s: %s", job.name, done)
        except LedgerError as error:
            log.warning("%s: %s", job.name, error)
            pause_s = max(pause_s, _PAUSE_S)
            # Another process may have what this one lacks, such as a key.
            election.resign()
        except Exception:
            # A job must outlive its bugs: it is the only one that does this work.
            log.exception("%s failed; trying again", job.name)
            pause_s = max(pause_s, _PAUSE_S)
    election.resign()
