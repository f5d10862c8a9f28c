"""Options that are made from the fields of a settings model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from recordledger.api.settings import Settings

    from ..manager.config import ManagerConfig

    Model = TypeVar("Model", bound=BaseModel)


class SettingsCommand(click.Command):
    """A command that has the fields of a model as options, which it gets by their names.

    The model is imported when the options are needed: the list of all commands does not need them.
    """

    def __init__(self, *args: Any, settings: Callable[[], type[BaseModel]], **kwargs: Any) -> None:
        """Take what imports and returns the model; the rest is click's."""
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._options: dict[str, list[click.Option]] | None = None

    @property
    def groups(self) -> dict[str, list[click.Option]]:
        """The options by the headings of their groups."""
        if self._options is None:
            self._options = options_of(self._settings(), str(self.name))
        return self._options

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all options and arguments, the command's own first."""
        own = super().get_params(ctx)
        made = [option for options in self.groups.values() for option in options]
        return [*own[: len(self.params)], *made, *own[len(self.params) :]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each group under its heading, and first those of no group."""
        made = {option.name: head for head, options in self.groups.items() for option in options}
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(made.get(param.name, "Options"), []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class SettingsGroup(SettingsCommand, click.Group):
    """The same, of a command that has commands below it."""


def server_settings() -> type[Settings]:
    """Return the model of the server's settings."""
    from recordledger.api.settings import Settings

    return Settings


def manager_settings() -> type[ManagerConfig]:
    """Return the model of a manager's settings."""
    from ..manager.config import ManagerConfig

    return ManagerConfig


def options_of(model: type[BaseModel], command: str) -> dict[str, list[click.Option]]:
    """Return the options that a command has from a model, by the headings of the groups."""
    from recordledger.api.settings import groups_of, option_of

    found: dict[str, list[click.Option]] = {}
    for group, names in groups_of(model):
        for name in names:
            on = option_of(model.model_fields[name])
            if on is not None and command in on.commands.split():
                # A group is a base of the model, and its docstring one sentence.
                heading = "Options" if group is model else str(group.__doc__).rstrip(".")
                found.setdefault(heading, []).append(_option(model, name))
    return found


def settings_of(model: type[Model], given: dict[str, Any]) -> Model:
    """Return the settings of a model from what a command was given, and the environment.

    Raises:
        click.UsageError: they cannot be so; it says which one, and what would be right.
    """
    from pydantic import ValidationError

    from recordledger.api.settings import option_name, option_of, variable_of

    values = {name: value for name, value in given.items() if value is not None and value != ()}
    try:
        return model(**values)
    except ValidationError as error:
        # What is wrong is more to the point than what is missing.
        fault = min(error.errors(), key=lambda each: each["type"] == "missing")
        name = str(fault["loc"][0])
        on, variable = option_of(model.model_fields[name]), variable_of(model, name)
        option = option_name(name, model.model_fields[name]) if on else None
        where = " or ".join(filter(None, (option, variable)))
        if fault["type"] == "missing":
            raise click.UsageError(f"missing {where} in the environment") from None
        message = fault["msg"].removeprefix("Value error, ")
        raise click.BadParameter(message, param_hint=where) from None


def _option(model: type[BaseModel], name: str) -> click.Option:
    from recordledger.api.settings import option_name, option_of, variable_of

    field = model.model_fields[name]
    on = option_of(field)
    declared = option_name(name, field)
    kind, is_many = _type_of(name, field)
    default = None if field.is_required() or field.default_factory else field.default
    text = field.description or ""
    variable = variable_of(model, name)
    if on and on.unset:
        text, default = f"{text} [{on.unset}]", None
    if on and on.variable:
        # The client reads it: it knows which of a token and its file comes first.
        text, variable = f"{text} [env: {on.variable}]", None
    if on and on.choices:
        kind = click.Choice(on.choices)
    if kind is bool:
        declared, kind = f"{declared}/--no-{declared.removeprefix('--')}", None
    return click.Option(
        [declared, name],
        type=kind,
        multiple=is_many,
        default=None if is_many else default,
        envvar=variable,
        show_envvar=True,
        show_default=not is_many and default is not None,
        help=text,
    )


def _type_of(name: str, field: FieldInfo) -> tuple[Any, bool]:
    """Return the click type of a field's values, and whether there may be several."""
    kind: Any = field.annotation
    choices = [each for each in get_args(kind) if each is not NoneType]
    if get_origin(kind) in (tuple, Mapping):
        return str, True
    if NoneType in get_args(kind):
        (kind,) = choices
    if kind is Path:
        is_file = name.endswith("file")
        return click.Path(file_okay=is_file, dir_okay=not is_file, path_type=Path), False
    bounds = dict(_bounds(field))
    if kind in (int, float) and bounds:
        low, high = bounds.get("gt", bounds.get("ge")), bounds.get("lt", bounds.get("le"))
        ranged = click.IntRange if kind is int else click.FloatRange
        return ranged(low, high, min_open="gt" in bounds, max_open="lt" in bounds), False
    return kind, False


def _bounds(field: FieldInfo) -> Iterator[tuple[str, Any]]:
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(rule, name, None) is not None:
                yield name, getattr(rule, name)
