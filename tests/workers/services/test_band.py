"""A nudged elastic band finds saddle points and barriers that are known."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import pytest
from pydantic import ValidationError

from recordledger.domain.records.status import Status
from recordledger.domain.specs.service import Ended, Now, Wait
from recordledger.workers.demo.gradients import mueller_brown
from recordledger.workers.services.band import (
    BandSpec,
    BandState,
    EndPoint,
    NudgedElasticBand,
    interpolate,
    nudge,
)
from recordledger.workers.services.task import Computed

from .driver import BEGIN, ChildError, Driver, always

# K. Mueller and L. D. Brown, Theor. Chim. Acta 53, 75 (1979).
DEEPEST, MIDDLE, OTHER = [-0.558224, 1.441726], [-0.050011, 0.466694], [0.623499, 0.028038]
SADDLES = {"deep": ([-0.822002, 0.624313], -40.664844), "low": ([0.212487, 0.292988], -72.248940)}


def band(*path: Any, **changes: Any) -> dict[str, Any]:
    spec = {
        "gradient": {"function": "mueller_brown"},
        "path": list(path),
        "n_images": 7,
        "spring": 50.0,
        "climb_below": 30.0,
        "time_step": 0.01,
        "step_max": 0.1,
        "force_max": 0.05,
    }
    return spec | changes


@pytest.mark.parametrize("optimizer", ["fire", "quick-min"])
@pytest.mark.parametrize(
    ("ends", "saddle"), [((DEEPEST, MIDDLE), "deep"), ((MIDDLE, OTHER), "low")]
)
def test_the_saddle_points_of_mueller_and_brown_are_found(
    ends: tuple[list[float], list[float]], saddle: str, optimizer: str
) -> None:
    where, energy = SADDLES[saddle]
    spec = band(*ends, optimizer=optimizer, iterations_max=1_000)
    found = Driver().run("nudged_elastic_band", spec).result
    assert found["images"][found["saddle"]] == pytest.approx(where, abs=1e-3)
    assert found["energies"][found["saddle"]] == pytest.approx(energy, abs=1e-3)
    first, last = (mueller_brown(end)["energy"] for end in ends)
    assert found["barrier"] == pytest.approx(energy - first, abs=1e-3)
    assert found["reverse_barrier"] == pytest.approx(energy - last, abs=1e-3)
    assert found["force_max"] <= 0.05
    assert found["images"][0] == ends[0]
    assert found["images"][-1] == ends[1]


def test_the_result_says_all_that_a_plot_needs() -> None:
    found = Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE)).result
    images = found["images"]
    steps = [math.dist(left, right) for left, right in itertools.pairwise(images)]
    assert found["distances"] == pytest.approx([0.0, *itertools.accumulate(steps)])
    # The slopes are those of the energy along the path: downhill after the saddle, up before.
    top = found["saddle"]
    assert found["slopes"][top] == pytest.approx(0.0, abs=0.1)
    assert all(slope > 0 for slope in found["slopes"][1:top])
    assert all(slope < 0 for slope in found["slopes"][top + 1 : -1])
    # All but those beside the climbing image are equally far apart on their side.
    assert found["energies"] == pytest.approx([mueller_brown(x)["energy"] for x in images])


def test_ends_are_computed_once_unless_they_move() -> None:
    fixed = Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE))
    assert len(fixed.asked) == fixed.result["n_gradients"]
    assert len(fixed.asked) == 2 + 7 * fixed.result["n_iterations"]
    assert fixed.n_decisions == fixed.result["n_iterations"] + 1
    rough = band([-0.6, 1.4], [0.0, 0.45], ends="relaxed")
    relaxed = Driver().run("nudged_elastic_band", rough)
    assert len(relaxed.asked) == relaxed.result["n_gradients"] == 9 * relaxed.result["n_iterations"]
    assert relaxed.result["images"][0] == pytest.approx(DEEPEST, abs=1e-3)
    assert relaxed.result["images"][-1] == pytest.approx(MIDDLE, abs=1e-3)
    assert relaxed.result["barrier"] == pytest.approx(106.0348, abs=1e-2)


def test_each_iteration_tells_energies_and_forces_and_progress_never_falls() -> None:
    ran = Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE))
    assert ran.output.count("iteration ") == ran.result["n_iterations"]
    assert ran.output.count("the highest image climbs") == 1
    assert f"iteration {ran.result['n_iterations']}: barrier 106.03" in ran.output
    assert ran.progress == sorted(ran.progress)
    assert ran.progress[-1] > 0.5
    assert max(ran.states_bytes) < 2 * min(ran.states_bytes) + 1_000


def test_no_image_moves_farther_than_it_may_in_one_iteration() -> None:
    ran = Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE, step_max=0.02))
    places = {asked.key: asked.child.kwargs["coordinates"] for asked in ran.asked}
    moves = [
        math.dist(places[f"{iteration}/{number}"], places[f"{iteration + 1}/{number}"])
        for iteration in range(1, ran.result["n_iterations"])
        for number in range(1, 8)
    ]
    assert max(moves) == pytest.approx(0.02)


def test_without_climbing_the_highest_image_stays_below_the_saddle() -> None:
    found = Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE, climb=False)).result
    assert 100 < found["barrier"] < 106.03
    steps = [right - left for left, right in itertools.pairwise(found["distances"])]
    assert max(steps) == pytest.approx(min(steps), rel=0.05)


def test_it_climbs_before_it_ends_however_late_it_begins_to() -> None:
    spec = band(DEEPEST, MIDDLE, climb_below=0.02, iterations_max=2_000)
    ran = Driver().run("nudged_elastic_band", spec)
    assert ran.result["barrier"] == pytest.approx(106.0346, abs=1e-3)


def test_fire_stops_begins_anew_and_more_carefully_when_it_goes_uphill() -> None:
    """The rules of FIRE, on a band with one image and a slope that pulls it to the left."""
    spec = BandSpec.model_validate(
        band([0.0, 0.0], [2.0, 0.0], n_images=1, climb=False, spring=1.0, time_step=0.1)
    )
    flat = EndPoint(energy=0.0, gradient=[0.0, 0.0], record_id=1)
    payload = {"energy": 1.0, "gradient": [0.0, 2.0]}  # the force across the path is (0, -2)
    ended = {"9/1": Ended(3, Status.complete, None, lambda: payload)}

    def decided(velocity: list[float], n_downhill: int) -> BandState:
        state = BandState(
            iteration=9,
            images=[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]],
            velocities=[[0.0, 0.0], velocity, [0.0, 0.0]],
            ends=[flat, flat],
            is_climbing=False,
            time_step=0.1,
            mixing=0.05,
            n_downhill=n_downhill,
        )
        step = NudgedElasticBand().advance(spec, state, Now(BEGIN, 9, ended))
        assert isinstance(step, Wait)
        return step.state

    uphill = decided([0.0, 1.0], 7)
    assert (uphill.time_step, uphill.mixing, uphill.n_downhill) == (0.05, 0.1, 0)
    assert uphill.velocities[1] == pytest.approx([0.0, -2.0 * 0.05])
    assert uphill.images[1] == pytest.approx([1.0, -0.1 * 0.05])
    patient = decided([3.0, -4.0], 4)
    assert (patient.time_step, patient.mixing, patient.n_downhill) == (0.1, 0.05, 5)
    assert patient.velocities[1] == pytest.approx(
        [0.95 * 3.0, 0.95 * -4.0 - 0.05 * 5.0 - 2.0 * 0.1]
    )
    quicker = decided([3.0, -4.0], 5)
    assert quicker.n_downhill == 6
    assert quicker.time_step == pytest.approx(0.11)
    assert quicker.mixing == pytest.approx(0.05 * 0.99)


def test_a_band_that_does_not_come_to_rest_says_so() -> None:
    spec = band(DEEPEST, MIDDLE, iterations_max=3)
    ran = Driver().run("nudged_elastic_band", spec)
    assert ran.error.error_type == "NotConverged"
    assert "not within 3 iterations" in ran.error.message
    assert "but 0.05 is required" in ran.error.message
    assert len(ran.asked) == 2 + 3 * 7


def test_an_image_that_fails_is_reset_and_the_band_goes_on() -> None:
    calls: list[int] = []

    def flaky(coordinates: list[float]) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 30:
            raise OSError("node lost")
        return mueller_brown(coordinates)

    spec = band(DEEPEST, MIDDLE, gradient={"function": "flaky"})
    with pytest.raises(ChildError, match="4/7"):
        Driver({"flaky": flaky}).run("nudged_elastic_band", spec)
    calls.clear()
    ran = Driver({"flaky": flaky}, resets=1).run("nudged_elastic_band", spec)
    assert ran.result == Driver().run("nudged_elastic_band", band(DEEPEST, MIDDLE)).result


def test_a_result_that_is_no_gradient_is_named() -> None:
    driver = Driver({"strange": always({"energy": 1.0, "gradient": [0.0]})})
    spec = band(DEEPEST, MIDDLE, gradient={"function": "strange"})
    error = driver.run("nudged_elastic_band", spec).error
    assert error.error_type == "ResultUnusable"
    assert "1 components, and there are 2 coordinates" in error.message


def test_images_that_fall_together_are_an_error() -> None:
    # A path that goes back where it came from has its middle images at the same place.
    spec = band([0.0, 0.0], [1.0, 0.0], [0.0, 0.0], n_images=2)
    error = Driver().run("nudged_elastic_band", spec).error
    assert error.error_type == "ImagesCoincide"
    assert "images 1 and 2" in error.message


def forces(energies: list[float], images: list[list[float]], **spec: Any) -> Any:
    gradients = [[0.0, 1.0] for _ in images]
    computed = [Computed(e, g, 1) for e, g in zip(energies, gradients, strict=True)]
    asked = BandSpec.model_validate(band(images[0], images[-1], spring=1.0, **spec))
    return nudge(asked, images, computed, is_climbing=False)


@pytest.mark.parametrize(
    ("energies", "tangent"),
    [
        ([0.0, 1.0, 2.0], [0.0, 1.0]),  # uphill: towards the higher neighbour
        ([2.0, 1.0, 0.0], [1.0, 0.0]),  # downhill: from it
        (
            [0.0, 3.0, 2.0],
            [1 / math.hypot(1, 3), 3 / math.hypot(1, 3)],
        ),  # a maximum: 3 x after + 1 x before
        ([2.0, 3.0, 0.0], [3 / math.hypot(1, 3), 1 / math.hypot(1, 3)]),
        ([2.0, 0.0, 3.0], [2 / math.hypot(2, 3), 3 / math.hypot(2, 3)]),  # a minimum
        ([1.0, 1.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]),  # flat
    ],
)
def test_tangents_are_those_of_henkelman_and_jonsson(
    energies: list[float], tangent: list[float]
) -> None:
    found = forces(energies, [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert found.tangents[1] == pytest.approx(tangent)


def test_springs_act_along_the_path_only_and_the_surface_across_it_only() -> None:
    images = [[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]]
    assert forces([0.0, 1.0, 2.0], images).forces == [[0.0, 0.0], [2.0, -1.0], [0.0, 0.0]]
    free = forces([0.0, 1.0, 2.0], images, ends="relaxed").forces
    assert free[0] == free[2] == [0.0, -1.0]


def test_the_first_guess_has_its_images_at_equal_distances() -> None:
    assert interpolate([[0.0], [1.0]], 3) == [[0.0], [0.25], [0.5], [0.75], [1.0]]
    bent = interpolate([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]], 2)
    assert bent == [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0]]


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"path": [DEEPEST]}, "at least 2 items"),
    ({"path": [[], []]}, "no coordinates"),
    ({"path": [DEEPEST, [0.0]]}, "geometry 1 of `path` has a different shape"),
    ({"path": [DEEPEST, [[0.0], [1.0]]]}, "geometry 1 of `path` has a different shape"),
    ({"path": [DEEPEST, DEEPEST]}, "geometry 1 of `path` is the same as the one before"),
    ({"path": [[0.0] * 60_000, [1.0] * 60_000]}, "9 images of 60000 coordinates"),
    ({"optimizer": "sd"}, "'fire' or 'quick-min'"),
    ({"spring": -1.0}, "greater than 0"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_is_no_path_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        BandSpec.model_validate(band(DEEPEST, MIDDLE) | changes)
