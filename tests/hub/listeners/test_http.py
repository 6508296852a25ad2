"""HTTP and WebSocket on the hub's listener: limits, and clients that do not behave."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from hubbub.config import LimitSettings
from hubbub.listeners import HttpListener
from hubbub.listeners.http_deadlines import HEADERS_S
from tests.hub.listeners.conftest import Bench

HEADER_BYTES = LimitSettings().header_bytes
HEADERS = LimitSettings().headers
GET = b"GET /%s HTTP/1.1\r\nHost: hub\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer by the path; echo over WebSocket."""
    if scope["type"] == "websocket":
        if scope["path"] == "/refused":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                if message.get("text") == "flood":
                    while True:
                        await send({"type": "websocket.send", "bytes": b"x" * 100_000})
                await send({"type": "websocket.send", "text": message["text"]})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/flood":
        for _ in range(3000):  # once the client is gone this goes nowhere
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


async def works(listener: HttpListener) -> bool:
    async with httpx2.AsyncClient(base_url=listener.url, trust_env=False, timeout=30) as client:
        return (await client.post("/", content=b"four")).text == "4"


def unread(listener: HttpListener) -> int:
    """Return how many clients leave so much unread that the application has to wait."""
    guests = [getattr(one, "guest", None) for one in listener._state.connections]
    return sum(guest is not None and guest.watch._write_us > 0 for guest in guests)


async def test_requests_and_their_count(bench: Bench) -> None:
    """A connection counts while it is open, also as a WebSocket."""
    listener = await bench.http(app)
    assert await works(listener)
    await bench.until(lambda: bench.open == 0)
    async with connect(listener.url.replace("http", "ws"), proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        assert bench.open == 1
    await bench.until(lambda: bench.open == 0)


async def test_mistakes_of_websocket_clients_are_not_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused handshake, text that is no UTF-8: the client is told, the log is not."""
    listener = await bench.http(app)
    url = listener.url.replace("http", "ws")
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{url}/refused", proxy=None):
            pass
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"no")
    for frames in (
        [Frame(Opcode.TEXT, b"\xff\xfe")],
        [Frame(Opcode.TEXT, b"\xe2", fin=False), Frame(Opcode.CONT, b"\x82")],
    ):
        async with connect(url, proxy=None) as socket:
            for frame in frames:
                socket.transport.write(frame.serialize(mask=True))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1007
    await bench.until(lambda: bench.open == 0)
    assert caplog.text == ""


async def test_how_a_websocket_ended(bench: Bench) -> None:
    """1006 for a peer that vanished, 1005 for one that closed without a code, else its code."""
    codes: list[int] = []

    async def listening(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        codes.append(message["code"])

    listener = await bench.http(listening)
    url = listener.url.replace("http", "ws")
    async with connect(url, proxy=None) as socket:
        socket.transport.abort()
    await bench.until(lambda: codes == [1006])
    async with connect(url, proxy=None) as socket:
        socket.transport.write(Frame(Opcode.CLOSE, b"").serialize(mask=True))
        await socket.wait_closed()
    await bench.until(lambda: codes == [1006, 1005])
    async with connect(url, proxy=None) as socket:
        await socket.close(4321)
    await bench.until(lambda: codes == [1006, 1005, 4321])


async def test_texts_in_pieces(bench: Bench) -> None:
    """A sign may be cut in two between frames."""
    listener = await bench.http(app)
    async with connect(listener.url.replace("http", "ws"), proxy=None) as socket:
        euro = "€".encode()
        await socket.send([euro.decode(), "", "xyz"])
        assert await socket.recv() == "€xyz"
        socket.transport.write(Frame(Opcode.TEXT, euro[:1], fin=False).serialize(mask=True))
        socket.transport.write(Frame(Opcode.CONT, euro[1:]).serialize(mask=True))
        assert await socket.recv() == "€"


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /sl", b"GET / HTTP/1.1\r\nHost: hub\r\nX-Slow: "],
    ids=["nothing", "half a line", "no end of headers"],
)
async def test_headers_that_are_never_finished(bench: Bench, sent: bytes) -> None:
    """Slow-loris: closed after a while, however regularly a byte comes."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(sent)
    await bench.until(lambda: bench.open == 1)
    await bench.read_all(listener, peer)
    await bench.clock.advance(HEADERS_S - 1)
    if sent:
        await peer.send(b"x")
        await bench.read_all(listener, peer)
    assert bench.open == 1
    await bench.clock.advance(2)
    assert await peer.rest() == b""
    assert bench.refused("headers") == 1
    assert await works(listener)


async def test_a_second_request_that_is_never_finished(bench: Bench) -> None:
    """The first byte of it starts the time again."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(GET % b"")
    assert await peer.line() == b"HTTP/1.1 200 OK\r\n"
    await bench.clock.advance(HEADERS_S * 2)
    assert bench.open == 1
    await peer.send(b"GET / ")
    await bench.read_all(listener, peer)
    await bench.clock.advance(HEADERS_S + 1)
    await peer.rest()
    assert bench.refused("headers") == 1


async def test_a_body_that_is_never_finished(bench: Bench) -> None:
    """After `idle` without a byte of it; an answer that takes long is something else."""
    listener = await bench.http(app, idle="30s")
    waiting = await bench.peer(listener)
    await waiting.send(GET % b"hang")
    peer = await bench.peer(listener)
    await peer.send(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\nfour")
    await bench.until(lambda: bench.open == 2)
    await bench.read_all(listener, waiting, peer)
    await bench.clock.advance(29)
    assert bench.open == 2
    await bench.clock.advance(2)
    assert await peer.rest() == b""
    assert bench.refused("idle") == 1
    assert bench.open == 1


async def test_headers_over_the_limit(bench: Bench) -> None:
    """They are not kept for ever, and their sender is told."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(b"GET / HTTP/1.1\r\nX-Large: ")
    await bench.until(lambda: bench.open == 1)
    for _ in range(8):
        with suppress(ConnectionError):
            await peer.send(b"x" * (HEADER_BYTES // 4))
        await bench.read_all(listener, peer)
    answer = await peer.rest()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"over 65536 bytes" in answer
    assert bench.refused("too_large") == 1


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 431)])
async def test_headers_at_the_limit(bench: Bench, over: int, status: int) -> None:
    """Request line, headers and the empty line together."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    start, end = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", b"\r\n\r\n"
    fill = HEADER_BYTES + over - len(start) - len(end)
    await peer.send(start + b"x" * fill)
    await peer.send(end)
    assert (await peer.rest()).split()[1] == b"%d" % status


HANDSHAKE = (
    b"GET /%b HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)
OWN_HEADERS = 5
ROOM = HEADER_BYTES - len(HANDSHAKE % (b"", b""))


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (b"x" * ROOM, b"", 101),
        (b"x" * (ROOM + 1), b"", 431),
        (b"", b"x: %b\r\n" % (b"x" * (ROOM - 5)), 101),
        (b"", b"x: %b\r\n" % (b"x" * (ROOM - 4)), 431),
        (b"", b"x: y\r\n" * (HEADERS - OWN_HEADERS), 101),
        (b"", b"x: y\r\n" * (HEADERS - OWN_HEADERS + 1), 431),
    ],
    ids=["address", "long address", "header", "long header", "headers", "many headers"],
)
@pytest.mark.parametrize("is_websocket", [True, False], ids=["websocket", "http"])
async def test_a_head_at_the_limits(
    bench: Bench, path: bytes, more: bytes, status: int, is_websocket: bool
) -> None:
    """One setting for HTTP and WebSocket, with the same answer over it."""
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    sent = HANDSHAKE % (path, more)
    if not is_websocket:
        sent = sent.replace(b"upgrade: websocket", b"upgrayd: websocket")
        status = 200 if status == 101 else status
    await peer.send(sent)
    assert (await peer.line()).split()[1] == b"%d" % status
    assert bench.refused("too_large") == (status == 431)
    peer.vanish()


async def test_a_client_that_never_reads(bench: Bench) -> None:
    """Closed after `idle`, over HTTP and over WebSocket."""
    listener = await bench.http(app, idle="30s")
    peer = await bench.peer(listener)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await peer.send(GET % b"flood")
    await bench.until(lambda: unread(listener) == 1)
    await bench.clock.advance(31)
    await bench.until(lambda: bench.refused("unread") == 1 and bench.open == 0)
    async with connect(
        listener.url.replace("http", "ws"), proxy=None, max_queue=1, close_timeout=0.1
    ) as socket:
        await socket.send("flood")
        await bench.until(lambda: unread(listener) == 1)
        await bench.clock.advance(31)
        await bench.until(lambda: bench.refused("unread") == 2)
    await bench.until(lambda: bench.open == 0)


@pytest.mark.parametrize("over", [0, 1])
async def test_the_limit_of_a_message(bench: Bench, over: int) -> None:
    """At the limit it is taken, one byte over it the socket is closed with 1009."""
    listener = await bench.http(app, frame=1000)
    async with connect(listener.url.replace("http", "ws"), proxy=None) as socket:
        await socket.send("x" * (1000 + over))
        if over:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        else:
            assert len(await socket.recv()) == 1000
    assert await works(listener)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"connections": 2}, "connections"),
        ({"connections_per_source": 2}, "source"),
        ({"rate_per_source": 2}, "rate"),
    ],
)
async def test_limits_of_connections(bench: Bench, limits: dict[str, Any], reason: str) -> None:
    """The third is closed without an answer; the two go on."""
    listener = await bench.http(app, **limits)
    peers = [await bench.peer(listener) for _ in range(2)]
    await bench.until(lambda: bench.open == 2)
    third = await bench.peer(listener)
    assert await third.rest() == b""
    assert bench.refused(reason) == 1
    for peer in peers:
        await peer.send(GET % b"")
        assert await peer.line() == b"HTTP/1.1 200 OK\r\n"


async def test_a_thousand_come_and_go(bench: Bench) -> None:
    """Politely and rudely in turn; nothing stays behind."""
    listener = await bench.http(app)
    for number in range(1000):
        peer = await bench.peer(listener)
        await peer.send(GET % b"" if number % 3 else b"GET ")
        if number % 2:
            peer.vanish()
        else:
            peer.writer.close()
    await bench.until(lambda: bench.open == 0 and not listener._state.connections)
    assert await works(listener)


async def test_it_stops_in_time(bench: Bench) -> None:
    """An answer that never comes, a client that never reads, a socket that stays."""
    listener = await bench.http(app)
    hanging, flooded, silent = [await bench.peer(listener) for _ in range(3)]
    await hanging.send(GET % b"hang")
    await flooded.send(GET % b"flood")
    async with connect(listener.url.replace("http", "ws"), proxy=None) as socket:
        await bench.until(lambda: bench.open == 4 and unread(listener) == 1)
        await bench.until(lambda: len(listener._state.tasks) == 3)
        began = time.monotonic()
        await listener.stop()
        assert time.monotonic() - began < 3
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert await silent.rest() == b""
    await bench.until(lambda: bench.open == 0)
    with pytest.raises(ConnectionRefusedError):
        await bench.peer(listener)
