"""What is under way to a listener: put together within limits, and all of it within another."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub.errors import TooLargeError
from hubbub.listeners import HttpListener, LineConnection, TcpListener
from hubbub.listeners.buffers import COUNTED_BYTES
from hubbub.memory import MemoryBudget
from hubbub.web.bodies import read_body
from tests.hub.listeners.conftest import Bench

FRAME = 200_000
BUFFERED = 300_000
FLOOD = 100_000
CLOSE = [(b"connection", b"close")]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Say how long what came is."""
    if scope["type"] == "http":
        try:
            status, answer = 200, b"%d" % len(await read_body(scope, receive, FRAME))
        except TooLargeError as error:
            status, answer = 413, error.message.encode()
        await send({"type": "http.response.start", "status": status, "headers": CLOSE})
        await send({"type": "http.response.body", "body": answer})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "flood":
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * FLOOD})
        came = message.get("text") or message["bytes"]
        await send({"type": "websocket.send", "text": f"{type(came).__name__} {len(came)}"})


class Lines(LineConnection):
    """Says how long a line is."""

    def frame(self, frame: bytes) -> None:
        self.write(b"%d\n" % len(frame))


class Slow(LineConnection):
    """Takes lines when it is told to."""

    go: asyncio.Event

    async def talk(self) -> None:
        await self.go.wait()
        async for line in self:
            self.write(b"%d\n" % len(line))


def under_way(bench: Bench) -> float:
    """Return what the gauge says."""
    return (
        bench.metrics.registry.get_sample_value("hubbub_buffered_bytes", {"adapter": "test"}) or 0
    )


def held(listener: Any) -> int:
    """Return what a listener counts."""
    size: int = listener._gate.buffers.held_bytes
    return size


def all_of(listener: HttpListener) -> list[Any]:
    """Return the connections of a listener, which uvicorn has many types for."""
    return list(listener._state.connections)


def the_only(listener: HttpListener) -> Any:
    (ours,) = all_of(listener)
    return ours


def websocket(listener: HttpListener) -> Any:
    return connect(listener.url.replace("http", "ws"), proxy=None, ping_interval=None)


class Part:
    """A message of which the end is still to come."""

    def __init__(self, socket: ClientConnection, size: int) -> None:
        self.socket = socket
        self._end = asyncio.Event()
        self._size = size
        self.sending = asyncio.create_task(socket.send(self._pieces()))

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * (self._size // 4)
        await self._end.wait()
        yield b"."

    async def finish(self) -> str:
        """Send the rest, and return the answer."""
        self._end.set()
        await self.sending
        return str(await self.socket.recv())


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("kind", ["str", "bytes"])
async def test_a_message_is_limited_however_it_is_cut(bench: Bench, kind: str, over: int) -> None:
    """The sum counts, at the limit and one byte over it."""
    listener = await bench.http(app, frame=1000)
    async with websocket(listener) as socket:
        pieces = ["x" * 100] * 9 + ["x" * (100 + over)]
        await socket.send(pieces if kind == "str" else [one.encode() for one in pieces])
        if not over:
            assert await socket.recv() == f"{kind} 1000"
            return
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert bench.refused("too_large") == 1


async def test_empty_fragments_are_not_kept(bench: Bench) -> None:
    """They have no bytes that a limit could count; a list of them would have no end."""
    listener = await bench.http(app, frame=1000)
    async with websocket(listener) as socket:
        end = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            for _ in range(2000):
                yield ""
            await end.wait()
            yield "done"

        sending = asyncio.create_task(socket.send(pieces()))
        ours = the_only(listener)
        await bench.until(lambda: ours.conn.current_size is not None)
        assert len(ours.frames) == 1
        end.set()
        await sending
        assert await socket.recv() == "str 4"


async def test_a_frame_that_is_too_large_is_refused_by_its_header(bench: Bench) -> None:
    """Not a byte of it has to come first."""
    listener = await bench.http(app, frame=1000)
    peer = await bench.peer(listener)
    await peer.send(
        b"GET / HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await bench.until(lambda: any(getattr(c, "handshake_complete", 0) for c in all_of(listener)))
    await peer.send(struct.pack("!BBQ", 0x82, 0x80 | 127, 1001))
    assert struct.pack("!H", 1009) in await peer.rest()


async def test_the_largest_of_too_much_is_closed(bench: Bench) -> None:
    """At the limit all go on; over it one does not, and the others' messages arrive."""
    listener = await bench.http(app, frame=FRAME, buffered=BUFFERED)
    async with websocket(listener) as a, websocket(listener) as b, websocket(listener) as c:
        parts = [Part(a, 100_000), Part(b, 120_000)]
        await bench.until(lambda: held(listener) == 220_000)
        parts.append(Part(c, 80_000))
        await bench.until(lambda: held(listener) == BUFFERED)
        assert bench.refused("buffered") == 0
        async with websocket(listener) as d:
            Part(d, COUNTED_BYTES)
            with pytest.raises(ConnectionClosed) as closed:
                await b.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, bench.refused("buffered")) == (1009, 1)
            assert under_way(bench) == held(listener) == 180_000 + COUNTED_BYTES
            assert await parts[0].finish() == "bytes 100001"
            assert await parts[2].finish() == "bytes 80001"
    await bench.until(lambda: bench.open == 0)
    assert under_way(bench) == held(listener) == 0


async def test_a_lone_message_has_its_own_limit_only(bench: Bench) -> None:
    """One of any allowed size is taken."""
    listener = await bench.http(app, frame=FRAME, buffered=1)
    async with websocket(listener) as socket:
        part = Part(socket, FRAME - 4)
        await bench.until(lambda: held(listener) > 0)
        assert await part.finish() == f"bytes {FRAME - 3}"


async def test_a_body_counts_and_gives_way(bench: Bench) -> None:
    """413, also while nothing more of it comes; what is smaller goes on."""
    listener = await bench.http(app, buffered=BUFFERED)
    head = b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 190000\r\n\r\n"
    large, small = await bench.peer(listener), await bench.peer(listener)
    await large.send(head + b"x" * 180_000)
    await bench.until(lambda: held(listener) == 180_000)
    await small.send(head + b"x" * 119_999)
    await bench.until(lambda: held(listener) == 299_999)
    await small.send(b"x" * 2)
    answer = await large.rest()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"limits.buffered" in answer
    await small.send(b"x" * 69_999)
    answer = await small.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"190000" in answer
    assert bench.refused("buffered") == 1
    assert under_way(bench) == held(listener) == 0


async def test_a_line_counts_and_gives_way(bench: Bench) -> None:
    """Of a TCP listener, too."""
    listener: TcpListener = await bench.tcp(Lines, frame=FRAME, buffered=BUFFERED)
    large, small = await bench.peer(listener), await bench.peer(listener)
    await large.send(b"x" * 180_000)
    await bench.until(lambda: held(listener) == 180_000)
    await small.send(b"x" * 120_000)
    await bench.until(lambda: held(listener) == BUFFERED)
    await small.send(b"x")
    assert await large.rest() == b""
    await small.send(b"\n")
    assert await small.line() == b"120002\n"
    assert (bench.refused("buffered"), under_way(bench)) == (1, 0)


async def test_lines_that_wait_are_bounded_in_bytes(bench: Bench) -> None:
    """No more of them than one frame of the largest size, or one more; none is lost."""
    Slow.go = asyncio.Event()
    listener: TcpListener = await bench.tcp(Slow, frame=1000)
    peer = await bench.peer(listener)
    await peer.send((b"x" * 499 + b"\n") * 20)
    await bench.until(lambda: any(one.paused for one in listener._home.connections))
    (ours,) = listener._home.connections
    assert isinstance(ours, Slow)
    assert ours._waiting_bytes == 1000
    Slow.go.set()
    assert [await peer.line() for _ in range(20)] == [b"500\n"] * 20


async def test_it_counts_for_the_memory_of_the_hub(bench: Bench) -> None:
    """Over `hub.memory` it gives way like all else."""
    listener = await bench.http(app, frame=FRAME)
    memory = MemoryBudget(150_000)
    listener.count_in(memory)
    async with websocket(listener) as a, websocket(listener) as b:
        Part(a, 100_000)
        await bench.until(lambda: memory.used_bytes == 100_000)
        part = Part(b, 60_000)
        await bench.until(lambda: memory.used_bytes == 160_000)
        assert memory.over
        memory.relieve()
        with pytest.raises(ConnectionClosed):
            await a.recv()
        assert await part.finish() == "bytes 60001"
    await bench.until(lambda: bench.open == 0)
    assert memory.used_bytes == 0


async def test_a_message_that_is_not_finished_is_overdue(bench: Bench) -> None:
    """A peer owes the rest of what it began; one that sends nothing owes nothing."""
    listener = await bench.http(app, idle=30)
    async with websocket(listener) as idle, websocket(listener) as slow:
        Part(slow, 400)
        await bench.until(lambda: any(one.conn.current_size == 400 for one in all_of(listener)))
        await bench.clock.advance(31)
        with pytest.raises(ConnectionClosed):
            await slow.recv()
        await idle.send("still here")
        assert await idle.recv() == "str 10"
        assert bench.refused("idle") == 1


async def test_pings_of_a_peer_that_does_not_read_are_not_answered(bench: Bench) -> None:
    """Their answers would wait for it without a limit."""
    listener = await bench.http(app)
    async with connect(
        listener.url.replace("http", "ws"), proxy=None, max_queue=1, close_timeout=0.1
    ) as socket:
        await socket.send("flood")
        ours = the_only(listener)
        await bench.until(lambda: not ours.writable.is_set())
        for number in range(2000):
            await socket.ping(b"%0120d" % number)
        await socket.send("behind them")
        await bench.until(lambda: not ours.queue.empty())
        assert ours.transport.get_write_buffer_size() < 2 * FLOOD  # answers had 244 kB
