"""A manager survives servers, tokens, networks, disks, clocks and its own absence.

Every test troubles real processes, makes sure that the trouble came, and ends with the same proof:
each record complete exactly once, no result left, and the tables as the log has them.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from tests.postgres import new_database

from .installation import HEARTBEAT_S, SWEEP_S, Installation, Site, ids_of
from .proxy import Fault, Proxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs prlimit and signals")

SHORT_LEASE_S = 2.0
ONCE = ["created", "claimed", "completed"]


@pytest.fixture(scope="module")
def installation(postgres_server_url: str, migrated_template: str) -> Iterator[Installation]:
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        contextlib.ExitStack() as stack,
    ):
        yield Installation(url, stack)


@pytest.fixture
def site(installation: Installation, tmp_path: Path) -> Iterator[Site]:
    made = Site(installation, f"t{abs(hash(tmp_path.name))}", tmp_path)
    yield made
    made.end()


@pytest.fixture
def proxy(installation: Installation) -> Iterator[Proxy]:
    with Proxy(installation.port) as made:
        yield made


def beats(site: Site, manager_id: int, since: datetime) -> None:
    """Wait until the server has heard of a manager after that moment."""

    def has_beaten() -> bool:
        at = site.client.manager(manager_id).heartbeat_at
        return at is not None and at > since

    site.eventually(has_beaten, f"manager {manager_id} sends a heartbeat")


# The server


def test_an_outage_within_the_lease_costs_nothing(site: Site) -> None:
    ids = site.meetings("ab")
    manager = site.manager()
    site.begin("ab")
    site.installation.server.kill()
    site.may_end("ab")
    site.are_kept(2)
    # So the outage was longer than one call tries.
    site.says(manager, r"results wait to be returned.*tried for \d+ s")
    site.installation.start_server()
    site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE, ONCE]
    assert len(ids_of(manager)) == 1


def test_after_an_outage_beyond_the_lease_results_are_late_and_the_manager_starts_anew(
    site: Site,
) -> None:
    ids = site.meetings("ab")
    manager = site.manager(lease_s=SHORT_LEASE_S)
    site.begin("ab")
    site.installation.server.kill()
    site.may_end("ab")
    site.are_kept(2)
    (first_id,) = ids_of(manager)
    site.is_lost(first_id)
    site.installation.start_server()
    site.settle()
    assert [id_ for id_ in ids_of(manager) if id_ != first_id]
    for id_ in ids:
        late = [event for event in site.client.history(id_) if event.kind == "late_result"]
        assert [event.actor for event in late] == [f"manager:{first_id}"]
        assert site.client.get_records(id_).attempt == 2


def test_a_result_for_the_current_attempt_is_accepted_by_a_restarted_server(site: Site) -> None:
    ids = site.meetings("ab")
    manager = site.manager()
    site.begin("ab")
    before = site.installation.server
    assert before.end() == 0
    site.may_end("a")
    site.are_kept(1)
    site.installation.start_server()
    site.becomes(ids[0], "complete")
    site.may_end("b")
    site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE, ONCE]
    assert len(ids_of(manager)) == 1


# The token


def test_a_token_can_be_replaced_while_tasks_run(site: Site) -> None:
    client = site.client
    old, new = (client.issue_token("rotated", "compute") for _ in range(2))
    file = site.folder / "token"
    file.write_text(old.secret + "\n")
    ids = site.meetings("ab")
    manager = site.manager(f"--token-file={file}")
    site.begin("ab")
    client.revoke_token(old.token.id)
    site.may_end("ab")
    site.says(manager, "results wait to be returned: the token is wrong")
    site.says(manager, "no heartbeat: Unauthorized")
    assert len(site.spooled()) >= 1
    file.write_text(new.secret + "\n")
    for id_ in ids:
        site.becomes(id_, "complete")
    later = site.add("echo", n=1)
    site.settle()
    assert [site.events(id_) for id_ in [*ids, later]] == [ONCE] * 3
    assert len(ids_of(manager)) == 1


def test_a_manager_that_is_lost_while_it_has_no_token_registers_with_the_new_one(
    site: Site,
) -> None:
    client = site.client
    old, new = (client.issue_token("rotated", "compute") for _ in range(2))
    file = site.folder / "token"
    file.write_text(old.secret)
    (id_,) = site.meetings("a")
    manager = site.manager(f"--token-file={file}", lease_s=SHORT_LEASE_S)
    site.begin("a")
    client.revoke_token(old.token.id)
    (first_id,) = ids_of(manager)
    site.is_lost(first_id)
    file.write_text(new.secret)
    site.says(manager, "registering again")
    site.may_end("a")
    site.settle()
    assert len(ids_of(manager)) == 2
    assert "late_result" in site.events(id_)


# The network

BAD = tuple(fault for fault in Fault if fault is not Fault.black_hole)


@pytest.mark.parametrize(
    ("fault", "path"),
    list(product(BAD, ("/claim", "/results"))),
    ids=lambda value: getattr(value, "name", value),
)
def test_requests_and_answers_that_are_lost_or_doubled_change_nothing(
    site: Site, proxy: Proxy, fault: Fault, path: str
) -> None:
    ids = [site.add("echo", n=n) for n in range(8)]
    # Twice, so that what is sent again fails too, where there is cause to send it again.
    times = 1 if fault in (Fault.duplicate, Fault.delay) else 2
    with proxy.failing(fault, path, times=times) as failing:
        manager = site.manager(url=proxy.url)
        failing.wait_until_fired(times)
        site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE] * len(ids)
    assert len(ids_of(manager)) == 1


def test_a_claim_in_a_black_hole_is_asked_again_and_leaks_no_attempt(
    site: Site, proxy: Proxy
) -> None:
    (id_,) = site.meetings("a")
    site.may_end("a")
    with proxy.failing(Fault.black_hole, "/claim", times=1):
        site.manager(url=proxy.url)
        site.settle()
    assert site.events(id_) == ONCE


def test_registering_in_a_bad_network_gives_one_manager(site: Site, proxy: Proxy) -> None:
    with proxy.failing(Fault.drop_answer, "/managers", times=2):
        manager = site.manager(url=proxy.url)
    named = [each.id for each in site.client.managers() if each.tags == [site.tag]]
    assert named == ids_of(manager)
    site.add("echo", n=1)
    site.settle()


def test_heartbeats_that_are_lost_for_less_than_a_lease_change_nothing(
    site: Site, proxy: Proxy
) -> None:
    (id_,) = site.meetings("a")
    manager = site.manager(url=proxy.url, workers=1, lease_s=5.0)
    site.begin("a")
    # A heartbeat that is not answered must not keep the next ones waiting.
    with proxy.failing(Fault.black_hole, "/heartbeat", times=1) as failing:
        failing.wait_until_fired()
        beats(site, ids_of(manager)[0], since=datetime.now(UTC) + timedelta(seconds=0.5))
    with proxy.failing(Fault.drop_answer, "/heartbeat", times=3) as failing:
        failing.wait_until_fired(3)
    site.may_end("a")
    site.settle()
    assert site.events(id_) == ONCE
    assert len(ids_of(manager)) == 1


def test_without_heartbeats_for_a_lease_the_manager_is_lost_and_starts_anew(
    site: Site, proxy: Proxy
) -> None:
    (id_,) = site.meetings("a")
    manager = site.manager(url=proxy.url, workers=1, lease_s=SHORT_LEASE_S)
    site.begin("a")
    (first_id,) = ids_of(manager)
    with proxy.failing(Fault.drop_request, "/heartbeat") as failing:
        site.is_lost(first_id)
    assert failing.n_fired > 1
    site.eventually(lambda: len(ids_of(manager)) == 2, "it has registered anew")
    site.may_end("a")
    site.settle()
    site.eventually(lambda: "late_result" in site.events(id_), "the first result is kept aside")


# The disk


def test_on_a_full_disk_results_are_returned_from_memory(site: Site) -> None:
    ids = site.meetings("ab")
    manager = site.manager()
    site.begin("ab")
    no_limit = resource.RLIM_INFINITY
    # No file can grow, as on a full disk, for this process; the workers have theirs already.
    resource.prlimit(manager.pid, resource.RLIMIT_FSIZE, (0, no_limit))
    site.installation.server.kill()
    site.may_end("ab")
    site.says(manager, "cannot keep results in .*make room there")
    assert site.spooled() == []
    site.installation.start_server()
    for id_ in ids:
        site.becomes(id_, "complete")
    ids += [site.add("echo", n=n) for n in range(20)]
    site.settle()
    # There is room again.
    resource.prlimit(manager.pid, resource.RLIMIT_FSIZE, (no_limit, no_limit))
    ids += site.meetings("c")
    site.begin("c")
    site.installation.server.kill()
    site.may_end("c")
    site.are_kept(1)
    site.installation.start_server()
    site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE] * len(ids)


# The clock

SITE = """
import os, pathlib, time

shift = pathlib.Path(os.environ["CLOCK_SHIFT"])


def shift_s():
    try:
        return float(shift.read_text())
    except OSError:
        return 0.0


real_time, real_time_ns = time.time, time.time_ns
time.time = lambda: real_time() + shift_s()
time.time_ns = lambda: real_time_ns() + int(shift_s() * 10**9)
"""


def test_a_clock_that_jumps_changes_nothing_for_leases_are_by_the_databases(site: Site) -> None:
    (site.folder / "sitecustomize.py").write_text(SITE)
    shift = site.folder / "shift"
    ids = site.meetings("a")
    environment = {"PYTHONPATH": str(site.folder), "CLOCK_SHIFT": str(shift)}
    manager = site.manager(
        lease_s=SHORT_LEASE_S, command=("--verbose", "manager"), environment=environment
    )
    site.begin("a")
    (manager_id,) = ids_of(manager)
    for days in (1, -1):
        jumped_at = datetime.now(UTC)
        draft = site.folder / "draft"
        draft.write_text(str(days * 86_400))
        draft.replace(shift)
        ids.append(site.add("echo", days=days))
        site.becomes(ids[-1], "complete")
        # The manager's own log has another day's date.
        there = jumped_at.astimezone() + timedelta(days=days)
        dates = "|".join(f"{at:%F}" for at in (there, there + timedelta(minutes=1)))
        site.says(manager, rf"^({dates}) .*claimed 1 tasks")
        beats(site, manager_id, since=jumped_at + timedelta(seconds=SHORT_LEASE_S))
    site.may_end("a")
    site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE] * 3
    assert ids_of(manager) == [manager_id]
    for id_ in ids:
        completed_at = site.client.history(id_)[-1].timestamp
        assert abs(completed_at - datetime.now(UTC)) < timedelta(hours=1)


# Its own absence


def test_a_manager_that_stood_still_is_lost_in_time_and_its_results_can_be_adopted(
    site: Site,
) -> None:
    elsewhere, kept = site.meetings("ab")
    manager = site.manager(lease_s=SHORT_LEASE_S)
    site.begin("ab")
    (first_id,) = ids_of(manager)
    manager.suspend()
    stopped_at = datetime.now(UTC)
    site.is_lost(first_id)
    for id_ in (elsewhere, kept):
        lost = next(each for each in site.client.history(id_) if each.kind == "manager_lost")
        silent_s = (lost.timestamp - stopped_at).total_seconds()
        # Its last sign of life may be older than its stop; two seconds are for a busy machine.
        assert SHORT_LEASE_S - 2 * HEARTBEAT_S < silent_s < SHORT_LEASE_S + SWEEP_S + 2
    assert site.client.hold_records(kept).n_updated == 1
    site.may_end("ab")
    second = site.manager(f"--state-dir={site.folder / 'second'}", workers=1)
    site.becomes(elsewhere, "complete")
    assert second.end() == 0
    manager.resume()
    for id_ in (elsewhere, kept):
        site.eventually(lambda id_=id_: "late_result" in site.events(id_), "it is kept aside")  # type: ignore[misc]
    assert site.client.get_records(elsewhere).manager_id == ids_of(second)[0]
    assert site.client.adopt_results(kept).n_updated == 1
    site.eventually(lambda: len(ids_of(manager)) == 2, "it has registered anew")
    later = site.add("echo", n=1)
    site.settle()
    assert site.client.get_records(kept).attempt == 1
    assert site.client.get_records(later).manager_id == ids_of(manager)[1]


def test_managers_of_one_name_and_folder_have_each_their_own(site: Site) -> None:
    ids = site.meetings("ab")
    managers = [site.manager(workers=1) for _ in range(2)]
    site.begin("ab")
    owners = [site.client.get_records(id_).manager_id for id_ in ids]
    assert sorted(ids_of(managers[0]) + ids_of(managers[1])) == sorted(
        map(int, filter(None, owners))
    )
    site.installation.server.kill()
    site.may_end("ab")
    site.are_kept(2)
    managers[0].kill()
    site.installation.start_server()
    (killed_id,), (living_id,) = map(ids_of, managers)
    of_killed, of_living = (ids[owners.index(owner)] for owner in (killed_id, living_id))
    site.becomes(of_living, "complete")
    assert [path.parent.name for path in site.spooled()] == [str(killed_id)]
    assert site.client.get_records(of_killed).status == "running"
    third = site.manager()
    site.settle()
    assert [site.events(id_) for id_ in ids] == [ONCE, ONCE]
    assert ids_of(third)[0] not in owners
    assert ids_of(managers[1]) == [living_id]
