"""Services, and what is below them."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Final

from ...schemas.services import ServiceAnswer, TreeAnswer, TreeNodeOut
from ..tables import LONG, html_fields, printable, shown

_LINES_SAID: Final = 10


class ServiceView(ServiceAnswer):
    """Where a service stood when it was asked for, or after one of its iterations."""

    def __repr__(self) -> str:
        """Return where it stands, what it waits for, and the end of what it has said."""
        lines = [f"Service {self.record_id} ({self.function}): {self.status}", *self._facts()]
        if self.output:
            lines.append("Output:")
            lines += [f"  {line}" for line in self.output.splitlines()[-_LINES_SAID:]]
        return "\n".join(map(printable, lines))

    def _facts(self) -> list[str]:
        progress = "" if self.progress is None else f", {100 * self.progress:.0f} %"
        facts = [f"Iteration {self.iteration}{progress}; {self.n_children:,} children so far"]
        if self.awaited:
            counts = Counter(str(child.status or "erased") for child in self.awaited)
            statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
            those = "any" if self.until == "any" else "all"
            facts.append(f"It waits for {those} of {self.n_awaited:,} children: {statuses}")
        if self.wake_at is not None:
            facts.append(f"It continues at {shown(self.wake_at)} UTC in any case")
        return facts

    def _repr_html_(self) -> str:
        fields = {
            "status": str(self.status),
            "iteration": str(self.iteration),
            "progress": "" if self.progress is None else f"{100 * self.progress:.0f} %",
            "waits": "; ".join(self._facts()[1:]),
            "state": shown(self.state, LONG),
            "output": shown(self.output, LONG),
        }
        return html_fields(fields, title=f"Service {self.record_id} ({self.function})")


class Tree(TreeAnswer):
    """A record and what is below it; shows itself as a tree, with the statuses."""

    def __repr__(self) -> str:
        """Return the tree as indented lines."""
        return "\n".join("  " * depth + printable(text) for depth, text in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<div style='margin-left:{2 * depth}em'>{escape(printable(text))}</div>"
            for depth, text in self._lines()
        )
        return f"<div style='font-family:monospace'>{rows}</div>"

    def _lines(self) -> list[tuple[int, str]]:
        """Return each line with its depth: every record below the one that asked for it."""
        below: dict[int | None, list[TreeNodeOut]] = {}
        for node in self.nodes:
            below.setdefault(node.parent_id, []).append(node)
        lines: list[tuple[int, str]] = []
        todo = [(0, node) for node in below.get(None, [])]
        while todo:
            depth, node = todo.pop()
            lines.append((depth, _node(node)))
            if node.record_id and node.n_more > 0:
                todo.append((depth + 1, node.model_copy(update={"record_id": 0})))
            if node.record_id and not node.is_repeated:
                children = below.get(node.record_id, [])
                todo += [(depth + 1, child) for child in reversed(children)]
        return lines


def _node(node: TreeNodeOut) -> str:
    if not node.record_id:
        return f"... and {node.n_more:,} more"
    name = f"{shown(node.key)}: " if node.parent_id is not None else ""
    seen = " (see above)" if node.is_repeated else ""
    return f"{name}{node.record_id} {node.function} {node.status}{seen}"
