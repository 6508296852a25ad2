"""What a hub has shown of a task before SIGKILL is so after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chaos.process import HubProcess
from tests.chaos.test_kill import CONFIG, KEY
from tests.hub.store.locks import no_commits

LOOKS = 50
"""Reads after the result was sent: the hub has long had it by the last of them."""


async def status(client: httpx2.AsyncClient, task_id: str) -> tuple[Any, ...]:
    """Return what the relay says of a task."""
    answer = await client.get(f"/api/relay/task-status/{task_id}", headers=KEY)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    return shown["task_status"], shown["attempts"], shown.get("result")


async def callback(client: httpx2.AsyncClient, task_id: str) -> httpx2.Response:
    """Bring the result of a task."""
    body = {"task_id": task_id, "child_id": "child", "status": "completed", "result": {"n": 1}}
    return await client.post("/api/relay/callback", json=body, headers=KEY)


@pytest.mark.crash
@pytest.mark.timeout(300)
async def test_a_kill_takes_back_nothing_that_was_shown(
    tmp_path: Path, store_url: Callable[[Path], str]
) -> None:
    """A result whose commit is held back is not shown; after the kill it can be brought again."""
    config = tmp_path / "hub.toml"
    config.write_text(CONFIG.replace("lease_seconds = 2", "lease_seconds = 600"), encoding="utf-8")
    data_dir = tmp_path / "var"
    url = store_url(data_dir)
    hub = HubProcess(data_dir, config=config, settings=[f'store.url="{url}"'])
    await hub.start()
    async with httpx2.AsyncClient(base_url=hub.url, timeout=60) as client:
        task = {"from": "master", "to": "child", "type": "task", "cmd": "echo"}
        sent = await client.post("/api/relay/send", json=task, headers=KEY)
        task_id = sent.json()["task_id"]
        query = {"to": "child", "worker": "w"}
        await client.get("/api/relay/tasks", params=query, headers=KEY)
        before = await status(client, task_id)
        assert before == ("processing", 1, None)
        async with no_commits(url):
            bringing = asyncio.create_task(callback(client, task_id))
            shown = [await status(client, task_id) for _ in range(LOOKS)]
            brought = bringing.done() and bringing.result().status_code == 200
            await hub.kill()
        await asyncio.gather(bringing, return_exceptions=True)
    assert not brought
    assert set(shown) == {before}

    await hub.start()
    async with httpx2.AsyncClient(base_url=hub.url, timeout=60) as client:
        assert await status(client, task_id) == before
        again = await callback(client, task_id)
        assert again.status_code == 200, again.text
        assert "duplicate" not in again.json()
        assert await status(client, task_id) == ("completed", 1, {"n": 1})
    assert await hub.stop() == 0
