"""Tasks that workers ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub import Endpoint
from hubbub.core import Core
from hubbub.delivery.mailbox import WINDOW
from hubbub.envelope import TASK_REQUEST
from hubbub.testing import FakeClock, settle
from hubbub.values import Submission, TaskResult
from tests.hub.invariants.test_random_runs import window

MORE = 44
SMALL = 16
MINUTE_US = 60_000_000


async def submit(core: Core) -> None:
    await core.submit(Submission(task_type="t", source="plugin.asker", to=("pull.a",)))


async def lease(core: Core, limit: int) -> int:
    taken = await core.work.lease(["pull.a"], worker="w", limit=limit, lease_us=60_000_000)
    return len(taken)


async def test_who_asks_while_the_store_is_read_is_not_sent_away(core: Core) -> None:
    """Memory has been emptied by somebody else: what the store has is waited for."""
    core.attach(Endpoint(address="pull.a", accepts=(TASK_REQUEST,), pull=True, linger_s=None))
    for _ in range(WINDOW + MORE):
        await submit(core)
    first, second = await asyncio.gather(lease(core, WINDOW), lease(core, MORE))
    assert (first, second) == (WINDOW, MORE)


async def test_a_task_that_was_not_taken_begins(core: Core) -> None:
    """Once, for a pull endpoint that is here; also one that only the store has."""
    link = core.attach(
        Endpoint(address="pull.a", accepts=(TASK_REQUEST,), pull=True, linger_s=None)
    )
    for _ in range(WINDOW):
        await submit(core)
    last = await core.submit(Submission(task_type="t", source="plugin.asker", to=("pull.a",)))
    assert last.task_id is not None
    assert await core.work.begin(last.task_id, worker="w", lease_us=60_000_000)
    assert not await core.work.begin(last.task_id, worker="w2", lease_us=60_000_000)
    task = await core.work.find(last.task_id)
    assert task is not None
    assert (task.state, task.attempt, task.endpoint) == ("dispatched", 1, "pull.a")
    assert not await core.work.begin("unknown", worker="w", lease_us=60_000_000)
    assert await lease(core, WINDOW + 1) == WINDOW
    link.close()
    gone = await core.submit(Submission(task_type="t", source="plugin.asker", to=("pull.a",)))
    assert gone.task_id is not None
    assert not await core.work.begin(gone.task_id, worker="w", lease_us=60_000_000)


# What a worker asks for by its type may stand where only the store has it.


@pytest.fixture
def small_window() -> Iterator[None]:
    """Keep so few in memory that little makes the rest wait in the store."""
    with window(SMALL):
        yield


async def fill(core: Core) -> None:
    """Let a pull endpoint come, and fill what memory has of its mailbox with other work."""
    core.attach(Endpoint(address="pull.a", accepts=(TASK_REQUEST,), pull=True, linger_s=None))
    for number in range(SMALL):
        await ask(core, f"other{number}", "other")


async def ask(core: Core, task_id: str, task_type: str, **how: Any) -> None:
    """Ask the pull endpoint for a task."""
    await core.submit(
        Submission(
            task_type=task_type, source="plugin.asker", to=("pull.a",), task_id=task_id, **how
        )
    )


async def take(core: Core, *task_types: str, limit: int = 1, wait_us: int = 0) -> list[str]:
    """Take tasks of some types."""
    taken = await core.work.lease(
        ["pull.a"],
        worker="w",
        limit=limit,
        lease_us=MINUTE_US,
        task_types=frozenset(task_types) or None,
        wait_us=wait_us,
    )
    return [one.task_id for one in taken]


@pytest.mark.usefixtures("small_window")
async def test_a_key_keeps_its_order_where_only_the_store_has_it(core: Core) -> None:
    """Who does not do the earlier task of a key waits until somebody has done it."""
    await fill(core)
    await ask(core, "early", "draw", key="k")
    await ask(core, "late", "print", key="k")
    await ask(core, "free", "print", key="l")
    assert await take(core, "print") == ["free"]
    assert await take(core, "print") == []
    assert await take(core, "draw") == ["early"]
    assert await take(core, "print") == []
    await core.work.finish(TaskResult("early"), by="pull.a")
    assert await take(core, "print") == ["late"]


@pytest.mark.usefixtures("small_window")
async def test_who_waits_for_the_next_of_a_key_gets_it_when_the_former_is_done(core: Core) -> None:
    """Also where neither is in memory, and the former one is cancelled there."""
    await fill(core)
    await ask(core, "early", "draw", key="k")
    await ask(core, "late", "print", key="k")
    waiting = asyncio.ensure_future(take(core, "print", wait_us=MINUTE_US))
    await settle()
    assert not waiting.done()
    await core.work.cancel("early")
    async with asyncio.timeout(5):
        assert await waiting == ["late"]


@pytest.mark.usefixtures("small_window")
async def test_of_several_types_the_lowest_rank_goes_first(core: Core) -> None:
    """Whatever the types are called, and whatever of them is in memory from an earlier read."""
    await fill(core)
    for number in range(3):
        await ask(core, f"{number}b", "beta")
        await ask(core, f"{number}a", "alpha")
    assert await take(core, "alpha", "beta") == ["0b"]
    assert await take(core, "alpha") == ["0a"]
    assert await take(core, "alpha", "beta", limit=3) == ["1b", "1a", "2b"]


@pytest.mark.usefixtures("small_window")
async def test_a_look_at_one_type_changes_nothing_for_others(core: Core, clock: FakeClock) -> None:
    """What comes later stands behind what only the store has, however much is taken at once."""
    await fill(core)
    await clock.advance(60.0)
    await ask(core, "early", "alpha")
    await clock.advance(120.0)
    for number in range(2):
        await ask(core, f"late{number}", "beta")
    assert await take(core, "beta") == ["late0"]
    await ask(core, "urgent", "alpha", priority=6)  # a minute before those, two behind `early`
    everything = [f"other{number}" for number in range(SMALL)]
    found = await take(core, limit=SMALL + 2)
    for _ in range(2):
        found += await take(core, limit=SMALL)
    assert found == [*everything, "early", "urgent", "late1"]
