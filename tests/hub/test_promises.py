"""Tasks that are given in the commit that takes them in, and what may happen until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from hubbub import Receipt
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import HubError
from hubbub.store.tables import DeliveryRow
from hubbub.testing import FakeClock, running_hub
from hubbub.values import Submission, TaskState
from tests.hub.test_work import NODES, attempts, finish, later, node, rest, task_of


@pytest.fixture
async def core(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> AsyncIterator[Core]:
    """A hub without sockets."""
    folder = tmp_path / "hub"
    async with running_hub(folder, clock=clock, store_url=store_url(folder)) as running:
        running.table.put(NODES)
        yield running
        for link in running.room.links():  # a stop would wait for what they have, on this clock
            running.attachments.detach(link)


def asked(core: Core, task_id: str | None = None, **how: Any) -> asyncio.Task[Receipt]:
    """Begin to submit a task."""
    work = Submission(
        task_type="echo", source="api.test", subject="work.echo", task_id=task_id, **how
    )
    return asyncio.get_running_loop().create_task(core.submit(work))


async def under_way(core: Core, task_id: str | None = None, **how: Any) -> asyncio.Task[Receipt]:
    """Return a submission whose commit is not known to be done: nobody has looked since."""
    submission = asked(core, task_id, **how)
    await asyncio.sleep(0)
    assert not submission.done()
    return submission


def states(session: Session) -> list[tuple[str, int, str | None]]:
    """Return what the store says of all deliveries."""
    rows = session.exec(select(DeliveryRow).order_by(DeliveryRow.id)).all()  # type: ignore[arg-type]
    return [(row.state, row.attempts, row.endpoint) for row in rows]


async def test_a_task_is_taken_in_and_given_in_one_commit(core: Core) -> None:
    """The acknowledgement says both; the worker sees it after that."""
    worker = node(core)
    submission = await under_way(core)
    assert worker.link.slots - core.room.links()[0].free == 1
    receipt = await submission
    assert await core.read(states) == [("in_flight", 1, "node.a")]
    assert await attempts(core, receipt.task_id) == [(1, "node.a", None)]
    await rest(core)
    assert worker.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, worker)).verdict == "done"
    assert core.room.links()[0].free == 1


async def test_both_states_are_told(core: Core) -> None:
    """First that it waits, then that it is given, then what came of it."""
    told: list[str] = []
    worker = node(core)
    await rest(core)
    core.router.tap(lambda envelope: told.append(envelope.subject))
    receipt = await (await under_way(core))
    await finish(core, receipt.task_id, worker)
    assert told == [
        "work.echo", "tasks.echo.queued", "tasks.echo.dispatched", "tasks.echo.completed",
    ]  # fmt: skip


async def test_tasks_of_one_batch_are_spread(core: Core) -> None:
    """Each to who has least in hand, and those that are too many wait."""
    workers = [node(core, name, concurrency=2) for name in ("a", "b")]
    request = Envelope.new(
        source="api.test", subject="work.echo", type=TASK_REQUEST, data={"task_type": "echo"}
    )
    await core.router.publish_all([request] * 5)
    assert [state for state, _, _ in await core.read(states)] == ["in_flight"] * 4 + ["pending"]
    await rest(core)
    assert [len(worker.tasks) for worker in workers] == [2, 2]
    await finish(core, workers[0].tasks[0], workers[0])
    assert len(workers[0].tasks) == 3


async def test_what_waits_goes_first(core: Core, clock: FakeClock) -> None:
    """What was published while nobody was free is on its way, and is not overtaken."""
    worker = node(core)
    first = await (await under_way(core))
    await rest(core)
    second = asked(core, "second")
    await asyncio.sleep(0)
    worker.link.slots = 2
    third = asked(core, "third")
    await asyncio.gather(second, third)
    await rest(core)
    assert worker.tasks == [first.task_id, "second"]
    await later(core, clock, 1.0)
    await finish(core, first.task_id, worker)
    assert worker.tasks[2:] == ["third"]


async def test_the_key_of_a_promised_task_is_taken(core: Core) -> None:
    """The next of it waits, though there are slots."""
    worker = node(core, concurrency=2)
    both = [asked(core, name, key="k") for name in ("one", "two")]
    await asyncio.gather(*both)
    await rest(core)
    assert worker.tasks == ["one"]
    await finish(core, "one", worker)
    assert worker.tasks == ["one", "two"]


async def test_a_worker_that_leaves_meanwhile_gets_nothing(core: Core) -> None:
    """Another one does, and it was no attempt."""
    leaver = node(core, "a")
    submission = await under_way(core)
    other = node(core, "b")
    leaver.link.close()
    receipt = await submission
    await rest(core)
    assert (leaver.tasks, other.tasks) == ([], [receipt.task_id])
    assert await attempts(core, receipt.task_id) == [(1, "node.b", None)]


async def test_a_worker_that_comes_again_meanwhile_gets_it_there(core: Core) -> None:
    """By its new link; the old one is not used."""
    old = node(core)
    submission = await under_way(core)
    new = node(core)
    receipt = await submission
    await rest(core)
    assert (old.tasks, new.tasks) == ([], [receipt.task_id])
    assert await attempts(core, receipt.task_id) == [(1, "node.a", None)]


async def test_a_worker_that_pauses_meanwhile_gets_nothing(core: Core) -> None:
    """Until it goes on."""
    worker = node(core)
    submission = await under_way(core)
    worker.link.slots = 0
    receipt = await submission
    await rest(core)
    assert worker.tasks == []
    assert (await task_of(core, receipt.task_id)).state is TaskState.QUEUED
    assert await attempts(core, receipt.task_id) == []
    worker.link.slots = 1
    await rest(core)
    assert worker.tasks == [receipt.task_id]
    assert await attempts(core, receipt.task_id) == [(1, "node.a", None)]


async def test_a_task_that_is_refused_gives_its_slot_back(core: Core) -> None:
    """One that is there already is given to nobody again; the next one has the slot."""
    worker = node(core)
    await asked(core, "same")
    await rest(core)
    await finish(core, "same", worker)
    assert (await (await under_way(core, "same"))).duplicate
    assert core.room.links()[0].free == 1
    await asked(core, "next")
    await rest(core)
    assert worker.tasks == ["same", "next"]


async def test_a_batch_that_is_refused_gives_its_slots_back(core: Core) -> None:
    """The first was promised when the second was found to be bad."""
    worker = node(core)
    good, bad = (
        Envelope.new(source="api.test", subject="work.echo", type=TASK_REQUEST, data=data)
        for data in ({"task_type": "echo"}, {"no": "task"})
    )
    with pytest.raises(HubError):
        await core.router.publish_all([good, bad])
    assert core.room.links()[0].free == 1
    receipt = await asked(core)
    await rest(core)
    assert worker.tasks == [receipt.task_id]


async def test_an_asker_that_does_not_wait_changes_nothing(core: Core) -> None:
    """What was on its way to the store is done all the same."""
    worker = node(core)
    submission = await under_way(core, "mine")
    submission.cancel()
    await rest(core)
    assert worker.tasks == ["mine"]


async def test_a_task_that_could_not_be_written_in_time_waits_again(
    core: Core, clock: FakeClock
) -> None:
    """Its attempt would have been over before it began; its wait too, where that is over."""
    worker = node(core)
    slow = await under_way(core, "slow", timeout_s=5.0)
    clock._now_us += 6_000_000  # at once, while the store is at it
    await slow
    await rest(core)
    assert await attempts(core, "slow") == [(1, "node.a", None)]
    assert worker.tasks == ["slow"]
    await finish(core, "slow", worker)
    late = await under_way(core, "late", expires_us=clock.now_us() + 5_000_000)
    clock._now_us += 6_000_000
    await late
    await rest(core)
    assert worker.tasks == ["slow"]
    assert (await task_of(core, "late")).error == "expires"


async def test_a_stop_waits_for_what_was_promised(core: Core) -> None:
    """And leaves it waiting, uncounted, for the next start."""
    worker = node(core)
    submission = await under_way(core)
    draining = asyncio.get_running_loop().create_task(core.drain())
    receipt = await submission
    await draining
    await rest(core)
    assert worker.tasks == []
    assert await core.read(states) == [("pending", 0, None)]
    assert await attempts(core, receipt.task_id) == []
