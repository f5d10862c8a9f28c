"""A scan computes each point of a grid once, and says what became of each."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import pytest
from pydantic import ValidationError

from recordledger.domain.records.events import Priority
from recordledger.workers.services.scan import ScanSpec

from .driver import ChildError, Driver


def power(x: float, n: int, scale: float = 1.0) -> dict[str, Any]:
    if x < 0:
        raise ValueError(f"x is {x}")
    return {"value": [scale * x**n]}


def scan(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "task": {"function": "power", "kwargs": {"scale": 2.0}},
        "axes": [{"name": "x", "values": [1.0, 2.0, 3.0]}, {"name": "n", "values": [1, 2]}],
    }
    return {**spec, **changes}


@pytest.fixture
def driver() -> Driver:
    return Driver({"power": power})


def test_the_table_has_every_point_and_the_last_axis_varies_fastest(driver: Driver) -> None:
    ran = driver.run("scan", scan())
    assert [point["at"] for point in ran.result["points"]] == [
        {"x": x, "n": n} for x in (1.0, 2.0, 3.0) for n in (1, 2)
    ]
    assert [point["result"]["value"][0] for point in ran.result["points"]] == [2, 2, 4, 8, 6, 18]
    assert len({point["record_id"] for point in ran.result["points"]}) == 6
    assert ran.result["n_skipped"] == 0
    assert ran.n_decisions == 2
    assert "6 points" in ran.output


def test_a_path_leads_to_what_is_wanted_of_each_result(driver: Driver) -> None:
    ran = driver.run("scan", scan(path=["value", 0]))
    assert [point["result"] for point in ran.result["points"]] == [2, 2, 4, 8, 6, 18]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (["energy"], r"at {'x': 1.0, 'n': 1}: the result of record 1 has no 'energy'"),
        (["value", 1], r"at \['value'\] has no 1: it is \[2.0\]"),
        (["value", "0"], "has no '0'"),
        ([0], "has no 0"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_that_says_what_is_there(
    driver: Driver, path: list[Any], says: str
) -> None:
    error = driver.run("scan", scan(path=path)).error
    assert error.error_type == "ResultUnusable"
    assert re.search(says, error.message)


def test_a_point_that_fails_is_the_error_of_the_scan_until_it_is_reset(driver: Driver) -> None:
    with pytest.raises(ChildError, match="0"):
        driver.run(
            "scan", scan(axes=[{"name": "x", "values": [-1.0]}, {"name": "n", "values": [1]}])
        )
    failing = iter([True, False])

    def once(x: float) -> float:
        if x == 2.0 and next(failing):
            raise OSError("no space")
        return x

    driver = Driver({"once": once}, resets=1)
    axes = [{"name": "x", "values": [1.0, 2.0]}]
    ran = driver.run("scan", {"task": {"function": "once"}, "axes": axes})
    assert [point["result"] for point in ran.result["points"]] == [1.0, 2.0]


def test_failing_points_can_be_entries_of_the_table(driver: Driver) -> None:
    axes = [{"name": "x", "values": [-1.0, 2.0]}, {"name": "n", "values": [3]}]
    ran = driver.run("scan", scan(axes=axes, on_error="skip", path=["value", 0]))
    assert ran.result["n_skipped"] == 1
    failed, complete = ran.result["points"]
    assert failed == {
        "at": {"x": -1.0, "n": 3},
        "record_id": 1,
        "status": "error",
        "error_type": "ValueError",
        "error_message": "x is -1.0",
    }
    assert complete["result"] == 16
    assert "1 without a result" in ran.output


def test_a_scan_of_which_every_point_failed_is_an_error(driver: Driver) -> None:
    axes = [{"name": "x", "values": [-1.0, -2.0]}, {"name": "n", "values": [3]}]
    error = driver.run("scan", scan(axes=axes, on_error="skip")).error
    assert error.error_type == "NothingComplete"
    assert "none of the 2 points" in error.message
    assert "record 1, ValueError: x is -1.0" in error.message


def test_points_are_asked_for_with_what_the_task_says(driver: Driver) -> None:
    task = {
        "function": "power",
        "kwargs": {"x": 1.0},
        "required_programs": ["python"],
        "tag": "cpu",
        "priority": "high",
        "retries": 2,
        "retry_delay_s": 5.0,
        "retry_on": ["OSError"],
        "find_existing": False,
    }
    ran = driver.run("scan", {"task": task, "axes": [{"name": "n", "values": [1]}]})
    child = ran.asked[0].child
    assert child.kwargs == {"x": 1.0, "n": 1}
    assert (child.tag, child.priority) == ("cpu", Priority.high)
    assert child.required_programs == ("python",)
    assert (child.retries, child.retry_delay_s, child.retry_on) == (2, 5.0, ("OSError",))
    assert not child.find_existing
    assert driver.run("scan", scan()).asked[0].child.find_existing


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"axes": []}, "at least 1 item"),
    ({"axes": [{"name": "x", "values": []}]}, "at least 1 item"),
    ({"axes": [{"name": "x", "values": [1, 1]}]}, "'x' has the value 1 twice"),
    ({"axes": [{"name": "scale", "values": [1]}]}, "'scale' is an axis and also in"),
    ({"axes": [{"name": "x", "values": [1]}] * 2}, "2 axes with the name 'x'"),
    (
        {"axes": [{"name": n, "values": list(range(101))} for n in "xy"]},
        "101 x 101 are 10201 points; the maximum is 10000",
    ),
    ({"on_error": "ignore"}, "'fail' or 'skip'"),
    ({"grid": []}, "Extra inputs are not permitted"),
    ({"task": {"function": "no such"}}, "should match pattern"),
    ({"task": {"function": "f", "retries": "1"}}, "valid integer"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_is_no_grid_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ScanSpec.model_validate(scan(**changes))


def test_a_long_message_of_an_error_is_cut() -> None:
    def fail(x: int) -> None:
        if x:
            raise ValueError("no" * 5_000)

    axes = [{"name": "x", "values": [0, 1]}]
    spec = {"task": {"function": "fail"}, "axes": axes, "on_error": "skip"}
    points = Driver({"fail": fail}).run("scan", spec).result["points"]
    assert len(points[1]["error_message"]) == 503
    assert points[0]["result"] is None


def test_numbers_go_through_unchanged(driver: Driver) -> None:
    axes = [{"name": "x", "values": [0.1, 1 / 3, math.pi]}, {"name": "n", "values": [1]}]
    ran = driver.run("scan", scan(axes=axes))
    assert [asked.child.kwargs["x"] for asked in ran.asked] == [0.1, 1 / 3, math.pi]
