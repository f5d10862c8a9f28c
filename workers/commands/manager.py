"""The commands of a manager, and of pilot jobs that run one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from ..tasks.engine_names import ENGINES, PROCESSES


@click.group(invoke_without_command=True)
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
    from ..manager.config import parse_program
    from ..manager.main import ManagerConfig, run_manager
    from ..manager.programs import KNOWN_DISTRIBUTIONS, KNOWN_EXECUTABLES, parse_executable
    from ..supervisor import end_with_supervisor

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
    from ..manager.slurm import PilotJob, pilot_script

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


COMMANDS: Final = (manager,)
