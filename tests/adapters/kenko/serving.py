"""A hub with KenkoGo on a real port, and clients written from the seed's text alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

import httpx2
import socketio
from websockets.asyncio.client import ClientConnection, connect

from hubbub.core import Core
from hubbub.hub import Hub
from hubbub.ports import Clock
from hubbub.testing import serving_hub
from hubbub_kenko.adapter import KenkoAdapter
from hubbub_kenko.desk import Desk

WAIT_S: Final = 10.0

CHAT: Final = "hubbub.chat.message.v1"

REGISTER: Final = {
    "type": "register",
    "data": {"name": "weather-bot", "version": "1.4.0", "description": "", "author": "ops"},
}


def registration(**data: Any) -> dict[str, Any]:
    """Return a registration with more, or other, data."""
    return {"type": "register", "data": {**REGISTER["data"], **data}}  # type: ignore[dict-item]


def chat(text: str, *, group: str = "4711", user: str = "815") -> dict[str, Any]:
    """Return the data of a chat message from a group."""
    return {
        "text": text,
        "sender": {"id": user},
        "conversation": {"id": group, "kind": "group"},
        "platform": "qq",
    }


class App:
    """A client of family W."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.id = ""

    async def send(self, *frames: object) -> None:
        for frame in frames:
            raw = frame if isinstance(frame, str | bytes) else json.dumps(frame)
            await self.socket.send(raw)

    async def frame(self) -> Any:
        """Return the next frame."""
        async with asyncio.timeout(WAIT_S):
            raw = await self.socket.recv()
        return json.loads(raw)

    async def next(self, kind: str) -> Any:
        """Return the data of the next frame, which has to be of this type."""
        frame = await self.frame()
        assert frame["type"] == kind, frame
        return frame.get("data")

    async def register(self, **data: Any) -> Self:
        """Register and be started."""
        await self.send(registration(**data))
        said = await self.next("register")
        assert said["success"], said
        self.id = said["id"]
        await self.next("start")
        return self

    @property
    def address(self) -> str:
        return f"kenko.app.{self.id}"

    async def say(self, content: str, **data: Any) -> None:
        await self.send({"type": "message", "data": {"content": content, **data}})

    async def silence(self) -> None:
        """Check that nothing was written before the answer to a ping."""
        await self.send({"type": "ping"})
        assert await self.frame() == {"type": "pong"}

    async def closed(self) -> int:
        """Return the close code once the hub has closed, whatever was written before."""
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


def new_event_client() -> Any:
    """Return a client of python-socketio, which is published without types."""
    return cast("Any", socketio.AsyncClient)(reconnection=False)


class EventApp:
    """A client of family S."""

    def __init__(self) -> None:
        self.client: Any = new_event_client()
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.client.on("*", self._event, namespace="/client")
        self.client.on("disconnect", self._gone, namespace="/client")

    async def _event(self, event: str, *arguments: Any) -> None:
        self.events.put_nowait((event, arguments[0] if arguments else None))

    async def _gone(self, *_: Any) -> None:
        self.gone.set()

    async def emit(self, event: str, *arguments: Any) -> None:
        data = arguments if len(arguments) != 1 else arguments[0]
        await self.client.emit(event, data or None, namespace="/client")

    async def next(self, event: str) -> Any:
        async with asyncio.timeout(WAIT_S):
            name, data = await self.events.get()
        assert name == event, (name, data)
        return data


class Kenko:
    """A running hub with the adapter."""

    def __init__(self, hub: Hub, http: httpx2.AsyncClient) -> None:
        self.hub = hub
        self.http = http

    @property
    def core(self) -> Core:
        return self.hub.core

    @property
    def adapter(self) -> KenkoAdapter:
        adapter = self.core.adapters.get("kenko").adapter
        assert isinstance(adapter, KenkoAdapter)
        return adapter

    @property
    def desk(self) -> Desk:
        desk = self.adapter._desk
        assert desk is not None
        return desk

    @property
    def url(self) -> str:
        return self.hub.main.url

    @asynccontextmanager
    async def client(self, path: str = "/", **how: Any) -> AsyncGenerator[App]:
        """Connect a client of family W."""
        url = self.url.replace("http", "ws") + path
        how = {"ping_interval": None, "max_size": None, "proxy": None, **how}
        async with connect(url, **how) as socket:
            yield App(socket)

    @asynccontextmanager
    async def app(self, **data: Any) -> AsyncGenerator[App]:
        """Connect a client of family W and register it."""
        async with self.client() as client:
            yield await client.register(**data)

    @asynccontextmanager
    async def event_client(self, **how: Any) -> AsyncGenerator[EventApp]:
        """Connect a client of family S."""
        app = EventApp()
        await app.client.connect(self.url, namespaces=["/client"], **how)
        try:
            yield app
        finally:
            await app.client.disconnect()

    async def publish(self, subject: str, data: Any, **more: Any) -> dict[str, Any]:
        """Publish over the hub's API."""
        body = {"subject": subject, "data": data, **more}
        answer = await self.http.post("/api/v1/envelopes", json=body)
        assert answer.status_code == 202, answer.text
        said: dict[str, Any] = answer.json()
        return said

    async def ask(self, text: str, subject: str = "qq.says", **more: Any) -> dict[str, Any]:
        """Publish a chat message."""
        return await self.publish(subject, chat(text), type=CHAT, **more)

    async def ended(self, envelope_id: str) -> dict[str, Any]:
        """Return the only delivery of a durable envelope once it is done."""
        async with asyncio.timeout(WAIT_S):
            while True:
                answer = await self.http.get(f"/api/v1/envelopes/{envelope_id}")
                (delivery,) = answer.json()["deliveries"]
                if delivery["state"] == "done":
                    return dict(delivery)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_kenko(
    folder: Path,
    table: str = "",
    *,
    hub: str = "",
    more: str = "",
    clock: Clock | None = None,
) -> AsyncGenerator[Kenko]:
    """Run a hub with the adapter on.

    Args:
        table: More lines of `[adapters.kenko]`.
        hub: More lines of `[hub]`.
        more: More of hub.toml.
    """
    toml = (
        f'[hub]\ndrain_timeout = "1s"\n{hub}\n[adapters.kenko]\nenabled = true\n{table}\n{more}\n'
    )
    async with serving_hub(folder, toml, clock=clock) as served:
        token = served.core.new_admin_token
        headers = {"Authorization": f"Bearer {token}"}
        url = served.main.url
        async with httpx2.AsyncClient(
            base_url=url, headers=headers, trust_env=False, timeout=30
        ) as http:
            yield Kenko(served, http)


async def until(holds: Any) -> None:
    """Wait until something holds that has no event."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)
