"""TCP: frames, limits, back-pressure, and peers that do not behave."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from hubbub.errors import InvalidError, Retry
from hubbub.listeners import Connection, FrameConnection, LineConnection
from hubbub.listeners.frames import WAITING_FRAMES
from hubbub.testing import TcpPeer
from tests.hub.listeners.conftest import Bench


class Echo(LineConnection):
    """Says every line again."""

    def frame(self, frame: bytes) -> None:
        if frame == b"bug\n":
            raise RuntimeError("a bug")
        if frame == b"bad\n":
            raise InvalidError("not this one")
        self.write(frame)


class Talker(LineConnection):
    """Says every line again, one after the other."""

    async def talk(self) -> None:
        async for line in self:
            await asyncio.sleep(0)
            self.write(line)


class Counted(FrameConnection):
    """Frames of a length byte and that many bytes."""

    def cut(self, buffer: bytearray, start: int) -> int | None:
        if buffer[start] == 0xFF:
            raise InvalidError("no such length")
        end = start + 1 + buffer[start]
        return end if end <= len(buffer) else None

    def frame(self, frame: bytes) -> None:
        self.write(frame.hex().encode() + b"\n")


class Recorder(LineConnection):
    """Keeps every line."""

    taken: list[bytes]

    def frame(self, frame: bytes) -> None:
        self.taken.append(frame)


HTTP = {
    "a form": b"POST / HTTP/1.1\r\nHost: hub\r\n\r\nlogin admin\r\nquit\r\n",
    "a page": b"GET /login%20admin HTTP/1.1\r\n\r\n",
    "an upload": b"PUT /x HTTP/1.1\r\nHost: hub\r\n\r\nlogin admin\n",
    "a preflight": b"OPTIONS / HTTP/1.1\r\nHost: hub\r\n\r\n",
    "a method that is not known": b"HEAD / HTTP/1.1\r\nHost: hub\r\nlogin admin\r\n",
    "a line behind others": b"hello\nPOST / HTTP/1.1\r\nlogin admin\n",
}


@pytest.mark.parametrize("sent", HTTP.values(), ids=HTTP)
@pytest.mark.parametrize("pieces", [1, 1000])
async def test_a_browser_is_no_peer(bench: Bench, sent: bytes, pieces: int) -> None:
    """A line of HTTP ends the connection before anything behind it is a line of the protocol."""
    taken: list[bytes] = []

    def make() -> Recorder:
        made = Recorder()
        made.taken = taken
        return made

    listener = await bench.tcp(make)
    peer = await bench.peer(listener)
    size = -(-len(sent) // pieces)
    try:
        for start in range(0, len(sent), size):
            await peer.send(sent[start : start + size])
            if pieces > 1:
                await asyncio.sleep(0)
        assert await peer.rest() == b""
    except ConnectionError:
        pass  # it was closed while it wrote
    assert not [line for line in taken if b"login" in line]
    assert bench.frames("http_line") == 1
    await peer.close()


@pytest.mark.parametrize("make", [Echo, Talker])
@pytest.mark.parametrize("line", [b"POSTS\n", b"get x\n", b" GET /\n", b"Hosts: 2\n", b"GET\n"])
async def test_lines_that_are_no_http(bench: Bench, make: type[Connection], line: bytes) -> None:
    """Words of a protocol that only begin like it go through."""
    listener = await bench.tcp(make)
    peer = await bench.peer(listener)
    await peer.send(line)
    assert await peer.line() == line
    await peer.close()


async def test_a_reader_of_lines_ends_at_http(bench: Bench) -> None:
    """Also where lines are read one by one, behind one that is being worked on."""
    listener = await bench.tcp(Talker)
    peer = await bench.peer(listener)
    await peer.send(b"one\n")
    assert await peer.line() == b"one\n"
    await peer.send(b"Host: hub\nlogin\n")
    with suppress(ConnectionError):
        assert await peer.rest() == b""
    assert bench.frames("http_line") == 1
    await peer.close()


@pytest.mark.parametrize("make", [Echo, Talker])
async def test_lines_come_back(bench: Bench, make: type[Connection]) -> None:
    """However the network cuts them."""
    listener = await bench.tcp(make)
    peer = await bench.peer(listener)
    for piece in (b"on", b"e\ntwo\nth", b"ree\n"):
        await peer.send(piece)
        await bench.read_all(listener, peer)
    assert [await peer.line() for _ in range(3)] == [b"one\n", b"two\n", b"three\n"]
    await peer.close()


async def test_a_frame_is_cut_by_its_protocol(bench: Bench) -> None:
    """Byte by byte, or many at once."""
    listener = await bench.tcp(Counted)
    peer = await bench.peer(listener)
    data = b"\x01a\x00\x03bcd"
    for number in range(len(data)):
        await peer.send(data[number : number + 1])
    await peer.send(data)
    lines = [await peer.line() for _ in range(6)]
    assert lines == [b"0161\n", b"00\n", b"03626364\n"] * 2
    await peer.send(b"\xff")
    assert await peer.rest() == b""
    assert bench.frames("invalid") == 1


@pytest.mark.parametrize("over", [0, 1])
async def test_the_limit_of_a_frame(bench: Bench, over: int) -> None:
    """At the limit it is taken, one byte over it ends this connection only."""
    listener = await bench.tcp(Echo, frame=100)
    other = await bench.peer(listener)
    peer = await bench.peer(listener)
    line = b"x" * (99 + over) + b"\n"
    await peer.send(line)
    if over:
        assert await peer.rest() == b""
    else:
        assert await peer.line() == line
    assert bench.frames("too_large") == bench.refused("too_large") == over
    await other.send(b"still here\n")
    assert await other.line() == b"still here\n"


async def test_a_frame_without_an_end_is_not_kept(bench: Bench) -> None:
    """What is over the limit before it ends is refused then."""
    listener = await bench.tcp(Echo, frame=1000)
    peer = await bench.peer(listener)
    await peer.send(b"x" * 1001)
    assert await peer.rest() == b""
    assert bench.refused("too_large") == 1


async def test_a_refused_frame_does_not_end_the_connection(bench: Bench) -> None:
    """A `HubError` is counted under its code."""
    listener = await bench.tcp(Echo)
    peer = await bench.peer(listener)
    await peer.send(b"bad\ngood\n")
    assert await peer.line() == b"good\n"
    assert bench.frames("invalid") == 1


async def test_a_bug_ends_its_connection_only(bench: Bench) -> None:
    """It is logged and counted."""
    listener = await bench.tcp(Echo)
    other, peer = [await bench.peer(listener) for _ in range(2)]
    await peer.send(b"bug\n")
    assert await peer.rest() == b""
    await other.send(b"well\n")
    assert await other.line() == b"well\n"
    assert bench.metrics.plugin_errors["test", "connection"]._value.get() == 1


async def test_a_protocol_that_cannot_be_made(bench: Bench) -> None:
    """The connection is closed; the listener goes on."""
    made = 0

    def make() -> Connection:
        nonlocal made
        made += 1
        if made == 1:
            raise RuntimeError("a bug")
        return Echo()

    listener = await bench.tcp(make)
    assert await (await bench.peer(listener)).rest() == b""
    peer = await bench.peer(listener)
    await peer.send(b"well\n")
    assert await peer.line() == b"well\n"


# Limits


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"connections": 2}, "connections"), ({"connections_per_source": 2}, "source")],
)
async def test_the_limit_of_connections(bench: Bench, limits: dict[str, int], reason: str) -> None:
    """The third is closed; when one has left there is room again."""
    listener = await bench.tcp(Echo, **limits)
    first, second = [await bench.peer(listener) for _ in range(2)]
    await bench.until(lambda: bench.open == 2)
    third = await bench.peer(listener)
    assert await third.rest() == b""
    assert bench.refused(reason) == 1
    await first.close()
    await bench.until(lambda: bench.open == 1)
    fourth = await bench.peer(listener)
    for peer in (second, fourth):
        await peer.send(b"hello\n")
        assert await peer.line() == b"hello\n"


async def test_the_rate_of_connections(bench: Bench) -> None:
    """Two at once, then one each half second, by the hub's clock."""
    listener = await bench.tcp(Echo, rate_per_source=2)
    for _ in range(2):
        await (await bench.peer(listener)).close()
    assert await (await bench.peer(listener)).rest() == b""
    assert bench.refused("rate") == 1
    await bench.clock.advance(0.5)
    peer = await bench.peer(listener)
    await peer.send(b"again\n")
    assert await peer.line() == b"again\n"


@pytest.mark.parametrize("bytes_sent", [b"", b"half a li"], ids=["nothing", "half a line"])
async def test_a_silent_peer_is_closed(bench: Bench, bytes_sent: bytes) -> None:
    """Half-open or slow-loris: after `idle` without a byte."""
    listener = await bench.tcp(Echo, idle="30s")
    peer = await bench.peer(listener)
    await peer.send(bytes_sent)
    await bench.until(lambda: bench.open == 1)
    await bench.read_all(listener, peer)
    await bench.clock.advance(29)
    await peer.send(b"x")  # as late as can be
    await bench.read_all(listener, peer)
    await bench.clock.advance(29)
    assert bench.open == 1
    await bench.clock.advance(1.1)
    assert await peer.rest() == b""
    assert bench.refused("idle") == 1


async def test_a_peer_that_only_sends_its_end(bench: Bench) -> None:
    """Half-closed: it gets its answers, and the connection ends."""
    listener = await bench.tcp(Talker)
    peer = await bench.peer(listener)
    await peer.send(b"one\n" * 1000)
    peer.half_close()
    assert await peer.rest() == b"one\n" * 1000


# Back-pressure


class Flood(Connection):
    """Writes without looking whether anybody reads."""

    def received(self, data: bytes) -> None:
        for _ in range(200):
            self.write(b"x" * 100_000)


async def test_a_peer_that_never_reads_is_closed(bench: Bench) -> None:
    """Before what waits for it has filled the memory."""
    listener = await bench.tcp(Flood)
    peer = await bench.peer(listener)
    await peer.send(b"go")
    await bench.until(lambda: bench.refused("unread") == 1)
    await bench.until(lambda: bench.open == 0)


class Polite(Connection):
    """Waits until the peer keeps up."""

    sent = 0

    def opened(self) -> None:
        self.home.spawn(self._pour())

    async def _pour(self) -> None:
        try:
            for _ in range(1000):
                await self.send(b"x" * 100_000)
                Polite.sent += 1
        except Retry as gone:
            Polite.sent = -1 if gone.reason == "connection_lost" else 0


async def test_send_waits_for_a_slow_peer_and_not_for_ever(bench: Bench) -> None:
    """Little is kept; after `idle` the peer is gone and `deliver` would be tried again."""
    listener = await bench.tcp(Polite, idle="30s")
    await bench.peer(listener)
    await bench.until(lambda: Polite.sent > 0)
    await bench.still(lambda: Polite.sent)
    assert 0 < Polite.sent < 900
    await bench.clock.advance(31)
    await bench.until(lambda: Polite.sent == -1)
    assert bench.refused("unread") + bench.refused("idle") == 1


class Slow(LineConnection):
    """Takes a line when it is let."""

    gate = asyncio.Event()
    taken = 0

    async def talk(self) -> None:
        async for _ in self:
            Slow.taken += 1
            await Slow.gate.wait()


def queued(peer: TcpPeer) -> int:
    """Return the bytes that a peer has written and the system has not taken yet."""
    return int(peer.writer.transport.get_write_buffer_size())


async def test_a_slow_talk_makes_the_peer_wait(bench: Bench) -> None:
    """A bounded number of frames waits, nothing is lost, and that is not idleness."""
    Slow.gate, Slow.taken = asyncio.Event(), 0
    listener = await bench.tcp(Slow, idle="10s")
    peer = await bench.peer(listener)
    lines = 60_000
    peer.writer.write((b"x" * 199 + b"\n") * lines)
    await bench.until(lambda: Slow.taken == 1)
    (connection,) = listener._home.connections
    assert isinstance(connection, Slow)
    await bench.still(lambda: (len(connection._waiting), queued(peer)))
    assert queued(peer) > 0
    assert len(connection._waiting) <= WAITING_FRAMES
    await bench.clock.advance(60)
    assert bench.open == 1
    Slow.gate.set()
    await bench.until(lambda: Slow.taken == lines)
    peer.vanish()


async def test_writes_of_one_turn_are_joined(bench: Bench) -> None:
    """A thousand answers are a few packets."""
    calls = 0

    class Watched(Echo):
        def flush(self) -> None:
            nonlocal calls
            calls += bool(self._unwritten)
            super().flush()

    listener = await bench.tcp(Watched)
    peer = await bench.peer(listener)
    await peer.send(b"x\n" * 1000)
    for _ in range(1000):
        assert await peer.line() == b"x\n"
    assert calls < 20


# Many, and the end


async def test_a_thousand_come_and_go(bench: Bench) -> None:
    """Politely and rudely in turn; nothing stays behind."""
    listener = await bench.tcp(Talker)
    for number in range(1000):
        peer = await bench.peer(listener)
        if number % 2:
            peer.vanish()
        else:
            await peer.send(b"hello\n")
            peer.writer.close()
    await bench.until(lambda: bench.open == 0 and not listener._home.talking)
    assert not listener._home.connections
    peer = await bench.peer(listener)
    await peer.send(b"hello\n")
    assert await peer.line() == b"hello\n"


class Deaf(LineConnection):
    """Does not leave."""

    def leave(self) -> None:
        pass

    async def talk(self) -> None:
        await asyncio.Event().wait()


async def test_it_stops_in_time(bench: Bench) -> None:
    """Whoever stays longer is cut off, and the address is free."""
    listener = await bench.tcp(Deaf)
    peers = [await bench.peer(listener) for _ in range(3)]
    await bench.until(lambda: bench.open == 3)
    began = time.monotonic()
    await listener.stop(0.2)
    assert 0.1 < time.monotonic() - began < 2
    for peer in peers:
        assert await peer.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await bench.peer(listener)


async def test_what_was_written_arrives_before_the_end(bench: Bench) -> None:
    """`close` sends first."""

    class Bye(LineConnection):
        def leave(self) -> None:
            self.write(b"bye\n")
            self.close()

    listener = await bench.tcp(Bye)
    peer = await bench.peer(listener)
    await bench.until(lambda: bench.open == 1)
    await listener.stop(1)
    assert await peer.rest() == b"bye\n"


def test_frames_have_to_be_cut() -> None:
    """A connection of frames that does not say where they end cannot be made."""
    with pytest.raises(TypeError, match="cut"):
        FrameConnection()  # type: ignore[abstract]
