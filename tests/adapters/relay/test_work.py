"""Tasks: taken with a lease, moved by routes, sent and done by many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec

from hubbub import Endpoint, Envelope
from hubbub.testing import FakeClock, settle
from hubbub.values import Submission, TaskResult
from tests.adapters.relay.serving import SETTINGS, Relay, RunRelay

TASK = {"from": "master", "to": "child", "type": "task"}


async def polls(relay: Relay, number: int) -> None:
    """Return once so many long polls wait."""
    async with asyncio.timeout(10):
        while relay.core.work.pulling.waiting != number:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0)


async def test_a_leased_task_is_what_was_sent(relay: Relay) -> None:
    """Members as sent, and the lease; the state is `processing`."""
    said = {
        "cmd": "verify_chart", "payload": {"user_id": "u77", "n": [1, 2.5, None]},
        "text": "请验证此命盘", "mine": {"a": 1},
    }  # fmt: skip
    task_id = await relay.task(**said)
    [task] = await relay.lease(worker="w1", lease=60)
    assert {**task, **TASK, **said, "task_id": task_id} == task
    assert list(task)[:7] == ["task_id", "from", "to", "type", "cmd", "payload", "text"]
    assert list(task)[-3:] == ["attempt", "lease_until", "trace_id"]
    assert task["attempt"] == 1
    assert task["lease_until"].endswith("Z")
    assert await relay.state(task_id) == "processing"
    assert await relay.lease() == []


async def test_order_and_filters(relay: Relay) -> None:
    """Highest priority first, then oldest; `cmd` and names filter."""
    low = await relay.task(cmd="a", priority=1)
    first = await relay.task(cmd="a")
    second = await relay.task(cmd="b")
    high = await relay.task(cmd="a", priority=9)
    await relay.task(to="child_bazi", cmd="c")
    assert [t["task_id"] for t in await relay.lease(cmd="b")] == [second]
    assert [t["task_id"] for t in await relay.lease(limit=2)] == [high, first]
    assert [t["task_id"] for t in await relay.lease()] == [low]
    assert [t["cmd"] for t in await relay.lease("child_*")] == ["c"]


async def test_a_long_poll_ends_when_a_task_comes(relay: Relay) -> None:
    """Also for a pattern, and for a name that nobody has used before."""
    for to, sent_to in (("child", "child"), ("new_*", "new_one"), ("other", "other")):
        polling = asyncio.create_task(relay.lease(to, wait=20))
        await polls(relay, 1)
        task_id = await relay.task(to=sent_to)
        async with asyncio.timeout(5):
            assert [task["task_id"] for task in await polling] == [task_id]


async def test_a_long_poll_that_was_left_takes_nothing(relay: Relay) -> None:
    """A client that went away is given no task."""
    async with httpx2.AsyncClient(
        trust_env=False, headers=relay.client.headers, timeout=30
    ) as leaving:
        polling = asyncio.create_task(leaving.get(f"{relay.url}/tasks?to=child&wait=20"))
        await polls(relay, 1)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    await polls(relay, 0)
    task_id = await relay.task()
    assert [task["task_id"] for task in await relay.lease()] == [task_id]


async def test_bad_questions_for_tasks(relay: Relay) -> None:
    """400 with what is wrong."""
    for query, message in (
        ("", "missing to"),
        ("to=a&limit=0", "invalid limit"),
        ("to=a&limit=101", "invalid limit"),
        ("to=a&wait=31", "invalid wait"),
        ("to=a&wait=x", "invalid wait"),
        ("to=a&lease=0", "invalid lease"),
        ("to=a&lease=nan", "invalid lease"),
    ):
        answer = await relay.client.get(f"/tasks?{query}")
        assert (answer.status_code, answer.json()["msg"]) == (400, message)


async def test_renew(relay: Relay) -> None:
    """Extends one's own lease; 409 for another worker's, 404 for no task."""
    task_id = await relay.task()
    path = f"/tasks/{task_id}/renew"
    assert (await relay.client.post(path, json={"worker": "w1"})).status_code == 409
    await relay.lease(worker="w1")
    answer = await relay.client.post(path, json={"worker": "w1", "lease": 600})
    assert answer.status_code == 200
    assert answer.json()["lease_until"] > (await relay.logs())[0]["ts"][:10]
    assert (await relay.client.post(path, json={"worker": "w2"})).status_code == 409
    assert (await relay.client.post("/tasks/t_1/renew", json={})).status_code == 404
    assert (await relay.client.post(path, json={"lease": -1})).status_code == 400


async def test_a_lease_that_ends(run_relay: RunRelay) -> None:
    """Back to `pending`, attempt + 1; after the last one `failed`, with a record of it."""
    clock = FakeClock()
    async with run_relay(SETTINGS + "max_attempts = 3\n", clock=clock) as relay:
        task_id = await relay.task()
        for attempt in (1, 2, 3):
            [task] = await relay.lease(worker="w1")
            assert task["attempt"] == attempt
            assert await relay.state(task_id) == "processing"
            await clock.advance(61)
            await settle()
        assert await relay.state(task_id) == "failed"
        assert await relay.lease() == []
        [record] = await relay.logs(event="callback")
        assert (record["task_id"], record["status"], record["error"]) == (
            task_id, "failed", "timeout",
        )  # fmt: skip
        metrics = relay.core.metrics.render().decode()
        assert "hubbub_relay_leases_expired_total 2.0" in metrics


async def test_not_before(run_relay: RunRelay) -> None:
    """Nobody gets it earlier."""
    clock = FakeClock()
    async with run_relay(clock=clock) as relay:
        due_s = clock.now_us() / 1e6 + 100
        task_id = await relay.task(not_before=due_s)
        assert await relay.lease() == []
        await clock.advance(99)
        assert await relay.lease() == []
        async with asyncio.timeout(10):
            while not (tasks := await relay.lease()):
                await clock.advance(0.5)  # what is due is looked for twice a second
        assert [task["task_id"] for task in tasks] == [task_id]


async def test_a_callback_ends_a_task_that_nobody_took(relay: Relay) -> None:
    """Workers that read the mirror never lease."""
    task_id = await relay.task()
    await relay.callback(task_id, child_id="child_bazi")
    assert await relay.state(task_id) == "completed"
    assert await relay.lease() == []


async def test_600_sends_at_once_give_600_ids(relay: Relay) -> None:
    """No two share one, and each has a state."""
    gate = asyncio.Semaphore(64)

    async def send() -> str:
        async with gate:
            return await relay.task()

    ids = await asyncio.gather(*(send() for _ in range(600)))
    assert len(set(ids)) == 600
    taken: list[str] = []
    while tasks := await relay.lease(limit=100):
        taken += [task["task_id"] for task in tasks]
    assert sorted(taken) == sorted(ids)


async def test_senders_that_retry_lose_nothing_and_double_nothing(relay: Relay) -> None:
    """64 clients send everything twice, half with a task id and half with a key."""

    async def sender(number: int) -> None:
        for place in range(5):
            name = f"s{number}-{place}"
            how = {"task_id": name} if number % 2 else {"idempotency_key": name}
            body = {**TASK, "payload": {"name": name}, **how}
            answers = await asyncio.gather(
                relay.client.post("/send", json=body), relay.client.post("/send", json=body)
            )
            assert [answer.status_code for answer in answers] == [200, 200]
            assert len({answer.json()["task_id"] for answer in answers}) == 1

    await asyncio.gather(*(sender(number) for number in range(64)))
    names: list[str] = []
    while tasks := await relay.lease(limit=100):
        names += [task["payload"]["name"] for task in tasks]
    assert len(names) == 64 * 5
    assert len(set(names)) == 64 * 5
    assert len(await relay.logs(limit=1000)) == 64 * 5


async def test_many_workers_take_each_task_once(relay: Relay) -> None:
    """Two workers in one place did 15 of 40 tasks twice in the original."""
    ids = {await relay.task() for _ in range(40)}
    done: list[str] = []

    async def work(name: str) -> None:
        while tasks := await relay.lease(worker=name, limit=3):
            for task in tasks:
                done.append(task["task_id"])
                await relay.callback(task["task_id"], child_id=name)

    await asyncio.gather(*(work(f"w{number}") for number in range(8)))
    assert sorted(done) == sorted(ids)
    for task_id in ids:
        assert await relay.state(task_id) == "completed"


class Renderer(Endpoint):
    """A worker of another protocol."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(address="plugin.other", accepts=("hubbub.task.request.v1",))
        self._relay = relay
        self.taken: list[Any] = []
        self._done = asyncio.Event()

    async def wait(self) -> None:
        """Return when a task was done."""
        async with asyncio.timeout(5):
            await self._done.wait()

    async def deliver(self, envelope: Envelope) -> None:
        """Do the task."""
        data: Any = envelope.json()
        self.taken.append(data)
        result = TaskResult(task_id=data["task_id"], result=msgspec.Raw(b'{"rendered":true}'))
        self._relay.core.spawn(self._finish(result))

    async def _finish(self, result: TaskResult) -> None:
        await self._relay.core.work.finish(result, by=self.address)
        self._done.set()


ROUTE = """
[[routes]]
name = "rendering is done elsewhere"
match = "relay.child.task.render"
to = ["plugin.other"]
"""


async def test_two_lines_move_a_command_to_another_worker(run_relay: RunRelay) -> None:
    """The result comes back as a callback record and as the task's state; the rest stays."""
    async with run_relay(SETTINGS + ROUTE) as relay:
        other = Renderer(relay)
        relay.core.attach(other)
        moved = await relay.task(cmd="render", payload={"size": 3})
        stays = await relay.task(cmd="verify")
        await other.wait()
        assert await relay.state(moved) == "completed"
        assert [(d["task_type"], d["params"]) for d in other.taken] == [("render", {"size": 3})]
        assert [task["task_id"] for task in await relay.lease()] == [stays]
        [record] = await relay.logs(event="callback")
        assert record["task_id"] == moved
        assert record["child_id"] == "plugin.other"
        assert (record["status"], record["result"]) == ("done", {"rendered": True})


async def test_tasks_and_chat_of_others_come_to_names(relay: Relay) -> None:
    """They are log records like any other, and their tasks are done the same way."""
    await relay.send(type="message")
    task = Envelope.new(
        source="kenko.app.1",
        subject="relay.child.task.draw",
        type="hubbub.task.request.v1",
        data={"task_id": "k1", "task_type": "draw", "params": {"x": 1}, "text": "please"},
    )
    await relay.core.publish(task)
    chat = Envelope.new(
        source="onebot.bot.1",
        subject="relay.master.message",
        type="hubbub.chat.message.v1",
        data={"text": "hello"},
    )
    await relay.core.publish(chat)
    sends = (await relay.logs(event="send"))[1:]
    assert [(r["from"], r["to"], r["type"], r["text"]) for r in sends] == [
        ("kenko.app.1", "child", "task", "please"),
        ("onebot.bot.1", "master", "message", "hello"),
    ]
    [taken] = await relay.lease()
    assert (taken["task_id"], taken["from"], taken["cmd"], taken["payload"]) == (
        "k1", "kenko.app.1", "draw", {"x": 1},
    )  # fmt: skip
    await relay.callback("k1", result={"ok": True})
    assert await relay.state("k1") == "completed"
    assert len(await relay.logs(event="callback")) == 1


async def test_a_name_gets_what_was_sent_or_routed_to_it(run_relay: RunRelay) -> None:
    """Not what waits for anybody's workers, whichever name is asked for; a route decides."""
    route = (
        '\n[[routes]]\nname = "to a name"\nmatch = "tasks.render.request"\nto = ["relay.child"]\n'
    )
    async with run_relay(SETTINGS + route) as relay:
        own = await relay.task(cmd="echo")
        assert [task["task_id"] for task in await relay.lease()] == [own]
        assert await relay.lease("anything") == []
        loose = Submission(task_type="echo", source="api.test", params={"secret": 1})
        waits = await relay.core.submit(loose)
        routed = await relay.core.submit(Submission(task_type="render", source="api.test"))
        pinned = await relay.core.submit(
            Submission(task_type="echo", source="api.test", to=("relay.anything",))
        )
        taken = [
            task["task_id"]
            for name in ("anything", "child", "octohub", "any_*", "*")
            for task in await relay.lease(name, limit=10)
        ]
        assert sorted(taken) == sorted(t for t in (routed.task_id, pinned.task_id) if t)
        assert await relay.state(own) == "processing"
        task = await relay.core.work.find(waits.task_id or "")
        assert task is not None
        assert task.state == "queued"


async def test_a_token_for_some_task_types_has_these_commands(relay: Relay) -> None:
    """It sends, takes and ends no others; one whose patterns name none may do nothing here."""

    async def bearer(*scopes: str) -> dict[str, str]:
        _, text = await relay.core.tokens.create("narrow", scopes, expires_us=None)
        return {"Authorization": f"Bearer {text}", "X-Relay-API-Key": ""}

    echo = await bearer("tasks:echo")
    for cmd, status in (("echo", 200), ("render", 403), (None, 403)):
        body = {**TASK, "cmd": cmd} if cmd else TASK
        answer = await relay.client.post("/send", json=body, headers=echo)
        assert answer.status_code == status, cmd
    await relay.task(cmd="render")
    answer = await relay.client.get("/tasks", params={"to": "child"}, headers=echo)
    assert [task["cmd"] for task in answer.json()["tasks"]] == ["echo"]
    query = {"to": "child", "cmd": "render"}
    assert (await relay.client.get("/tasks", params=query, headers=echo)).status_code == 403
    for scopes in (("tasks:echo.x",), ("tasks:a%2A",), ("publish:>", "direct:>")):
        headers = await bearer(*scopes)
        answer = await relay.client.post("/send", json={**TASK, "cmd": "echo"}, headers=headers)
        assert answer.status_code == 403, scopes
    answer = await relay.client.post(
        "/send", json={**TASK, "cmd": "render"}, headers=await bearer("tasks:*")
    )
    assert answer.status_code == 200
