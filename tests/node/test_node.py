"""The node against a real hub: work, failures, lost connections, restarts, a graceful stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubbub_node import Handlers, Node, NodeSettings, current_task
from hubbub_node.handlers import Handler
from hubbub_node.journal import Journal
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub

WAIT_S = 20.0


@dataclass
class Work:
    """Handlers that can be held up, and what they did.

    Attributes:
        begun: How often a task was begun, by id.
        may: Set when `slow` may end.
    """

    begun: Counter[str] = field(default_factory=Counter[str])
    may: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def handlers(self) -> Handlers:
        """One of each kind."""
        found = Handlers()

        @found.task("add")
        def add(data: dict[str, Any]) -> Any:
            self.begun[current_task().id] += 1
            here = threading.current_thread() is threading.main_thread()
            return {"sum": data["a"] + data["b"], "main": here}

        @found.task("slow")
        async def slow(data: dict[str, Any]) -> str:
            self.begun[current_task().id] += 1
            self.started.set()
            try:
                await self.may.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return "slept"

        @found.task("nonsense")
        async def nonsense(data: dict[str, Any]) -> object:
            return object()

        return found


def settings(hub_url: str, folder: Path, **how: Any) -> NodeSettings:
    quick: dict[str, Any] = {
        "backoff_s": 0.02,
        "backoff_max_s": 0.1,
        "grace_s": 10.0,
        "resend_s": 0.2,
    }
    return NodeSettings(url=hub_url, journal=folder / "node.db", **{**quick, **how})


@asynccontextmanager
async def running(
    url: str, folder: Path, handlers: Mapping[str, Handler], **how: Any
) -> AsyncGenerator[Node]:
    """Run a node; it is stopped in order."""
    node = Node(settings(url, folder, **how), handlers)
    run = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        node.stop()
        async with asyncio.timeout(WAIT_S):
            await run


async def until(what: Callable[[], object]) -> None:
    """Return once something holds that no event tells."""
    async with asyncio.timeout(WAIT_S):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def ready(hub: Octohub, node: Node) -> None:
    await hub.until_ready(node.pc_id)


async def test_tasks_are_done(tmp_path: Path) -> None:
    """On a thread or on the loop; the hub acknowledges, and then nothing is kept."""
    work = Work()
    work.may.set()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers, labels={"gpu": "no"}) as node,
    ):
        await ready(hub, node)
        added = await hub.submit("add", data={"a": 2, "b": 3}, labels={"gpu": "no"})
        slept = await hub.submit("slow")
        assert (await hub.ended(added))["result"] == {"sum": 5, "main": False}
        task = await hub.ended(slept)
        assert (task["result"], task["node"]) == ("slept", node.pc_id)
        await until(lambda: not node.unacknowledged)


async def test_failures_are_told(tmp_path: Path) -> None:
    """An exception, and a result that is no JSON, are the task's failure; the node goes on."""
    work = Work()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers) as node,
    ):
        await ready(hub, node)
        wrong = await hub.ended(await hub.submit("add", data={"a": 2}), "failed")
        assert wrong["error"] == "'b'"
        odd = await hub.ended(await hub.submit("nonsense"), "failed")
        assert "the result is no JSON" in odd["error"]
        await hub.ended(await hub.submit("add", data={"a": 2, "b": 3}))


async def test_no_more_at_once_than_it_said(tmp_path: Path) -> None:
    """The hub keeps the rest; they follow when there is a slot."""
    work = Work()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers, concurrency=2) as node,
    ):
        await ready(hub, node)
        tasks = [await hub.submit("slow") for _ in range(3)]
        await until(lambda: len(work.begun) == 2)
        assert (await hub.get(tasks[2]))["state"] == "queued"
        work.may.set()
        for task_id in tasks:
            await hub.ended(task_id)


async def test_a_lost_connection_repeats_no_work(tmp_path: Path) -> None:
    """The hub gives the task again, to the node that does it already: it is done once."""
    work = Work()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers) as node,
    ):
        await ready(hub, node)
        task_id = await hub.submit("slow")
        await work.started.wait()
        first = node._socket
        assert first is not None
        first.transport.abort()
        await until(lambda: node.connected and node._socket is not first)
        link = hub.core.room.link_of(f"octohub.node.{node.pc_id}")
        await until(lambda: link is not None and link.in_flight)
        work.may.set()
        await hub.ended(task_id)
        assert work.begun[task_id] == 1


async def test_a_result_survives_the_hub_and_the_node(tmp_path: Path) -> None:
    """Done while the hub was away, kept on disk, told by the node's next life: one run."""
    work = Work()
    async with octohub(tmp_path / "hub") as hub:
        node = Node(settings(hub.hub.main.url, tmp_path), work.handlers)
        run = asyncio.create_task(node.run())
        await ready(hub, node)
        task_id = await hub.submit("slow")
        await work.started.wait()
    work.may.set()
    await until(lambda: node.unacknowledged == 1)
    node.stop()
    await run
    journal = Journal(tmp_path / "node.db")
    assert [kept for kept, _ in journal.all()] == [task_id]
    journal.close()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers) as node,
    ):
        task = await hub.ended(task_id)
        await until(lambda: not node.unacknowledged)
    assert task["result"] == "slept"
    assert work.begun[task_id] == 1


async def test_a_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    """No new task comes, the running one is told, and the one that waits loses no attempt."""
    work = Work()
    async with octohub(tmp_path / "hub") as hub:
        node = Node(settings(hub.hub.main.url, tmp_path), work.handlers)
        run = asyncio.create_task(node.run())
        await ready(hub, node)
        first, second = await hub.submit("slow"), await hub.submit("slow")
        await work.started.wait()
        node.stop()
        link = hub.core.room.link_of(f"octohub.node.{node.pc_id}")
        await until(lambda: link is None or not link.slots)
        work.may.set()
        await run
        assert (await hub.ended(first))["result"] == "slept"
        waiting = await hub.get(second)
        assert (waiting["state"], waiting["attempts"]) == ("queued", [])


async def test_a_cancelled_task_is_stopped(tmp_path: Path) -> None:
    """An async handler is; and the slot is free for the next."""
    work = Work()
    async with (
        octohub(tmp_path / "hub") as hub,
        running(hub.hub.main.url, tmp_path, work.handlers) as node,
    ):
        await ready(hub, node)
        task_id = await hub.submit("slow")
        await work.started.wait()
        await hub.http.post(f"/api/octohub/tasks/{task_id}/cancel", headers=hub.admin)
        async with asyncio.timeout(WAIT_S):
            await work.cancelled.wait()
        await hub.ended(await hub.submit("add", data={"a": 1, "b": 1}))
        assert (await hub.get(task_id))["state"] == "cancelled"


async def test_it_waits_for_a_hub_that_is_not_there(tmp_path: Path) -> None:
    """And ends when it is told to."""
    async with running("http://127.0.0.1:9", tmp_path, Work().handlers) as node:
        assert not node.connected


async def test_relay_work_moves_to_nodes_by_two_lines(tmp_path: Path) -> None:
    """A route of two lines: tasks wait while no node is there, and the relay gets the result."""
    toml = """
    [adapters.relay]
    enabled = true
    [[routes]]
    name = "relay work to nodes"
    match = "relay.child.task.>"
    to = ["octohub.node.*"]
    deliver = "one"
    """
    key = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
    work = Work()
    async with octohub(tmp_path / "hub", SETTINGS + toml) as hub:
        sent = {"from": "master", "to": "child", "type": "task", "cmd": "add"}
        answer = await hub.http.post(
            "/api/relay/send", json={**sent, "payload": {"a": 1, "b": 2}}, headers=key
        )
        task_id = answer.json()["task_id"]
        assert (await hub.get(task_id))["state"] == "queued"
        async with running(hub.hub.main.url, tmp_path, work.handlers) as node:
            task = await hub.ended(task_id)
        assert (task["result"]["sum"], task["node"], len(task["attempts"])) == (3, node.pc_id, 1)
        status = await hub.http.get(f"/api/relay/task-status/{task_id}")
        assert status.json()["task_status"] == "completed"
        logs = await hub.http.get("/api/relay/logs", params={"task_id": task_id})
        events = [record["event"] for record in logs.json()["logs"]]
        assert events == ["send", "callback"]
        trace = await hub.http.get(f"/api/v1/traces/{task['trace_id']}", headers=hub.admin)
        names = [span["name"] for span in trace.json()["spans"]]
        assert {"task.queued", "task.leased", "task.completed"} <= set(names), names


async def test_the_command_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """`hubbub node run module:handlers` as a process, stopped by SIGTERM with exit code 0."""
    (tmp_path / "chores.py").write_text(
        "handlers = {'double': lambda data: data['n'] * 2}\n", encoding="utf-8"
    )
    async with octohub(tmp_path / "hub") as hub:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hubbub.cli", "node", "run", "chores:handlers",
            "--url", hub.hub.main.url, "--name", "pc7", "--label", "gpu=yes",
            cwd=tmp_path, env={**os.environ}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await hub.until_ready("pc7")
            task_id = await hub.submit("double", data={"n": 21}, labels={"gpu": "yes"})
            assert (await hub.ended(task_id))["result"] == 42
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
