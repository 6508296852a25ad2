"""Nodes: their connection, their work, what becomes of it when they go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from hubbub.testing import FakeClock, counted
from tests.adapters.octohub.readme_node import ReadmeNode
from tests.adapters.octohub.serving import SETTINGS, octohub


async def test_a_node_does_a_task(tmp_path: Path) -> None:
    """It gets an address, connects, is given a task and its result is the task's."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        task_id = await hub.submit(data={"k": "v"})
        task = await node.task()
        assert task["task_id"] == task_id
        assert (task["task_type"], task["data"]) == ("echo", {"k": "v"})
        assert len(task["trace_id"]) == 32
        await node.done(task, {"echo": task["data"]})
        ended = await hub.ended(task_id)
        assert ended["result"] == {"echo": {"k": "v"}}
        assert ended["node"] == "node_1"
        assert [one["outcome"] for one in ended["attempts"]] == ["completed"]


async def test_a_node_of_the_readme_does_its_work(tmp_path: Path) -> None:
    """Written from the README alone: address, `connected`, `task`, `task_result`."""
    async with octohub(tmp_path) as hub:
        node = ReadmeNode(hub.hub.main.url, "node_abc123def456")
        node.handlers["sleep"] = lambda task: 1 / 0
        working = asyncio.create_task(asyncio.to_thread(node.work, 3))
        echo = await hub.submit("echo", data={"a": 1})
        default = await hub.submit("default")
        boom = await hub.submit("sleep")
        await working
        assert node.heard[0] == "connected"
        assert (await hub.ended(echo))["result"]["echo"] == {"a": 1}
        assert (await hub.ended(default))["result"] == f"任务 {default} 处理完成"
        assert (await hub.ended(boom, "failed"))["error"] == "division by zero"


async def test_a_node_that_never_says_it_is_ready_gets_work_too(tmp_path: Path) -> None:
    """A library of the wrong version silences `node_ready`; after a moment it gets the usual."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub, hub.peer(await hub.url()) as node:
        await node.until(type="connected")
        await hub.submit("echo")
        await clock.advance(0.9)
        assert hub.core.room.link_of("octohub.node.node_1").slots == 0  # type: ignore[union-attr]
        await clock.advance(0.2)
        assert (await node.task())["task_type"] == "echo"


async def test_a_node_gets_only_what_it_does(tmp_path: Path) -> None:
    """A node of the original would run anything else as `default` and say completed."""
    gpu = {"gpu": "yes"}
    async with (
        octohub(tmp_path) as hub,
        hub.node("a") as plain,
        hub.node("b", task_types=["render"], labels=gpu) as renderer,
    ):
        task_id = await hub.submit("render", labels=gpu)
        echo = await hub.submit("echo")
        assert (await renderer.task())["task_id"] == task_id
        assert (await plain.task())["task_id"] == echo


async def test_a_node_that_learns_more_keeps_what_it_has(tmp_path: Path) -> None:
    """`node_ready` may come again, while tasks are in hand."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        await hub.submit("echo")
        first = await node.task()
        render = await hub.submit("render")
        ready = {"type": "node_ready", "task_types": ["echo", "render"], "max_concurrency": 2}
        await node.say(ready)
        assert (await node.task())["task_id"] == render
        await node.done(first)
        assert (await hub.ended(first["task_id"]))["attempt"] == 1


async def test_no_more_tasks_than_it_says(tmp_path: Path) -> None:
    """One unless declared: more would wait inside the node, its time running."""
    async with octohub(tmp_path) as hub, hub.node(max_concurrency=2) as node:
        ids = [await hub.submit() for _ in range(3)]
        one, two = await node.task(), await node.task()
        assert (await hub.get(ids[2]))["state"] == "queued"
        await node.done(two)
        third = await node.task()
        assert [one["task_id"], two["task_id"], third["task_id"]] == ids


async def test_a_node_that_goes_gives_back_what_it_had(tmp_path: Path) -> None:
    """At once, to another one; under the same id, one attempt more."""
    async with octohub(tmp_path) as hub:
        async with hub.node("a") as first:
            task_id = await hub.submit()
            await first.task()
            await first.close()
        async with hub.node("b") as second:
            task = await second.task()
            assert task["task_id"] == task_id
            await second.done(task, 1)
            ended = await hub.ended(task_id)
        assert [(one["pc_id"], one["outcome"]) for one in ended["attempts"]] == [
            ("a", "node_lost"),
            ("b", "completed"),
        ]


async def test_a_task_whose_nodes_all_go_has_failed(tmp_path: Path) -> None:
    """`node_lost`, after as many attempts as were given."""
    async with octohub(tmp_path) as hub:
        task_id = await hub.submit(max_attempts=2)
        for name in ("a", "b"):
            async with hub.node(name) as node:
                await node.task()
        assert (await hub.ended(task_id, "failed"))["error"] == "node_lost"


async def test_a_result_right_before_the_end_counts(tmp_path: Path) -> None:
    """What was said before the connection closed was said."""
    async with octohub(tmp_path) as hub:
        async with hub.node() as node:
            task_id = await hub.submit()
            await node.done(await node.task(), "in time")
        assert (await hub.ended(task_id))["attempt"] == 1


async def test_a_late_result_changes_nothing(tmp_path: Path) -> None:
    """The first final one counts; the others are counted."""
    async with octohub(tmp_path) as hub, hub.node(features=["ack"]) as node:
        task_id = await hub.submit()
        task = await node.task()
        verdicts: list[str] = []
        for result in (1, 2):
            await node.done(task, result)
            verdicts.append((await node.until(type="task_result_ack"))["verdict"])
        await node.done({"task_id": "task_of_nobody"})
        verdicts.append((await node.until(type="task_result_ack"))["verdict"])
        assert verdicts == ["done", "late", "unknown"]
        assert (await hub.get(task_id))["result"] == 1
        assert counted(hub.core, "hubbub_octohub_late_results_total") == 2


async def test_nodes_of_the_original_get_no_acknowledgement(tmp_path: Path) -> None:
    """They would log each one as a frame of an unknown type."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        await hub.submit()
        await node.done(await node.task())
        assert (await node.ask("ping"))["action"] == "pong"
        await hub.submit()
        assert (await node.read())["type"] == "task"


async def test_cancel_is_told_to_nodes_that_understand(tmp_path: Path) -> None:
    """And a result that comes all the same is late."""
    async with octohub(tmp_path) as hub, hub.node(features=["ack", "cancel"]) as node:
        task_id = await hub.submit()
        task = await node.task()
        url = f"/api/octohub/tasks/{task_id}/cancel"
        assert (await hub.http.post(url, headers=hub.admin)).json()["state"] == "cancelled"
        assert (await node.until(type="task_cancel"))["task_id"] == task_id
        assert (await hub.http.post(url, headers=hub.admin)).status_code == 409
        await node.done(task)
        assert (await node.until(type="task_result_ack"))["verdict"] == "late"


async def test_garbage_is_answered_and_the_node_stays(tmp_path: Path) -> None:
    """Broken JSON, arrays, bytes."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        for garbage in ("{", "[1]", b"\xff\xfe", '{"type":"dance"}'):
            await node.say(garbage)
            assert (await node.until(action="error"))["data"]["code"] in (1001, 1002)
        await hub.submit()
        await node.done(await node.task())
        name = "hubbub_frames_refused_total"
        assert counted(hub.core, name, adapter="octohub", reason="octohub_frame") == 4


@pytest.mark.parametrize("key", ["type", "action"])
async def test_both_keys_both_ways(tmp_path: Path, key: str) -> None:
    """A node may ask with either key, and is answered, or refused, with both."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        for asked, told in (("ping", "pong"), ("echo", "echo"), ("status", "status")):
            await node.say({key: asked, "data": {"a": 1}})
            reply = await node.until(action=told)
            assert reply["type"] == told
        for bad in ({key: "dance"}, {"type": "task_result"}, [1]):
            await node.say(bad)
            assert (await node.until(action="error"))["type"] == "error"


async def test_a_message_that_is_too_big_ends_the_connection(tmp_path: Path) -> None:
    """One byte over the limit; up to it all is well."""
    toml = SETTINGS + "max_message_bytes = 1000\n"
    async with octohub(tmp_path, toml) as hub, hub.node() as node:
        await node.say('{"type":"pong"}' + " " * 985)
        assert (await node.ask("ping"))["action"] == "pong"
        await node.say('{"type":"pong"}' + " " * 986)
        assert await node.closed() == 1009


async def test_a_message_counts_in_bytes(tmp_path: Path) -> None:
    """Not in characters."""
    toml = SETTINGS + "max_message_bytes = 1000\n"
    async with octohub(tmp_path, toml) as hub, hub.node() as node:
        text = '{"type":"pong","x":"%s"}' % ("é" * 489)
        assert len(text.encode()) == 1000
        await node.say(text)
        assert (await node.ask("ping"))["action"] == "pong"
        await node.say(text + " ")
        assert await node.closed() == 1009


# One connection an id


async def test_the_newest_connection_wins(tmp_path: Path) -> None:
    """The older one is told why, then closed; its end takes nothing from the newer one."""
    async with octohub(tmp_path) as hub, hub.node() as older, hub.node() as newer:
        notice = await older.until(type="disconnect_notification")
        assert (notice["action"], notice["reason"]) == ("disconnected", "新连接建立")
        assert await older.closed() == 1000
        await hub.submit()
        await newer.done(await newer.task())
        assert counted(hub.core, "hubbub_octohub_replacements_total") == 1
        assert counted(hub.core, "hubbub_octohub_nodes") == 0  # until it is scraped
        await hub.core.metrics.refresh()
        assert counted(hub.core, "hubbub_octohub_nodes") == 1


async def test_what_the_older_connection_had_goes_to_the_newer(tmp_path: Path) -> None:
    """A process that was started anew does its work again."""
    async with octohub(tmp_path) as hub, hub.node() as older:
        task_id = await hub.submit()
        await older.task()
        async with hub.node() as newer:
            task = await newer.task()
            assert task["task_id"] == task_id
            await newer.done(task)
            assert (await hub.ended(task_id))["attempt"] == 2


async def test_two_processes_with_one_id_are_stopped(tmp_path: Path) -> None:
    """The fourth take-over within a minute is one too many; after a minute all is well."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub, AsyncExitStack() as stack:
        urls = [await hub.url() for _ in range(5)]
        for number, url in enumerate(urls):
            assert (await hub.asked()).status_code == 200, number
            peer = await stack.enter_async_context(hub.peer(url))
            await peer.until(type="connected")
        refused = await hub.asked()
        assert refused.status_code == 429
        assert refused.json()["errcode"] == 1005
        assert (await hub.asked("another")).status_code == 200
        await clock.advance(61)
        assert (await hub.asked()).status_code == 200


async def test_stopping_tells_nodes(tmp_path: Path) -> None:
    """They are closed as by a server that will be back."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        await hub.core.extensions.restart_adapter("octohub")
        assert await node.closed() == 1012
        async with hub.node() as again:
            await hub.submit()
            await again.done(await again.task())


# What administrators say


async def test_an_administrator_changes_what_a_node_is(tmp_path: Path) -> None:
    """At once, and for nodes by the beginning of their ids; over a restart."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        task_id = await hub.submit("render", labels={"gpu": "yes"})
        body = {"task_types": ["render"], "labels": {"gpu": "yes"}, "max_concurrency": 3}
        answer = await hub.http.put("/api/octohub/nodes/node_*", json=body, headers=hub.admin)
        assert answer.status_code == 200, answer.text
        assert (await node.task())["task_id"] == task_id
        nodes = (await hub.http.get("/api/octohub/nodes", headers=hub.admin)).json()
        assert nodes["next"] is None
        shown, rule = nodes["items"]
        assert (shown["pc_id"], shown["task_types"], shown["max_concurrency"]) == (
            "node_1", ["render"], 3,
        )  # fmt: skip
        assert (rule["pc_id"], rule["connected"]) == ("node_*", False)
        lost = await hub.http.put("/api/octohub/nodes/node_*", headers=hub.admin)
        assert lost.status_code == 400  # a body that was lost does not take all that back
        assert "the body is empty" in lost.text
        await hub.core.extensions.restart_adapter("octohub")
        nodes = (await hub.http.get("/api/octohub/nodes", headers=hub.admin)).json()
        assert [one["max_concurrency"] for one in nodes["items"]] == [3]
        assert [one["pc_id"] for one in nodes["items"]] == ["node_*"]
        gone = await hub.http.delete("/api/octohub/nodes/node_*", headers=hub.admin)
        assert gone.status_code == 204
        gone = await hub.http.delete("/api/octohub/nodes/node_*", headers=hub.admin)
        assert gone.status_code == 404


async def test_a_node_that_is_disabled_is_shut_out(tmp_path: Path) -> None:
    """Its connection ends, it gets no address, and an address it has lets it in no more."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        url = await hub.url()
        body = {"enabled": False}
        await hub.http.put("/api/octohub/nodes/node_1", json=body, headers=hub.admin)
        assert (await node.until(type="disconnect_notification"))["reason"] == "disabled"
        assert await node.closed() == 1000
        refused = await hub.asked()
        assert (refused.status_code, refused.json()["errcode"]) == (403, 1006)
        with pytest.raises(InvalidStatus) as denied:
            async with hub.peer(url):
                pass
        assert denied.value.response.status_code == 403


async def test_a_node_is_kicked(tmp_path: Path) -> None:
    """It is told, and may come back."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        kicked = await hub.http.post("/api/octohub/nodes/node_1/kick", headers=hub.admin)
        assert kicked.status_code == 200
        assert (await node.until(type="disconnect_notification"))["reason"] == "kicked"
        await node.closed()
        kicked = await hub.http.post("/api/octohub/nodes/nobody/kick", headers=hub.admin)
        assert kicked.status_code == 404
        async with hub.node():
            pass
