"""What runs inside a worker process: one task, from its function's name to its outcome."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

from recordledger.domain.errors import InvalidInput
from recordledger.domain.specs.canonical import canonical_json

from .allowlist import AllowedFunction, AllowList
from .capture import CaughtOutput, OutputCapture, readable

ERROR_TYPE_CHARACTERS_MAX: Final = 200
ERROR_MESSAGE_CHARACTERS_MAX: Final = 10_000
TRACEBACK_BYTES_MAX: Final = 64 * 1024


class Report(TypedDict):
    """The outcome of a task: the fields of `schemas.returns.ResultIn` without the attempt's ids."""

    result: NotRequired[bytes]
    error_type: NotRequired[str]
    error_message: NotRequired[str]
    traceback: NotRequired[str]
    stdout: NotRequired[str]
    stderr: NotRequired[str]
    provenance: NotRequired[dict[str, Any]]
    compute_s: NotRequired[float]
    cores: NotRequired[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker process has to know; plain values, for it travels to other processes.

    Attributes:
        patterns: what may be run besides entry points, see `AllowList`.
        programs: what the manager says it has, with versions; goes into the provenance.
        output_bytes_max: how much is kept of stdout, and of stderr.
        result_bytes_max: largest result, as JSON, that is kept.
        output_folder: where the running task's output is, for those who outlive it.
    """

    patterns: tuple[str, ...] = ()
    programs: dict[str, str | None] = field(default_factory=dict[str, str | None])
    output_bytes_max: int = 1024 * 1024
    result_bytes_max: int = 16 * 1024 * 1024
    output_folder: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WorkerSettings:
        """Return the settings that `as_dict` was made of."""
        fields: dict[str, Any] = {**values, "patterns": tuple(values["patterns"])}
        return cls(**fields)


class ResultNotSerializable(Exception):
    """The function returned what JSON has no form for; the message says where it is."""


class ResultTooLarge(Exception):
    """The function returned more than the server takes."""


class TaskRunner:
    """Runs one task after another in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._allowed = AllowList(settings.patterns)
        folder = Path(settings.output_folder) if settings.output_folder else None
        self._capture = OutputCapture(folder, bytes_max=settings.output_bytes_max)

    def run(self, function: str, kwargs: Mapping[str, Any]) -> Report:
        """Run a function and return its outcome. Nothing that it raises comes through."""
        report = Report()
        found: AllowedFunction | None = None
        began = time.perf_counter()
        # `catching` restores the process's own output, whatever the task did with it.
        with self._capture.catching() as streams:
            try:
                found = self._allowed.resolve(function)
                began = time.perf_counter()
                value = found.function(**kwargs)
                report["compute_s"] = time.perf_counter() - began
                report["result"] = encode_result(value, self._settings.result_bytes_max)
            except BaseException as error:  # noqa: BLE001, RUF100 - SystemExit is an error of the record
                report.setdefault("compute_s", time.perf_counter() - began)
                report.update(describe(error))
        _add_output(report, streams)
        report["provenance"] = self._provenance(found)
        if (cores := _cores()) is not None:
            report["cores"] = cores
        return report

    def _provenance(self, found: AllowedFunction | None) -> dict[str, Any]:
        """Return where this was computed. The same for all tasks alike, so it is stored once."""
        distribution = found.distribution if found else None
        versions = {"recordledger": _version("recordledger"), **self._settings.programs}
        if distribution is not None:
            versions[distribution] = _version(distribution)
        return {**_host(), "versions": versions}


@cache
def _host() -> dict[str, Any]:
    return {
        "hostname": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


@cache
def _cores() -> int | None:
    """Return the number of cores that numerical libraries are set to use here, if it is set."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isascii() and told.isdigit() and int(told) > 0 else None


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _add_output(report: Report, streams: list[CaughtOutput]) -> None:
    stdout, stderr = (stream.take() for stream in streams)
    if stdout is not None:
        report["stdout"] = stdout
    if stderr is not None:
        report["stderr"] = stderr


_runners: dict[str, TaskRunner] = {}


def run_task(function: str, kwargs: Mapping[str, Any], settings: Mapping[str, Any]) -> Report:
    """Run one task: the form in which it travels to the processes of any executor."""
    key = repr(settings)
    if key not in _runners:
        _runners[key] = TaskRunner(WorkerSettings.from_dict(settings))
    return _runners[key].run(function, kwargs)


def encode_result(value: Any, size_bytes_max: int) -> bytes:
    """Return a function's result as JSON; numpy's numbers and arrays become numbers and lists.

    Raises:
        ResultNotSerializable: something in it has no form in JSON.
        ResultTooLarge: it has more than `size_bytes_max`.
    """
    if "numpy" in sys.modules:
        value = _without_numpy(value)
    try:
        data = canonical_json(value)
    except InvalidInput as error:
        raise ResultNotSerializable(
            f"the result cannot be stored as JSON: {error}; return numbers, strings, booleans, "
            "None, and lists and dicts of them"
        ) from None
    if len(data) > size_bytes_max:
        raise ResultTooLarge(
            f"the result is {len(data):,} bytes of JSON, more than the limit of "
            f"{size_bytes_max:,}; return less, for example only what later steps need"
        )
    return data


def _without_numpy(value: Any, depth: int = 0) -> Any:
    """Return the value with numpy's scalars and arrays replaced; what is deeper is left alone."""
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.generic | numpy.ndarray):
        return value.tolist()
    if depth > 100:
        return value  # `canonical_json` refuses it
    if isinstance(value, dict):
        mapping = cast("Mapping[Any, Any]", value)
        return {key: _without_numpy(item, depth + 1) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [_without_numpy(item, depth + 1) for item in cast("list[Any]", value)]
    return value


def describe(error: BaseException) -> Report:
    """Return an exception as the error of a record: its type, message and traceback."""
    return Report(
        error_type=readable(type(error).__qualname__)[:ERROR_TYPE_CHARACTERS_MAX],
        error_message=_shortened(readable(_message(error)), ERROR_MESSAGE_CHARACTERS_MAX),
        traceback=_shortened(readable(_traceback(error)), TRACEBACK_BYTES_MAX),
    )


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001, RUF100 - it is the task's own code
        return f"its message cannot be shown: {type(failure).__name__}"
    if isinstance(error, SystemExit):
        return f"the function called sys.exit({text}); return or raise instead"
    return text


def _traceback(error: BaseException) -> str:
    """Return the traceback without our own frames at its beginning."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception as failure:  # noqa: BLE001, RUF100 - it calls the task's own code
        return f"the traceback cannot be shown: {type(failure).__name__}"


def _shortened(text: str, characters_max: int) -> str:
    if len(text) <= characters_max:
        return text
    note = f"\n[... {len(text) - characters_max:,} characters or more left out ...]\n"
    half = (characters_max - len(note)) // 2
    return text[:half] + note + text[-half:]
