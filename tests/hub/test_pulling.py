"""Tasks that workers ask for."""

from __future__ import annotations

import asyncio

from hubbub import Endpoint
from hubbub.core import Core
from hubbub.delivery.mailbox import WINDOW
from hubbub.envelope import TASK_REQUEST
from hubbub.values import Submission

MORE = 44


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
