"""Each phase of an HTTP or WebSocket connection ends, whoever is silent in it."""

from __future__ import annotations

import asyncio
import socket as sockets
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from hubbub.listeners.http_deadlines import HEADERS_S, SWEEP_S, UPGRADE_S
from tests.hub.listeners.conftest import Bench
from tests.hub.listeners.test_http import GET, HANDSHAKE, app, unread

ASKED = HANDSHAKE % (b"", b"")
IDLE_S = 30.0


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Neither accept nor refuse."""
    if scope["path"] == "/half":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    while (await receive())["type"] != "websocket.disconnect":
        pass


@pytest.mark.parametrize("path", [b"", b"half"])
async def test_a_handshake_that_the_application_never_answers(bench: Bench, path: bytes) -> None:
    """It is 503 in the end, and the application is told that nobody waits."""
    listener = await bench.http(silent)
    peer = await bench.peer(listener)
    await peer.send(HANDSHAKE % (path, b""))
    await bench.until(lambda: len(listener._state.tasks) == 1)
    await bench.clock.advance(UPGRADE_S - 1)
    assert bench.open == 1
    await bench.clock.advance(2)
    assert (await peer.rest()).startswith(b"HTTP/1.1 503 ")
    assert bench.refused("handshake") == 1
    await bench.until(lambda: not listener._state.tasks)


async def test_a_handshake_that_is_answered_has_no_deadline_left(bench: Bench) -> None:
    """An open socket may be silent for as long as it likes."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(ASKED)
    assert b" 101 " in await peer.line()
    await bench.clock.advance(UPGRADE_S * 2)
    assert bench.open == 1
    assert bench.refused("handshake") == 0


@pytest.mark.parametrize("cut", [0, 4], ids=["together", "cut in a frame"])
async def test_frames_that_come_with_the_handshake(bench: Bench, cut: int) -> None:
    """They are neither lost nor read before the handshake is answered."""
    accept = asyncio.Event()
    texts: list[str] = []

    async def late(_: Any, receive: Any, send: Any) -> None:
        await accept.wait()
        await send({"type": "websocket.accept"})
        await receive()
        while (message := await receive())["type"] != "websocket.disconnect":
            texts.append(message["text"])

    listener = await bench.http(late)
    peer = await bench.peer(listener)
    frames = b"".join(
        Frame(code, data).serialize(mask=True)
        for code, data in ((Opcode.PING, b"x"), (Opcode.TEXT, b"one"), (Opcode.TEXT, b"two"))
    )
    await peer.send(ASKED + frames[: cut or None])
    await bench.until(lambda: len(listener._state.tasks) == 1)
    await peer.send(frames[cut:] if cut else b"")
    accept.set()
    assert b" 101 " in await peer.line()
    await bench.until(lambda: texts == ["one", "two"])


async def test_much_that_comes_with_the_handshake(bench: Bench) -> None:
    """More than one slice of it; what waits for the answer does not grow."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    frame = Frame(Opcode.TEXT, b"x" * 100_000).serialize(mask=True)
    await peer.send(ASKED + frame)
    while await peer.line() != b"\r\n":
        pass
    assert len(await peer.reader.readexactly(100_010)) == 100_010


async def test_line_ends_between_requests(bench: Bench) -> None:
    """They are no request: the connection is closed as if nothing had come."""
    listener = await bench.http(app)
    assert listener._uvicorn is not None
    listener._uvicorn.timeout_keep_alive = 0  # as soon as the loop comes by
    peer = await bench.peer(listener)
    await peer.send((GET % b"") + b"\r\n")
    await peer.send(b"\r\n")
    await peer.rest()
    await bench.until(lambda: bench.open == 0)


async def test_headers_behind_a_slow_answer(bench: Bench) -> None:
    """While nothing is read, the client does not owe them."""

    finish = asyncio.Event()

    async def slow(_: Any, receive: Any, send: Any) -> None:
        await finish.wait()
        length = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b""})

    listener = await bench.http(slow)
    peer = await bench.peer(listener)
    await peer.send((GET % b"") * 2 + b"GET / HTTP/1.1\r\n")
    await bench.until(lambda: len(listener._state.tasks) == 1)
    await bench.read_all(listener, peer)
    await bench.clock.advance(HEADERS_S * 3)
    assert bench.open == 1
    assert bench.refused("headers") == 0
    finish.set()
    await peer.send(b"Host: hub\r\nConnection: close\r\n\r\n")
    assert (await peer.rest()).count(b"200 OK") == 3


@pytest.mark.parametrize("is_websocket", [False, True], ids=["http", "websocket"])
async def test_a_close_that_waits_for_a_reader(bench: Bench, is_websocket: bool) -> None:
    """What the kernel does not take and the transport calls little is waited for `idle` long."""

    async def closing(scope: Any, receive: Any, send: Any) -> None:
        transport = next(iter(listener._state.connections)).transport
        raw = transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4096)
        if is_websocket:
            await send({"type": "websocket.accept"})
        else:
            close = [(b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": close})
        while transport.get_write_buffer_size() < 20_000:
            transport.write(b"x" * 10_000)
        if is_websocket:
            transport.close()
        else:
            await send({"type": "http.response.body", "body": b""})

    listener = await bench.http(closing, idle="30s")
    peer = await bench.peer(listener)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await peer.send(ASKED if is_websocket else GET % b"")
    await bench.until(
        lambda: any(one.transport.is_closing() for one in listener._state.connections)
    )
    assert unread(listener) == 0
    await bench.clock.advance(SWEEP_S)
    await bench.clock.advance(IDLE_S - 1)
    assert bench.open == 1
    await bench.clock.advance(SWEEP_S + 2)
    await bench.until(lambda: bench.open == 0)
    assert bench.refused("unread") == 1
