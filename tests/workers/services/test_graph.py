"""A graph runs each task when its conditions are met, and says of each what became of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recordledger.domain.specs.service import Reference
from recordledger.workers.services.graph import GraphSpec

from .driver import Driver, Ran


def give(value: Any) -> Any:
    return value


def add(*, left: float, right: float) -> dict[str, list[float]]:
    return {"sum": [left + right]}


def fail(**_: Any) -> None:
    raise OSError("no space")


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {"give": give, "add": add, "fail": fail}


def ok(value: Any = 1, **more: Any) -> dict[str, Any]:
    return {"function": "give", "kwargs": {"value": value}, **more}


def bad(**more: Any) -> dict[str, Any]:
    return {"function": "fail", **more}


def after(*nodes: str, **how: bool) -> list[dict[str, Any]]:
    return [{"nodes": list(nodes), **how}]


def run(nodes: Mapping[str, Any], durations: Mapping[str, float] | None = None, **more: Any) -> Ran:
    known = durations or {}
    driver = Driver(FUNCTIONS, duration_s=lambda key: known.get(key, 1.0))
    return driver.run("graph", {"nodes": dict(nodes), **more})


def outcomes(ran: Ran) -> dict[str, str]:
    return {name: report["outcome"] for name, report in ran.result["nodes"].items()}


def test_tasks_that_wait_for_nothing_run_at_once_and_the_others_after_them() -> None:
    ran = run({"a": ok(), "b": ok(2), "c": ok(3, after=after("a", "b"))}, {"a": 3.0})
    assert [asked.key for asked in ran.asked] == ["a", "b", "c"]
    assert ran.asked[2].ends_s == 4.0
    assert outcomes(ran) == {"a": "complete", "b": "complete", "c": "complete"}
    assert ran.result["n_failed"] == 0
    assert ran.progress == sorted(ran.progress)
    assert "c: complete (record 3)" in ran.output


def test_a_result_is_passed_on_by_reference_not_copied() -> None:
    ran = run(
        {
            "a": ok({"energies": [1.5, 2.5]}),
            "b": {"function": "give", "kwargs": {"value": [{"$from": "a"}, {"deep": 1}]}},
            "c": {
                "function": "add",
                "kwargs": {
                    "left": {"$from": "a", "path": ["energies", 1]},
                    "right": {"$from": "b", "path": [1, "deep"]},
                },
            },
        },
        outputs=["b", "c"],
    )
    assert ran.result["results"] == {
        "b": [{"energies": [1.5, 2.5]}, {"deep": 1}],
        "c": {"sum": [3.5]},
    }
    kwargs = {asked.key: asked.child.kwargs for asked in ran.asked}
    assert isinstance(kwargs["b"]["value"][0], Reference)
    assert kwargs["c"]["left"].path == ("energies", 1)
    assert [asked.key for asked in ran.asked] == ["a", "b", "c"]


def test_a_result_that_is_nothing_is_passed_on_as_that_and_has_no_parts() -> None:
    def taking(**path: Any) -> dict[str, Any]:
        return {"function": "give", "kwargs": {"value": [{"$from": "nothing", **path}]}}

    ran = run({"nothing": ok(None), "a": taking()}, outputs=["nothing", "a"])
    assert ran.result["results"] == {"nothing": None, "a": [None]}
    error = run({"nothing": ok(None), "a": taking(path=["x"])}).error
    assert error.error_type == "ResultUnusable"
    assert error.message == (
        "the node 'a' takes ['x'] of the result of 'nothing', which does not exist (record 1)"
    )


def test_a_node_may_be_a_service_and_its_result_is_passed_on_like_any() -> None:
    gradient = {"function": "harmonic_well", "kwargs": {"minimum": [2.0], "stiffness": [1.0]}}
    optimization = {
        "function": "optimization",
        "kind": "service",
        "kwargs": {"gradient": gradient, "start": [0.0]},
    }
    pytest.importorskip("scipy")
    last = {
        "function": "give",
        "kwargs": {"value": {"$from": "relax", "path": ["coordinates", 0]}},
    }
    ran = run({"relax": optimization, "use": last}, outputs=["use"])
    assert ran.result["results"]["use"] == pytest.approx(2.0, abs=1e-3)


def test_a_node_whose_condition_can_never_be_met_is_impossible_at_once() -> None:
    nodes = {"a": bad(), "slow": ok(), "b": ok(after=after("slow", "a"))}
    ran = run(nodes, {"slow": 100.0})
    assert outcomes(ran) == {"a": "error", "b": "impossible", "slow": "complete"}
    report = ran.result["nodes"]["b"]
    assert report["error_type"] == "ImpossibleDependency"
    assert report["error_message"] == (
        "it runs after the success of all of a, slow; but a: OSError (record 1)"
    )
    assert "record_id" not in report
    # It was told with the decision that followed the failure, 99 seconds before the end.
    assert ran.output.index("b: ImpossibleDependency") < ran.output.index("slow: complete")


def test_what_is_impossible_is_a_failure_for_those_that_come_after() -> None:
    nodes = {
        "a": bad(),
        "b": ok(after=after("a")),
        "c": ok(after=after("b")),
        "d": ok(after=after("c", success=False, failure=True)),
    }
    ran = run(nodes)
    assert outcomes(ran) == {"a": "error", "b": "impossible", "c": "impossible", "d": "complete"}
    assert "but b: ImpossibleDependency" in ran.result["nodes"]["c"]["error_message"]
    assert ran.result["n_failed"] == 3


def test_what_takes_the_result_of_a_task_that_failed_is_impossible() -> None:
    taking = {"function": "give", "kwargs": {"value": {"$from": "a"}}}
    # Although any of both would do for its own condition.
    ran = run({"a": bad(), "b": ok(), "c": {**taking, "after": after("a", "b", all=False)}})
    assert outcomes(ran)["c"] == "impossible"


@pytest.mark.parametrize(
    ("condition", "runs_at_s"),
    [
        # a succeeds after 1 s, b fails after 2 s, c succeeds after 3 s.
        ({"nodes": ["a", "c"]}, 3.0),
        ({"nodes": ["a", "c"], "all": False}, 1.0),
        ({"nodes": ["b", "c"], "all": False}, 3.0),
        ({"nodes": ["a", "b"], "success": True, "failure": True}, 2.0),
        ({"nodes": ["c", "b"], "all": False, "success": True, "failure": True}, 2.0),
        ({"nodes": ["b"], "success": False, "failure": True}, 2.0),
        ({"nodes": ["a", "b"], "all": False, "success": False, "failure": True}, 2.0),
        ({"nodes": ["a", "b"]}, None),
        ({"nodes": ["b"], "all": False}, None),
        ({"nodes": ["a", "b"], "success": False, "failure": True}, None),
        ({"nodes": ["a", "c"], "all": False, "success": False, "failure": True}, None),
    ],
)
def test_conditions_are_all_or_any_of_success_or_failure(
    condition: dict[str, Any], runs_at_s: float | None
) -> None:
    nodes = {"a": ok(), "b": bad(), "c": ok(), "x": ok(after=[condition])}
    ran = run(nodes, {"a": 1.0, "b": 2.0, "c": 3.0, "x": 10.0})
    ends = {asked.key: asked.ends_s for asked in ran.asked}
    if runs_at_s is None:
        assert outcomes(ran)["x"] == "impossible"
    else:
        assert ends["x"] == runs_at_s + 10.0


def test_several_conditions_must_all_be_met() -> None:
    both = [*after("a"), *after("b", success=False, failure=True)]
    assert outcomes(run({"a": ok(), "b": bad(), "c": ok(after=both)}))["c"] == "complete"
    assert outcomes(run({"a": ok(), "b": ok(), "c": ok(after=both)}))["c"] == "impossible"


def test_a_node_that_could_not_run_in_time_never_runs() -> None:
    nodes = {
        "slow": ok(),
        "late": ok(after=after("slow"), timeout_s=5.0),
        "patient": ok(after=after("slow"), timeout_s=20.0),
        "instead": ok(after=after("late", success=False, failure=True)),
    }
    ran = run(nodes, {"slow": 10.0, "patient": 100.0})
    assert outcomes(ran) == {
        "slow": "complete",
        "late": "timeout",
        "patient": "complete",
        "instead": "complete",
    }
    report = ran.result["nodes"]["late"]
    assert report["error_type"] == "TaskTimeout"
    assert report["error_message"] == "not met within 5 s: the success of slow"
    ends = {asked.key: asked.ends_s for asked in ran.asked}
    assert ends == {"slow": 10.0, "instead": 6.0, "patient": 110.0}


def test_a_condition_that_is_met_when_the_time_is_over_is_met_in_time() -> None:
    ran = run({"a": ok(), "b": ok(after=after("a"), timeout_s=5.0)}, {"a": 5.0})
    assert outcomes(ran)["b"] == "complete"


def test_outputs_that_failed_are_missing_among_the_results() -> None:
    ran = run({"a": ok("x"), "b": bad()}, outputs=["a", "b"])
    assert ran.result["results"] == {"a": "x"}


def test_required_nodes_that_fail_are_the_error_of_the_graph() -> None:
    nodes = {"a": bad(), "b": ok(after=after("a")), "c": bad()}
    ran = run(nodes, required=["b"])
    assert ran.error.error_type == "NodesFailed"
    assert ran.error.message == "required nodes did not succeed: b: ImpossibleDependency"
    assert outcomes(run(nodes))["b"] == "impossible"
    many = {f"n{number:02}": bad() for number in range(12)}
    assert run(many, required=sorted(many)).error.message.endswith("; and 2 more")


def test_a_graph_goes_on_when_the_task_that_failed_is_reset() -> None:
    failing = iter([True, False])

    def once(value: int) -> int:
        if next(failing):
            raise OSError("no space")
        return value

    nodes = {
        "a": {"function": "once", "kwargs": {"value": 4}},
        "b": {"function": "give", "kwargs": {"value": {"$from": "a"}}},
        "c": ok(),
    }
    # When the graph ends, the failure is long past, and no longer among what was awaited last.
    durations = {"a": 1.0, "b": 1.0, "c": 9.0}
    driver = Driver({**FUNCTIONS, "once": once}, durations.__getitem__, resets=1)
    ran = driver.run("graph", {"nodes": nodes, "required": ["b"], "outputs": ["b", "c"]})
    assert ran.result["results"] == {"b": 4, "c": 1}
    assert outcomes(ran) == {"a": "complete", "b": "complete", "c": "complete"}
    assert ran.result["n_failed"] == 0


def test_an_invalid_child_is_a_failure_like_any() -> None:
    ran = run({"a": {"function": "no_such_function"}, "b": ok(after=after("a"))})
    assert ran.result["nodes"]["a"]["error_type"] == "KeyError"
    assert outcomes(ran)["b"] == "impossible"


@pytest.mark.parametrize(
    ("nodes", "more", "says"),
    [
        ({}, {}, "at least 1 item"),
        ({"a b": ok()}, {}, "should match pattern"),
        ({"a": ok(after=after("b"))}, {}, "the node 'a' runs after 'b', which is no node"),
        ({"a": ok({"$from": "b"})}, {}, "the node 'a' runs after 'b', which is no node"),
        ({"a": ok()}, {"outputs": ["z"]}, "`outputs` names 'z', which is no node"),
        ({"a": ok()}, {"required": ["z"]}, "`required` names 'z', which is no node"),
        ({"a": ok(after=after("a"))}, {}, "in a circle: a -> a \\["),
        (
            {"a": ok(after=after("c")), "b": ok({"$from": "a"}), "c": ok(after=after("b"))},
            {},
            "in a circle: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)",
        ),
        ({"a": ok(after=[{"nodes": []}])}, {}, "at least 1 item"),
        ({"a": ok(after=[{"nodes": ["a"], "success": False}])}, {}, "neither success nor failure"),
        ({"a": ok({"$from": "a", "paht": []})}, {}, "is not a reference: write"),
        ({"a": ok({"$from": 3})}, {}, "is not a reference: write"),
        ({"a": ok([{"x": {"$from": "a", "path": [1.5]}}])}, {}, "is not a reference: write"),
        ({"a": ok(timeout_s=0)}, {}, "greater than 0"),
        ({f"n{number}": ok() for number in range(2_001)}, {}, "at most 2000 items"),
    ],
)
def test_what_is_no_graph_is_refused(nodes: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=f"(?m){says}"):
        GraphSpec.model_validate({"nodes": nodes, **more})


# Against a model: when each node runs, and what becomes of it, from those before it.


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float]]:
    """Nodes of a random graph, and how long each takes; whole seconds, but deadlines between."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 9)))]
    nodes: dict[str, Any] = {}
    for number, name in enumerate(names):
        node = ok() if draw(st.booleans()) else bad()
        for _ in range(draw(st.integers(0, 2)) if number else 0):
            some = st.lists(st.sampled_from(names[:number]), min_size=1, max_size=4, unique=True)
            success, failure = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
            node.setdefault("after", []).append(
                {
                    "nodes": draw(some),
                    "all": draw(st.booleans()),
                    "success": success,
                    "failure": failure,
                }
            )
        if draw(st.integers(0, 3)) == 0:
            node["timeout_s"] = draw(st.integers(0, 12)) + 0.5
        nodes[name] = node
    durations = {name: float(draw(st.integers(1, 5))) for name in names}
    # The names say nothing about the order.
    shuffled = dict(zip(names, draw(st.permutations(names)), strict=True))
    renamed = {
        shuffled[name]: {
            **node,
            "after": [
                {**condition, "nodes": [shuffled[other] for other in condition["nodes"]]}
                for condition in node.get("after", [])
            ],
        }
        for name, node in nodes.items()
    }
    return renamed, {shuffled[name]: duration for name, duration in durations.items()}


NEVER: Final = float("inf")


def expected(
    nodes: Mapping[str, Any], durations: Mapping[str, float]
) -> dict[str, tuple[str, float]]:
    """Return outcome and time of the end of each node. The nodes are in an order that works."""
    ends: dict[str, tuple[str, float]] = {}
    for name, node in nodes.items():
        met_s, impossible_s = 0.0, NEVER
        for condition in node["after"]:
            counting = [
                (condition["success"] if ends[other][0] == "complete" else condition["failure"])
                for other in condition["nodes"]
            ]
            times = [ends[other][1] for other in condition["nodes"]]
            good = list(itertools.compress(times, counting))
            wrong = list(itertools.compress(times, (not counts for counts in counting)))
            if condition["all"]:
                met_s = max(met_s, NEVER if wrong else max(good))
                impossible_s = min(impossible_s, min(wrong, default=NEVER))
            else:
                met_s = max(met_s, min(good, default=NEVER))
                impossible_s = min(impossible_s, NEVER if good else max(wrong))
        timeout_s = node.get("timeout_s", NEVER)
        if min(met_s, impossible_s) > timeout_s:
            ends[name] = ("timeout", timeout_s)
        elif met_s < impossible_s:
            outcome = "complete" if node["function"] == "give" else "error"
            ends[name] = (outcome, met_s + durations[name])
        else:
            ends[name] = ("impossible", impossible_s)
    return ends


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_every_graph_does_what_the_model_says(
    graph: tuple[dict[str, Any], dict[str, float]],
) -> None:
    nodes, durations = graph
    ran = run(nodes, durations)
    model = expected(nodes, durations)
    assert outcomes(ran) == {name: outcome for name, (outcome, _) in model.items()}
    ran_at = {asked.key: asked.ends_s for asked in ran.asked}
    assert ran_at == {
        name: end_s for name, (outcome, end_s) in model.items() if outcome in ("complete", "error")
    }
    # Each end is told in the moment it is certain, so the output is in the order of time.
    told = [line.partition(":")[0] for line in ran.output.splitlines()]
    assert sorted(told) == sorted(nodes)
    assert [model[name][1] for name in told] == sorted(end_s for _, end_s in model.values())
