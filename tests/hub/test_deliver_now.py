"""Endpoints that take a batch at once: straight from publish, in order, within their slots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from hubbub.core import Core
from hubbub.delivery.direct import BATCH
from hubbub.envelope import Envelope
from hubbub.listeners.http import _framed
from hubbub.testing import FakeClock, RecordingEndpoint, counted
from hubbub.values import Endpoint


class Quick(RecordingEndpoint):
    """Takes at once as many as there is room for, the rest by `deliver`.

    Attributes:
        calls: How many it was given in each call.
        room: How many it takes yet.
    """

    def __init__(self, address: str = "plugin.quick", **how: Any) -> None:
        super().__init__(address, **how)
        self.calls: list[int] = []
        self.room = 1_000_000

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Take what there is room for."""
        number = min(self.room, len(envelopes))
        self.room -= number
        self.calls.append(len(envelopes))
        self.taken += envelopes[:number]
        return number


def to_quick(number: int, **how: Any) -> Envelope:
    """Return an envelope to the quick one, by address."""
    return Envelope.new(
        source="plugin.test", subject="a.b", data=number, to=("plugin.quick",), **how
    )


def numbers(endpoint: RecordingEndpoint) -> list[object]:
    """Return what was taken, in order."""
    return [envelope.json() for envelope in endpoint.taken]


@pytest.mark.parametrize("durable", [False, True])
async def test_it_is_handed_over_straight_from_publish(core: Core, durable: bool) -> None:
    """Before publish returns, or with the commit; the outcome is counted and stored."""
    quick = Quick()
    core.attach(quick)
    for number in range(3):
        await core.publish(to_quick(number, durable=durable))
    await core.journal.flush()
    assert (numbers(quick), quick.calls) == ([0, 1, 2], [1, 1, 1])
    assert counted(core, "hubbub_deliveries_total", outcome="delivered") == 3
    assert core.room.boxes.here == {}
    assert [box.depth for box in core.room.boxes] == [0]


async def test_what_waited_comes_in_batches(core: Core) -> None:
    """A paused endpoint that goes on is given up to `BATCH` in a call, in order."""
    quick = Quick()
    link = core.attach(quick)
    link.slots = 0
    for number in range(BATCH + 3):
        await core.publish(to_quick(number))
    link.slots = 1
    assert quick.calls == [BATCH, 3]
    assert numbers(quick) == list(range(BATCH + 3))


async def test_what_it_does_not_take_goes_to_deliver_in_order(core: Core) -> None:
    """Nothing overtakes what is under way; once that is done it is asked again."""
    quick = Quick()
    quick.room = 2
    link = core.attach(quick)
    link.slots = 0
    for number in range(6):
        await core.publish(to_quick(number, durable=False))
    link.slots = 1
    assert numbers(quick) == [0, 1]
    await core.publish(to_quick(6, durable=False))  # a courier has the third: this one waits
    assert numbers(quick) == [0, 1]
    quick.room = 1_000_000
    await quick.wait_for(7)
    assert numbers(quick) == list(range(7))


async def test_of_one_key_the_order_holds_in_batches(core: Core, clock: FakeClock) -> None:
    """Keys, retries and batches together: each key is in order."""
    quick = Quick()
    quick.room = 0
    quick.answers = [ValueError("not now"), None]
    core.attach(quick)
    for number in range(8):
        await core.publish(to_quick(number, key=f"k{number % 2}"))
    await quick.wait_for(1)
    quick.room = 1_000_000
    for _ in range(5):
        await clock.advance(2.0)
    await core.journal.flush()
    done = numbers(quick)[1:]  # the first attempt of 0 failed
    assert [n for n in done if isinstance(n, int) and n % 2 == 0] == [0, 2, 4, 6]
    assert [n for n in done if isinstance(n, int) and n % 2] == [1, 3, 5, 7]


class Broken(Quick):
    """Raises instead of taking at once."""

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Fail."""
        raise ValueError("a plugin's bug")


class Boaster(Quick):
    """Says that it took more than it was given."""

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Boast."""
        return super().deliver_now(envelopes) + 7


async def test_one_that_raises_is_counted_and_delivered_to(core: Core) -> None:
    """Its `deliver` is asked instead."""
    broken = Broken()
    core.attach(broken)
    await core.publish(to_quick(1, durable=False))
    await broken.wait_for(1)
    assert counted(core, "hubbub_plugin_errors_total", hook="deliver_now") >= 1


async def test_one_that_boasts_took_what_it_was_given(core: Core) -> None:
    """No more than that is delivered."""
    boaster = Boaster()
    core.attach(boaster)
    await core.publish(to_quick(1, durable=False))
    assert counted(core, "hubbub_deliveries_total", outcome="delivered") == 1


async def test_a_task_is_never_taken_at_once(core: Core) -> None:
    """It has a lease, which is written before the peer sees it."""
    quick = Quick(accepts=("hubbub.task.request.v1",), task_types=("*",))
    link = core.attach(quick)
    request = Envelope.new(
        source="plugin.test", subject="tasks.x.request", type="hubbub.task.request.v1",
        data={"task_type": "x", "params": {}},
    )  # fmt: skip
    await core.publish(request)
    await quick.wait_for(1)
    assert quick.calls == []
    link.close()


async def test_no_task_is_made_for_a_volatile_delivery(core: Core) -> None:
    """A fan-out to many is done when publish returns, without the loop."""
    many = [Quick(f"plugin.q{number}") for number in range(100)]
    for one in many:
        core.attach(one)
        core.table.put(_route(one))
    before = len(asyncio.all_tasks())
    await core.publish(Envelope.new(source="plugin.test", subject="all.hear", durable=False))
    assert [len(one.taken) for one in many] == [1] * 100
    assert len(asyncio.all_tasks()) == before


def _route(endpoint: Endpoint) -> Any:
    from hubbub.values import Route

    return Route(name=endpoint.address, match="all.hear", to=(endpoint.address,))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_frame_is_as_the_library_writes_it(size: int) -> None:
    """At every edge of the length."""
    text = b"x" * size
    assert _framed(text) == Frame(Opcode.TEXT, text).serialize(mask=False, extensions=[])
