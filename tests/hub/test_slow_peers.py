"""What the core does for endpoints with slow peers, and for fallbacks."""

from __future__ import annotations

from pathlib import Path

from hubbub import Envelope, Retry, Route
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub
from hubbub.testing.clock import settle

TO_SLOW = Route(name="slow", match="slow.>", to=("plugin.slow",))


class Slow(RecordingEndpoint):
    """Counts how often it is told."""

    told = 0

    def overloaded(self) -> None:
        self.told += 1


def said(subject: str = "slow.x", source: str = "plugin.test") -> Envelope:
    return Envelope.new(source=source, subject=subject, data={}, durable=False)


async def test_an_attempt_nobody_saw_is_not_counted(tmp_path: Path) -> None:
    """However often it is given back, the attempts that the peer saw are those that count."""
    async with running_hub(tmp_path, clock=FakeClock()) as core:
        slow = Slow("plugin.slow", max_attempts=1)
        slow.answers = [Retry(0.0, "paused", counted=False) for _ in range(5)]
        core.attach(slow)
        core.table.put(TO_SLOW)
        await core.publish(said())
        await slow.wait_for(6)
        await settle()
        slow.answers = [Retry(0.0)]
        await core.publish(said())
        await slow.wait_for(7)
        await settle()
        assert len(slow.taken) == 7


async def test_no_route_tries_harder_than_the_endpoint_allows(tmp_path: Path) -> None:
    """`max_attempts` bounds the `attempts` of a route."""
    clock = FakeClock()
    async with running_hub(tmp_path, clock=clock) as core:
        slow = Slow("plugin.slow", max_attempts=2)
        slow.answers = [Retry(1.0) for _ in range(5)]
        core.attach(slow)
        core.table.put(Route(name="slow", match="slow.>", to=("plugin.slow",), attempts=9))
        await core.publish(said())
        await clock.advance(60)
        assert len(slow.taken) == 2


async def test_an_endpoint_is_told_over_its_queue_size_and_not_at_it(tmp_path: Path) -> None:
    """What waits and what is under way count together; `waiting` is what waits."""
    async with running_hub(tmp_path, clock=FakeClock()) as core:
        slow = Slow("plugin.slow", queue_size=2, concurrency=0)
        link = core.attach(slow)
        core.table.put(TO_SLOW)
        for _ in range(2):
            await core.publish(said())
        assert (slow.told, link.waiting) == (0, 2)
        await core.publish(said())
        assert (slow.told, link.waiting) == (1, 3)
        link.slots = 1
        await slow.wait_for(3)
        assert link.waiting == 0


async def test_a_fallback_does_not_come_back_to_who_said_it(tmp_path: Path) -> None:
    """By a pattern; a literal address and other routes may."""
    async with running_hub(tmp_path) as core:
        one, other = RecordingEndpoint("plugin.one"), RecordingEndpoint("plugin.other")
        core.attach(one)
        core.attach(other)
        core.table.put(Route(name="f", match="chat", to=("plugin.*",), fallback=True))
        receipt = await core.publish(said("chat", "plugin.one"))
        assert receipt.deliveries == 1
        await other.wait_for(1)
        core.table.put(Route(name="r", match="chat", to=("plugin.*",)))
        assert (await core.publish(said("chat", "plugin.one"))).deliveries == 2


async def test_who_looks_on_takes_nothing_away(tmp_path: Path) -> None:
    """A subscription to everything leaves the wiring of an adapter as it was; each has it once."""
    async with running_hub(tmp_path / "hub") as core:
        watcher, taker = RecordingEndpoint("plugin.watcher"), RecordingEndpoint("wired.taker")
        for peer in (watcher, taker):
            core.attach(peer)
        core.table.put(Route(name="f", match="said", to=("wired.*",), fallback=True))
        await core.subscribe(watcher, ">")
        await core.subscribe(taker, "said")
        receipt = await core.publish(Envelope.new(source="api.test", subject="said", data=1))
        assert receipt.deliveries == 2
        for peer in (watcher, taker):
            await peer.wait_for(1)
        await settle()
        assert [len(peer.taken) for peer in (watcher, taker)] == [1, 1]
        core.table.put(Route(name="mine", match="said", to=("plugin.nobody",)))
        await core.publish(Envelope.new(source="api.test", subject="said", data=2))
        await watcher.wait_for(2)
