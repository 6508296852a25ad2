"""A hub with OctoHub on a real port, and peers: a node as the README says, and a user."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from hubbub.core import Core
from hubbub.hub import Hub
from hubbub.ports import Clock
from hubbub.testing import serving_hub
from hubbub_octohub.config import SHIPPED_API_KEY, SHIPPED_WS_KEY
from hubbub_octohub.signatures import address_signature, request_signature, signed_text

SETTINGS = """
[adapters.octohub]
enabled = true
"""
API_KEY = SHIPPED_API_KEY.encode()
WS_KEY = SHIPPED_WS_KEY.encode()
WAIT_S = 10.0

_nonces = count(time.time_ns() // 1_000_000)


def signed(path: str, params: dict[str, str], *, now_s: int, nonce: str = "") -> dict[str, str]:
    """Return the headers of a signed request."""
    nonce = nonce or f"{next(_nonces)}999"
    text = signed_text("GET", path, params.items(), str(now_s), nonce)
    return {
        "X-Timestamp": str(now_s),
        "X-Nonce": nonce,
        "X-Signature": request_signature(API_KEY, text),
    }


@dataclass
class Peer:
    """One WebSocket, as a client."""

    socket: ClientConnection

    async def read(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(WAIT_S):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def until(self, **members: Any) -> dict[str, Any]:
        """Return the next frame that has these members."""
        while True:
            frame = await self.read()
            if members.items() <= frame.items():
                return frame

    async def say(self, frame: object) -> None:
        """Send a frame: text as it is, anything else as JSON."""
        await self.socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    async def ask(self, action: str, data: Any = None, **members: Any) -> dict[str, Any]:
        """Send a frame of the `action` dialect; return the reply."""
        await self.say({"action": action, "data": data, "request_id": "r1", **members})
        return await self.until(request_id="r1")

    async def command(self, command: str, **args: Any) -> dict[str, Any]:
        """Order something; return the data of the reply."""
        reply = await self.ask("command", {"command": command, "args": args})
        data: dict[str, Any] = reply["data"]
        return data

    async def task(self) -> dict[str, Any]:
        """Return the next task."""
        return await self.until(type="task")

    async def done(self, task: dict[str, Any], result: Any = None) -> None:
        """Say that a task is completed."""
        frame = {"type": "task_result", "task_id": task["task_id"], "status": "completed"}
        await self.say({**frame, "result": result, "timestamp": int(time.time())})

    async def failed(self, task: dict[str, Any], error: str) -> None:
        """Say that a task has failed."""
        frame = {"type": "task_result", "task_id": task["task_id"], "status": "failed"}
        await self.say({**frame, "error": error})

    async def closed(self) -> int:
        """Return the close code once the other side has closed."""
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()


@dataclass
class Octohub:
    """A hub that serves the adapter, and a client with its admin token."""

    hub: Hub
    http: httpx2.AsyncClient
    admin: dict[str, str]

    @property
    def core(self) -> Core:
        """The hub without its sockets."""
        return self.hub.core

    @property
    def now_s(self) -> int:
        """Unix time by the hub's clock."""
        return self.core.clock.now_us() // 1_000_000

    async def asked(self, pc_id: str = "node_1", prefix: str = "", **how: Any) -> httpx2.Response:
        """Ask for the address of a node."""
        path = f"{prefix}/node/ws"
        headers = signed(how.pop("path", path), {"pc_id": pc_id}, now_s=self.now_s)
        headers |= how
        return await self.http.get(path, params={"pc_id": pc_id}, headers=headers)

    async def url(self, pc_id: str = "node_1", prefix: str = "") -> str:
        """Return the address of a node."""
        answer = await self.asked(pc_id, prefix)
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["data"]["wsUrl"]
        return url

    def signed_url(self, identity: str, kind: str = "user", *, at: int = 0) -> str:
        """Return an address that another server has signed."""
        now_s = at or self.now_s
        name = "pc_id" if kind == "node" else "user_id"
        signature = address_signature(WS_KEY, identity, now_s)
        base = self.hub.main.url.replace("http", "ws", 1)
        return f"{base}/ws/{kind}?{name}={identity}&timestamp={now_s}&signature={signature}"

    @asynccontextmanager
    async def peer(self, url: str) -> AsyncGenerator[Peer]:
        """Connect to an address."""
        async with connect(url, proxy=None) as socket:
            yield Peer(socket)

    @asynccontextmanager
    async def node(self, pc_id: str = "node_1", **ready: Any) -> AsyncGenerator[Peer]:
        """Connect a node that says `node_ready`, with more of itself."""
        async with self.peer(await self.url(pc_id)) as node:
            await node.until(type="connected")
            await node.say({"type": "node_ready", "pc_id": pc_id, "timestamp": 0, **ready})
            await self.until_ready(pc_id)
            yield node

    @asynccontextmanager
    async def user(self, identity: str = "42") -> AsyncGenerator[Peer]:
        """Connect a user."""
        async with self.peer(self.signed_url(identity)) as user:
            await user.until(action="connected")
            yield user

    async def until_ready(self, pc_id: str) -> None:
        """Return once a node gets work."""
        address = f"octohub.node.{pc_id}"
        async with asyncio.timeout(WAIT_S):
            while True:
                link = self.core.room.link_of(address)
                if link is not None and link.slots:
                    return
                await asyncio.sleep(0.005)

    async def submit(self, task_type: str = "echo", **members: Any) -> str:
        """Submit a task; return its id."""
        body = {"task_type": task_type, **members}
        answer = await self.http.post("/api/octohub/tasks", json=body, headers=self.admin)
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    async def get(self, task_id: str) -> dict[str, Any]:
        """Return a task."""
        answer = await self.http.get(f"/api/octohub/tasks/{task_id}", headers=self.admin)
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    async def ended(self, task_id: str, state: str = "completed") -> dict[str, Any]:
        """Return a task once it has a state."""
        async with asyncio.timeout(WAIT_S):
            while True:
                task = await self.get(task_id)
                if task["state"] == state:
                    return task
                await asyncio.sleep(0.01)


@asynccontextmanager
async def octohub(
    folder: Path, toml: str = SETTINGS, *, clock: Clock | None = None
) -> AsyncGenerator[Octohub]:
    """Serve the adapter."""
    async with serving_hub(folder, f'[hub]\ndrain_timeout = "1s"\n{toml}', clock=clock) as hub:
        token = (folder / "admin.token").read_text(encoding="utf-8").strip()
        async with httpx2.AsyncClient(base_url=hub.main.url, trust_env=False, timeout=30) as http:
            yield Octohub(hub, http, {"Authorization": f"Bearer {token}"})
