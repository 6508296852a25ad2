"""Nodes: their address, their connection, their work."""

from __future__ import annotations

from pathlib import Path

from tests.adapters.octohub.serving import octohub


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
