"""The command line: `recordledger <verb>`."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from recordledger import __version__

from .commands import archives, backup, datasets, history, management, proof, records, routing
from .commands import audit as auditing
from .commands import past as moments
from .commands import replay as replaying
from .commands import services as service_commands
from .commands import webhooks as webhook_commands
from .commands.databases import (
    CHECKPOINT_DIR,
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    SEAL_KEY_FILE,
    given_url,
    open_ledger,
    running_database,
)
from .commands.past import AS_OF
from .commands.terminal import JSON, console, print_json, says_what_is_wrong
from .tasks.engine_names import ENGINES, PROCESSES

if TYPE_CHECKING:
    from recordledger.domain.admin.addresses import Allowed


def _networks(_ctx: click.Context, param: click.Parameter, given: str) -> Allowed:
    """Return where webhooks may be besides the public Internet."""
    from recordledger.domain.admin.addresses import parse_allowed

    try:
        return parse_allowed(given)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens.")
def main(verbose: bool) -> None:
    """Record Ledger: the system of record for large numbers of computations."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    for noisy in ("httpx2", "httpcore2", "psycopg.pool", "distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Each task that loses its worker is an error with a traceback to it; the engine says it better.
    logging.getLogger("parsl").setLevel(logging.CRITICAL)


@main.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option("--port", default=7420, show_default=True, help="Its port; 0 takes a free one.")
@click.option(
    "--workers", default=2, show_default=True, help="Processes of the local manager; 0 for none."
)
@click.option("--tag", "tags", multiple=True, help="Tag of the local manager. Repeatable. [*]")
@click.option(
    "--allow",
    multiple=True,
    help="Functions that the local manager may run, 'module:function' with wildcards. Repeatable.",
)
@says_what_is_wrong
def up(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    host: str,
    port: int,
    workers: int,
    tags: tuple[str, ...],
    allow: tuple[str, ...],
) -> None:
    """Start a database, the API, the server's jobs and a manager; Ctrl-C stops them all.

    The data are kept in the user's data directory, and are there at the next start. With
    --database-url, that database is used instead of an embedded one.

    \b
    Examples:
      recordledger up
      recordledger up --workers 4 --allow 'mypackage.chemistry:*'
    """
    from recordledger.api.client.connection import home_folder

    from .supervisor import Plan, Supervisor

    plan = Plan(
        home=home or home_folder(),
        database_url=database_url,
        database_schema=database_schema,
        host=host,
        port=port,
        workers=workers,
        tags=tags or ("*",),
        allow=allow,
    )
    stop = _stop_on_signals()
    with Supervisor(plan) as supervisor:
        click.echo(f"Record Ledger {__version__} is up at {supervisor.url}")
        click.echo(f"  data and logs   {plan.home}")
        click.echo("  in Python       from recordledger import Client; client = Client()")
        click.echo("Ctrl-C stops it.")
        supervisor.wait(stop)
        click.echo("Stopping: the manager hands in what it has finished ...")


@main.command()
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--host", default=None, help="Where the API listens. [127.0.0.1]")
@click.option("--port", default=None, type=int, help="Its port. [7420]")
@says_what_is_wrong
def serve(
    database_url: str | None, database_schema: str, host: str | None, port: int | None
) -> None:
    """Serve the HTTP API. All settings can come from the environment, RECORDLEDGER_*."""
    from recordledger.api.http.settings import Settings
    from recordledger.api.server import serve as serve_api

    from .supervisor import end_with_supervisor

    given: dict[str, Any] = {
        "database_url": database_url,
        "database_schema": database_schema,
        "host": host,
        "port": port,
    }
    end_with_supervisor()
    serve_api(Settings(**{name: value for name, value in given.items() if value is not None}))


@main.command()
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
    webhook_allow_private: Allowed,
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
    from recordledger.domain.specs.service_rules import Limits

    from .jobs.schedule import Job, run_jobs, server_jobs
    from .jobs.sealing import Sealer
    from .jobs.service_registry import ServiceRegistry
    from .jobs.service_runner import RunnerSettings, ServiceRunner
    from .jobs.webhooks import POLL_S, Deliverer, DeliverySettings
    from .supervisor import end_with_supervisor

    stop = _stop_on_signals()
    end_with_supervisor()
    ledger = open_ledger(database_url, database_schema, pool_size=6 + service_threads)
    sender = Sender(webhook_allow_private, webhook_timeout_s)
    deliverer = Deliverer(DeliverySettings(sender, webhook_failing_s), stop)
    runner: Thread | None = None
    try:
        if services:
            settings = RunnerSettings(
                active_max=max_active_services,
                threads=service_threads,
                lease_s=service_lease_s,
                step_warning_s=service_step_warning_s,
                limits=Limits(
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
        run_jobs(ledger, [*jobs, Job("webhooks", POLL_S, deliverer.run)], stop)
        if runner is not None:
            runner.join()
        deliverer.close()
    finally:
        ledger.close()


@main.group(invoke_without_command=True)
@click.option("--url", envvar="RECORDLEDGER_URL", help="Address of the API. [the local one]")
@click.option("--token", help="Token of role compute, or admin. [env: RECORDLEDGER_TOKEN]")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token, instead of it; it may be replaced while the manager runs. "
    "[env: RECORDLEDGER_TOKEN_FILE]",
)
@click.option("--name", help="As people know it. [the host's name]")
@click.option("--tag", "tags", multiple=True, help="What to claim, in this order. Repeatable. [*]")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Tasks at once. [the processors, or the workers at --engine-address]",
)
@click.option(
    "--workers-min",
    type=click.IntRange(0),
    help="Processes to keep when there is less to do. [as many as --workers]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=PROCESSES,
    show_default=True,
    help="What runs the tasks; see docs/engines.md.",
)
@click.option(
    "--engine-address",
    help="Of a cluster that runs: a scheduler of Dask; a configuration of Parsl, module:attribute; "
    "a connection file or a profile of ipyparallel. [one on this machine is started]",
)
@click.option(
    "--engine-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that this machine and the workers at --engine-address see. It makes known what "
    "has begun and what can still be given back.",
)
@click.option(
    "--engine-silence-s",
    default=30.0,
    show_default=True,
    help="Seconds without a sign of life from the engine after which the manager ends.",
)
@click.option(
    "--threads-per-worker", type=click.IntRange(1), help="For numerical libraries. [divided]"
)
@click.option(
    "--program",
    "programs",
    multiple=True,
    help="What tasks may require, NAME or NAME=VERSION, besides what is found. Repeatable.",
)
@click.option(
    "--executable",
    "executables",
    multiple=True,
    help="An executable to look for, and the command that prints its version: "
    "NAME='COMMAND --version'. Repeatable; many are known.",
)
@click.option(
    "--distribution",
    "distributions",
    multiple=True,
    help="Installed Python packages to offer, with wildcards. Repeatable; many are known.",
)
@click.option(
    "--survey-s",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds between two looks for programs.",
)
@click.option(
    "--allow",
    multiple=True,
    help="Functions that may be run besides entry points, 'module:function' with wildcards. "
    "Repeatable.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results are kept until they are acknowledged. [in the user's data directory]",
)
@click.option("--lease-s", type=click.FloatRange(min=0, min_open=True), help="[the server's]")
@click.option("--heartbeat-s", type=click.FloatRange(min=0, min_open=True), help="[the server's]")
@click.option(
    "--grace-s",
    default=30.0,
    show_default=True,
    help="Seconds that running tasks may go on after SIGTERM.",
)
@click.option(
    "--end-when-idle-s",
    type=click.FloatRange(min=0, min_open=True),
    help="End when there was nothing to do for so long. [never]",
)
@click.pass_context
def manager(
    context: click.Context,
    url: str | None,
    token: str | None,
    token_file: Path | None,
    name: str | None,
    tags: tuple[str, ...],
    workers: int | None,
    workers_min: int | None,
    engine: str,
    engine_address: str | None,
    engine_folder: Path | None,
    engine_silence_s: float,
    threads_per_worker: int | None,
    programs: tuple[str, ...],
    executables: tuple[str, ...],
    distributions: tuple[str, ...],
    survey_s: float,
    allow: tuple[str, ...],
    state_dir: Path | None,
    lease_s: float | None,
    heartbeat_s: float | None,
    grace_s: float,
    end_when_idle_s: float | None,
) -> None:
    """Claim tasks, run them, and return what came of them.

    SIGTERM or Ctrl-C stops it in order: what has not begun is given back, what runs may end. It may
    also be killed at any time: results that were not acknowledged are delivered at the next start.

    \b
    Examples:
      recordledger manager --url http://ledger:7420 --tag gpu --tag '*' --workers 8
      recordledger manager --program psi4 --allow 'mypackage.chemistry:*'
      recordledger manager --engine dask --engine-address tcp://head:8786 --engine-folder /shared/x

    Exit status is 0 when it was stopped in order, and 1 when it could not begin or go on.
    """
    if context.invoked_subcommand is not None:
        return
    from .manager.config import parse_program
    from .manager.main import ManagerConfig, run_manager
    from .manager.programs import KNOWN_DISTRIBUTIONS, KNOWN_EXECUTABLES, parse_executable
    from .supervisor import end_with_supervisor

    try:
        found = dict(map(parse_program, programs))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--program") from error
    try:
        looked_for = {**KNOWN_EXECUTABLES, **dict(map(parse_executable, executables))}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--executable") from error
    given: dict[str, Any] = {
        "name": name,
        "state_dir": state_dir,
    }
    config = ManagerConfig(
        url=url,
        token=token,
        token_file=token_file,
        tags=tags or ("*",),
        n_workers=workers,
        n_workers_min=workers_min,
        engine=engine,
        engine_address=engine_address,
        engine_folder=engine_folder,
        engine_silence_s=engine_silence_s,
        threads_per_worker=threads_per_worker,
        programs=found,
        distributions=(*KNOWN_DISTRIBUTIONS, *distributions),
        executables=looked_for,
        survey_s=survey_s,
        allow=allow,
        lease_s=lease_s,
        heartbeat_s=heartbeat_s,
        grace_s=grace_s,
        end_when_idle_s=end_when_idle_s,
        **{key: value for key, value in given.items() if value is not None},
    )
    end_with_supervisor()
    sys.exit(run_manager(config))


@manager.command("slurm-script")
@click.option("--time-min", default=240, show_default=True, type=click.IntRange(1), help="Limit.")
@click.option("--cores", default=1, show_default=True, type=click.IntRange(1), help="Of each job.")
@click.option("--mem-gb", type=click.IntRange(1), help="Memory of each job. [the cluster's]")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="How many.")
@click.option(
    "--grace-s",
    default=120.0,
    show_default=True,
    help="Seconds before the limit at which the manager is told to end.",
)
@click.option("--partition", help="[the cluster's default]")
@click.option("--account", help="[yours]")
@click.option("--name", default="recordledger-manager", show_default=True, help="Of the job.")
@click.option("--setup", multiple=True, help="A line of shell to run first. Repeatable.")
@click.option(
    "--program", default="recordledger", show_default=True, help="How it is called on the nodes."
)
@click.argument("manager_options", nargs=-1, type=click.UNPROCESSED)
def slurm_script(
    time_min: int, cores: int, mem_gb: int | None, jobs: int, setup: tuple[str, ...], **rest: Any
) -> None:
    """Print the script of a pilot job for sbatch: a manager for as long as the job runs.

    MANAGER_OPTIONS come after `--` and are those of `recordledger manager`. Before its time limit,
    and when it is preempted, the job gives back what it cannot finish.

    \b
    Example:
      recordledger manager slurm-script --cores 16 --jobs 4 --setup 'module load psi4' \\
        -- --tag hpc --token-file ~/ledger.token --end-when-idle-s 300 | sbatch
    """
    from .manager.slurm import PilotJob, pilot_script

    try:
        script = pilot_script(
            PilotJob(
                manager=rest.pop("manager_options"),
                time_min=time_min,
                cores=cores,
                mem_gb=mem_gb,
                n_jobs=jobs,
                setup=setup,
                **rest,
            )
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(script, nl=False)


@main.command()
@DATABASE_URL
@DATABASE_SCHEMA
@says_what_is_wrong
def migrate(database_url: str | None, database_schema: str) -> None:
    """Bring the database's schema up to date. Forward only; run it before `serve`."""
    from recordledger.projections.tables.schema import migrate as migrate_schema

    version = migrate_schema(given_url(database_url), database_schema)
    click.echo(f"The schema is version {version}.")


@main.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--check", is_flag=True, help="Compare with the live tables; change nothing.")
@click.option("--differences", default=20, show_default=True, help="Most to show for each table.")
@click.option("--past", is_flag=True, help="With --check: the tables of the past too.")
@click.option("--rebuild", is_flag=True, help="Put new tables into the places of the live ones.")
@click.option("--only", multiple=True, help="Rebuild only this table. Repeatable.")
@click.option(
    "--as-of",
    callback=moments.moment,
    metavar="MOMENT",
    help="Fold up to then: a position of the log, a time like 2026-11-21T16:30 (UTC), or -2h.",
)
@click.option("--into", help="Keep the tables as they were then in this new schema.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Processes that fold. [as many as there are processors, if the log is long]",
)
@says_what_is_wrong
def replay(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    check: bool,
    past: bool,
    differences: int,
    rebuild: bool,
    only: tuple[str, ...],
    as_of: int | datetime | None,
    into: str | None,
    jobs: int | None,
) -> None:
    """Fold the whole log again: to check the tables, to rebuild them, or to see them as they were.

    It may run while the ledger is in use. Without --database-url it looks at the embedded database
    of `recordledger up`, which must be running. docs/replay.md says more.

    \b
    Examples:
      recordledger replay --check
      recordledger replay --rebuild --only records --only claim_queue
      recordledger replay --as-of 4711
      recordledger replay --as-of 2026-11-21T16:30 --into friday

    Exit status is 0, and with --check 1 if the tables differ from the log.
    """
    if [check, rebuild, as_of is not None].count(True) != 1:
        raise click.UsageError("say one of --check, --rebuild and --as-of")
    if only and not rebuild:
        raise click.UsageError("--only goes with --rebuild")
    if past and not check:
        raise click.UsageError("--past goes with --check")
    if into is not None and as_of is None:
        raise click.UsageError("--into goes with --as-of")
    ledger = open_ledger(running_database(home, database_url), database_schema)
    _exit_on_sigterm()
    try:
        if as_of is not None:
            replaying.go_back(ledger, jobs, as_of, into)
        elif rebuild:
            replaying.rebuild(ledger, jobs, only)
        else:
            replaying.check(ledger, jobs, differences, past=past)
    finally:
        ledger.close()


@main.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--rebuild", is_flag=True, help="Empty the tables of the past first.")
@says_what_is_wrong
def past(home: Path | None, database_url: str | None, database_schema: str, rebuild: bool) -> None:
    """Bring the tables of the past to the end of the log, and print how far they go.

    `recordledger work` does that all the time. Questions about earlier moments are answered from
    these tables; docs/time-travel.md says how. Without --database-url it works on the embedded
    database of `recordledger up`, which must be running.
    """
    from rich.progress import Progress

    from recordledger.projections.reading.queries import head
    from recordledger.projections.reading.timeline import advance, forget, how_far

    ledger = open_ledger(running_database(home, database_url), database_schema)
    try:
        if rebuild:
            forget(ledger)
        with Progress(transient=True) as bar:
            task = bar.add_task("following the log", total=head(ledger))
            while advance(ledger):
                bar.update(task, completed=how_far(ledger).position)
        reached = how_far(ledger)
    finally:
        ledger.close()
    until = "" if reached.latest_at is None else f", {reached.latest_at:%F %T} UTC"
    click.echo(f"The past is in tables up to position {reached.position}{until}.")


@main.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option(
    "--tolerance",
    "tolerance_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for which a waiting task may be passed over by claims.",
)
@click.option("--keep-going", is_flag=True, help="Check everything, whatever is broken.")
@click.option("--log-only", is_flag=True, help="Do not compare the tables with the log: faster.")
@JSON
@says_what_is_wrong
def audit(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    tolerance_s: float,
    keep_going: bool,
    log_only: bool,
    as_json: bool,
) -> None:
    """Check every named invariant from the log, and print one line for each.

    The log is read once, in order, and the tables are compared with it; nothing is changed. It may
    run while the ledger is in use. It stops at the first event that breaks an invariant, and
    says which. Without --database-url it looks at the embedded database of `recordledger up`, which
    must be running.

    Exit status is 0 when every invariant holds, and 1 when one is broken or the database does not
    answer. docs/audit.md says what each line means.
    """
    from rich.console import Console
    from rich.progress import Progress

    from recordledger.projections.proof.audit import audit as audit_ledger

    ledger = open_ledger(running_database(home, database_url), database_schema)
    try:
        with Progress(transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task("reading the log", total=None)
            report = audit_ledger(
                ledger,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                tolerance_s=tolerance_s,
                stop_at_first=not keep_going,
                log_only=log_only,
            )
    finally:
        ledger.close()
    if as_json:
        print_json(report)
    else:
        click.echo(str(report))
    sys.exit(0 if report.holds else 1)


@main.command()
@click.option("--smoke", is_flag=True, help="Few points: is everything there?")
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the plot and the table of results go.",
)
@click.option("--workers", default=2, show_default=True, help="Processes that compute.")
@click.option(
    "--only",
    type=click.Choice(("curves", "band")),
    help="One of the two: tasks that are independent, or a service with its iterations.",
)
@says_what_is_wrong
def demo(smoke: bool, output: Path, workers: int, only: str | None) -> None:
    """Compute energy curves and a reaction's barrier through a ledger of their own, and draw them.

    The curves are tasks by the hundred. The barrier is found by a service, a nudged elastic band:
    it asks for gradients, looks at them, and asks again, until it has converged.

    A ledger is started in a temporary directory, and nothing of it stays but the output.

    Exit status is 0 when everything came out as it should.
    """
    from recordledger.api.client import Client

    from .demo.band import run_band
    from .demo.curves import run_demo
    from .supervisor import Plan, Supervisor

    logging.getLogger().setLevel(logging.WARNING)
    _exit_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="recordledger-demo-") as home:
        click.echo(f"Starting PostgreSQL, the API and a manager with {workers} processes ...")
        plan = Plan(home=Path(home), port=0, workers=workers)
        with Supervisor(plan) as supervisor:
            with Client(supervisor.url, supervisor.token) as client:
                status = 0 if only == "band" else run_demo(client, output, smoke=smoke)
                if only != "curves":
                    status |= run_band(client, output, smoke=smoke)
            click.echo("Stopping ...")
    sys.exit(status)


@main.command()
@click.argument("record_id", type=click.IntRange(1, 2**63 - 1))
@click.option("--output", is_flag=True, help="Print what each attempt wrote, and its traceback.")
@says_what_is_wrong
def attempts(record_id: int, output: bool) -> None:
    """Print every attempt of the record RECORD_ID, and what came of each."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.attempts(
            record_id, include=("stdout", "stderr", "traceback") if output else ()
        )
    click.echo(repr(found))
    for attempt in found:
        for name in ("stdout", "stderr", "traceback"):
            if text := getattr(attempt, name):
                click.echo(f"\n--- attempt {attempt.number}: {name}\n{text.rstrip()}")


@main.command()
@AS_OF
@says_what_is_wrong
def status(as_of: int | datetime | None) -> None:
    """Print how many records are in each status, and which managers are active.

    Of an earlier moment, only the statuses.
    """
    from rich.table import Table

    from recordledger.api.client import Client

    with Client() as client:
        found = client.counts(as_of=as_of)
        title = client.url
        if found.as_of is not None:
            title += f" at position {found.as_of.position}, {found.as_of.happened_at:%F %T}"
        counts = Table("status", "records", title=title)
        for name, n_records in found.items():
            counts.add_row(str(name), f"{n_records:,}")
        if found.as_of is not None:
            console().print(counts)
            return
        managers = Table("manager", "name", "host", "tags", "last heartbeat")
        for manager in client.managers():
            if manager.state != "active":
                continue
            managers.add_row(
                str(manager.id),
                manager.name,
                manager.hostname,
                " ".join(manager.tags),
                "" if manager.heartbeat_at is None else f"{manager.heartbeat_at:%F %T}",
            )
    shown = console()
    shown.print(counts)
    shown.print(managers)


@main.group()
def token() -> None:
    """Issue, list and revoke tokens. What they open is decided by their role."""


@token.command("issue")
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice(["reader", "user", "compute", "admin"]),
    default="user",
    show_default=True,
    help="What the token is for; `compute` is for managers.",
)
@click.option("--days", type=click.FloatRange(min=0), help="Days until it expires. [never]")
@says_what_is_wrong
def issue_token(user: str, role: str, days: float | None) -> None:
    """Issue a token with which its bearer acts as USER. It is printed once and kept nowhere."""
    from recordledger.api.client import Client

    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Client() as client:
        click.echo(client.issue_token(user, role, expires_at=expires_at).secret)


@token.command("list")
@says_what_is_wrong
def list_tokens() -> None:
    """Print all tokens, without their secrets."""
    from rich.table import Table

    from recordledger.api.client import Client

    table = Table("token", "user", "role", "issued", "expires", "revoked")
    with Client() as client:
        for each in client.tokens():
            moments = (each.issued_at, each.expires_at, each.revoked_at)
            table.add_row(
                str(each.id), each.user, each.role, *(f"{at:%F %T}" if at else "" for at in moments)
            )
    console().print(table)


@token.command("revoke")
@click.argument("token_id", type=click.IntRange(1, 2**63 - 1))
@says_what_is_wrong
def revoke_token(token_id: int) -> None:
    """Revoke the token TOKEN_ID: it opens nothing any more, a few seconds from now."""
    from recordledger.api.client import Client

    with Client() as client:
        client.revoke_token(token_id)
    click.echo(f"Token {token_id} is revoked.")


def _exit_on_sigterm() -> None:
    """End by SIGTERM as by Ctrl-C: what was started is stopped, the database too."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _stop_on_signals() -> Event:
    stop = Event()

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return stop


for _command in (
    *records.COMMANDS,
    *history.COMMANDS,
    *moments.COMMANDS,
    *management.COMMANDS,
    *routing.COMMANDS,
    *proof.COMMANDS,
    *datasets.COMMANDS,
    *service_commands.COMMANDS,
    *webhook_commands.COMMANDS,
    *auditing.COMMANDS,
    *archives.COMMANDS,
    *backup.COMMANDS,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
