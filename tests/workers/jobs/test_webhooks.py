"""Webhooks on a real ledger, over real sockets: nothing lost, in order, each at its own pace."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final

import msgpack
import pytest
from pydantic_core import from_json, to_json

from recordledger.api.http.rendering import log_out
from recordledger.api.http.webhook_sender import Sender, shown_secret
from recordledger.domain.admin.addresses import parse_allowed
from recordledger.domain.admin.webhook import WebhookFilter
from recordledger.domain.records.actions import Action
from recordledger.projections.actions import deliveries
from recordledger.projections.actions import webhooks as webhook_edits
from recordledger.projections.actions.webhooks import WebhookProgress
from recordledger.projections.reading import event_log
from recordledger.workers.jobs import webhooks
from recordledger.workers.jobs.schedule import ScheduledJob, run_jobs
from recordledger.workers.jobs.webhooks import Deliverer, DeliverySettings
from tests.postgres import new_database
from tests.projections.stage import ALICE, Stage, empty, staged
from tests.webhook_receiver import Receiver, verify

from ..conditions import eventually

HERE: Final = parse_allowed("127.0.0.0/8")
QUICK: Final = (0.02,)


class House:
    """A ledger, and workers that tell webhooks what happens."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack) -> None:
        self.stage = stage
        self.ledger = stage.ledger
        self.secrets: dict[int, str] = {}
        self._stack = stack

    def work(
        self,
        *,
        timeout_s: float = 5.0,
        failing_s: float = 3_600.0,
        schedule_s: Sequence[float] = QUICK,
        elected: bool = True,
    ) -> threading.Event:
        """Begin to deliver; return what ends it."""
        stop = threading.Event()
        sender = Sender(HERE, timeout_s)
        deliverer = Deliverer(DeliverySettings(sender, failing_s, schedule_s), stop)
        name = "webhooks" if elected else f"webhooks {random.random()}"  # noqa: S311
        job = ScheduledJob(name, 0.02, deliverer.run)
        thread = threading.Thread(target=run_jobs, args=(self.ledger, [job], stop))
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(10)
            deliverer.close()

        self._stack.callback(end)
        return stop

    def add(self, receiver: Receiver, *, after: int | None = 0, **conditions: Any) -> int:
        """Let a receiver be told; return the webhook's id."""
        what = WebhookFilter(**conditions)
        new = webhook_edits.add(self.ledger, receiver.url, what, after=after, limit=50, actor=ALICE)
        self.secrets[new.webhook.id] = shown_secret(new.secret)
        return new.webhook.id

    def seen(self, webhook_id: int) -> WebhookProgress:
        """Return a webhook and how far it was told."""
        return webhook_edits.get(self.ledger, webhook_id)

    def whole(self, **conditions: Any) -> list[int]:
        """Return the positions of all events that a filter lets through."""
        which = event_log.EventFilter(**conditions)
        return [each.position for each in event_log.page(self.ledger, 0, 10**6, which).events]

    def check(self, webhook_id: int, receiver: Receiver) -> None:
        """Every message is signed, and those of one id are the same."""
        bodies: dict[str, bytes] = {}
        for each in receiver.received:
            assert verify(self.secrets[webhook_id], each.headers, each.body) == each.id
            assert bodies.setdefault(each.id, each.body) == each.body


@pytest.fixture(scope="module")
def reused_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a ledger that one test after the other has for itself."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def house(reused_url: str) -> Iterator[House]:
    empty(reused_url)
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(staged(reused_url, pool_size=16))
        yield House(stage, stack)


def test_every_event_arrives_once_in_order_as_the_log_shows_it(house: House) -> None:
    first = house.stage.submit(250)
    with Receiver() as receiver:
        webhook_id = house.add(receiver)
        house.work()
        house.stage.done(Action.comment, *first[:30], text="so")
        wanted = house.whole()
        eventually(lambda: len(receiver.positions) >= len(wanted))
        assert receiver.positions == wanted
        house.check(webhook_id, receiver)
        messages = [each.message for each in receiver.received]
        shown = log_out(house.ledger, event_log.page(house.ledger, 0, 10**6).events)
    assert {each["type"] for each in messages} == {"ledger.events"}
    told = [event for each in messages for event in each["data"]["events"]]
    assert told == from_json(to_json(shown))
    assert all(len(each["data"]["events"]) <= webhooks.EVENTS_MAX for each in messages)
    assert [each["timestamp"] for each in messages] == [
        each["data"]["events"][-1]["timestamp"] for each in messages
    ]
    eventually(lambda: house.seen(webhook_id).position == wanted[-1])
    house.stage.require_equal()


def test_what_fails_is_sent_again_under_the_same_id_and_nothing_overtakes(house: House) -> None:
    chance = random.Random(3)  # noqa: S311
    answers: list[int | str] = [200, 200, 500, 302, 429, "close"]
    behaviour = [chance.choice(answers) for _ in range(500)]
    with Receiver(lambda n: behaviour[n]) as receiver:
        webhook_id = house.add(receiver)
        house.work()
        for _ in range(10):
            house.stage.submit(chance.randrange(1, 130))
        wanted = house.whole()
        eventually(lambda: len(receiver.positions) >= len(wanted))
        assert receiver.positions == wanted
        assert len(receiver.received) > len(receiver.arrived)
        house.check(webhook_id, receiver)
    ids = [each.id for each in receiver.received]
    assert ids == sorted(ids, key=ids.index), "a message goes on until it has arrived"
    assert len(set(ids)) == len(receiver.arrived)
    eventually(lambda: house.seen(webhook_id).n_failures == 0)
    attempts = deliveries.attempts(house.ledger, webhook_id, 100)
    assert len(attempts) == min(100, len(receiver.received))
    assert {each.status_code for each in attempts} >= {200, 500}
    assert any("RemoteDisconnected" in (each.error or "") for each in attempts)


def test_one_that_does_not_answer_keeps_no_other_waiting(house: House) -> None:
    with Receiver(lambda _: 60.0) as silent, Receiver() as receiver:
        dead = [house.add(silent) for _ in range(12)]
        alive = house.add(receiver)
        house.stage.submit(3)
        house.work(timeout_s=120.0)
        eventually(lambda: len(silent.received) == len(dead))
        for _ in range(5):
            house.stage.submit(1)
            wanted = house.whole()
            eventually(lambda wanted=wanted: receiver.positions == wanted)  # type: ignore[misc]
        assert len(silent.received) == len(dead), "those still wait for the first answer"
        assert house.seen(dead[0]).position == 0
        assert house.seen(alive).n_failures == 0


def test_a_webhook_is_told_what_its_filter_lets_through(house: House) -> None:
    stage = house.stage
    (mine,) = stage.submit(1, tag="mine")
    (other,) = stage.submit(1, tag="other")
    stage.done(Action.hold, mine, other)
    stage.done(Action.release, mine, actor="user:eve")
    with Receiver() as by_tag, Receiver() as by_kind, Receiver() as by_actor, Receiver() as new:
        conditions: list[tuple[Receiver, dict[str, Any]]] = [
            (by_tag, {"tags": ("mine",)}),
            (by_kind, {"kinds": ("held", "released")}),
            (by_actor, {"actors": ("user:eve",)}),
        ]
        for receiver, which in conditions:
            house.add(receiver, **which)
        late = house.add(new, after=None)
        house.work()
        for receiver, which in conditions:
            wanted = house.whole(**{name: frozenset(values) for name, values in which.items()})
            assert wanted
            eventually(lambda r=receiver, w=wanted: r.positions == w)  # type: ignore[misc]
        before = stage.head()
        stage.submit(2)
        eventually(lambda: len(new.positions) == 2)
        assert min(new.positions) > before
        eventually(lambda: house.seen(late).position == stage.head())


def test_what_lets_nothing_through_moves_on_without_a_message(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "SCAN_MAX", 10)
    house.stage.submit(75)
    with Receiver() as receiver:
        webhook_id = house.add(receiver, kinds=("erased",))
        house.work()
        eventually(lambda: house.seen(webhook_id).position == house.stage.head())
        assert receiver.received == []


def test_whoever_never_takes_anything_is_disabled_and_goes_on_when_enabled(house: House) -> None:
    is_well = threading.Event()
    with Receiver(lambda _: 200 if is_well.is_set() else 500) as receiver:
        webhook_id = house.add(receiver)
        house.stage.submit(3)
        house.work(failing_s=0.2)
        eventually(lambda: house.seen(webhook_id).webhook.state == "disabled")
        *_, gone = webhook_edits.history(house.ledger, webhook_id)
        event: Any = gone.recorded.event
        assert (event.topic, event.actor, event.error) == (
            "webhook_disabled",
            "server:webhooks",
            "answered 500",
        )
        assert (event.timestamp - event.failing_since).total_seconds() >= 0.2
        house.stage.submit(2)
        n_attempts = len(receiver.received)
        assert house.seen(webhook_id).position == 0
        is_well.set()
        webhook_edits.modify(house.ledger, webhook_id, enabled=True, actor=ALICE)
        wanted = house.whole()
        eventually(lambda: receiver.positions == wanted)
        assert receiver.received[n_attempts].id == receiver.received[0].id
        house.check(webhook_id, receiver)
        assert house.seen(webhook_id).webhook.why is None
    house.stage.require_sound()


def test_whoever_is_gone_is_disabled_at_once(house: House) -> None:
    with Receiver(lambda _: 410) as receiver:
        webhook_id = house.add(receiver)
        house.stage.submit(1)
        house.work()
        eventually(lambda: house.seen(webhook_id).webhook.state == "disabled")
        assert house.seen(webhook_id).webhook.why == "answered 410"
        assert len(receiver.received) == 1


def test_the_pause_is_the_schedule_s_and_what_the_receiver_asks_for_if_that_is_longer(
    house: House,
) -> None:
    with (
        Receiver(lambda _: 500) as failing,
        Receiver(lambda _: 503, headers={"Retry-After": "600"}) as busy,
    ):
        by_schedule, by_wish = house.add(failing), house.add(busy)
        house.stage.submit(1)
        house.work(schedule_s=(100.0,))
        for webhook_id, low_s, high_s in ((by_schedule, 80, 121), (by_wish, 580, 601)):
            eventually(lambda id_=webhook_id: house.seen(id_).n_failures == 1)  # type: ignore[misc]
            found = house.seen(webhook_id)
            assert found.failing_since is not None
            pause_s = (found.next_try_at - found.failing_since).total_seconds()
            assert low_s < pause_s < high_s


def test_several_workers_tell_it_once(house: House) -> None:
    with Receiver() as receiver:
        webhook_id = house.add(receiver)
        for _ in range(3):
            house.work(elected=False)
        for _ in range(20):
            house.stage.submit(3)
        wanted = house.whole()
        eventually(lambda: len(receiver.positions) >= len(wanted))
        assert receiver.positions == wanted
        assert len({each.id for each in receiver.received}) == len(receiver.received)
        eventually(lambda: house.seen(webhook_id).position == wanted[-1])


def test_another_address_is_told_what_the_old_one_has_not_taken(house: House) -> None:
    with Receiver(lambda _: 500) as old, Receiver() as new:
        webhook_id = house.add(old)
        house.stage.submit(5)
        house.work(schedule_s=(3_600.0,))
        eventually(lambda: house.seen(webhook_id).n_failures == 1)
        webhook_edits.modify(house.ledger, webhook_id, url=new.url, actor=ALICE)
        wanted = house.whole()
        eventually(lambda: new.positions == wanted)
        assert new.received[0].id != old.received[0].id


def test_what_was_removed_is_told_nothing_and_its_secret_is_destroyed(house: House) -> None:
    with Receiver() as receiver:
        webhook_id = house.add(receiver)
        webhook_edits.remove(house.ledger, webhook_id, actor=ALICE)
        house.stage.submit(1)
        control = house.add(receiver, after=house.stage.head())
        house.work()
        house.stage.submit(1)
        eventually(lambda: receiver.positions == [house.stage.head()])
        eventually(lambda: house.seen(control).position == house.stage.head())
    for table in ("webhook_secrets", "webhook_deliveries", "webhook_attempts"):
        rows = house.stage.ask(f"SELECT 1 FROM {table} WHERE webhook_id = {webhook_id}")  # noqa: S608
        assert rows == []
    house.stage.require_equal()


def test_the_secret_is_in_no_event(house: House) -> None:
    with Receiver() as receiver:
        new = webhook_edits.add(
            house.ledger, receiver.url, WebhookFilter(), after=0, limit=1, actor=ALICE
        )
    [(state,)] = house.stage.ask("SELECT state FROM ledger_events WHERE topic = 'webhook_added'")
    assert new.secret not in bytes(state)
    assert receiver.url in msgpack.unpackb(state, timestamp=3)["url"]
    assert event_log.page(house.ledger, 0, 100).events == [], "the log does not tell of webhooks"


def test_what_is_too_large_for_a_message_is_said_to_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = house.stage.submit(20)
    house.stage.done(Action.comment, ids[0], text="long " * 1_000)
    monkeypatch.setattr(webhooks, "BODY_BYTES_MAX", 3_000)
    with Receiver() as receiver:
        house.add(receiver)
        house.work()
        wanted = house.whole()
        eventually(lambda: len(receiver.positions) >= len(wanted))
        assert receiver.positions == wanted
        assert max(len(each.body) for each in receiver.received) < 3_300
        assert len(receiver.received) > 3
        last = receiver.received[-1].message["data"]["events"][-1]
    assert last["data"]["too_large"] is True
    assert last["data"]["n_bytes"] > 5_000


def test_a_worker_that_is_killed_loses_nothing_and_repeats_under_the_same_id(
    house: House,
) -> None:
    hangs = threading.Event()
    hangs.set()
    with Receiver(lambda n: 30.0 if n >= 2 and hangs.is_set() else 200) as receiver:
        webhook_id = house.add(receiver)
        house.stage.submit(250)
        with working(house) as process:
            eventually(lambda: len(receiver.received) == 3)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        assert len(receiver.positions) == 200
        eventually(lambda: house.seen(webhook_id).position >= receiver.positions[-1])
        hangs.clear()
        house.stage.submit(10)
        # The dead one has it in hand: that ends by itself, and here at once.
        house.stage.do("UPDATE webhook_deliveries SET leased_until = clock_timestamp()")
        wanted = house.whole()
        with working(house) as process:
            eventually(lambda: len(receiver.positions) >= len(wanted))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert receiver.positions == wanted
        assert receiver.received[3].id == receiver.received[2].id
        house.check(webhook_id, receiver)


@contextlib.contextmanager
def working(house: House) -> Generator[subprocess.Popen[bytes]]:
    """Run `recordledger work` in a process of its own."""
    environment = os.environ | {
        "RECORDLEDGER_DATABASE_URL": house.stage.url,
        "RECORDLEDGER_WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8",
    }
    command = [sys.executable, "-m", "recordledger.workers.cli", "work", "--no-services"]
    process = subprocess.Popen(command, env=environment)  # noqa: S603
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
