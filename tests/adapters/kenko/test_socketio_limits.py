"""Socket.IO within limits: what is put together from packets, and who has only begun to come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from socketio.exceptions import ConnectionError as RefusedError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from hubbub.testing import FakeClock
from hubbub_kenko.wire.polling import MAX_ATTACHMENTS
from tests.adapters.kenko.serving import Kenko, running_kenko

LARGEST = 4096
POLLING = "/socket.io/?EIO=4&transport=polling"
JOIN = "40/client,"
PLACES = [{"_placeholder": True, "num": place} for place in range(MAX_ATTACHMENTS)]


@pytest.fixture
async def kenko(tmp_path: Path) -> AsyncGenerator[Kenko]:
    """A hub whose clients send small messages."""
    async with running_kenko(tmp_path, f"max_message_bytes = {LARGEST}") as running:
        yield running


@asynccontextmanager
async def raw(kenko: Kenko, *said: str) -> AsyncGenerator[ClientConnection]:
    """Open a session over WebSocket, and say something; no library."""
    url = kenko.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
    async with connect(url, proxy=None, close_timeout=0.1) as socket:
        assert str(await socket.recv()).startswith("0")
        for packet in said:
            await socket.send(packet)
        yield socket


async def heard(socket: ClientConnection, begin: str) -> str:
    """Return the next packet that begins so."""
    async with asyncio.timeout(10):
        while not str(packet := await socket.recv()).startswith(begin):
            pass
    return str(packet)


async def closed(socket: ClientConnection) -> int:
    """Return the close code, whatever was written before."""
    async with asyncio.timeout(10):
        await socket.wait_closed()
    assert socket.close_code is not None
    return socket.close_code


def announced(number: int, size: int, *, name: str = "dance") -> str:
    """Return an event with attachments: a packet of so many bytes, behind its first sign."""
    head = f"45{number}-/client," + json.dumps([name, *PLACES[:number], ""])
    return f"{head[:-2]}{'x' * (size + 1 - len(head))}{head[-2:]}"


def held(kenko: Kenko) -> int:
    """Return what the hub's port counts as under way."""
    return kenko.hub.main.buffers.held_bytes


TOO_MANY = ["45999999999-", "45999999999999-", f"45{MAX_ATTACHMENTS + 1}-", "450-"]


@pytest.mark.parametrize("before", [(), (JOIN,), (JOIN, '42/client,["auth","x"]')])
@pytest.mark.parametrize("packet", TOO_MANY)
async def test_too_many_attachments_end_the_session(
    kenko: Kenko, packet: str, before: tuple[str, ...]
) -> None:
    """At once, registered or not: none of them is waited for."""
    async with raw(kenko, *before) as socket:
        await socket.send(packet + '/client,["x",{"_placeholder":true,"num":0}]')
        assert await closed(socket) == 1009
    assert not kenko.desk.handshakes
    assert not kenko.desk.connections


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("over", [0, 1])
async def test_attachments_count_with_their_event(
    kenko: Kenko, over: int, registered: bool
) -> None:
    """All together are one message: at its limit they are taken, one byte over it they are not."""
    async with raw(kenko, JOIN) as socket:
        await heard(socket, JOIN)
        if registered:
            await socket.send('42/client,["auth","x"]')
            await heard(socket, '42/client,["start"')
        await socket.send(announced(3, 1096))
        for size in (1000, 1000, 1000 + over):
            await socket.send(b"x" * size)
        if over:
            assert await closed(socket) == 1009
        else:
            await socket.send('42/client,["ping"]')
            await heard(socket, '42/client,["pong"')


async def test_a_library_that_sends_too_much_is_closed(kenko: Kenko) -> None:
    """The client of python-socketio, beside one that goes on."""
    async with kenko.event_client() as other, kenko.event_client() as app:
        await app.emit("dance", b"x" * 2000, b"x" * 2000)
        await app.emit("ping")
        assert await app.next("pong") is None
        await app.emit("dance", b"x" * 2000, b"x" * 2100)
        async with asyncio.timeout(10):
            await app.gone.wait()
        await other.emit("ping")
        assert await other.next("pong") is None


@pytest.mark.parametrize("packet", [b"x" * 100, f"451-/client,{json.dumps(['x', PLACES[0]])}"])
async def test_what_does_not_belong_to_an_event_ends_the_session(
    kenko: Kenko, packet: str | bytes
) -> None:
    """An attachment that nothing announced; a text where an attachment is due."""
    async with raw(kenko, JOIN) as socket:
        await heard(socket, JOIN)
        await socket.send(packet)
        await socket.send('42/client,["ping"]')
        assert await closed(socket) == 1003


async def test_attachments_of_several_posts_count_together(kenko: Kenko) -> None:
    """Over polling: 413, and the session goes on without that event."""
    sid = json.loads((await kenko.http.get(POLLING)).text[1:])["sid"]
    path = f"{POLLING}&sid={sid}"

    async def post(*packets: str) -> int:
        answer = await kenko.http.post(path, content="\x1e".join(packets).encode())
        return answer.status_code

    half = "b" + "A" * 2000  # 1500 bytes
    assert await post(JOIN, announced(3, 1096)) == 200
    assert [await post(half), await post(half), await post(half)] == [200, 200, 413]
    assert await post(half) == 400  # nothing has announced it
    assert await post('42/client,["ping"]') == 200


async def test_attachments_that_wait_count_at_the_listener(tmp_path: Path) -> None:
    """Over `limits.buffered` the session with the most of them ends."""
    limits = "limits = { buffered = 100_000 }"
    async with running_kenko(tmp_path, hub=limits) as kenko:
        async with raw(kenko, JOIN) as large, raw(kenko, JOIN) as small:
            for socket, size in ((large, 55_000), (small, 40_000)):
                await heard(socket, JOIN)
                await socket.send(announced(2, 200))
                await socket.send(b"x" * size)
            await small.send(b"x")
            await small.send('42/client,["ping"]')
            await heard(small, '42/client,["pong"')
            assert held(kenko) == 55_200
            await small.send(announced(2, 200))
            await small.send(b"x" * 45_000)
            assert await closed(large) == 1009
            await small.send(b"x")
            await small.send('42/client,["ping"]')
            await heard(small, '42/client,["pong"')
        assert held(kenko) == 0


async def test_sessions_count_from_their_handshake_on(tmp_path: Path) -> None:
    """On every transport, long before they join; a place is free again after the deadline."""
    clock = FakeClock()
    async with running_kenko(tmp_path, "max_clients = 2", clock=clock) as kenko:
        opened = await kenko.http.get(POLLING)
        assert opened.status_code == 200
        async with raw(kenko) as silent:
            await kenko.core.metrics.refresh()
            labels = {"state": "connected", "transport": "socketio"}
            value = kenko.core.metrics.registry.get_sample_value
            assert value("hubbub_kenko_clients", labels) == 2
            assert (await kenko.http.get(POLLING)).status_code == 503
            for path in ("/ws", "/socket.io/?EIO=4&transport=websocket"):
                with pytest.raises(InvalidStatus) as refused:
                    async with kenko.client(path):
                        pass
                assert refused.value.response.status_code == 503
            with pytest.raises(RefusedError):
                async with kenko.event_client():
                    pass
            await clock.advance(29)
            assert len(kenko.desk.handshakes) == 2
            await clock.advance(2)
            assert await closed(silent) == 4001
        sid = json.loads(opened.text[1:])["sid"]
        assert (await kenko.http.post(f"{POLLING}&sid={sid}", content=JOIN)).status_code == 400
        assert not kenko.desk.handshakes
        async with kenko.event_client() as app, kenko.client():
            await app.emit("auth", "x")
            assert await app.next("auth") is True


async def test_who_leaves_the_namespace_has_a_place_and_a_deadline(tmp_path: Path) -> None:
    """To join and leave again and again is no way to stay."""
    clock = FakeClock()
    async with running_kenko(tmp_path, "max_clients = 1", clock=clock) as kenko:
        async with raw(kenko) as socket:
            for _ in range(3):
                await socket.send(JOIN)
                await heard(socket, JOIN)
                assert (len(kenko.desk.connections), len(kenko.desk.handshakes)) == (1, 0)
                await clock.advance(9)
                await socket.send("41/client,")
                await socket.send("40/other,")  # answered once the one before is done
                await heard(socket, "44/other,")
                assert (len(kenko.desk.connections), len(kenko.desk.handshakes)) == (0, 1)
                assert (await kenko.http.get(POLLING)).status_code == 503
            await clock.advance(4)
            assert await closed(socket) == 4001
        assert (await kenko.http.get(POLLING)).status_code == 200


async def test_garbage_over_websocket_gives_its_place_back(tmp_path: Path) -> None:
    """The library would keep the session until its next ping is not answered."""
    async with running_kenko(tmp_path, "max_clients = 1") as kenko:
        async with raw(kenko) as socket:
            await socket.send("x")
            assert await closed(socket) == 1003
        async with kenko.client() as app:
            await app.register()


async def test_an_adapter_that_stops_ends_those_who_have_not_joined(kenko: Kenko) -> None:
    """And waits for none of their deadlines."""
    async with raw(kenko) as socket:
        await kenko.hub.stop()
        assert await closed(socket) in (4001, 1012)


@pytest.mark.parametrize("path", ["/ws", "/socket.io/?EIO=4&transport=websocket"])
async def test_a_path_has_its_own_limit(tmp_path: Path, path: str) -> None:
    """More than the port's own, and not a byte more than the adapter's."""
    limits = "limits = { frame = 1000 }"
    table = f"max_message_bytes = {LARGEST}"
    async with running_kenko(tmp_path, table, hub=limits) as kenko, kenko.client(path) as app:
        connections: Any = kenko.hub.main._state.connections
        (ours,) = connections
        assert ours.conn.max_message_size == LARGEST
        await app.send(b"x" * (LARGEST + 1))
        assert await app.closed() == 1009
