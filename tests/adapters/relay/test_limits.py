"""A key's limits hold wherever it touches a task or reads the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hubbub.values import Submission
from tests.adapters.relay.serving import KEY, Relay, RunRelay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

LIMITED = f"""
[adapters.relay]
enabled = true
callback_allow = ["127.0.0.0/8"]
api_keys = [
  {{ name = "all", key = "{KEY}", scopes = ["send", "callback", "work", "read", "admin"] }},
  {{ name = "child", key = "to-child", to = ["child"] }},
  {{ name = "render", key = "only-render", cmd = ["render*"] }},
  {{ name = "both", key = "both", to = ["child*"], cmd = ["render"] }},
  {{ name = "seven", key = "seven", to = ["7"] }},
  {{ name = "w1", key = "speaks", from = ["w1"], to = ["child"] }},
]
"""


@pytest.fixture
async def relay(run_relay: RunRelay) -> AsyncGenerator[Relay]:
    """A relay with limited keys."""
    async with run_relay(LIMITED) as running:
        yield running


class Limited:
    """A caller with one of the limited keys."""

    def __init__(self, relay: Relay, key: str) -> None:
        self._client = relay.anybody
        self._headers = {"X-Relay-API-Key": key}

    async def post(self, path: str, **body: Any) -> httpx2.Response:
        """Post an object."""
        return await self._client.post(path, json=body, headers=self._headers)

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        """Read something."""
        return await self._client.get(path, params=query, headers=self._headers)


OUTSIDE = [
    ("to-child", {"to": "other", "cmd": "render"}),
    ("only-render", {"to": "child", "cmd": "pay"}),
    ("only-render", {"to": "child"}),
    ("both", {"to": "child_a", "cmd": "rendered"}),
    ("both", {"to": "master", "cmd": "render"}),
]


@pytest.mark.parametrize(("key", "task"), OUTSIDE)
async def test_a_task_outside_the_limits_is_not_touched(
    relay: Relay, key: str, task: dict[str, str]
) -> None:
    """Neither ended, nor renewed, acknowledged, begun, sent again or read."""
    caller = Limited(relay, key)
    task_id = await relay.task(**task)
    [taken] = await relay.lease(task["to"], worker="w9")
    before = len(await relay.logs())
    answers = [
        await caller.post("/callback", task_id=task_id, status="done"),
        await caller.post("/callback", task_id=task_id, status="failed"),
        await caller.post("/callback", task_id=task_id, status="processing"),
        await caller.post("/ack", task_id=task_id),
        await caller.post(f"/tasks/{task_id}/renew", worker="w9", lease=999),
        await caller.get(f"/task-status/{task_id}"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 6
    assert {answer.text for answer in answers} == {'{"status":"error","msg":"forbidden"}'}
    assert await relay.state(task_id) == "processing"
    assert len(await relay.logs()) == before
    listed = (await caller.get("/logs")).json()["logs"]
    assert [record for record in listed if record.get("task_id") == task_id] == []
    assert taken["attempt"] == 1


INSIDE = [
    ("to-child", {"to": "child", "cmd": "pay"}),
    ("only-render", {"to": "other", "cmd": "rendered"}),
    ("both", {"to": "child_a", "cmd": "render"}),
    ("speaks", {"to": "child", "cmd": "pay"}),
]


@pytest.mark.parametrize(("key", "task"), INSIDE)
async def test_a_task_within_the_limits_is_worked_on(
    relay: Relay, key: str, task: dict[str, str]
) -> None:
    """Taken, renewed, ended, acknowledged and read."""
    caller = Limited(relay, key)
    task_id = await relay.task(**task)
    query = {"cmd": task["cmd"]} if key == "only-render" else {}
    [taken] = (await caller.get("/tasks", to=task["to"], **query)).json()["tasks"]
    assert taken["task_id"] == task_id
    for path, body in (
        (f"/tasks/{task_id}/renew", {}),
        ("/callback", {"task_id": task_id, "status": "processing"}),
        ("/callback", {"task_id": task_id, "status": "done"}),
        ("/ack", {"task_id": task_id}),
    ):
        assert (await caller.post(path, **body)).status_code == 200, path
    status = (await caller.get(f"/task-status/{task_id}")).json()
    assert (status["task_status"], status["attempts"]) == ("completed", 1)
    records = (await caller.get("/logs")).json()["logs"]
    assert [one["event"] for one in records] == ["send", "callback", "callback", "ack"]


async def test_a_numeric_name_is_a_name(relay: Relay) -> None:
    """Limits and filters look at it as it is addressed."""
    caller = Limited(relay, "seven")
    mine = await relay.task(to=7)
    other = await relay.task(to=8)
    assert (await caller.post("/callback", task_id=mine)).status_code == 200
    assert (await caller.post("/callback", task_id=other)).status_code == 403
    assert len(await relay.logs(to="7")) == 1


async def test_what_is_said_of_a_foreign_task_makes_it_nobodys(relay: Relay) -> None:
    """A task of the hub's API is not ended by calling back, however often its id is spoken of."""
    work = Submission(task_type="pay", source="api.boss", subject="tasks.pay.request", params={})
    task_id = (await relay.core.submit(work)).task_id
    assert task_id is not None
    for _ in range(2):
        assert await relay.callback(task_id, status="done") == {"status": "ok"}
        assert (await relay.client.post("/ack", json={"task_id": task_id})).status_code == 200
        await relay.send(task_id=task_id, text="a message")
        await relay.callback(task_id, status="processing")
    task = await relay.core.work.find(task_id)
    assert task is not None
    assert task.state == "queued"
    assert await relay.state(task_id) is None
    assert all(r.get("ignored") for r in await relay.logs(task_id=task_id, event="callback"))


@pytest.mark.parametrize("status", ["done", "failed"])
async def test_an_orphan_of_a_limited_key_makes_way(relay: Relay, status: str) -> None:
    """It may say what it likes of an id; a task that is sent by that id later runs."""
    caller = Limited(relay, "to-child")
    answer = await caller.post("/callback", task_id="order-7", status=status)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    ended = "completed" if status == "done" else "failed"
    assert await relay.state("order-7") == ended
    sent = await relay.send(type="task", task_id="order-7", to="bank", cmd="pay")
    assert sent == {"status": "ok", "task_id": "order-7"}
    assert await relay.state("order-7") == "pending"
    assert (await caller.post("/callback", task_id="order-7")).status_code == 403
    [task] = await relay.lease("bank")
    assert task["task_id"] == "order-7"


async def test_an_orphan_within_the_limits_stays(relay: Relay) -> None:
    """The key might have ended that task anyway; that of an unlimited key stays in any case."""
    await Limited(relay, "to-child").post("/callback", task_id="order-7")
    await relay.callback("order-8")
    for task_id, to in (("order-7", "child"), ("order-8", "bank")):
        sent = await relay.send(type="task", task_id=task_id, to=to, cmd="pay")
        assert sent["duplicate"] is True
        assert await relay.state(task_id) == "completed"


@pytest.mark.parametrize("key", [KEY, "to-child"])
async def test_an_orphan_ends_no_task_of_the_api(relay: Relay, key: str) -> None:
    """What is submitted by that id elsewhere is stored and runs: no relay key may end it."""
    caller = Limited(relay, key)
    assert (await caller.post("/callback", task_id="order-7", result="mine")).status_code == 200
    work = Submission(
        task_type="pay",
        source="api.boss",
        subject="tasks.pay.request",
        params={},
        task_id="order-7",
    )
    receipt = await relay.core.submit(work)
    assert (receipt.duplicate, receipt.task_id) == (False, "order-7")
    task = await relay.core.work.find("order-7")
    assert task is not None
    assert (task.state, task.orphan, task.envelope_id) == ("queued", False, receipt.id)
    await caller.post("/callback", task_id="order-7")
    assert (await relay.core.submit(work)).duplicate
    after = await relay.core.work.find("order-7")
    assert after is not None
    assert after.state == "queued"


async def test_an_orphan_ends_no_task_of_the_same_commit(relay: Relay) -> None:
    """Both may wait for one commit; what is asked for counts."""
    work = Submission(
        task_type="pay",
        source="api.boss",
        subject="tasks.pay.request",
        params={},
        task_id="order-7",
    )
    callback = Limited(relay, "to-child").post("/callback", task_id="order-7")
    _, receipt = await asyncio.gather(callback, relay.core.submit(work))
    assert not receipt.duplicate
    task = await relay.core.work.find("order-7")
    assert task is not None
    assert task.state == "queued"


async def test_a_message_by_the_id_of_a_foreign_task_is_refused(relay: Relay) -> None:
    """Its record would stand among those of a task that the key may not touch."""
    caller = Limited(relay, "to-child")
    foreign, own = await relay.task(to="bank", cmd="pay"), await relay.task(to="child", cmd="pay")
    message = {"from": "x", "to": "child", "text": "done"}
    for task_id, status in ((foreign, 403), (own, 200), ("nobodys", 200)):
        assert (await caller.post("/send", **message, task_id=task_id)).status_code == status
    assert len(await relay.logs(task_id=foreign)) == 1


async def test_a_failed_task_of_others_is_not_run_again(relay: Relay) -> None:
    """Nor is its record posted to whom the limited key names."""
    task_id = await relay.task(to="bank", cmd="pay")
    await relay.callback(task_id, status="failed")
    again = await Limited(relay, "to-child").post(
        "/send", **{"from": "x"}, to="child", type="task", task_id=task_id,
        callback_url="http://127.0.0.1:1/mine",
    )  # fmt: skip
    assert again.status_code == 403
    assert await relay.state(task_id) == "failed"
    assert (await relay.send(type="task", task_id=task_id))["duplicate"] is True
    assert await relay.state(task_id) == "pending"


async def test_a_saga_is_no_way_around(relay: Relay) -> None:
    """Neither a command that makes up for a task, nor a parent of others, is outside the limits."""
    caller = Limited(relay, "both")
    child = {"from": "x", "to": "child", "type": "task", "cmd": "render"}
    outside = await caller.post("/send", **child, compensate_cmd="pay")
    assert outside.status_code == 403
    assert (await caller.post("/send", **child, compensate_cmd="render")).status_code == 200
    theirs = await relay.task(to="bank", cmd="pay", compensate_cmd="refund")
    for parent in (theirs, "t_not_there"):
        answer = await caller.post("/send", **child, parent_task_id=parent)
        assert answer.status_code == 403
    mine = await relay.task(to="child_a", cmd="render")
    assert (await caller.post("/send", **child, parent_task_id=mine)).status_code == 200


async def test_a_worker_does_not_speak_as_another(relay: Relay) -> None:
    """`worker` is who speaks, too."""
    task_id = await relay.task()
    await relay.lease(worker="w2")
    caller = Limited(relay, "speaks")
    assert (await caller.post(f"/tasks/{task_id}/renew", worker="w2")).status_code == 403
    assert (await caller.get("/tasks", to="child", worker="w2")).status_code == 403
    assert (await caller.get("/tasks", to="child", worker="w1")).status_code == 200
    assert (await caller.post("/ack", task_id=task_id, ack_by=2)).status_code == 403


async def test_the_log_as_a_limited_key_reads_it(relay: Relay) -> None:
    """What is to its names, what it said itself, and what was said to it; pages are full."""
    await relay.send(text="to child")
    await relay.send(to="other", text="not for it")
    await relay.send(to="w1", text="a reply")
    task_id = await relay.task(to="other", cmd="render")
    await relay.callback(task_id)
    for _ in range(5):
        await relay.send(to="other", text="more")
    caller = Limited(relay, "speaks")

    async def texts(**query: Any) -> list[str]:
        answer = await caller.get("/logs", **query)
        assert answer.status_code == 200, answer.text
        return [record.get("text", record["event"]) for record in answer.json()["logs"]]

    assert await texts() == ["to child", "a reply"]
    assert await texts(limit=1) == ["a reply"]
    assert await texts(to="w1") == ["a reply"]
    assert await texts(task_id=task_id) == []
    assert (await caller.get("/logs", to="other")).status_code == 403
    render = (await Limited(relay, "only-render").get("/logs", task_id=task_id)).json()["logs"]
    assert [record["event"] for record in render] == ["send", "callback"]


async def test_capital_letters_count_in_limits(relay: Relay) -> None:
    """Of a beginning with `*` too, whatever the database thinks of LIKE."""
    await relay.task(to="CHILD_x", cmd="render")
    await relay.task(to="child%x", cmd="render")
    logs = (await Limited(relay, "both").get("/logs")).json()["logs"]
    assert [record["to"] for record in logs] == ["child%x"]
