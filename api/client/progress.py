"""Progress bars for calls that take long, in terminals and notebooks."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Protocol

SHOWN_AFTER_S: Final = 2.0


class Bar(Protocol):
    """The progress of a call: a function that gets the number of items done since the last time."""

    def update(self, n: float = 1) -> Any:
        """Count `n` more as done."""


class _Silent:
    def update(self, n: float = 1) -> None:
        """Count nothing."""


@contextmanager
def bar(wanted: bool | None, total: int, text: str) -> Generator[Bar]:
    """Yield a bar that appears when the call has taken `SHOWN_AFTER_S`.

    Args:
        wanted: False for none; None for one where a person is likely to look (a terminal or a
            notebook); True for one at once, wherever the error output goes.
        total: how many there are to do.
        text: what is being done, before the bar.
    """
    notebook = _in_notebook()
    if wanted is False or (wanted is None and not notebook and not sys.stderr.isatty()):
        yield _Silent()
        return
    # Imported late: most programs never show a bar. `tqdm.auto` would warn without ipywidgets.
    with_widgets = notebook and importlib.util.find_spec("ipywidgets") is not None
    tqdm = importlib.import_module("tqdm.notebook" if with_widgets else "tqdm.std").tqdm
    delay_s = 0.0 if wanted else SHOWN_AFTER_S
    with tqdm(total=total, desc=text, unit="", delay=delay_s, leave=False) as shown:
        yield shown


def _in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this program; a plain IPython is a terminal."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
