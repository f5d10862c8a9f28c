"""The commands of a manager, and of pilot jobs that run one."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from .options import SettingsGroup, manager_settings, settings_of


@click.group(
    cls=SettingsGroup,
    settings=manager_settings,
    invoke_without_command=True,
)
@click.pass_context
def manager(context: click.Context, /, **given: Any) -> None:
    """Claim tasks, run them, and return their results.

    SIGTERM or Ctrl-C stops it in order: tasks that have not begun are given back, others may end.
    It may also be killed at any time: results that were not acknowledged are delivered at the next
    start.

    \b
    Examples:
      recordledger manager --url http://ledger:7420 --tag gpu --tag '*' --workers 8
      recordledger manager --program psi4 --allow 'mypackage.chemistry:*'
      recordledger manager --engine dask --engine-address tcp://head:8786 --engine-folder /shared/x

    Exit status is 0 when it was stopped in order, and 1 when it could not begin or go on.
    """
    if context.invoked_subcommand is not None:
        return
    from ..manager.config import ManagerConfig, parse_program
    from ..manager.main import run_manager
    from ..manager.programs import KNOWN_DISTRIBUTIONS, KNOWN_EXECUTABLES, parse_executable
    from ..supervisor import end_with_supervisor

    try:
        given["programs"] = dict(map(parse_program, given["programs"]))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--program") from error
    try:
        looked_for = dict(map(parse_executable, given["executables"]))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--executable") from error
    given["executables"] = {**KNOWN_EXECUTABLES, **looked_for}
    given["distributions"] = (*KNOWN_DISTRIBUTIONS, *given["distributions"])
    config = settings_of(ManagerConfig, given)
    end_with_supervisor()
    sys.exit(run_manager(config))


@manager.command("slurm-script")
@click.option(
    "--time-min",
    default=240,
    show_default=True,
    type=click.IntRange(1),
    help="Time limit of each job, in minutes.",
)
@click.option(
    "--cores",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processor cores of each job.",
)
@click.option("--mem-gb", type=click.IntRange(1), help="Memory of each job in GB. [the cluster's]")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Number of jobs, as a job array.",
)
@click.option(
    "--grace-s",
    default=120.0,
    show_default=True,
    help="Seconds before the time limit at which the manager is asked to end.",
)
@click.option("--partition", help="Partition of the cluster. [its default]")
@click.option("--account", help="Account that the jobs are charged to. [yours]")
@click.option("--name", default="recordledger-manager", show_default=True, help="Name of the jobs.")
@click.option("--setup", multiple=True, help="Line of shell to run before the manager. Repeatable.")
@click.option(
    "--program",
    default="recordledger",
    show_default=True,
    help="Command that runs recordledger on the nodes.",
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
