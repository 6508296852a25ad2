"""Tasks over REST: submitted, pinned, given once, posted back; who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hubbub.testing import FakeClock, RecordingEndpoint
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub

TASKS = "/api/octohub/tasks"
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def post(hub: Octohub, **body: Any) -> httpx2.Response:
    """Submit a task."""
    return await hub.http.post(TASKS, json={"task_type": "echo", **body}, headers=hub.admin)


async def test_a_task_is_on_the_trace_it_was_given(tmp_path: Path) -> None:
    """From the request to the frame of the node."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        headers = {**hub.admin, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        answer = await hub.http.post(TASKS, json={"task_type": "echo"}, headers=headers)
        assert answer.status_code == 202
        assert answer.json()["trace_id"] == TRACE
        assert answer.json()["state"] == "queued"
        assert answer.json()["task_id"].startswith("task_")
        assert (await node.task())["trace_id"] == TRACE


async def test_the_same_key_is_the_same_task(tmp_path: Path) -> None:
    """200 with the earlier one, as it is now; another body is refused."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        first = await post(hub, data={"n": 1}, idempotency_key="order-7")
        await node.done(await node.task())
        await hub.ended(first.json()["task_id"])
        second = await post(hub, data={"n": 1}, idempotency_key="order-7")
        assert (first.status_code, second.status_code) == (202, 200)
        assert second.json() == {**first.json(), "state": "completed"}
        assert (await post(hub, data={"n": 2}, idempotency_key="order-7")).status_code == 422


async def test_a_task_may_be_pinned_to_a_node(tmp_path: Path) -> None:
    """Whatever its labels; one that is not there is 404, one that does not do it 409."""
    async with octohub(tmp_path) as hub, hub.node("a") as one, hub.node("b"):
        answer = await post(hub, node="a", labels={"gpu": "yes"})
        assert (await one.task())["task_id"] == answer.json()["task_id"]
        assert (await post(hub, node="nobody")).status_code == 404
        assert (await post(hub, node="a", task_type="render")).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b'{"task_type":""}', b'{"task_type":7}',
        b'{"task_type":"echo","colour":1}', b'{"task_type":"echo","priority":10}',
        b'{"task_type":"echo","priority":-1}', b'{"task_type":"echo","timeout":"soon"}',
        b'{"task_type":"echo","timeout":0}', b'{"task_type":"echo","max_attempts":0}',
        b'{"task_type":"echo","not_before":"never"}', b'{"task_type":"echo","labels":{"a":1}}',
        b'{"task_type":"echo","callback_url":"ftp://x"}', b'{"task_type":"a\\u0000"}',
    ],
)  # fmt: skip
async def test_a_body_that_is_no_task_is_refused(tmp_path: Path, body: bytes) -> None:
    """400, as a problem."""
    async with octohub(tmp_path) as hub:
        answer = await hub.http.post(TASKS, content=body, headers=hub.admin)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await hub.http.get(TASKS, headers=hub.admin)).json()["items"] == []


async def test_a_task_has_a_largest_size(tmp_path: Path) -> None:
    """To the byte."""
    toml = SETTINGS + "max_message_bytes = 1000\n"
    async with octohub(tmp_path, toml) as hub:
        body = b'{"task_type":"echo","data":{"x":"%b"}}'
        room = 1000 - len(body) + 2
        for more, status in ((0, 202), (1, 413)):
            content = body % (b"x" * (room + more))
            answer = await hub.http.post(TASKS, content=content, headers=hub.admin)
            assert answer.status_code == status


async def test_tasks_are_listed(tmp_path: Path) -> None:
    """The newest first, by state, type and node, in pages."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        done = await hub.submit("echo")
        await node.done(await node.task())
        await hub.ended(done)
        waiting = [await hub.submit("render") for _ in range(3)]

        async def listed(**query: Any) -> dict[str, Any]:
            answer = await hub.http.get(TASKS, params=query, headers=hub.admin)
            assert answer.status_code == 200, answer.text
            page: dict[str, Any] = answer.json()
            return page

        async def ids(**query: Any) -> list[str]:
            return [one["task_id"] for one in (await listed(**query))["items"]]

        assert await ids() == [*reversed(waiting), done]
        assert await ids(state="completed") == [done]
        assert await ids(task_type="render") == waiting[::-1]
        assert await ids(node="node_1") == [done]
        page = await listed(limit=3)
        assert [one["task_id"] for one in page["items"]] == waiting[::-1]
        rest = await listed(limit=3, cursor=page["next"])
        assert ([one["task_id"] for one in rest["items"]], rest["next"]) == ([done], None)
        for query in ({"limit": 0}, {"limit": 1001}, {"state": "lost"}, {"cursor": "!"}):
            assert (await hub.http.get(TASKS, params=query, headers=hub.admin)).status_code == 400


async def test_a_task_waits_for_a_node_so_long_and_no_longer(tmp_path: Path) -> None:
    """Then it has failed with `no_eligible_node`."""
    clock = FakeClock()
    toml = SETTINGS + 'queue_ttl = "60s"\n'
    async with octohub(tmp_path, toml, clock=clock) as hub:
        task_id = await hub.submit("render")
        await clock.advance(59)
        assert (await hub.get(task_id))["state"] == "queued"
        async with asyncio.timeout(20):
            while (task := await hub.get(task_id))["state"] == "queued":
                await clock.advance(5)  # the hub looks from time to time
        assert (task["state"], task["error"]) == ("failed", "no_eligible_node")


async def test_a_task_that_takes_too_long_is_tried_again(tmp_path: Path) -> None:
    """By another node: the slot of the slow one is its own until it answers."""
    clock = FakeClock()
    toml = SETTINGS + 'task_timeout = "30s"\nmax_attempts = 2\n'
    async with octohub(tmp_path, toml, clock=clock) as hub, hub.node("a") as slow:
        task_id = await hub.submit()
        await slow.task()
        await clock.advance(31)
        async with hub.node("b") as quick:
            await clock.advance(3)
            task = await quick.task()
            assert task["task_id"] == task_id
            await slow.done(task, "the first result counts")
            assert (await hub.ended(task_id))["result"] == "the first result counts"


async def test_who_may_do_what(tmp_path: Path) -> None:
    """Without a token nothing, with `tasks` no administration."""
    async with octohub(tmp_path) as hub:
        body = {"name": "worker", "scopes": ["tasks"]}
        made = await hub.http.post("/api/v1/tokens", json=body, headers=hub.admin)
        narrow = {"Authorization": f"Bearer {made.json()['token']}"}
        for method, path, status in (
            ("POST", TASKS, 400), ("GET", TASKS, 200), ("GET", "/api/octohub/nodes", 200),
            ("PUT", "/api/octohub/nodes/n", 403), ("POST", "/api/octohub/nodes/n/kick", 403),
            ("GET", "/api/octohub/users", 403), ("POST", "/api/octohub/users", 403),
            ("DELETE", "/api/octohub/users/1", 403), ("DELETE", "/api/octohub/nodes/n", 403),
        ):  # fmt: skip
            assert (await hub.http.request(method, path)).status_code == 401, path
            given = await hub.http.request(method, path, headers=narrow)
            assert given.status_code == status, path
        answer = await hub.http.post(TASKS, json={"task_type": "echo"}, headers=narrow)
        assert answer.status_code == 202


async def test_a_token_for_some_task_types_has_to_do_with_these_only(tmp_path: Path) -> None:
    """To submit, look at, cancel and repeat; to name a node it needs its address, too."""
    async with octohub(tmp_path) as hub, hub.node():

        async def bearer(*scopes: str) -> dict[str, str]:
            body = {"name": "narrow", "scopes": scopes}
            made = await hub.http.post("/api/v1/tokens", json=body, headers=hub.admin)
            return {"Authorization": f"Bearer {made.json()['token']}"}

        async def status(method: str, path: str, headers: dict[str, str], **body: Any) -> int:
            json = body or None
            answer = await hub.http.request(method, path, headers=headers, json=json)
            return answer.status_code

        sleep = await bearer("tasks:sleep")
        named = await bearer("tasks:sleep", "direct:octohub.node.*")
        [node] = (await hub.http.get("/api/octohub/nodes", headers=hub.admin)).json()["items"]
        pc_id = node["pc_id"]
        assert await status("POST", TASKS, sleep, task_type="sleep") == 202
        assert await status("POST", TASKS, sleep, task_type="echo") == 403
        assert await status("POST", TASKS, sleep, task_type="sleep", node=pc_id) == 403
        assert await status("POST", TASKS, named, task_type="sleep", node=pc_id) == 202
        given = await hub.http.post(TASKS, json={"task_type": "echo"}, headers=hub.admin)
        other = f"{TASKS}/{given.json()['task_id']}"
        for method, path in (
            ("GET", other), ("POST", other + "/cancel"), ("POST", other + "/retry"),
            ("GET", TASKS + "?task_type=echo"),
        ):  # fmt: skip
            assert await status(method, path, sleep) == 403, path
        shown = (await hub.http.get(TASKS, headers=sleep)).json()["items"]
        assert {task["task_type"] for task in shown} == {"sleep"}
        assert await status("GET", TASKS, await bearer("publish:>", "direct:>")) == 403


@asynccontextmanager
async def receiver() -> AsyncGenerator[tuple[str, asyncio.Queue[bytes]]]:
    """Take posts on this machine; the first one is told to come again."""
    got: asyncio.Queue[bytes] = asyncio.Queue()
    statuses = iter(("500 No", "200 OK"))

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        got.put_nowait(await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {next(statuses)}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/done", got


async def test_a_result_is_posted_back(tmp_path: Path) -> None:
    """To its `callback_url`, again when that fails; private networks only where allowed."""
    toml = SETTINGS + 'callback_allow = ["127.0.0.0/8"]\n'
    async with receiver() as (url, got):
        async with octohub(tmp_path, toml) as hub, hub.node() as node, asyncio.timeout(10):
            task_id = await hub.submit(callback_url=url)
            await node.done(await node.task(), {"n": 1})
            posts = [await got.get(), await got.get()]
        assert posts[0] == posts[1]
        assert f'"task_id":"{task_id}"'.encode() in posts[0]
    async with octohub(tmp_path / "other") as hub:
        assert (await post(hub, callback_url=url)).status_code == 403


# The bridge


async def test_a_relay_task_is_done_by_a_node(tmp_path: Path) -> None:
    """Two lines in hub.toml; the result is in the relay's log, on the trace of the task."""
    toml = (
        SETTINGS
        + """
[adapters.relay]
enabled = true

[[routes]]
name = "rendering is done by nodes"
match = "relay.child.task.render"
to = ["octohub.node.*"]
"""
    )
    async with octohub(tmp_path, toml) as hub, hub.node(task_types=["render"]) as node:
        relay = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
        body = {"from": "master", "to": "child", "type": "task", "cmd": "render",
                "payload": {"size": 3}}  # fmt: skip
        sent = await hub.http.post("/api/relay/send", json=body, headers=relay)
        task_id = sent.json()["task_id"]
        task = await node.task()
        assert (task["task_id"], task["task_type"]) == (task_id, "render")
        assert task["data"] == {"size": 3}
        await node.done(task, {"image": "done"})
        await hub.ended(task_id)
        url = f"/api/relay/task-status/{task_id}"
        status = (await hub.http.get(url, headers=relay)).json()
        assert (status["task_status"], status["result"]) == ("completed", {"image": "done"})
        assert status["trace_id"] == task["trace_id"]
        logs = (await hub.http.get(f"/api/relay/logs?task_id={task_id}")).json()["logs"]
        assert [one["event"] for one in logs] == ["send", "callback"]
        assert logs[1]["result"] == {"image": "done"}


async def test_a_task_of_the_api_is_done_by_a_node(tmp_path: Path) -> None:
    """Nobody said where: a node does the type, and the result comes back."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        body = {"task_type": "echo", "params": {"a": 1}}
        made = (await hub.http.post("/api/v1/tasks", json=body, headers=hub.admin)).json()
        task = await node.task()
        assert (task["task_id"], task["data"]) == (made["task_id"], {"a": 1})
        assert task["trace_id"] == made["trace_id"]
        await node.done(task, "done")
        assert (await hub.ended(made["task_id"]))["result"] == "done"


async def test_a_command_in_a_chat_is_done_by_a_node(tmp_path: Path) -> None:
    """A route leads it to `octohub.command`; the answer is said where it was given."""
    toml = (
        SETTINGS
        + """
[[routes]]
name = "commands are done by nodes"
match = "chat.>"
where = { "data.text" = { prefix = "/" } }
to = ["octohub.command"]
"""
    )
    async with octohub(tmp_path, toml) as hub, hub.node() as node:
        room = RecordingEndpoint("plugin.room")
        hub.core.attach(room)
        said = {
            "subject": "chat.room.1", "type": "hubbub.chat.message.v1", "reply_to": "plugin.room",
            "data": {
                "text": "/echo hello there", "sender": {"id": "u1"}, "platform": "test",
                "conversation": {"id": "room 1", "kind": "group"},
            },
        }  # fmt: skip
        answer = await hub.http.post("/api/v1/envelopes", json=said, headers=hub.admin)
        task = await node.task()
        assert task["data"] == {"text": "hello there", "args": ["hello", "there"]}
        assert task["trace_id"] == answer.json()["trace_id"]
        await node.done(task, {"text": "hello yourself"})
        (reply,) = await room.wait_for(1)
        data: Any = reply.json()
        assert data["text"] == "hello yourself"
        assert data["conversation"] == {"id": "room 1", "kind": "group"}
        assert reply.trace_id == answer.json()["trace_id"]
