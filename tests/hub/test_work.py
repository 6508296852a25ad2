"""Tasks on workers that are pushed to: who gets them, when again, and which result counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlmodel import select

from hubbub import Receipt, Route
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import ConflictError
from hubbub.ports import Finished, Link
from hubbub.store.reads import tasks as reads
from hubbub.store.tables import SpanRow, TaskAttemptRow
from hubbub.tasks import read_request
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub, settle
from hubbub.values import Submission, Task, TaskResult, TaskState

NODES = Route(name="to nodes", match="work.>", to=("node.*",), deliver="one")


class Node(RecordingEndpoint):
    """A worker that was attached."""

    link: Link

    @property
    def tasks(self) -> list[str]:
        """Ids of the tasks it was given, in order."""
        return [str(read_request(envelope).task_id) for envelope in self.taken]


@pytest.fixture
async def core(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> AsyncIterator[Core]:
    """A hub without sockets, whose workers' slots come back sooner than by default."""
    toml = '[hub]\nslot_grace = "20s"'
    folder = tmp_path / "hub"
    async with running_hub(folder, toml, clock=clock, store_url=store_url(folder)) as running:
        running.table.put(NODES)
        yield running
        for link in running.room.links():  # a stop would wait for what they have, on this clock
            running.attachments.detach(link)


async def rest(core: Core) -> None:
    """Let the hub do all that it can do now, commits included."""
    for _ in range(4):
        await settle()
        await core.journal.flush()
    await settle()


async def later(core: Core, clock: FakeClock, seconds: float) -> None:
    """Let time pass, and what only the store knows be looked at."""
    await clock.advance(seconds)
    await core.sweeper.look()
    await rest(core)


def node(
    core: Core,
    name: str = "a",
    *,
    task_types: Sequence[str] | None = None,
    labels: dict[str, str] | None = None,
    concurrency: int = 1,
) -> Node:
    endpoint = Node(
        f"node.{name}",
        accepts=(TASK_REQUEST,),
        task_types=task_types,
        labels=labels,
        concurrency=concurrency,
        linger_s=60.0,
    )
    endpoint.link = core.attach(endpoint)
    return endpoint


async def submit(core: Core, task_type: str = "echo", **how: Any) -> Receipt:
    work = Submission(task_type=task_type, source="api.test", subject=f"work.{task_type}")
    work = msgspec.structs.replace(work, **how)
    receipt = await core.submit(work)
    await rest(core)
    return receipt


async def finish(core: Core, task_id: str | None, by: Node, state: str = "completed") -> Finished:
    error = "boom" if state == "failed" else None
    done = await core.work.finish(TaskResult(task_id or "", state, error=error), by=by.address)
    await rest(core)
    return done


async def task_of(core: Core, task_id: str | None) -> Task:
    found = await core.work.find(task_id or "")
    assert found is not None
    return found


async def attempts(core: Core, task_id: str | None) -> list[tuple[int, str, str | None]]:
    await core.journal.flush()
    rows: list[TaskAttemptRow] = await core.read(partial(reads.attempts, task_id=task_id or ""))
    return [(row.attempt, row.endpoint, row.outcome) for row in rows]


# Who gets it


async def test_only_a_worker_with_the_type_and_the_labels_gets_it(core: Core) -> None:
    """All of them must fit; others are left alone."""
    wrong_type = node(core, "a", task_types=["render"], labels={"gpu": "yes"})
    wrong_label = node(core, "b", task_types=["echo"], labels={"gpu": "no"})
    right = node(core, "c", task_types=["echo"], labels={"gpu": "yes", "zone": "x"})
    receipt = await submit(core, labels={"gpu": "yes"})
    assert (wrong_type.tasks, wrong_label.tasks, right.tasks) == ([], [], [receipt.task_id])


async def test_a_pin_is_stronger_than_labels(core: Core) -> None:
    """Who names a worker means that one, whatever labels are asked for beside it."""
    pinned = node(core, "a", labels={"gpu": "no"})
    other = node(core, "b", labels={"gpu": "yes"})
    receipt = await submit(core, to=("node.a",), labels={"gpu": "yes"})
    assert (pinned.tasks, other.tasks) == ([receipt.task_id], [])


async def test_a_pinned_task_waits_for_its_worker(core: Core) -> None:
    """Also for one that was never seen; no other one gets it."""
    other = node(core, "b")
    receipt = await submit(core, to=("node.a",), labels={"gpu": "yes"})
    assert (await task_of(core, receipt.task_id)).state is TaskState.QUEUED
    pinned = node(core, "a")
    await rest(core)
    assert (pinned.tasks, other.tasks) == ([receipt.task_id], [])


async def test_least_in_flight_then_longest_idle(core: Core, clock: FakeClock) -> None:
    """Work is spread: first over those with the least, among them to who waited longest."""
    first, second = node(core, "a", concurrency=2), node(core, "b", concurrency=2)
    one, two = await submit(core), await submit(core)
    assert (first.tasks, second.tasks) == ([one.task_id], [two.task_id])
    await later(core, clock, 1)
    await finish(core, two.task_id, second)
    await later(core, clock, 1)
    await finish(core, one.task_id, first)
    three, four = await submit(core), await submit(core)
    assert second.tasks[1:] == [three.task_id]
    assert first.tasks[1:] == [four.task_id]


async def test_no_more_than_its_concurrency(core: Core) -> None:
    """More waits in the hub, and follows as soon as there is a slot."""
    one = node(core, concurrency=2)
    receipts = [await submit(core) for _ in range(3)]
    assert one.tasks == [receipt.task_id for receipt in receipts[:2]]
    await finish(core, receipts[0].task_id, one)
    assert one.tasks == [receipt.task_id for receipt in receipts]


async def test_priority_then_time_then_order(core: Core, clock: FakeClock) -> None:
    """9 goes before 0, what may go earlier before what may go later, else the first before."""
    now_s = clock.now_us() / 1e6
    last = await submit(core, not_before=now_s + 5)
    soon = await submit(core, not_before=now_s + 3)
    low = await submit(core, priority=0)
    first, second = await submit(core), await submit(core)
    high = await submit(core, priority=9)
    await later(core, clock, 6)
    one = node(core)
    await one.wait_for(1)
    expected = [high, first, second, soon, last, low]
    for number, receipt in enumerate(expected):
        await one.wait_for(number + 1)
        assert one.tasks[-1] == receipt.task_id
        await finish(core, receipt.task_id, one)


async def test_a_task_waits_until_its_time(core: Core, clock: FakeClock) -> None:
    """Not before `not_before`, though somebody is free."""
    one = node(core)
    receipt = await submit(core, not_before=clock.now_us() / 1e6 + 30)
    await later(core, clock, 29)
    assert one.tasks == []
    await later(core, clock, 2)
    await one.wait_for(1)  # it was in the store only, and is read on another thread
    assert one.tasks == [receipt.task_id]


async def test_a_worker_can_change_what_it_does(core: Core) -> None:
    """What it has stays with it; from now on it gets what it says now."""
    one = node(core, task_types=["echo"], labels={"gpu": "no"}, concurrency=2)
    running = await submit(core)
    waiting = await submit(core, "render", labels={"gpu": "yes"})
    assert one.tasks == [running.task_id]
    one.task_types, one.labels = frozenset({"render"}), {"gpu": "yes"}
    one.link.refresh()
    await rest(core)
    assert one.tasks == [running.task_id, waiting.task_id]
    third = await submit(core)
    assert (await task_of(core, third.task_id)).state is TaskState.QUEUED
    assert (await finish(core, running.task_id, one)).verdict == "done"
    assert one.tasks == [running.task_id, waiting.task_id]


# Nobody


async def test_nobody_in_time_fails_the_task(core: Core, clock: FakeClock) -> None:
    """After `queue_ttl` it is failed, and says why."""
    core.task_defaults("node", attempts=3, timeout_s=300.0, queue_ttl_s=10.0)
    receipt = await submit(core)
    await later(core, clock, 9)
    assert (await task_of(core, receipt.task_id)).state is TaskState.QUEUED
    await later(core, clock, 2)
    task = await task_of(core, receipt.task_id)
    assert (task.state, task.error) == (TaskState.FAILED, "no_eligible_node")


async def test_the_wait_begins_anew_each_time_it_is_queued(core: Core, clock: FakeClock) -> None:
    """`queue_ttl` counts from the last time, not the first."""
    core.task_defaults("node", attempts=3, timeout_s=300.0, queue_ttl_s=10.0)
    receipt = await submit(core)
    await later(core, clock, 6)
    one = node(core)
    await rest(core)
    one.link.close()
    await later(core, clock, 9)
    assert (await task_of(core, receipt.task_id)).state is TaskState.QUEUED
    await later(core, clock, 2)
    assert (await task_of(core, receipt.task_id)).error == "no_eligible_node"


async def test_an_adapter_says_how_hard_to_try_before_it_has_anybody(
    core: Core, clock: FakeClock
) -> None:
    """Its defaults hold for tasks that came while no worker was there; the asker's are stronger."""
    core.task_defaults("node", attempts=2, timeout_s=10.0, queue_ttl_s=100.0)
    patient, hasty = await submit(core), await submit(core, timeout_s=1.0, max_attempts=1)
    one = node(core, concurrency=2)
    await one.wait_for(2)
    await later(core, clock, 9)
    assert (await task_of(core, patient.task_id)).state is TaskState.DISPATCHED
    assert (await task_of(core, hasty.task_id)).state is TaskState.TIMEOUT
    assert one.tasks == [patient.task_id, hasty.task_id]


async def test_whoever_takes_it_says_how_long_it_may_take(core: Core, clock: FakeClock) -> None:
    """Where a task may go to anybody's workers and nobody else says; the asker is stronger."""
    one = Node("node.a", accepts=(TASK_REQUEST,), task_types=("*",), concurrency=2, timeout_s=300.0)
    one.link = core.attach(one)
    patient = await submit(core, subject="tasks.echo.request")
    hasty = await submit(core, subject="tasks.echo.request", timeout_s=1.0, max_attempts=1)
    await one.wait_for(2)
    await later(core, clock, 40)
    assert (await task_of(core, patient.task_id)).state is TaskState.DISPATCHED
    assert (await task_of(core, hasty.task_id)).state is TaskState.TIMEOUT


# Again


async def test_a_timeout_is_tried_again_after_a_pause(core: Core, clock: FakeClock) -> None:
    """2 s with a fifth of jitter to both sides, by another worker: the first is busy still."""
    slow, other = node(core, "a"), node(core, "b")
    receipt = await submit(core, timeout_s=10.0, max_attempts=3)
    await later(core, clock, 10)
    assert (await task_of(core, receipt.task_id)).state is TaskState.QUEUED
    await later(core, clock, 1.5)
    assert (slow.tasks, other.tasks) == ([receipt.task_id], [])
    await later(core, clock, 1)
    assert (slow.tasks, other.tasks) == ([receipt.task_id], [receipt.task_id])
    assert await attempts(core, receipt.task_id) == [
        (1, "node.a", "timeout"),
        (2, "node.b", None),
    ]


async def test_the_slot_stays_until_an_answer_or_its_grace(core: Core, clock: FakeClock) -> None:
    """A worker whose task timed out is still busy with it."""
    slow = node(core)
    late = await submit(core, timeout_s=10.0, max_attempts=1)
    await later(core, clock, 11)
    assert (await task_of(core, late.task_id)).state is TaskState.TIMEOUT
    following, last = await submit(core, timeout_s=15.0, max_attempts=1), await submit(core)
    assert slow.tasks == [late.task_id]
    assert (await finish(core, late.task_id, slow)).verdict == "late"
    assert slow.tasks == [late.task_id, following.task_id]
    await later(core, clock, 34)
    assert slow.tasks == [late.task_id, following.task_id]
    await later(core, clock, 2)
    assert slow.tasks == [late.task_id, following.task_id, last.task_id]


async def test_a_late_result_during_the_pause_ends_the_task(core: Core, clock: FakeClock) -> None:
    """It is the result, nobody gets the task again, and the slot is free."""
    slow = node(core)
    receipt = await submit(core, timeout_s=10.0, max_attempts=3)
    await later(core, clock, 10.5)
    waiting = await submit(core)
    assert (await finish(core, receipt.task_id, slow)).verdict == "done"
    assert (await task_of(core, receipt.task_id)).state is TaskState.COMPLETED
    assert slow.tasks == [receipt.task_id, waiting.task_id]


async def test_whoever_has_it_when_another_brings_the_result_stays_busy(
    core: Core, clock: FakeClock
) -> None:
    """The first result wins; the second worker's slot is free when it answers too."""
    slow, second = node(core, "a"), node(core, "b")
    receipt = await submit(core, timeout_s=10.0, max_attempts=3)
    await later(core, clock, 13)
    assert second.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, slow)).verdict == "done"
    to_slow, waiting = await submit(core), await submit(core)
    assert slow.tasks == [receipt.task_id, to_slow.task_id]
    assert second.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, second, "failed")).verdict == "late"
    assert second.tasks == [receipt.task_id, waiting.task_id]
    task = await task_of(core, receipt.task_id)
    assert (task.state, task.endpoint) == (TaskState.COMPLETED, "node.a")
    await core.journal.flush()
    kept = await core.read(lambda s: list(s.exec(select(SpanRow)).all()))
    (late,) = [row for row in kept if row.name == "task.late"]
    assert '"boom"' in late.detail


async def test_a_result_that_comes_before_the_task_was_handed_over_leaves_no_slot_taken(
    core: Core,
) -> None:
    """As after a restart: nodes bring what they kept, while their tasks are on the way to others.

    Who was to get it has never seen it, so no answer will free that slot.
    """
    receipt = await submit(core)
    second = node(core, "b")  # its hand-over is being written from here on
    result = TaskResult(receipt.task_id or "", "completed")
    assert (await core.work.finish(result, by="node.a", anyone=True)).verdict == "done"
    await rest(core)
    assert second.tasks == []
    following = await submit(core)
    assert second.tasks == [following.task_id]


async def test_a_late_result_is_noted_when_it_came(core: Core, clock: FakeClock) -> None:
    """Not when the task ended."""
    slow = node(core, "a")
    receipt = await submit(core, timeout_s=10.0, max_attempts=1)
    await later(core, clock, 10.5)
    assert (await task_of(core, receipt.task_id)).state is TaskState.TIMEOUT
    await later(core, clock, 20)
    came_us = clock.now_us()
    assert (await finish(core, receipt.task_id, slow)).verdict == "late"
    await core.journal.flush()
    kept = await core.read(lambda s: list(s.exec(select(SpanRow)).all()))
    (late,) = [row for row in kept if row.name == "task.late"]
    assert late.at_us == came_us


async def test_a_lost_worker_gives_its_tasks_back_at_once(core: Core) -> None:
    """No pause, one attempt more; the other one gets them."""
    lost = node(core, "a", concurrency=2)
    receipts = [await submit(core) for _ in range(2)]
    other = node(core, "b", concurrency=2)
    lost.link.close()
    await rest(core)
    assert other.tasks == [receipt.task_id for receipt in receipts]
    assert await attempts(core, receipts[0].task_id) == [
        (1, "node.a", "node_lost"),
        (2, "node.b", None),
    ]


async def test_a_lost_worker_was_the_last_attempt(core: Core) -> None:
    """Then the task is failed, with `node_lost`."""
    lost = node(core)
    receipt = await submit(core, max_attempts=1)
    lost.link.close()
    await rest(core)
    task = await task_of(core, receipt.task_id)
    assert (task.state, task.error) == (TaskState.FAILED, "node_lost")


async def test_a_failure_is_final_unless_the_asker_says_else(core: Core) -> None:
    """By default a worker's `failed` is the result."""
    one = node(core)
    receipt = await submit(core, max_attempts=3)
    assert (await finish(core, receipt.task_id, one, "failed")).verdict == "done"
    task = await task_of(core, receipt.task_id)
    assert (task.state, task.error, task.attempt) == (TaskState.FAILED, "boom", 1)


async def test_a_failure_can_be_tried_again(core: Core, clock: FakeClock) -> None:
    """With `retry_on_failure`: after 2 and 4 s, until attempts are used up; errors are kept."""
    one = node(core)
    receipt = await submit(core, max_attempts=3, retry_on_failure=True, timeout_s=100.0)
    assert (await finish(core, receipt.task_id, one, "failed")).verdict == "again"
    await later(core, clock, 2.5)
    assert len(one.tasks) == 2
    assert (await finish(core, receipt.task_id, one, "failed")).verdict == "again"
    await later(core, clock, 3.1)
    assert len(one.tasks) == 2
    await later(core, clock, 1.8)
    assert len(one.tasks) == 3
    assert (await finish(core, receipt.task_id, one, "failed")).verdict == "done"
    assert (await task_of(core, receipt.task_id)).error == "boom"
    await core.journal.flush()
    rows = await core.read(partial(reads.attempts, task_id=receipt.task_id or ""))
    assert [(row.outcome, row.error) for row in rows] == [("failed", "boom")] * 3


async def test_a_failure_of_an_old_attempt_does_not_end_the_last_one(
    core: Core, clock: FakeClock
) -> None:
    """Who failed had its time; whoever tries it now may still do it."""
    slow, second = node(core, "a"), node(core, "b")
    receipt = await submit(core, max_attempts=2, retry_on_failure=True, timeout_s=10.0)
    await later(core, clock, 13)
    assert second.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, slow, "failed")).verdict == "again"
    assert (await finish(core, receipt.task_id, second)).verdict == "done"
    assert (await task_of(core, receipt.task_id)).state is TaskState.COMPLETED


async def test_a_stranger_is_not_believed(core: Core) -> None:
    """A worker that was never given the task ends nothing, before its end or after it."""
    one, stranger = node(core, "a"), node(core, "b")
    receipt = await submit(core)
    assert (await finish(core, receipt.task_id, stranger)).verdict == "stranger"
    assert (await finish(core, receipt.task_id, one)).verdict == "done"
    assert (await finish(core, receipt.task_id, stranger)).verdict == "stranger"
    assert (await finish(core, "nobody-asked", one)).verdict == "unknown"


# Cancel and retry


async def test_a_cancelled_task_keeps_the_slot_until_the_worker_answers(core: Core) -> None:
    """The worker cannot always be stopped; it is busy until it says something."""
    one = node(core)
    receipt = await submit(core)
    assert (await core.work.cancel(receipt.task_id or "")).state is TaskState.CANCELLED
    following = await submit(core)
    assert one.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, one)).verdict == "late"
    assert one.tasks == [receipt.task_id, following.task_id]
    with pytest.raises(ConflictError, match="cancelled already"):
        await core.work.cancel(receipt.task_id or "")


async def test_a_task_cancelled_before_it_was_handed_over_leaves_no_slot_taken(core: Core) -> None:
    """Nobody has seen it: there is nobody whose answer would free the slot."""
    receipt = await submit(core)
    worker = node(core)
    await core.work.cancel(receipt.task_id or "")
    await rest(core)
    following = await submit(core)
    assert worker.tasks == [following.task_id]


async def test_the_answer_of_a_cancelled_run_frees_the_slot_for_the_next_run(core: Core) -> None:
    """It counts for nothing, but the worker is idle again."""
    one = node(core)
    receipt = await submit(core)
    await core.work.cancel(receipt.task_id or "")
    await core.work.rerun(receipt.task_id or "")
    await rest(core)
    assert one.tasks == [receipt.task_id]
    assert (await finish(core, receipt.task_id, one)).verdict == "stranger"
    assert one.tasks == [receipt.task_id] * 2
    assert (await finish(core, receipt.task_id, one)).verdict == "done"


async def test_a_waiting_task_can_be_cancelled(core: Core) -> None:
    """Nobody gets it any more."""
    receipt = await submit(core)
    await core.work.cancel(receipt.task_id or "")
    one = node(core)
    await rest(core)
    assert one.tasks == []


async def test_a_retry_is_one_attempt_more(core: Core) -> None:
    """The same id, queued again; when that attempt is lost too, it is failed again."""
    one = node(core)
    receipt = await submit(core, max_attempts=3)
    with pytest.raises(ConflictError, match="only a task that has ended"):
        await core.work.rerun(receipt.task_id or "")
    await finish(core, receipt.task_id, one, "failed")
    again = await core.work.rerun(receipt.task_id or "")
    await rest(core)
    assert (again.id, again.state, again.run) == (receipt.task_id, TaskState.QUEUED, 2)
    assert one.tasks == [receipt.task_id] * 2
    one.link.close()
    await rest(core)
    task = await task_of(core, receipt.task_id)
    assert (task.state, task.error) == (TaskState.FAILED, "node_lost")
    assert await attempts(core, receipt.task_id) == [
        (1, "node.a", "failed"),
        (1, "node.a", "node_lost"),
    ]


async def test_the_same_idempotency_key_is_the_same_task(core: Core) -> None:
    """Submitted twice, done once."""
    one = node(core, concurrency=2)
    first = await submit(core, idempotency_key="order-7")
    second = await submit(core, idempotency_key="order-7")
    assert (second.task_id, second.duplicate) == (first.task_id, True)
    assert one.tasks == [first.task_id]
