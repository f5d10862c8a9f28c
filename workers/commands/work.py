"""The command that does the server's own jobs."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any, Final

import click

from .databases import HOME, open_ledger
from .options import SettingsCommand, server_settings, settings_of
from .signals import stop_on_signals
from .terminal import exits_on_ledger_errors


@click.command(cls=SettingsCommand, settings=server_settings)
@HOME
@exits_on_ledger_errors
def work(home: Path | None, **given: Any) -> None:
    """Do the server's own jobs: seal the log, advance services, send messages to webhooks, ...

    Several may run: each job is done by one of them, and services are shared among all. The
    services themselves are entry points `recordledger.services` of what is installed here.
    """
    from recordledger.api.client.connection import home_folder
    from recordledger.api.http.webhook_sender import Sender
    from recordledger.api.settings import Settings
    from recordledger.domain.admin.addresses import parse_allowed
    from recordledger.projections.actions.deliveries import WEBHOOKS_JOB

    from ..jobs.schedule import ScheduledJob, run_jobs, server_jobs
    from ..jobs.sealing import Sealer
    from ..jobs.service_registry import ServiceRegistry
    from ..jobs.service_runner import RunnerSettings, ServiceRunner
    from ..jobs.webhooks import POLL_S, Deliverer, DeliverySettings
    from ..supervisor import end_with_supervisor

    settings = settings_of(Settings, given)
    stop = stop_on_signals()
    end_with_supervisor()
    pool_size = 6 + settings.service_threads
    ledger = open_ledger(settings.database_url, settings.database_schema, pool_size=pool_size)
    allowed = settings.webhook_allow_private
    sender = Sender(parse_allowed(allowed), settings.webhook_timeout_s)
    deliverer = Deliverer(DeliverySettings(sender, settings.webhook_failing_s), stop)
    runner: Thread | None = None
    # Nothing runs yet: what starts below ends with `stop`, before the ledger is closed.
    try:
        if settings.services:
            running = RunnerSettings(
                active_max=settings.max_active_services,
                threads=settings.service_threads,
                lease_s=settings.service_lease_s,
                step_warning_s=settings.service_step_warning_s,
                limits=settings.service_limits,
            )
            advance = ServiceRunner(ledger, ServiceRegistry(), running).run
            runner = Thread(target=advance, args=(stop,), name="services", daemon=True)
            runner.start()
        sealer = Sealer(
            ledger,
            home=home or home_folder(),
            key_file=settings.seal_key_file,
            checkpoint_dir=settings.checkpoint_dir,
        )
        jobs = server_jobs(settings, sealer=sealer if settings.seal else None, stop=stop)
        published = {"webhook_allow_private": allowed}
        jobs.append(ScheduledJob(WEBHOOKS_JOB, POLL_S, deliverer.run, published))
        # Returns when `stop` is set; services and messages in progress are finished after it.
        run_jobs(ledger, jobs, stop)
        if runner is not None:
            runner.join()
        deliverer.close()
    finally:
        ledger.close()


COMMANDS: Final = (work,)
