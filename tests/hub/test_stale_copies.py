"""What is read of a task, and what becomes of it until somebody acts on that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from hubbub.delivery.room import DeliveryRoom
from hubbub.values import Delivery, Route, Submission, TaskResult, TaskState
from tests.hub.invariants.rules import BrokenRuleError
from tests.hub.invariants.seams import SteppedDatabase, quiet
from tests.hub.invariants.test_random_runs import window
from tests.hub.invariants.world import World, quietly

POOL = Route(name="to workers", match="p.>", to=("work.*", "pull.*"), deliver="one")
LATE = 9
"""Turns of the loop: others come first by so much."""

Act = Callable[[World], Awaitable[Any]]


def work(address: str, *, own: bool, key: str | None) -> Submission:
    """Return a task for one endpoint's own mailbox, or for the pool."""
    return Submission(
        task_type="alpha",
        source="api.t",
        subject="p.x",
        to=(address,) if own else (),
        task_id="t1",
        key=key,
    )


async def cancel(world: World) -> TaskState:
    """Take the task back."""
    return (await world.core.work.cancel("t1")).state


async def finish(world: World) -> TaskState:
    """Bring a result that nobody was asked for."""
    await world.core.work.finish(TaskResult("t1"), by="work.z", anyone=True)
    return TaskState.COMPLETED


async def begin(world: World) -> TaskState:
    """Say that it is being done, without having taken it."""
    begun = await world.core.work.begin("t1", worker="w", lease_us=60_000_000)
    return TaskState.DISPATCHED if begun else TaskState.QUEUED


async def act_before_it_is_told(
    world: World, act: Act, *, peer: str | None, own: bool, key: str | None
) -> tuple[object, TaskState]:
    """Act on a task between its commit and what follows from that; tell what was said and is."""
    await world.start()
    world.core.table.put(POOL)
    address = peer or "work.a"
    if peer is not None:
        world.attach(peer, everything=True)
    cast("SteppedDatabase", world.core.database)._turns = lambda: 0  # type: ignore[method-assign]
    journal, said = world.journal, list[object]()
    told, committed = journal._call, journal.committed

    def late(callback: Callable[..., object], *about: object, turns: int = LATE) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(lambda: late(callback, *about, turns=turns - 1))
        else:
            callback(*about)

    def then_act() -> None:
        committed()
        journal.committed = committed
        world.do(act(world), said.append)

    journal._call, journal.committed = late, then_act  # type: ignore[method-assign]
    world.do(world.core.submit(work(address, own=own, key=key)))
    await quiet()
    journal._call = told  # type: ignore[method-assign]
    await world.check(rest=True)
    task = await world.core.work.find("t1")
    assert task is not None
    await world.finale()
    return (said[0] if said else None), task.state


def run(folder: Path, act: Act, **how: Any) -> tuple[object, TaskState]:
    """Run a world in which that is done; the rules hold at its end."""
    found: list[tuple[object, TaskState]] = []

    async def whole() -> None:
        world = World(folder, 1)
        try:
            found.append(await act_before_it_is_told(world, act, **how))
        finally:
            await world.close()

    quietly(whole)
    return found[0]


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("own", [True, False], ids=["own mailbox", "pool"])
@pytest.mark.parametrize("peer", [None, "work.a", "pull.a"])
@pytest.mark.parametrize("act", [cancel, finish, begin])
def test_a_task_may_be_acted_on_before_its_publisher_is_told(
    tmp_path: Path, act: Act, peer: str | None, own: bool, key: str | None
) -> None:
    """It is in the store, and on its way into its mailbox: there is one of it all the same."""
    said, is_now = run(tmp_path, act, peer=peer, own=own, key=key)
    if said is not None and said is not TaskState.QUEUED:
        assert is_now is said


def no_look(room: DeliveryRoom, delivery: Delivery) -> bool:
    """Take in whatever comes."""
    del room, delivery
    return False


def test_a_mutant_that_takes_in_what_was_acted_on_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look whether it was read meanwhile, one of the rules is broken."""
    monkeypatch.setattr(DeliveryRoom, "_was_read", no_look)
    with pytest.raises(BrokenRuleError):
        run(tmp_path, cancel, peer=None, own=True, key=None)


def test_a_result_is_of_the_delivery_there_is_when_it_is_believed(tmp_path: Path) -> None:
    """Whether its worker ever had the task is read too; meanwhile another one may be given it."""

    async def whole() -> None:
        world = World(tmp_path, 1)
        world.routes[POOL.name] = POOL
        try:
            await world.start()
            world.attach("work.a", everything=True)
            last = work("work.a", own=False, key=None)
            world.do(world.core.submit(replace(last, priority=0)))
            await quiet()
            await world.kill()
            await world.start()
            for name in ("t2", "t3"):
                world.do(world.core.submit(replace(last, task_id=name, priority=9)))
            await quiet()
            await world.kill()
            await world.start()
            assert "t1" not in {one.task_id for box in world.core.room.boxes for one in box.line}
            turns = iter((0, 0, 5 * LATE))
            database = cast("SteppedDatabase", world.core.database)
            database._turns = lambda: next(turns, 0)  # type: ignore[method-assign]
            world.do(world.core.work.finish(TaskResult("t1"), by="work.a"))
            for _ in range(3):
                await asyncio.sleep(0)
            world.attach("work.b", everything=True)
            await quiet()
            await world.check(rest=True)
            await world.finale()
        finally:
            await world.close()

    with window(2):
        quietly(whole)
