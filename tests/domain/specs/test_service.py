"""Services: what a decision is told about the children."""

from __future__ import annotations

from recordledger.domain.records.status import Status
from recordledger.domain.specs.service import Ended


def test_a_result_is_read_only_when_it_is_asked_for() -> None:
    read: list[str] = []

    def load() -> object:
        read.append("read")
        return {"energy": -1.5}

    ended = Ended(7, Status.complete, None, load)
    assert ended.is_complete
    assert read == []
    assert ended.result == {"energy": -1.5}
    assert read == ["read"]


def test_a_child_of_which_nothing_can_be_expected_is_not_complete() -> None:
    assert not Ended(7, Status.cancelled, None, lambda: None).is_complete
