"""Guards of endpoints: what they hold back is not lost, and no attempt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import cast

import pytest

from hubbub import Envelope, Reject, Retry, Route, hookimpl
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import StoreUnavailableError, UnavailableError
from hubbub.guards import BreakerRule, BreakerState, GuardRule
from hubbub.ports import Change
from hubbub.testing import FakeClock, RecordingEndpoint, counted, settle
from hubbub.values import Delivery, Endpoint, Submission, TaskResult

BREAKER = BreakerRule(failures=3, open_s=30.0, open_max_s=120.0)


class Outcomes:
    """A plugin that notes what deliveries came to."""

    def __init__(self) -> None:
        self.of: dict[object, tuple[str, str | None, int]] = {}

    @hookimpl
    def after_delivery(self, delivery: Delivery) -> None:
        number = delivery.envelope.json()
        assert delivery.outcome is not None
        assert number not in self.of, "an outcome is written once"
        self.of[number] = (delivery.outcome, delivery.reason, delivery.attempts)


@pytest.fixture
def outcomes(core: Core) -> Outcomes:
    plugin = Outcomes()
    core.plugins.add("outcomes", plugin)
    return plugin


def guarded(core: Core, to: str = "plugin.*", **guard: object) -> None:
    """Guard what `a.>` goes to."""
    core.room.guard([GuardRule(match=to, **guard)])  # type: ignore[arg-type]


def endpoint(core: Core, address: str = "plugin.x", **how: object) -> RecordingEndpoint:
    made = RecordingEndpoint(address, **how)
    core.attach(made)
    core.table.put(Route(name=address, match="a.>", to=(address,), attempts=4))
    return made


async def publish(core: Core, *numbers: int, durable: bool = True, key: str | None = None) -> None:
    for number in numbers:
        await core.publish(
            Envelope.new(source="plugin.test", subject="a.b", data=number, durable=durable, key=key)
        )
    await settle()


def numbers(taker: RecordingEndpoint) -> list[object]:
    return [envelope.json() for envelope in taker.taken]


def breaker(core: Core, address: str = "plugin.x") -> BreakerState:
    guard = core.room.guards.find(address)
    assert guard is not None
    assert guard.breaker is not None
    return guard.breaker.state


async def test_durable_waits_for_the_rate(core: Core, clock: FakeClock, outcomes: Outcomes) -> None:
    """A burst goes at once, the rest in order as tokens come, each at its first attempt."""
    guarded(core, rate_per_s=2.0, burst=3)
    taker = endpoint(core, concurrency=10)
    await publish(core, *range(6))
    assert numbers(taker) == [0, 1, 2]
    await clock.advance(0.49)
    assert numbers(taker) == [0, 1, 2]
    await clock.advance(0.02)
    assert numbers(taker) == [0, 1, 2, 3]
    await clock.advance(1.0)
    assert numbers(taker) == [0, 1, 2, 3, 4, 5]
    assert set(outcomes.of.values()) == {("delivered", None, 1)}
    assert counted(core, "hubbub_guard_holds_total", adapter="plugin", guard="rate") == 3


async def test_volatile_over_the_rate_is_dropped_with_the_name_of_the_guard(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """It does not wait; the next one that is in time goes."""
    guarded(core, rate_per_s=1.0)
    taker = endpoint(core)
    await publish(core, 1, 2, durable=False)
    await clock.advance(1.0)
    await publish(core, 3, durable=False)
    assert numbers(taker) == [1, 3]
    assert outcomes.of[2] == ("dropped", "rate", 0)


async def test_thousands_of_volatile_ones_are_dropped_in_one_loop(
    core: Core, outcomes: Outcomes
) -> None:
    """What waited for a slot when the guard fell is not dropped one inside the other."""
    taker = endpoint(core)
    core.room.links()[0].slots = 0
    await publish(core, *range(3000), durable=False)
    guarded(core, rate_per_s=0.001)
    core.room.links()[0].slots = 1
    await settle()
    assert numbers(taker) == [0]
    assert len(outcomes.of) == 3000


async def test_breaker_opens_waits_probes_and_closes(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """After three failures in a row nothing, then one, twice as long nothing, then all."""
    guarded(core, breaker=BREAKER)
    taker = endpoint(core, concurrency=5)
    taker.answers = [Retry(reason="http 500")] * 3
    await publish(core, 1, 2, 3)
    assert breaker(core) is BreakerState.OPEN
    await publish(core, 4, 5)
    await clock.advance(29.0)
    assert len(taker.taken) == 3, "it is left alone"
    taker.answers = [Retry(reason="http 500")]
    await clock.advance(1.5)
    assert len(taker.taken) == 4, "one probe"
    await clock.advance(59.0)
    assert len(taker.taken) == 4
    await clock.advance(1.5)
    assert breaker(core) is BreakerState.CLOSED
    await clock.advance(60.0)
    assert {number: outcome[:2] for number, outcome in outcomes.of.items()} == dict.fromkeys(
        range(1, 6), ("delivered", None)
    )
    assert counted(core, "hubbub_breaker_opened_total", adapter="plugin") == 2
    assert counted(core, "hubbub_guard_holds_total", guard="breaker") >= 2


async def test_probes_use_up_no_attempts(core: Core, clock: FakeClock, outcomes: Outcomes) -> None:
    """An outage of an hour makes no dead letter, with four attempts each."""
    guarded(core, breaker=BREAKER)
    taker = endpoint(core, concurrency=3)
    taker.answers = [Retry(reason="http 500")] * 100
    await publish(core, *range(6))
    await clock.advance(3600.0)
    assert not outcomes.of
    assert 25 < len(taker.taken) < 40
    taker.answers = []
    await clock.advance(600.0)
    assert sorted(map(str, outcomes.of)) == [str(number) for number in range(6)]
    assert {outcome[0] for outcome in outcomes.of.values()} == {"delivered"}
    assert max(outcome[2] for outcome in outcomes.of.values()) <= 2


async def test_a_message_that_kills_its_taker_does_not_stay_the_probe(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """Another one is tried next; once that went well the bad one uses up its attempts."""

    class Picky(RecordingEndpoint):
        async def deliver(self, envelope: Envelope) -> None:
            if envelope.json() == 0:
                self.answers.insert(0, Retry(reason="crashed"))
            await super().deliver(envelope)

    guarded(core, breaker=BreakerRule(failures=1, open_s=30.0))
    taker = Picky("plugin.x", concurrency=1)
    core.attach(taker)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",), attempts=4))
    await publish(core, 0, 1)
    for number in range(2, 6):
        await clock.advance(1000.0)
        await publish(core, number)
    await clock.advance(1000.0)
    assert {outcomes.of[number][0] for number in range(1, 6)} == {"delivered"}
    assert outcomes.of[0] == ("dead", "crashed", 4)


async def test_a_peer_that_says_no_is_there(core: Core, outcomes: Outcomes) -> None:
    """`Reject` is an answer: the breaker stays closed."""
    guarded(core, breaker=BREAKER)
    taker = endpoint(core)
    taker.answers = [Reject("never")] * 5
    await publish(core, *range(6))
    assert breaker(core) is BreakerState.CLOSED
    assert outcomes.of[4] == ("dead", "rejected", 1)
    assert outcomes.of[5] == ("delivered", None, 1)


async def test_a_lost_link_is_one_failure_and_a_new_link_finds_the_breaker_as_it_was(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """However much was in flight on it; coming back does not mend what fails."""

    class Hanging(Endpoint):
        begun = 0

        async def deliver(self, envelope: Envelope) -> None:
            self.begun += 1
            await asyncio.Event().wait()

    guarded(core, breaker=BREAKER)
    taker = Hanging(address="plugin.x", concurrency=5, linger_s=None)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",), attempts=10))
    link = core.attach(taker)
    await publish(core, *range(5))
    assert taker.begun == 5
    for times in (1, 2, 3):
        link.close()
        link = core.attach(taker)
        await settle()
        expected = BreakerState.CLOSED if times < 3 else BreakerState.OPEN
        assert breaker(core) is expected
    assert taker.begun == 15
    link.close()
    better = RecordingEndpoint("plugin.x", concurrency=5, linger_s=None)
    core.attach(better)
    await clock.advance(29.0)
    assert not better.taken
    await clock.advance(2.0)
    assert sorted(map(str, numbers(better))) == ["0", "1", "2", "3", "4"]
    assert {outcome[0] for outcome in outcomes.of.values()} == {"delivered"}


async def test_a_pool_prefers_members_whose_breaker_is_closed(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """One that failed is left out, and tried again only when the others are busy."""
    guarded(core, breaker=BreakerRule(failures=1, open_s=30.0))
    bad, good = RecordingEndpoint("plugin.bad"), RecordingEndpoint("plugin.good")
    core.table.put(Route(name="r", match="a.>", to=("plugin.*",), deliver="one"))
    core.attach(bad)
    bad.answers = [Retry(reason="down", after_s=0.0)]
    await publish(core, 0)
    core.attach(good)
    await publish(core, *range(1, 10))
    await clock.advance(3600.0)
    await publish(core, *range(10, 20))
    assert numbers(bad) == [0]
    assert breaker(core, "plugin.bad") is BreakerState.OPEN
    assert len(good.taken) == 20
    core.room.links()[1].slots = 0
    await publish(core, 20, 21)
    assert numbers(bad) == [0, 20, 21], "nobody else is there, so it is tried"
    assert breaker(core, "plugin.bad") is BreakerState.CLOSED
    assert {outcome[0] for outcome in outcomes.of.values()} == {"delivered"}


async def test_a_pool_whose_members_are_all_held_back_waits(
    core: Core, clock: FakeClock, outcomes: Outcomes
) -> None:
    """Durable waits for the first guard that lets go, volatile is dropped."""
    guarded(core, rate_per_s=1.0)
    takers = [RecordingEndpoint(f"plugin.{name}") for name in "ab"]
    core.table.put(Route(name="r", match="a.>", to=("plugin.*",), deliver="one"))
    for taker in takers:
        core.attach(taker)
    await publish(core, *range(4))
    await publish(core, 4, durable=False)
    assert sum(len(taker.taken) for taker in takers) == 2
    await clock.advance(1.1)
    assert sum(len(taker.taken) for taker in takers) == 4
    assert outcomes.of[4] == ("dropped", "rate", 0)


async def test_concurrency_is_a_bound_on_slots(core: Core) -> None:
    """The endpoint has five, its guard allows two; without the guard all five are used."""
    released = asyncio.Event()

    class Slow(RecordingEndpoint):
        async def deliver(self, envelope: Envelope) -> None:
            await super().deliver(envelope)
            await released.wait()

    guarded(core, concurrency=2)
    taker = Slow("plugin.x", concurrency=5)
    core.attach(taker)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",)))
    await publish(core, *range(9))
    assert len(taker.taken) == 2
    core.room.guard([])
    await settle()
    assert len(taker.taken) == 5
    released.set()
    await settle()
    assert len(taker.taken) == 9


async def test_what_is_too_large_is_dead(core: Core, outcomes: Outcomes) -> None:
    """The limit itself goes, one byte more is a dead letter that names it."""
    guarded(core, size_bytes=4)
    taker = endpoint(core)
    await publish(core, 1234, 12345)
    assert numbers(taker) == [1234]
    assert outcomes.of[12345][:2] == ("dead", "too_large")


async def test_a_request_to_a_guarded_endpoint_is_refused_at_once(
    core: Core, clock: FakeClock
) -> None:
    """Whoever asks need not wait for the deadline to learn it."""
    guarded(core, rate_per_s=1.0)
    endpoint(core)
    await publish(core, 1)
    question = Envelope.new(source="api.test", subject="a.q")
    with pytest.raises(UnavailableError, match="rate"):
        await core.asking.request(question, timeout_s=60)


async def test_a_worker_that_never_answers_gets_no_more_tasks(core: Core, clock: FakeClock) -> None:
    """Tasks count by their result: a taken task that times out is a failure."""
    guarded(core, breaker=BREAKER)
    worker = RecordingEndpoint(
        "plugin.x", accepts=(TASK_REQUEST,), task_types=("count",), concurrency=10
    )
    link = core.attach(worker)
    for number in range(3):
        await core.publish(
            Envelope.new(
                source="api.test",
                subject="tasks.count.request",
                type="hubbub.task.request.v1",
                data={"task_type": "count", "task_id": f"t{number}", "timeout_s": 5},
            )
        )
    await worker.wait_for(3)
    await clock.advance(5.1)
    assert breaker(core) is BreakerState.OPEN
    assert len(worker.taken) == 3
    await clock.advance(30.5)
    probed = cast("dict[str, str]", (await worker.wait_for(4))[3].json())
    assert breaker(core) is BreakerState.HALF_OPEN
    await core.workers.take_result(
        Envelope.new(
            source="plugin.x",
            subject="results",
            type="hubbub.task.result.v1",
            data={"task_id": probed["task_id"], "state": "completed"},
        ),
        by="plugin.x",
    )
    assert breaker(core) is BreakerState.CLOSED
    await worker.wait_for(6)
    link.close()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_peer_does_nothing_durable_is_lost(
    core: Core, clock: FakeClock, outcomes: Outcomes, seed: int
) -> None:
    """Rate, slots and breaker together, a peer that fails in phases, links that come and go."""
    chance = random.Random(seed)
    guarded(core, rate_per_s=5.0, burst=2, concurrency=2, breaker=BREAKER)
    taker = RecordingEndpoint("plugin.x", concurrency=4, linger_s=None)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",), attempts=1000))
    link = core.attach(taker)
    for number in range(60):
        taker.answers = [Retry(reason="no")] * chance.choice([0, 0, 3, 8])
        if chance.random() < 0.1:
            link.close()
            link = core.attach(taker)
        await publish(core, number, key=chance.choice([None, None, "k"]))
        await clock.advance(chance.choice([0.0, 0.1, 40.0]))
    taker.answers = []
    await clock.advance(3600.0)
    assert {number: outcome[:2] for number, outcome in outcomes.of.items()} == dict.fromkeys(
        range(60), ("delivered", None)
    )
    box = core.room.boxes.find("plugin.x")
    assert box is None or box.depth == 0


# Tasks that workers ask for


def puller(core: Core, address: str = "pull.a") -> None:
    """Bring a pull endpoint."""
    core.attach(Endpoint(address=address, accepts=(TASK_REQUEST,), pull=True, linger_s=None))


async def ask(core: Core, number: int, to: str = "pull.a", **params: object) -> list[str]:
    """Submit some tasks; returns their ids."""
    found = [
        await core.submit(Submission(task_type="t", source="plugin.x", to=(to,), params=params))
        for _ in range(number)
    ]
    return [receipt.task_id or "" for receipt in found]


async def lease(core: Core, limit: int = 10, *, wait_s: float = 0.0) -> list[str]:
    """Take tasks as a worker."""
    taken = await core.work.lease(
        ["pull.*"], worker="w", limit=limit, lease_us=20_000_000, wait_us=int(wait_s * 1e6)
    )
    return [one.task_id for one in taken]


async def done(core: Core, task_id: str) -> None:
    """Bring the result of a task."""
    finished = await core.work.finish(TaskResult(task_id), by="pull.a")
    assert finished.verdict == "done"


async def test_leases_are_held_to_the_rate(core: Core, clock: FakeClock) -> None:
    """A burst at once; then none, and who waits gets one when its token has come."""
    guarded(core, to="pull.a", rate_per_s=0.5, burst=2)
    puller(core)
    tasks = await ask(core, 5)
    assert await lease(core) == tasks[:2]
    assert await lease(core) == []
    assert counted(core, "hubbub_guard_holds_total", adapter="pull", guard="rate") == 1
    waiting = asyncio.ensure_future(lease(core, wait_s=30.0))
    await settle()
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert await waiting == tasks[2:3]
    guard = core.room.guards.find("pull.a")
    assert guard is not None
    assert guard.bucket is not None
    assert guard.bucket.left(clock.now_us() / 1e6) < 1
    puller(core, "pull.b")
    (other,) = await ask(core, 1, to="pull.b")
    assert await lease(core) == [other], "another endpoint is not held back"


async def test_leases_are_held_to_the_concurrency(core: Core, clock: FakeClock) -> None:
    """So many at once over all workers; a result, or the end of a lease, lets the next one go."""
    guarded(core, to="pull.*", concurrency=2)
    puller(core)
    tasks = await ask(core, 5)
    assert await lease(core) == tasks[:2]
    waiting = asyncio.ensure_future(lease(core, wait_s=300.0))
    await settle()
    assert not waiting.done()
    await done(core, tasks[0])
    assert await waiting == [tasks[2]]
    waiting = asyncio.ensure_future(lease(core, wait_s=300.0))
    await settle()
    await clock.advance(20.1)  # nobody answered the two
    assert await waiting == [tasks[1], tasks[2]]
    waiting = asyncio.ensure_future(lease(core, wait_s=300.0))
    await settle()
    core.room.guard([])
    assert await waiting == tasks[3:], "nothing holds it back any more"


async def test_leases_are_held_to_the_breaker(core: Core, clock: FakeClock) -> None:
    """Leases that nobody answered open it; then there is one probe, and a result closes it."""
    guarded(core, to="pull.*", breaker=BREAKER)
    puller(core)
    tasks = await ask(core, 4)
    assert len(await lease(core, 3)) == 3
    await clock.advance(20.1)
    assert breaker(core, "pull.a") is BreakerState.OPEN
    assert await lease(core) == []
    waiting = asyncio.ensure_future(lease(core, wait_s=300.0))
    await settle()
    await clock.advance(30.0)
    (probe,) = await waiting
    assert await lease(core) == [], "the probe alone"
    waiting = asyncio.ensure_future(lease(core, wait_s=300.0))
    await settle()
    await done(core, probe)
    assert sorted(await waiting) == sorted(set(tasks) - {probe})
    assert breaker(core, "pull.a") is BreakerState.CLOSED


async def test_a_task_too_large_for_its_guard_is_not_leased(core: Core) -> None:
    """It is dead, and the next one goes."""
    guarded(core, to="pull.*", size_bytes=200)
    puller(core)
    (large,) = await ask(core, 1, text="x" * 300)
    (small,) = await ask(core, 1)
    assert await lease(core) == [small]
    await settle()
    task = await core.work.find(large)
    assert task is not None
    assert task.state == "failed"


async def test_what_was_not_leased_takes_no_place(core: Core) -> None:
    """A store that fails gives back what was not leased, and its place."""
    guarded(core, to="pull.*", concurrency=1)
    puller(core)
    tasks = await ask(core, 2)
    settle_changes = core.engine.settle

    async def fails(changes: Sequence[Change]) -> Sequence[bool]:
        del changes
        raise StoreUnavailableError("full")

    core.engine.settle = fails  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await lease(core)
    core.engine.settle = settle_changes  # type: ignore[method-assign]
    assert await lease(core) == tasks[:1]
    assert await lease(core) == []
