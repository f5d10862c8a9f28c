"""Options are made from the fields of the settings, which declare each of them once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest
from click import Command, Context, Option, command
from click.testing import CliRunner, Result

from recordledger.api.settings import Settings, option_of, variable_of
from recordledger.projections.store.database import DEFAULT_SCHEMA
from recordledger.workers.cli import main
from recordledger.workers.commands import databases
from recordledger.workers.manager.config import ManagerConfig

ROOT: Final = Path(__file__).resolve().parents[3]


def command_of(name: str) -> Command:
    found = main.get_command(Context(main), name)
    assert found is not None
    return found


def options_of(name: str) -> dict[str, Option]:
    found = command_of(name)
    return {
        str(each.name): each
        for each in found.get_params(Context(found))
        if isinstance(each, Option)
    }


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


@pytest.mark.parametrize(
    ("name", "model"),
    [("serve", Settings), ("work", Settings), ("up", Settings), ("manager", ManagerConfig)],
)
def test_each_setting_is_an_option_of_the_commands_that_it_names(
    name: str, model: type[Settings | ManagerConfig]
) -> None:
    fields = {
        each
        for each, field in model.model_fields.items()
        if (on := option_of(field)) and name in on.commands.split()
    }
    assert fields
    options = options_of(name)
    assert fields <= set(options)
    for each in fields:
        assert str(model.model_fields[each].description) in str(options[each].help)


def test_each_setting_is_read_somewhere() -> None:
    sources = [path for layer in ("api", "workers") for path in (ROOT / layer).rglob("*.py")]
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    fields = {*Settings.model_fields, *ManagerConfig.model_fields}
    assert fields - read == set()


def test_the_options_of_work_and_manager_keep_their_names() -> None:
    found = {
        name: {option for each in options_of(name).values() for option in each.opts}
        for name in ("serve", "work", "manager")
    }
    assert found["serve"] == {
        "--database-url",
        "--database-schema",
        "--host",
        "--port",
        "--help",
    }
    assert found["work"] == {
        *("--home", "--database-url", "--database-schema", "--seal", "--seal-every-s"),
        *("--seal-key-file", "--checkpoint-dir", "--sweep-s", "--idempotency-ttl-s"),
        *("--failed-after-s", "--webhook-allow-private", "--webhook-timeout-s"),
        *("--webhook-failing-s", "--self-audit-every-s", "--self-audit-share", "--services"),
        *("--max-active-services", "--service-threads", "--service-lease-s"),
        *("--service-step-warning-s", "--service-children-per-iteration", "--service-children"),
        *("--service-depth", "--service-iterations", "--help"),
    }
    assert found["manager"] == {
        *("--url", "--token", "--token-file", "--name", "--tag", "--workers", "--workers-min"),
        *("--engine", "--engine-address", "--engine-folder", "--engine-silence-s"),
        *("--threads-per-worker", "--program", "--executable", "--distribution", "--survey-s"),
        *("--allow", "--state-dir", "--lease-s", "--heartbeat-s", "--grace-s"),
        *("--end-when-idle-s", "--help"),
    }


def test_the_options_of_other_commands_are_the_same_settings() -> None:
    @command()
    @databases.DATABASE_URL
    @databases.DATABASE_SCHEMA
    @databases.SEAL_KEY_FILE
    @databases.CHECKPOINT_DIR
    def other() -> None: ...

    for option in other.params:
        assert isinstance(option, Option)
        field = Settings.model_fields[str(option.name)]
        assert option.envvar == variable_of(Settings, str(option.name))
        assert str(option.help).startswith(str(field.description))
    assert Settings.model_fields["database_schema"].default == DEFAULT_SCHEMA


@pytest.mark.parametrize(
    ("arguments", "environment", "fault"),
    [
        (("work",), {}, "missing --database-url or RECORDLEDGER_DATABASE_URL in the environment"),
        (("serve",), {}, "missing --database-url or RECORDLEDGER_DATABASE_URL in the environment"),
        (("work", "--failed-after-s=0"), {}, "Invalid value for '--failed-after-s'"),
        (("work",), {"RECORDLEDGER_SEAL_EVERY_S": "0"}, "Invalid value for '--seal-every-s'"),
        (
            ("serve", "--database-url=postgresql:///nowhere"),
            {"RECORDLEDGER_POOL_SIZE": "1"},
            "Invalid value for RECORDLEDGER_POOL_SIZE: Input should be greater than or equal to 2",
        ),
        (("manager", "--workers=0"), {}, "Invalid value for '--workers'"),
        (("manager", "--engine=slurm"), {}, "Invalid value for '--engine'"),
    ],
)
def test_a_setting_that_cannot_be_so_is_named(
    arguments: tuple[str, ...], environment: dict[str, str], fault: str
) -> None:
    refused = run(*arguments, **environment)
    assert refused.exit_code == 2
    assert fault in refused.stderr
