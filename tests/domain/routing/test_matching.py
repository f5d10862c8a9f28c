"""Who could take a task: managers beside a lane, one by one and many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.routing.lanes import Lane, lanes_by_tag
from recordledger.domain.routing.manager import ManagerAggregate, Suspension
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.routing.matching import (
    Cause,
    Crew,
    Fit,
    Lack,
    fit,
    missing_requirements,
    obstacle,
)
from tests.examples import at

PSI4 = ("psi4>=1.9",)


def manager(
    id_: int = 1,
    *tags: str,
    programs: Mapping[str, str | None] | None = None,
    state: ManagerState = ManagerState.active,
    suspended: Sequence[str] = (),
    name: str = "node",
) -> ManagerAggregate:
    """Return a manager; with psi4 1.9.1 on tag gpu if not said otherwise."""
    suspension = Suspension(1, 10, "OSError", at(0), at(60))
    return ManagerAggregate(
        id_,
        state=state,
        name=name,
        tags=tags or ("gpu",),
        programs={"psi4": "1.9.1"} if programs is None else dict(programs),
        suspended=dict.fromkeys(suspended, suspension),
    )


@pytest.mark.parametrize(
    ("which", "lane", "found"),
    [
        (manager(), Lane("gpu", PSI4), Fit.able),
        (manager(1, "*"), Lane("gpu", PSI4), Fit.able),
        (manager(1, "cpu"), Lane("gpu", PSI4), Fit.other_tag),
        (manager(1, "gpu"), Lane("*", PSI4), Fit.other_tag),
        (manager(1, "*"), Lane("*", PSI4), Fit.able),
        (manager(programs={"psi4": "1.8"}), Lane("gpu", PSI4), Fit.lacking),
        (manager(programs={}), Lane("gpu", ()), Fit.able),
        (manager(state=ManagerState.draining), Lane("gpu", PSI4), Fit.draining),
        (manager(suspended=["psi4"]), Lane("gpu", PSI4), Fit.suspended),
        (manager(suspended=["xtb"]), Lane("gpu", PSI4), Fit.able),
        (manager(suspended=["(none)"]), Lane("gpu", ()), Fit.suspended),
        (manager(suspended=["(none)"]), Lane("gpu", PSI4), Fit.able),
    ],
)
def test_a_manager_fits_a_lane_or_what_it_lacks_is_told(
    which: ManagerAggregate, lane: Lane, found: Fit
) -> None:
    assert fit(which, lane) is found


@pytest.mark.parametrize(
    ("fits", "tag", "cause"),
    [
        ([], "gpu", Cause.no_manager),
        ([Fit.other_tag], "gpu", Cause.tag_not_claimed),
        ([Fit.other_tag], "*", Cause.no_wildcard_manager),
        ([Fit.other_tag, Fit.lacking], "gpu", Cause.programs_missing),
        ([Fit.lacking, Fit.draining], "gpu", Cause.managers_draining),
        ([Fit.draining, Fit.suspended], "gpu", Cause.programs_suspended),
        ([*Fit], "gpu", None),
    ],
)
def test_the_best_manager_decides_what_stands_in_the_way(
    fits: list[Fit], tag: str, cause: Cause | None
) -> None:
    assert obstacle(Lane(tag, ()), fits) is cause


def test_what_a_manager_lacks_is_absent_or_of_another_or_of_unknown_version() -> None:
    found = missing_requirements(
        manager(programs={"psi4": "1.8", "xtb": None}), ("dftd3", "psi4>=1.9", "xtb>6")
    )
    assert found == (
        Lack("dftd3", is_absent=True),
        Lack("psi4>=1.9", is_absent=False, version="1.8"),
        Lack("xtb>6", is_absent=False),
    )
    assert [str(each) for each in found] == [
        "dftd3",
        "psi4>=1.9 (it has 1.8)",
        "xtb>6 (it has an unknown version)",
    ]
    assert missing_requirements(manager(), PSI4) == ()


CREWS = st.lists(
    st.builds(
        manager,
        st.integers(1, 99),
        st.sampled_from(["gpu", "cpu", "*"]),
        programs=st.sampled_from([{}, {"psi4": "1.9"}, {"psi4": "1.8", "xtb": None}]),
        state=st.sampled_from([ManagerState.active, ManagerState.draining]),
        suspended=st.sampled_from([(), ("psi4",), ("(none)",)]),
    ),
    max_size=6,
    unique_by=lambda each: each.id,
)


@for_all(CREWS)
def test_many_managers_are_judged_as_each_of_them_is(managers: list[ManagerAggregate]) -> None:
    crew = Crew(managers)
    for tag, programs in product(("gpu", "cpu", "*", "else"), ((), PSI4, ("xtb",))):
        lane = Lane(tag, programs)
        able = sorted(each.id for each in managers if fit(each, lane) is Fit.able)
        assert crew.openness(lane) == (able, obstacle(lane, [fit(each, lane) for each in managers]))


@for_all(CREWS)
def test_a_manager_fits_exactly_the_lanes_that_claims_open_to_it(
    managers: list[ManagerAggregate],
) -> None:
    lanes = {
        id_: Lane(tag, programs)
        for id_, (tag, programs) in enumerate(product(("gpu", "cpu", "*"), ((), PSI4, ("xtb",))))
    }
    for each in managers:
        claimed = {id_ for ids in lanes_by_tag(each.tags, each.programs, lanes) for id_ in ids}
        fitting = {
            id_
            for id_, lane in lanes.items()
            if fit(each, lane) in (Fit.able, Fit.suspended, Fit.draining)
        }
        assert fitting == claimed
