"""Dials without a hub around them, and peers of every kind of manners."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from hubbub.config import Address, LimitSettings
from hubbub.errors import Retry
from hubbub.listeners import LineConnection
from hubbub.net import Dial, DialPolicy, WebSocketConnection
from hubbub.net.dialer import DialEnv
from hubbub.net.tcp_dialer import dial_tcp
from hubbub.net.websocket_dialer import dial_websocket
from hubbub.observe.metrics import Metrics
from hubbub.testing import FakeClock
from tests.hub.listeners import conftest as listening

make = listening.make  # certificates
files = listening.files

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Seen(WebSocketConnection):
    """Remembers all that happens to it."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def opened(self) -> None:
        self.seen.append("opened")

    def received(self, message: str | bytes) -> None:
        self.seen.append(message)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.seen.append((status, dict(headers), body))

    def closed(self) -> None:
        self.seen.append(("closed", self.close_code, self.close_reason))


class SeenLines(LineConnection):
    """The same for lines."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def opened(self) -> None:
        self.seen.append(("opened", self.peer))

    def frame(self, frame: bytes) -> None:
        self.seen.append(frame)

    def closed(self) -> None:
        self.seen.append("closed")


@dataclass
class Bench:
    """Dials that are stopped, and peers that are closed, after the test."""

    clock: FakeClock
    metrics: Metrics = field(default_factory=Metrics)
    dials: list[Dial] = field(default_factory=list[Dial])
    servers: list[asyncio.Server] = field(default_factory=list[asyncio.Server])
    links: list[Any] = field(default_factory=list[Any])
    seen: list[Any] = field(default_factory=list[Any])
    states: list[str] = field(default_factory=list[str])
    tasks: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    came: int = 0

    def env(self, **limits: Any) -> DialEnv:
        return DialEnv(
            "test",
            lambda: LimitSettings.model_validate(limits),
            self.clock,
            self.metrics,
            lambda work: asyncio.get_running_loop().create_task(work),
            lambda: 0.0,
        )

    async def peer(self, talk: Peer, host: str = "127.0.0.1", **how: Any) -> Address:
        """Serve connections with what a peer does."""

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.came += 1
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await talk(reader, writer)
            writer.transport.abort()

        server = await asyncio.start_server(served, host, 0, limit=2**24, **how)
        self.servers.append(server)
        return Address(*server.sockets[0].getsockname()[:2])

    def _made(self, kind: type[Any]) -> Callable[[], Any]:
        def made() -> Any:
            link = kind(self.seen)
            self.links.append(link)
            return link

        return made

    def websocket(self, url: str, kind: type[Seen] = Seen, **how: Any) -> Dial:
        env = self.env(**how.pop("limits", {}))
        how.setdefault("policy", DialPolicy(changed=lambda dial: self.states.append(dial.state)))
        return self._begun(dial_websocket(url, self._made(kind), env=env, **how))

    def tcp(self, address: Address, kind: type[Any] = SeenLines, **how: Any) -> Dial:
        env = self.env(**how.pop("limits", {}))
        return self._begun(dial_tcp(address, self._made(kind), env=env, **how))

    def _begun(self, dial: Dial) -> Dial:
        self.dials.append(dial)
        dial.begin()
        return dial

    def failed(self, reason: str) -> float:
        labels = {"adapter": "test", "reason": reason}
        value = self.metrics.registry.get_sample_value
        return value("hubbub_dial_failures_total", labels) or 0.0

    def dialled(self, state: str) -> float:
        labels = {"adapter": "test", "state": state}
        return self.metrics.registry.get_sample_value("hubbub_dials", labels) or 0.0

    def tasks_alive(self) -> list[asyncio.Task[Any]]:
        """Return what still serves a peer."""
        return [task for task in self.tasks if not task.done()]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110  # sockets have no event for it
                await asyncio.sleep(0.002)

    async def until_failed(self, dial: Dial, number: int) -> None:
        await self.until(lambda: dial.failures == number)

    async def until_gone(self, dial: Dial) -> None:
        await self.until(lambda: dial.is_gone)

    async def until_came(self, number: int) -> None:
        await self.until(lambda: self.came == number)

    async def until_state(self, dial: Dial, state: str) -> None:
        await self.until(lambda: dial.state == state)

    async def close(self) -> None:
        for dial in self.dials:
            await dial.stop(0.2)
        for server in self.servers:
            server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.until(lambda: all(dial.is_gone for dial in self.dials))
        assert sum(map(self.dialled, ("waiting", "connecting", "open"))) == 0


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read a handshake."""
    return await reader.readuntil(b"\r\n\r\n")


async def accept(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, more: bytes = b""
) -> bytes:
    """Open the WebSocket that is asked for, with what is sent in the same breath."""
    request = await request_of(reader)
    (key,) = [
        line.partition(b": ")[2]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    ]
    accepted = base64.b64encode(hashlib.sha1(key + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n" + more
    )
    return request


def framed(data: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """Return a frame of a server."""
    first = bytes([opcode | (0x80 if fin else 0)])
    if len(data) < 126:
        return first + bytes([len(data)]) + data
    if len(data) < 1 << 16:
        return first + b"\x7e" + len(data).to_bytes(2, "big") + data
    return first + b"\x7f" + len(data).to_bytes(8, "big") + data


async def frame_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a frame of a client."""
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8), "big")
    mask = await reader.readexactly(4)
    data = await reader.readexactly(size)
    return head[0] & 0x0F, bytes(each ^ mask[place % 4] for place, each in enumerate(data))


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read all, and say nothing."""
    while await reader.read(65_536):
        pass


async def try_send(link: Any, message: str) -> bool:
    """Tell whether a link takes a message."""
    try:
        await link.send(message)
    except Retry:
        return False
    return True


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bench(clock: FakeClock) -> AsyncIterator[Bench]:
    """Dials that are stopped in the end."""
    made = Bench(clock)
    yield made
    await made.close()
