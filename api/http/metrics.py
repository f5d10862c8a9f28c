"""What Prometheus can scrape: requests, records that moved, and how full the ledger is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recordledger.domain.errors import LedgerError
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import queries
from recordledger.projections.self_audit import self_audit
from recordledger.projections.self_audit.self_audit import SelfAuditState
from recordledger.projections.tables.inline import PROJECTIONS

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self, ledger: Ledger) -> None:
        """Count from zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "recordledger_requests",
            "Answered requests.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.latency_s = Histogram(
            "recordledger_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "recordledger_requests_in_flight",
            "Requests being served.",
            registry=self.registry,
        )
        self.submitted = Counter(
            "recordledger_records_submitted",
            "Entries of submissions, by outcome: inserted, existing, refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.claimed = Counter(
            "recordledger_tasks_claimed",
            "Tasks claimed by managers.",
            registry=self.registry,
        )
        self.returned = Counter(
            "recordledger_results_returned",
            "Results from managers, by outcome: accepted, late, duplicate, refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.followers = Gauge(
            "recordledger_followers",
            "Followers of the log.",
            registry=self.registry,
        )
        # The counts above are of this process; the following are read from the database.
        self.registry.register(_OfDatabase(ledger))

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in _METHODS else "other"
        self.requests.labels(route, known, str(status)).inc()
        self.latency_s.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)


class _OfDatabase(Collector):
    """The metrics that each scrape reads from the database; left out while it does not answer."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def describe(self) -> Iterator[Metric]:
        """Name nothing: registering shall not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the gauges."""
        try:
            counts, head, up = queries.counts(self._ledger), queries.head(self._ledger), 1
            rescues = queries.rescues(self._ledger)
            audited = self_audit.state(self._ledger)
        except LedgerError:
            log.warning("the database did not answer a scrape", exc_info=True)
            counts, head, up, rescues, audited = {}, None, 0, {}, None
        yield GaugeMetricFamily("recordledger_database_up", "Whether the database answers.", up)
        if head is not None:
            by_status = GaugeMetricFamily(
                "recordledger_records", "Records by status.", labels=["status"]
            )
            for status, n_records in counts.items():
                by_status.add_metric([status], n_records)
            yield by_status
            yield GaugeMetricFamily(
                "recordledger_log_position", "Newest position of the log.", head
            )
        late = GaugeMetricFamily(
            "recordledger_late_core_hours",
            "Computing time of late results, by outcome.",
            labels=["kind"],
        )
        for kind, rescued in rescues.items():
            late.add_metric([kind], rescued.core_s / 3600)
        yield late
        if audited is not None:
            yield from _of_self_audit(audited)
        stats: dict[str, int] = self._ledger.datastore.pool.get_stats()
        for name, text in (
            ("pool_size", "Connections in the pool."),
            ("pool_available", "Idle connections in the pool."),
            ("requests_waiting", "Requests waiting for a connection."),
        ):
            yield GaugeMetricFamily(f"recordledger_database_{name}", text, stats.get(name, 0))


def _of_self_audit(audited: SelfAuditState) -> Iterator[Metric]:
    divergent = GaugeMetricFamily(
        "recordledger_divergent_rows",
        "Rows found to differ from the log and not yet repaired.",
        labels=["table"],
    )
    for table in PROJECTIONS:
        divergent.add_metric([table], audited.divergences.get(table, 0))
    yield divergent
    if audited.age_s is not None:
        yield GaugeMetricFamily(
            "recordledger_self_audit_age_seconds",
            "Age of the self-audit's oldest check, in seconds.",
            audited.age_s,
        )
    yield GaugeMetricFamily(
        "recordledger_self_audit_position",
        "Position of the log up to which all verified rows were checked.",
        audited.position,
    )
    yield GaugeMetricFamily(
        "recordledger_self_audit_unproved",
        "Aggregates whose rows the self-audit has not verified, or found to differ from the log.",
        audited.n_unproved,
    )
