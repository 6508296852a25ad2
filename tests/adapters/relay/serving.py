"""A relay on a real port, and a client that speaks to it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from hubbub.core import Core
from hubbub.listeners import HttpListener
from hubbub.ports import Clock
from hubbub.testing import running_hub
from hubbub.web.app import build_adapter_app

KEY = "lynker_relay_secret_2025"
BOSS = "a-key-of-the-boss"
SETTINGS = f"""
[adapters.relay]
enabled = true
allow_default_key = true
api_keys = [{{ name = "boss", key = "{BOSS}", scopes = ["admin"] }}]
"""


def _object(answer: httpx2.Response) -> dict[str, Any]:
    decoded: dict[str, Any] = answer.json()
    return decoded


def encoded(body: object) -> bytes:
    """Return a body as it is sent: bytes as they are, anything else as JSON."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@dataclass
class Relay:
    """A running relay, a client with the shipped key, and one without any."""

    core: Core
    client: httpx2.AsyncClient
    anybody: httpx2.AsyncClient
    url: str
    folder: Path

    async def send(self, **members: Any) -> dict[str, Any]:
        """Send something from master to child, and return the answer."""
        body = {"from": "master", "to": "child", **members}
        answer = await self.client.post("/send", json=body)
        assert answer.status_code == 200, answer.text
        return _object(answer)

    async def task(self, **members: Any) -> str:
        """Send a task and return its id."""
        return str((await self.send(type="task", **members))["task_id"])

    async def callback(self, task_id: str, **members: Any) -> dict[str, Any]:
        """Call back and return the answer."""
        answer = await self.client.post("/callback", json={"task_id": task_id, **members})
        assert answer.status_code == 200, answer.text
        return _object(answer)

    async def state(self, task_id: str) -> str | None:
        """Return the state of a task; None when it is unknown."""
        answer = await self.client.get(f"/task-status/{task_id}")
        state: str | None = _object(answer).get("task_status")
        return state

    async def lease(self, to: str = "child", **query: Any) -> list[dict[str, Any]]:
        """Take tasks."""
        answer = await self.client.get("/tasks", params={"to": to, **query})
        assert answer.status_code == 200, answer.text
        tasks: list[dict[str, Any]] = _object(answer)["tasks"]
        return tasks

    async def logs(self, **query: Any) -> list[dict[str, Any]]:
        """Return the log."""
        answer = await self.client.get("/logs", params=query)
        assert answer.status_code == 200, answer.text
        logs: list[dict[str, Any]] = _object(answer)["logs"]
        return logs


@asynccontextmanager
async def serving(core: Core, folder: Path) -> AsyncGenerator[Relay]:
    """Serve the relay of a hub on a port of its own."""
    listener = HttpListener("127.0.0.1", 0)
    listener.bind()
    await listener.serve(build_adapter_app(core, "relay", loopback=True), drain_timeout_s=1)
    url = f"{listener.url}/api/relay"
    headers = {"X-Relay-API-Key": KEY}
    try:
        async with (
            httpx2.AsyncClient(
                base_url=url, headers=headers, trust_env=False, timeout=30
            ) as client,
            httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as anybody,
        ):
            yield Relay(core, client, anybody, url, folder)
    finally:
        await listener.stop()


@asynccontextmanager
async def running_relay(
    folder: Path, toml: str = SETTINGS, *, clock: Clock | None = None
) -> AsyncGenerator[Relay]:
    """Run a hub with the relay."""
    async with running_hub(folder, toml, clock=clock) as core, serving(core, folder) as relay:
        yield relay


RunRelay = Callable[..., AbstractAsyncContextManager[Relay]]
