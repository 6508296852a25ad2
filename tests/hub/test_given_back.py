"""What is kept for something is given back when that is over: places, slots, couriers, pools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from hubbub import Envelope, Receipt
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import StoreUnavailableError
from hubbub.ports import Change
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub, settle
from hubbub.values import Endpoint, Task
from tests.hub.test_work import NODES, attempts, finish, node, rest, submit


@pytest.fixture
async def core(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> AsyncIterator[Core]:
    """A hub without sockets."""
    folder = tmp_path / "hub"
    async with running_hub(folder, clock=clock, store_url=store_url(folder)) as running:
        running.table.put(NODES)
        yield running
        for link in running.room.links():
            running.attachments.detach(link)


def publishing(core: Core, number: int) -> asyncio.Task[Receipt]:
    envelope = Envelope.new(
        source="plugin.a", subject="a", data=number, to=("plugin.full",), durable=True
    )
    return asyncio.get_running_loop().create_task(core.publish(envelope))


class Stuck(RecordingEndpoint):
    """A worker whose connection takes nothing more: what it is handed stays on the way."""

    async def deliver(self, envelope: Envelope) -> None:
        """Note it, and never return."""
        await super().deliver(envelope)
        await asyncio.get_running_loop().create_future()


def stuck(core: Core, *, concurrency: int = 1) -> Stuck:
    endpoint = Stuck("node.a", accepts=(TASK_REQUEST,), concurrency=concurrency, linger_s=60.0)
    core.attach(endpoint)
    return endpoint


async def test_a_place_that_its_publisher_does_not_take_is_for_the_next(core: Core) -> None:
    """One is told of it and goes away in that very moment: else the others wait for ever."""
    full = RecordingEndpoint("plugin.full", linger_s=None, mailbox_limit=1, overflow="wait")
    core.attach(full).close()
    await publishing(core, 1)
    first, second = publishing(core, 2), publishing(core, 3)
    await settle()
    assert not first.done()
    assert not second.done()
    (waiting,) = core.room.boxes.get("plugin.full").line
    core.room.endings.forget(waiting)
    first.cancel()
    await asyncio.wait([second], timeout=5)
    assert second.done()


async def test_who_waits_no_longer_is_not_waited_for(core: Core) -> None:
    """A publisher that is gone leaves nothing behind at the mailbox."""
    full = RecordingEndpoint("plugin.full", linger_s=None, mailbox_limit=1, overflow="wait")
    core.attach(full).close()
    await publishing(core, 1)
    waits = publishing(core, 2)
    await settle()
    box = core.room.boxes.get("plugin.full")
    assert box.wanted
    waits.cancel()
    await asyncio.wait([waits])
    assert not box.wanted


async def test_a_free_slot_is_used_while_another_task_is_stuck_on_its_way(core: Core) -> None:
    """Its courier waits for the peer although the task was taken back; another one carries."""
    worker = stuck(core, concurrency=2)
    first = await submit(core)
    await core.work.cancel(first.task_id or "")
    await submit(core)
    assert len(worker.taken) == 2


async def test_a_stop_does_not_wait_for_a_peer_that_is_gone(core: Core) -> None:
    """Nothing is under way any more when the last one hangs up with what it had."""
    worker = stuck(core)
    await submit(core)
    draining = asyncio.get_running_loop().create_task(core.room.lifecycle.drain(3600.0))
    await rest(core)
    assert not draining.done()
    link = core.room.link_of(worker.address)
    assert link is not None
    core.attachments.detach(link)
    await rest(core)
    assert draining.done()


async def test_a_task_that_nobody_was_handed_is_in_nobodys_hand(core: Core) -> None:
    """Its hand-over could not be written: it waits, in memory or in the store alone."""
    receipt = await submit(core)
    settle_changes = core.engine.settle

    async def fails(changes: Sequence[Change]) -> Sequence[bool]:
        del changes
        raise StoreUnavailableError("full")

    core.engine.settle = fails  # type: ignore[method-assign]
    worker = node(core)
    await rest(core)
    core.engine.settle = settle_changes  # type: ignore[method-assign]
    assert worker.tasks == []
    assert core.room.in_hand == {}
    task = await core.work.find(receipt.task_id or "")
    assert task is not None
    assert task.state == "queued"


async def test_a_worker_forgets_the_pools_in_which_nothing_is(core: Core) -> None:
    """Each task type that was ever asked for had one: else a worker looks at more and more."""
    worker = node(core)
    for number in range(3):
        receipt = await submit(core, f"type-{number}")
        await finish(core, receipt.task_id, worker)
    link = core.room.link_of(worker.address)
    assert link is not None
    assert len(link.pools) == 3
    core.room.forget_idle()  # as in time
    assert not link.pools
    await submit(core, "type-0")
    assert len(worker.tasks) == 4


def slow_then_full(core: Core) -> Callable[[], None]:
    """Let nothing be settled until what this returns is called: then it fails, what follows not."""
    settle_changes, failing = core.engine.settle, asyncio.get_running_loop().create_future()

    async def fails(changes: Sequence[Change]) -> Sequence[bool]:
        del changes
        await failing
        raise StoreUnavailableError("full")

    def fail() -> None:
        core.engine.settle = settle_changes  # type: ignore[method-assign]
        failing.set_result(None)

    core.engine.settle = fails  # type: ignore[method-assign]
    return fail


def cancelling(core: Core, receipt: Receipt) -> asyncio.Task[Task]:
    return asyncio.get_running_loop().create_task(core.work.cancel(receipt.task_id or ""))


@pytest.mark.parametrize("name", ["a", "b"], ids=["comes again", "another one comes"])
async def test_an_end_that_failed_gives_nothing_to_a_link_that_never_had_it(
    core: Core, name: str
) -> None:
    """The store is slow, then full; meanwhile the worker has left with what it had."""
    receipt = await submit(core)
    worker = node(core)
    await rest(core)
    assert worker.tasks == [receipt.task_id]
    fail = slow_then_full(core)
    cancel = cancelling(core, receipt)
    await settle()
    worker.link.close()
    newer = node(core, name)
    fail()
    with pytest.raises(StoreUnavailableError):
        await cancel
    await rest(core)
    assert newer.tasks == [receipt.task_id]
    assert await attempts(core, receipt.task_id) == [
        (1, "node.a", "node_lost"),
        (2, f"node.{name}", None),
    ]


async def test_an_end_that_failed_takes_no_slot_where_nobody_was_handed_it(core: Core) -> None:
    """Neither the hand-over nor the end could be written: it is handed over anew."""
    receipt = await submit(core)
    fail = slow_then_full(core)
    worker = node(core)
    await settle()
    cancel = cancelling(core, receipt)
    await settle()
    fail()
    with pytest.raises(StoreUnavailableError):
        await cancel
    await rest(core)
    assert worker.tasks == [receipt.task_id]
    assert await attempts(core, receipt.task_id) == [(1, "node.a", None)]


@pytest.mark.parametrize("most", [1, 2], ids=["it has ended", "it waits again"])
async def test_a_lease_that_could_not_be_written_and_is_over_is_not_taken_back_twice(
    core: Core, clock: FakeClock, most: int
) -> None:
    """The store is slow for longer than the lease, and then full."""
    core.attach(Endpoint(address="node.pull", accepts=(TASK_REQUEST,), pull=True, linger_s=None))
    receipt = await submit(core, max_attempts=most)
    fail = slow_then_full(core)
    lease = partial(core.work.lease, ["node.*"], worker="w", limit=5)
    leasing = asyncio.get_running_loop().create_task(lease(lease_us=2_000_000))
    await settle()
    await clock.advance(3.0)
    await rest(core)
    fail()
    with pytest.raises(StoreUnavailableError):
        await leasing
    await rest(core)
    given = await lease(lease_us=2_000_000)
    assert [one.task_id for one in given] == [receipt.task_id][: most - 1]
    assert [box.depth for box in core.room.boxes] == [0] * len(list(core.room.boxes))
    assert len(core.room.in_hand) == len(given)
