"""The command that does the server's own jobs."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Final

import click

from .databases import (
    CHECKPOINT_DIR,
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    SEAL_KEY_FILE,
    open_ledger,
)
from .signals import stop_on_signals
from .terminal import says_what_is_wrong


def _networks(_ctx: click.Context, param: click.Parameter, given: str) -> str:
    """Return where webhooks may be besides the public Internet, if it can be read."""
    from recordledger.domain.admin.addresses import parse_allowed

    try:
        parse_allowed(given)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None
    return given


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--seal/--no-seal", default=True, show_default=True, help="Whether to seal the log.")
@click.option(
    "--seal-every-s",
    envvar="RECORDLEDGER_SEAL_EVERY_S",
    type=click.FloatRange(min=0.1, max=86_400),
    default=10.0,
    show_default=True,
    help="Seconds between two seals, if something has happened.",
)
@SEAL_KEY_FILE
@CHECKPOINT_DIR
@click.option(
    "--sweep-s",
    default=2.0,
    show_default=True,
    help="Seconds between two looks for managers that have fallen silent.",
)
@click.option(
    "--idempotency-ttl-s",
    envvar="RECORDLEDGER_IDEMPOTENCY_TTL_S",
    default=7 * 86_400.0,
    show_default=True,
    help="Seconds for which a request may be repeated under its key.",
)
@click.option(
    "--failed-after-s",
    envvar="RECORDLEDGER_FAILED_AFTER_S",
    type=click.FloatRange(min=0, min_open=True),
    help="Policy: seconds after which a record in error becomes failed. [never]",
)
@click.option(
    "--webhook-allow-private",
    envvar="RECORDLEDGER_WEBHOOK_ALLOW_PRIVATE",
    default="false",
    show_default=True,
    callback=_networks,
    help="Where webhooks may be besides the public Internet, and without TLS: networks with "
    "commas, or true for everywhere.",
)
@click.option(
    "--webhook-timeout-s",
    envvar="RECORDLEDGER_WEBHOOK_TIMEOUT_S",
    type=click.FloatRange(min=0.1, max=600),
    default=15.0,
    show_default=True,
    help="Seconds that a message to a webhook may take.",
)
@click.option(
    "--webhook-failing-s",
    envvar="RECORDLEDGER_WEBHOOK_FAILING_S",
    type=click.FloatRange(min=1),
    default=5 * 86_400.0,
    show_default=True,
    help="Seconds in which nothing arrived after which a webhook is disabled.",
)
@click.option(
    "--self-audit-every-s",
    envvar="RECORDLEDGER_SELF_AUDIT_EVERY_S",
    type=click.FloatRange(min=0, max=3600),
    default=20.0,
    show_default=True,
    help="Seconds from one lap of the self-audit, which holds all tables against the log, to the "
    "next; 0 switches it off.",
)
@click.option(
    "--self-audit-share",
    envvar="RECORDLEDGER_SELF_AUDIT_SHARE",
    type=click.FloatRange(min=0.001, max=1),
    default=0.2,
    show_default=True,
    help="Share of one processor core that the self-audit may take.",
)
@click.option(
    "--services/--no-services",
    default=True,
    show_default=True,
    help="Whether to advance services too.",
)
@click.option(
    "--max-active-services",
    envvar="RECORDLEDGER_MAX_ACTIVE_SERVICES",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Services that run at once, of all runners. Those that others wait for are not held back.",
)
@click.option(
    "--service-threads",
    envvar="RECORDLEDGER_SERVICE_THREADS",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Decisions of services at once.",
)
@click.option(
    "--service-lease-s",
    envvar="RECORDLEDGER_SERVICE_LEASE_S",
    type=click.FloatRange(min=0.1),
    default=15.0,
    show_default=True,
    help="Seconds after which others take over what a runner had in hand that was lost.",
)
@click.option(
    "--service-step-warning-s",
    envvar="RECORDLEDGER_SERVICE_STEP_WARNING_S",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds that a decision may take before the log speaks of it.",
)
@click.option(
    "--service-children-per-iteration",
    envvar="RECORDLEDGER_SERVICE_CHILDREN_PER_ITERATION",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="New children of one decision at the most.",
)
@click.option(
    "--service-children",
    envvar="RECORDLEDGER_SERVICE_CHILDREN",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Children of one service at the most.",
)
@click.option(
    "--service-depth",
    envvar="RECORDLEDGER_SERVICE_DEPTH",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Levels of services that ask for services at the most.",
)
@click.option(
    "--service-iterations",
    envvar="RECORDLEDGER_SERVICE_ITERATIONS",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Decisions of one service at the most.",
)
@says_what_is_wrong
def work(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    seal: bool,
    seal_every_s: float,
    seal_key_file: Path | None,
    checkpoint_dir: Path | None,
    sweep_s: float,
    idempotency_ttl_s: float,
    failed_after_s: float | None,
    webhook_allow_private: str,
    webhook_timeout_s: float,
    webhook_failing_s: float,
    self_audit_every_s: float,
    self_audit_share: float,
    services: bool,
    max_active_services: int,
    service_threads: int,
    service_lease_s: float,
    service_step_warning_s: float,
    service_children_per_iteration: int,
    service_children: int,
    service_depth: int,
    service_iterations: int,
) -> None:
    """Do the server's own jobs, seal the log, advance services, and tell webhooks what happens.

    Several may run: each job is done by one of them, and services are shared among all. The
    services themselves are entry points `recordledger.services` of what is installed here.
    """
    from recordledger.api.client.connection import home_folder
    from recordledger.api.http.webhook_sender import Sender
    from recordledger.domain.admin.addresses import parse_allowed
    from recordledger.domain.specs.service_rules import ServiceLimits
    from recordledger.projections.actions.deliveries import WEBHOOKS_JOB

    from ..jobs.schedule import ScheduledJob, run_jobs, server_jobs
    from ..jobs.sealing import Sealer
    from ..jobs.service_registry import ServiceRegistry
    from ..jobs.service_runner import RunnerSettings, ServiceRunner
    from ..jobs.webhooks import POLL_S, Deliverer, DeliverySettings
    from ..supervisor import end_with_supervisor

    stop = stop_on_signals()
    end_with_supervisor()
    ledger = open_ledger(database_url, database_schema, pool_size=6 + service_threads)
    sender = Sender(parse_allowed(webhook_allow_private), webhook_timeout_s)
    deliverer = Deliverer(DeliverySettings(sender, webhook_failing_s), stop)
    runner: Thread | None = None
    try:
        if services:
            settings = RunnerSettings(
                active_max=max_active_services,
                threads=service_threads,
                lease_s=service_lease_s,
                step_warning_s=service_step_warning_s,
                limits=ServiceLimits(
                    children_per_iteration=service_children_per_iteration,
                    children=service_children,
                    depth=service_depth,
                    iterations=service_iterations,
                ),
            )
            advance = ServiceRunner(ledger, ServiceRegistry(), settings).run
            runner = Thread(target=advance, args=(stop,), name="services", daemon=True)
            runner.start()
        sealer = Sealer(
            ledger,
            home=home or home_folder(),
            key_file=seal_key_file,
            checkpoint_dir=checkpoint_dir,
        )
        jobs = server_jobs(
            sealer=sealer if seal else None,
            seal_every_s=seal_every_s,
            sweep_s=sweep_s,
            idempotency_ttl_s=idempotency_ttl_s,
            failed_after_s=failed_after_s,
            self_audit_every_s=self_audit_every_s,
            self_audit_share=self_audit_share,
            stop=stop,
        )
        published = {"webhook_allow_private": webhook_allow_private}
        jobs.append(ScheduledJob(WEBHOOKS_JOB, POLL_S, deliverer.run, published))
        run_jobs(ledger, jobs, stop)
        if runner is not None:
            runner.join()
        deliverer.close()
    finally:
        ledger.close()


COMMANDS: Final = (work,)
