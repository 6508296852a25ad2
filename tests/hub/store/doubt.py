"""What a worker is told while nobody knows whether it was written, and what holds afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hubbub import Endpoint
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import StoreUnavailableError
from hubbub.store.reads import tasks
from hubbub.testing import RecordingEndpoint
from hubbub.values import Submission, TaskResult, TaskState
from tests.hub.store.health import mended

__all__ = ["see_that_work_in_doubt_is_done_once"]


async def see_that_work_in_doubt_is_done_once(
    core: Core, away: Callable[[], object], back: Callable[[], object]
) -> None:
    """Lease and finish a task while each commit is written, and is said not to be.

    Args:
        away: From the next commit on, those who wait are refused, though it is written.
        back: The store is there again.
    """
    core.attach(Endpoint(address="pull.a", accepts=(TASK_REQUEST,), pull=True, linger_s=None))
    asker = RecordingEndpoint("plugin.asker", linger_s=60.0)
    core.attach(asker)
    receipt = await core.submit(
        Submission(task_type="t", source="plugin.asker", to=("pull.a",), reply_to="plugin.asker")
    )
    task_id = receipt.task_id
    assert task_id is not None

    async def lease() -> list[str]:
        leased = await core.work.lease(["pull.a"], worker="w", limit=1, lease_us=60_000_000)
        return [one.task_id for one in leased]

    async def finish() -> str:
        return (await core.work.finish(TaskResult(task_id), by="pull.a")).verdict

    await core.journal.flush()
    away()
    with pytest.raises(StoreUnavailableError):
        await lease()
    back()
    await mended(core)
    assert await lease() == [task_id]
    assert await lease() == []
    away()
    with pytest.raises(StoreUnavailableError):
        await finish()
    back()
    await mended(core)
    await asker.wait_for(1)
    assert await finish() == "late"
    task, attempts = await core.read(
        lambda session: (tasks.one(session, task_id), tasks.attempts(session, task_id))
    )
    assert task is not None
    assert task.state is TaskState.COMPLETED
    assert [one.attempt for one in attempts] == [1]
    assert len(asker.taken) == 1
