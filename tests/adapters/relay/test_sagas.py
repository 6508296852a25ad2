"""Tasks that make up for others that failed."""

from __future__ import annotations

import asyncio

from hubbub_relay import sagas
from tests.adapters.relay.serving import SETTINGS, Relay, RunRelay


async def makes_up(relay: Relay, number: int) -> list[dict[str, object]]:
    """Return the tasks that make up for something, once there are so many."""
    found: list[dict[str, object]] = []
    async with asyncio.timeout(10):
        while len(found) < number:
            found += await relay.lease(wait=5, cmd="undo", limit=10)
    return found


async def test_what_makes_up_for_a_failed_task_is_queued(relay: Relay) -> None:
    """With its payload, for the same worker, below the task it is for; once."""
    parent = await relay.task(cmd="book")
    failed = await relay.task(
        cmd="pay", payload={"n": 1}, parent_task_id=parent, compensate_cmd="undo"
    )
    await relay.callback(failed, status="failed", result="no money")
    [undo] = await makes_up(relay, 1)
    assert (undo["from"], undo["to"], undo["cmd"]) == ("master", "child", "undo")
    assert (undo["payload"], undo["parent_task_id"]) == ({"n": 1}, failed)
    assert await relay.state(str(undo["task_id"])) == "processing"
    assert (await relay.callback(failed, status="failed"))["duplicate"] is True
    [logged] = await relay.logs(task_id=undo["task_id"])
    assert logged["event"] == "send"
    assert await relay.lease(cmd="undo") == []


async def test_parents_are_made_up_for_nearest_first(relay: Relay) -> None:
    """A part that fails takes back all it stands on; a part that does not, takes back nothing."""
    one = await relay.task(cmd="a", payload=1, compensate_cmd="undo")
    two = await relay.task(cmd="a", payload=2, parent_task_id=one, compensate_cmd="undo")
    three = await relay.task(cmd="a", payload=3, parent_task_id=two)
    four = await relay.task(cmd="a", payload=4, parent_task_id=two)
    for done in (one, two, four):
        await relay.callback(done)
    await relay.callback(three, status="broken")
    assert [task["payload"] for task in await makes_up(relay, 2)] == [2, 1]


async def test_a_circle_of_parents_ends(relay: Relay) -> None:
    """Each is made up for once."""
    first = {"task_id": "one", "parent_task_id": "two", "compensate_cmd": "undo"}
    await relay.task(payload=1, **first)
    await relay.task(payload=2, task_id="two", parent_task_id="one", compensate_cmd="undo")
    await relay.callback("two", status="failed")
    assert [task["payload"] for task in await makes_up(relay, 2)] == [2, 1]


async def test_a_saga_survives_a_restart(run_relay: RunRelay) -> None:
    """The hub ends between the result and what makes up for it: the next one queues it."""
    async with run_relay(SETTINGS) as relay:
        failed = await relay.task(payload=1, compensate_cmd="undo")
        done = await relay.task(payload=2, compensate_cmd="undo")
        # Results that this relay does not notice, as if it were killed right after the commit.
        relay.core.adapters.get("relay").adapter._tasks[0].cancel()  # type: ignore[attr-defined]
        await relay.callback(failed, status="failed")
        await relay.callback(done)
    async with run_relay(SETTINGS) as relay:
        assert [task["payload"] for task in await makes_up(relay, 1)] == [1]
        async with asyncio.timeout(10):
            while await relay.core.read(sagas.open_sagas):  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0)
        assert await relay.lease(cmd="undo") == []


async def test_bad_members_are_refused(relay: Relay) -> None:
    """400 with the member's name, and nothing is kept."""
    cases: tuple[tuple[dict[str, object], str], ...] = (
        ({"parent_task_id": ["a"]}, "invalid parent_task_id"),
        ({"parent_task_id": "a b"}, "invalid parent_task_id"),
        ({"compensate_cmd": 1}, "invalid compensate_cmd"),
        ({"compensate_cmd": "x" * 129}, "invalid compensate_cmd"),
    )
    for members, message in cases:
        body: dict[str, object] = {"from": "master", "to": "child", "type": "task", **members}
        answer = await relay.client.post("/send", json=body)
        assert (answer.status_code, answer.json()["msg"]) == (400, message)
    assert await relay.logs() == []
