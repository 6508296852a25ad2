"""What clients must not be able to break: garbage, sizes, readers that do not read, vanishing."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from hubbub.testing import TcpPeer, counted
from tests.adapters.kenko.serving import REGISTER, Kenko, running_kenko, until

TO_APPS = '[[routes]]\nname = "r"\nmatch = "to.apps"\nto = ["kenko.app.*"]\n'
MIB = 1024**2


async def test_frames_before_registration(kenko: Kenko) -> None:
    """Told, and the connection stays."""
    async with kenko.client() as app:
        for frame in (
            {"type": "message", "data": {"content": "x", "reply_to": "m"}},
            {"type": "ack", "data": {"id": "m"}},
            {"type": "message"},
        ):
            await app.send(frame)
            assert (await app.next("error"))["code"] == "not_registered"
        await app.send({"type": "runner.result", "data": {}}, {"type": "start"})
        await app.register()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_json"),
        ("", "bad_json"),
        (b"", "bad_json"),
        (b"\xff\xfe", "bad_json"),
        (b"\x00", "bad_json"),
        ("[" * 200_000, "bad_json"),
        ('{"type":"message","data":' + "[" * 100_000, "bad_json"),
        ("{}", "bad_type"),
        ('{"type":7}', "bad_type"),
        ('{"type":"message","data":{"content":null}}', "bad_data"),
        ('{"type":"message","data":{"content":"\\u0000","reply_to":"m"}}', "bad_data"),
    ],
)
async def test_garbage_is_told_and_the_connection_stays(
    kenko: Kenko, frame: str | bytes, code: str
) -> None:
    """And counted."""
    async with kenko.app() as app:
        await app.send(frame)
        assert (await app.next("error"))["code"] == code
        await app.silence()
        refused = counted(
            kenko.core, "hubbub_frames_refused_total", adapter="kenko", reason=code
        )  # fmt: skip
        assert refused == 1


async def test_ten_thousand_pieces_of_garbage(kenko: Kenko) -> None:
    """The tenth within a minute is the last: 4003. Others do not notice."""
    chance = random.Random(17680)
    async with kenko.app() as other, kenko.app() as app:
        try:
            for _ in range(10_000):
                await app.send(chance.randbytes(chance.randrange(200)))
        except ConnectionClosed:
            pass
        assert await app.closed() == 4003
        await other.silence()
        await until(lambda: len(kenko.desk.apps) == 1)


async def test_ten_thousand_frames_that_mean_nothing(kenko: Kenko) -> None:
    """JSON objects of no use are no abuse; each is told, and the connection stays."""
    async with kenko.app() as app:

        async def read() -> None:
            for _ in range(10_000):
                assert (await app.next("error"))["code"] == "bad_type"

        reading = asyncio.ensure_future(read())
        for _ in range(10_000):
            await app.send("{}")
        await reading
        await app.silence()


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_a_message_of_a_mebibyte_and_one_byte_more(kenko: Kenko, kind: str) -> None:
    """The limit itself is taken; more is 1009."""
    head, tail = '{"type":"message","data":{"content":"', '","target":{"address":"no.one"}}}'
    async with kenko.app() as app:
        for size in (MIB, MIB + 1):
            frame = head + "x" * (size - len(head) - len(tail)) + tail
            await app.send(frame if kind == "text" else frame.encode())
            if size == MIB:
                assert (await app.next("error"))["code"] == "no_route"  # taken, whatever is added
        assert await app.closed() == 1009


async def test_the_adapters_limit_holds_below_that_of_the_port(tmp_path: Path) -> None:
    """Bytes count, not characters."""
    async with running_kenko(tmp_path, "max_message_bytes = 100") as kenko, kenko.client() as app:
        await app.send("é" * 50)
        assert (await app.next("error"))["code"] == "bad_json"
        await app.send("é" * 50 + "x")
        assert await app.closed() == 1009


async def test_text_that_is_no_utf8(kenko: Kenko) -> None:
    """RFC 6455: 1007; the hub goes on."""
    async with kenko.app() as other:
        peer = await raw_socket(kenko)
        await peer.send(b"\x81\x82\0\0\0\0\xff\xfe")
        assert b"\x03\xef" in await peer.rest()  # 1007
        await peer.close()
        await other.silence()


async def raw_socket(kenko: Kenko) -> TcpPeer:
    """Return a WebSocket without a client around it."""
    peer = await TcpPeer.connect(kenko.hub.main.address)
    await peer.send(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    while await peer.line() != b"\r\n":
        pass
    return peer


def masked(frame: Any) -> bytes:
    """Return a short text frame of a client."""
    payload = json.dumps(frame).encode()
    assert len(payload) < 65536
    head = bytes((0x81, 0xFE)) + len(payload).to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


async def test_an_application_that_vanishes_in_mid_message(kenko: Kenko) -> None:
    """Half a frame, then a reset: it is gone, and nobody else notices."""
    async with kenko.app() as other:
        for _ in range(20):
            peer = await raw_socket(kenko)
            await peer.send(masked(REGISTER) + masked({"type": "message"})[:20])
            await peer.reader.readuntil(b'"start"}')
            peer.vanish()
        await until(lambda: len(kenko.desk.connections) == 1)
        await other.silence()


async def test_an_application_that_never_reads(tmp_path: Path) -> None:
    """It is paused; what is durable waits; others are served, and the hub stops in time."""
    text = "x" * 100_000
    async with running_kenko(tmp_path, "queue_size = 8", more=TO_APPS) as kenko:
        peer = await deaf_socket(kenko)
        await peer.send(masked(REGISTER))
        await until(lambda: len(kenko.desk.apps) == 1)
        (deaf,) = kenko.desk.apps.list()
        await until(lambda: deaf.open)
        async with kenko.app() as other:
            number = 0
            while deaf.state.name == "RUNNING":
                await kenko.publish("to.apps", {"text": text}, durable=False)
                assert len((await other.next("message"))["content"]) == len(text)
                number += 1
                assert number < 500
            assert deaf.state.name == "IDLE"
            said = await kenko.ask("kept", "to.apps")
            assert said["deliveries"] == 2
            assert (await other.next("message"))["content"] == "kept"
            deaf.kick()
            await until(lambda: len(kenko.desk.apps) == 1)
            await other.silence()
        peer.vanish()


async def test_a_reader_that_comes_back_gets_everything(tmp_path: Path) -> None:
    """What was under way when it was paused, then the rest, in order."""
    text = "x" * 100_000
    async with running_kenko(tmp_path, "queue_size = 8", more=TO_APPS) as kenko:
        peer = await deaf_socket(kenko)
        await peer.send(masked(REGISTER))
        await until(lambda: len(kenko.desk.apps) == 1)
        (slow,) = kenko.desk.apps.list()
        await until(lambda: slow.open)
        number = 0
        while slow.state.name == "RUNNING":
            await kenko.publish("to.apps", {"text": f"#{number:03}" + text}, durable=False)
            number += 1
        got: list[str] = []
        while len(got) < number:
            frame = await next_frame(peer)
            if frame["type"] == "message":
                got.append(frame["data"]["content"][:4])
            await asyncio.sleep(0)
        assert got == [f"#{place:03}" for place in range(number)]
        peer.vanish()


async def deaf_socket(kenko: Kenko) -> TcpPeer:
    """Return a WebSocket that takes as little as possible unread."""
    address = kenko.hub.main.address
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, address)
    peer = TcpPeer(*await asyncio.open_connection(sock=plain, limit=4096))
    await peer.send(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    while await peer.line() != b"\r\n":
        pass
    return peer


async def next_frame(peer: TcpPeer) -> Any:
    """Read one text frame."""
    async with asyncio.timeout(10):
        head = await peer.reader.readexactly(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await peer.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await peer.reader.readexactly(8), "big")
        return json.loads(await peer.reader.readexactly(size))


GARBAGE_PACKETS = [
    "9",
    "4",
    "47",
    "42/client,",
    "42/client,[",
    '42/client,["auth"',
    "45-",
    "42[]",
    "2",
]


@pytest.mark.parametrize("packet", GARBAGE_PACKETS)
async def test_garbage_in_engine_io(kenko: Kenko, packet: str) -> None:
    """A bad packet over polling harms nobody."""
    path = "/socket.io/?EIO=4&transport=polling"
    opened = await kenko.http.get(path)
    sid = json.loads(opened.text[1:])["sid"]
    answer = await kenko.http.post(f"{path}&sid={sid}", content=packet, timeout=15)
    assert answer.status_code in (200, 400)
    async with kenko.event_client() as app:
        await app.emit("auth", "x")
        assert await app.next("auth") is True
