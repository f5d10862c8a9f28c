"""The people of `tests/projections/contention.py` come over HTTP, to one real server.

    python -m tests.api.contention --seconds 60 --people 4

No answer may be a fault of the server (5xx), and a request that is sent again under its key gets
the same answer; the rest is judged as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from recordledger.domain.records.actions import Action
from recordledger.projections.actions.operations import OperationRequest
from tests.projections.contention import Entrance, Hands, main
from tests.projections.judging import Said
from tests.projections.stage import Held, Stage

from .service import Visit, serving

OPTIONS: Final[Mapping[Action, Callable[[OperationRequest], dict[str, Any]]]] = {
    Action.modify: lambda order: {
        "new_tag": order.tag,
        "new_priority": None if order.priority is None else order.priority.name,
    },
    Action.comment: lambda order: {"text": order.text},
    Action.delete: lambda order: {"delete_children": order.delete_children},
    Action.erase: lambda order: {"delete_children": order.delete_children},
    Action.invalidate: lambda order: {"propagate": order.propagate},
}


@dataclass
class OverHttp:
    """Does things by requests; orders, undos, claims and results are each sent twice."""

    visit: Visit

    def order(self, order: OperationRequest, ids: Sequence[int]) -> Said:
        body: dict[str, Any] = {"ids": list(ids), "reason": "contention"}
        if order.action in OPTIONS:
            body |= OPTIONS[order.action](order)
        answer = self._post(f"/v1/records/{order.action}", body)
        return Said(
            _operation(answer),
            updated={ids[index] for index in answer["updated_idx"]},
            refused={ids[each["idx"]]: each["code"] for each in answer["errors"]},
            new_ids=[id_ for id_ in answer["new_ids"] if id_ is not None],
        )

    def undo(self, operation: UUID) -> Said:
        answer = self._post(f"/v1/operations/{operation}/undo", {})
        refused = {each["record_id"]: each["code"] for each in answer["conflicts"]}
        return Said(_operation(answer), refused=refused, n_undone=answer["n_undone"])

    def claim(self, limit: int) -> tuple[int, Held]:
        manager_id = self.visit.register()
        answer = self._post(f"/v1/managers/{manager_id}/claim", {"limit": limit})
        return manager_id, {task["record_id"]: task["attempt"] for task in answer["tasks"]}

    def hand_in(self, manager_id: int, held: Mapping[int, int], *, fine: bool) -> None:
        what = {"result": {"energy": -76.4}} if fine else {"error_type": "ValueError"}
        results = [{"record_id": id_, "attempt": attempt, **what} for id_, attempt in held.items()]
        self._post(f"/v1/managers/{manager_id}/results", {"results": results})

    def adopt_child(self, service: int, child: int) -> str | None:
        path = f"/v1/services/{service}"
        iterate: dict[str, Any] = {"state": {}, "children": [child]}
        for step, body in (("start", None), ("iterate", iterate)):
            answer = self.visit.post(f"{path}/{step}", body, key=uuid4().hex)
            assert answer.status_code < 500, answer.text
            # One that runs already need not be started.
            if answer.status_code != 200 and step == "iterate":
                return str(answer.json()["code"])
        return None

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        key = uuid4().hex
        first, again = (self.visit.post(path, body, key=key) for _ in range(2))
        assert first.status_code == again.status_code == 200, (first.text, again.text)
        answer: dict[str, Any] = first.json()
        assert answer == again.json()
        return answer


def _operation(answer: Mapping[str, Any]) -> UUID | None:
    return None if answer["operation_id"] is None else UUID(answer["operation_id"])


@contextmanager
def over_http(url: str) -> Generator[Entrance]:
    """Serve a database; give an entrance for people who come over HTTP."""
    with serving(url) as service:

        @contextmanager
        def enter(own: Stage) -> Generator[Hands]:
            yield OverHttp(service.visit(user=f"person{id(own)}"))

        def entrance(own: Stage) -> AbstractContextManager[Hands]:
            return enter(own)

        yield entrance


if __name__ == "__main__":
    sys.exit(main(over_http))
