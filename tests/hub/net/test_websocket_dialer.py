"""WebSockets that the hub dials: what is good, what is lost, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from hubbub.config import ClientTlsSettings
from hubbub.errors import InvalidError
from hubbub.net import Backoff, Dial, DialPolicy, DialTimes
from tests.hub.listeners.conftest import OPENSSL, Files
from tests.hub.net.conftest import (
    Bench,
    Seen,
    accept,
    frame_of,
    framed,
    hang,
    request_of,
    try_send,
)


async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and say everything again, until a close frame."""
    await accept(reader, writer)
    while True:
        opcode, data = await frame_of(reader)
        if opcode == 9:
            opcode = 10
        writer.write(framed(data, opcode))
        if opcode == 8:
            return


async def test_messages_both_ways(bench: Bench) -> None:
    """Against the library's own server: text and bytes in order, whole, of every length."""

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    sent: list[Any] = ["", "a", "ü" * 125, b"\0" * 126, "x" * 65_535, b"y" * 65_536, "z" * 900_000]
    async with serve(echo, "127.0.0.1", 0, compression="deflate") as server:
        port = server.sockets[0].getsockname()[1]
        dial = bench.websocket(f"ws://127.0.0.1:{port}/a/b?x=1")
        await bench.until_state(dial, "open")
        link = bench.links[0]
        assert link.peer == "127.0.0.1"
        for message in sent:
            link.write(message)
        await bench.until(lambda: len(bench.seen) == len(sent) + 1)
        assert bench.seen == ["opened", *sent]
        assert bench.dialled("open") == 1
        dial.close()
        await bench.until(lambda: dial.is_gone)
    assert bench.seen[-1] == ("closed", 1001, "")
    assert bench.states == ["connecting", "open", "closed"]
    assert not await try_send(link, "more")


async def test_what_the_handshake_has(bench: Bench) -> None:
    """Headers that are asked for at each attempt, subprotocols, userinfo; the peer chooses."""
    asked: list[bytes] = []
    tokens = iter(("one", "two"))

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await accept(reader, writer))

    async def headers() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"X-Token": next(tokens), "User-Agent": "bot"}

    address = await bench.peer(once)
    dial = bench.websocket(
        f"ws://user:pass%20word@{address}/p?q=1", headers=headers, subprotocols=("a", "b")
    )
    await bench.until(lambda: dial.failures == 1)
    await bench.clock.advance(1)
    await bench.until(lambda: dial.failures == 2)
    first, second = (each.decode() for each in asked)
    assert first.startswith("GET /p?q=1 HTTP/1.1\r\n")
    assert f"Host: {address}\r\n" in first
    assert "Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n" in first
    assert "Sec-WebSocket-Protocol: a, b\r\n" in first
    assert "User-Agent: bot\r\n" in first
    assert "Sec-WebSocket-Extensions" not in first
    assert "X-Token: one\r\n" in first
    assert "X-Token: two\r\n" in second


async def test_what_comes_in_the_same_breath(bench: Bench) -> None:
    """Frames behind the answer, in pieces, with pings and empty ones between."""
    more = (
        framed(b"he", 1, fin=False)
        + framed(b"", 0, fin=False)
        + framed(b"?", 9)
        + framed("llö".encode()[:3], 0, fin=False)
        + framed("llö".encode()[3:], 0)
        + framed(b"\xff", 2)
        + framed(b"\x0f\xa0bye", 8)
    )
    pongs: list[Any] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, more)
        pongs.append(await frame_of(reader))
        pongs.append(await frame_of(reader))

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "waiting")
    assert bench.seen == ["opened", "hellö", b"\xff", ("closed", 4000, "bye")]
    await bench.until(lambda: len(pongs) == 2)
    assert pongs == [(10, b"?"), (8, b"\x0f\xa0bye")]
    assert "4000" in dial.reason
    assert "bye" in dial.reason


async def test_one_that_is_lost_again_and_again(bench: Bench) -> None:
    """1, 2, 4 seconds, though each handshake was good; after a stable link 1 again."""
    holding = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await writer.drain()
        if bench.came == 4:
            await holding.wait()

    backoff = Backoff(first_s=1, factor=2, cap_s=60, stable_s=15)
    policy = DialPolicy(backoff=backoff, times=DialTimes(ping_s=3600))
    dial = bench.websocket(f"ws://{await bench.peer(talk)}", policy=policy)
    for number, seconds in enumerate((1, 2, 4), 1):
        await bench.until_failed(dial, number)
        assert dial.next_s == seconds
        await bench.clock.advance(seconds - 0.01)
        assert (dial.state, bench.came) == ("waiting", number)
        await bench.clock.advance(0.01)
        await bench.until_came(number + 1)
    await bench.until_state(dial, "open")
    await bench.clock.advance(16)
    assert dial.state == "open"
    assert dial.reason == ""
    holding.set()
    await bench.until_state(dial, "waiting")
    assert (dial.failures, dial.next_s) == (1, 1)
    assert bench.failed("lost") == 4


@pytest.mark.parametrize(
    ("answer", "status", "body", "next_s"),
    [
        (b"403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, b"no", 1),
        (b"409 Conflict\r\nContent-Length: 0\r\n\r\n", 409, b"", 1),
        (b"302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", 302, b"", 1),
        (b"401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 401, b"abc", 1),
        (b"503 Later\r\nRetry-After: 40\r\nContent-Length: 0\r\n\r\n", 503, b"", 40),
        (b"503 Later\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n", 503, b"", 60),
        (b"200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, 200, b"x" * 65_536, 1),
        (b"404 No\r\n\r\n" + b"y" * 10, 404, b"y" * 10, 1),
    ],
)
async def test_an_answer_that_refuses(
    bench: Bench, answer: bytes, status: int, body: bytes, next_s: float
) -> None:
    """Told with status and the first of its body, and never `closed`; dialled again later."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 " + answer)
        await writer.drain()

    dial = bench.websocket(f"ws://{await bench.peer(refuse)}")
    await bench.until_state(dial, "waiting")
    ((told, headers, got),) = bench.seen
    assert (told, got) == (status, body)
    if b"Retry-After" in answer:
        assert "retry-after" in headers
    assert dial.next_s == next_s
    assert bench.failed("refused") == 1
    assert str(status) in dial.reason
    await bench.clock.advance(next_s)
    await bench.until(lambda: bench.came == 2)


async def test_a_refusal_whose_body_never_ends(bench: Bench) -> None:
    """What there is of it is told when the time for the handshake is over."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\npart")
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(refuse)}")
    await bench.until(lambda: bench.links and bench.links[0].link._answer._body)
    await bench.clock.advance(9.9)
    assert bench.seen == []
    await bench.clock.advance(0.2)
    await bench.until_state(dial, "waiting")
    assert bench.seen == [(403, {"content-length": "100"}, b"part")]
    assert bench.failed("refused") == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 what\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Accept"),
        (b"HTTP/1.1 101 Go\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "Upgrade"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "over 65536 bytes"),
    ],
)
async def test_no_websocket_is_there(bench: Bench, answer: bytes, why: str) -> None:
    """Anything else that listens there."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "waiting")
    assert why in dial.reason
    assert bench.seen == []
    assert bench.failed("protocol") == 1


async def test_one_that_never_answers_the_handshake(bench: Bench) -> None:
    """Cut at its deadline, also when a byte comes now and then."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 101 ")
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(drip)}")
    await bench.until(lambda: bench.links and bench.links[0].link._answer._head)
    await bench.clock.advance(9.9)
    assert dial.state == "connecting"
    await bench.clock.advance(0.2)
    await bench.until_state(dial, "waiting")
    assert bench.failed("handshake") == 1


async def test_one_that_hangs_up_in_the_handshake(bench: Bench) -> None:
    """No refusal, and no link that was lost."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)

    dial = bench.websocket(f"ws://{await bench.peer(leave)}")
    await bench.until_state(dial, "waiting")
    assert bench.failed("handshake") == 1
    assert bench.seen == []


async def test_one_that_never_answers_a_close_frame(bench: Bench) -> None:
    """And goes on sending: cut after 5 seconds, with nothing more handed over."""
    told = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        assert (await frame_of(reader))[0] == 8
        told.set()
        while True:
            writer.write(framed(b"more" * 1000))
            await writer.drain()
            await asyncio.sleep(0.001)

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "open")
    bench.links[0].close(4321, "enough")
    assert not bench.links[0].is_open
    await told.wait()
    await asyncio.sleep(0.02)
    await bench.clock.advance(4.9)
    assert dial.state == "open"
    assert len(bench.links[0].link._frames) == 0
    await bench.clock.advance(0.2)
    await bench.until_state(dial, "waiting")
    assert bench.seen == ["opened", ("closed", 4321, "enough")]


async def test_a_peer_that_is_silent(bench: Bench) -> None:
    """Asked after 20 s, dead after 20 more; one that sends anything is alive."""
    frames: list[Any] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        frames.append(await frame_of(reader))
        writer.write(framed(b"hm"))
        frames.append(await frame_of(reader))
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "open")
    await bench.clock.advance(19.9)
    assert frames == []
    await bench.clock.advance(0.1)
    await bench.until(lambda: "hm" in bench.seen)
    await bench.clock.advance(20)
    await bench.until(lambda: len(frames) == 2)
    assert frames == [(9, b""), (9, b"")]
    await bench.clock.advance(19.9)
    assert dial.state == "open"
    await bench.clock.advance(0.1)
    await bench.until_state(dial, "waiting")
    assert "silent" in dial.reason
    assert bench.seen[-1] == ("closed", 1006, "")


async def test_a_message_over_the_limit(bench: Bench) -> None:
    """In one frame or in many: closed with 1009 before it is kept; the edge passes."""
    said: list[Any] = []
    cases = [framed(b"x" * 101), framed(b"x" * 100, fin=False) + framed(b"y", 0)]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, framed(b"x" * 60, fin=False) + framed(b"x" * 40, 0))
        writer.write(cases[bench.came - 1])
        said.append(await frame_of(reader))

    dial = bench.websocket(f"ws://{await bench.peer(talk)}", limits={"frame": 100})
    await bench.until(lambda: dial.failures == 1)
    await bench.clock.advance(dial.next_s)
    await bench.until(lambda: dial.failures == 2)
    assert [(opcode, data[:2]) for opcode, data in said] == [(8, b"\x03\xf1")] * 2
    assert [each if isinstance(each, str) else each[1] for each in bench.seen] == [
        "opened", "x" * 100, 1009, "opened", "x" * 100, 1009,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (framed(b"\xff\xfe"), 1007),
        (framed(b"x", 0), 1002),
        (b"\xc1\x01x", 1002),
        (framed(b"x", fin=False) + framed(b"y"), 1002),
    ],
)
async def test_frames_that_cannot_be_read(bench: Bench, frame: bytes, code: int) -> None:
    """The peer is told by the code of its mistake, and is dialled again."""
    said: list[Any] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, framed(b"good") + frame + framed(b"late"))
        said.append(await frame_of(reader))

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "waiting")
    assert bench.seen[:2] == ["opened", "good"]
    assert bench.seen[2][1] == code
    assert len(bench.seen) == 3
    assert said[0][1][:2] == code.to_bytes(2, "big")


async def test_paused_and_resumed(bench: Bench) -> None:
    """Nothing is handed over between, the peer has to wait, and all comes in order."""
    numbers = [str(number) for number in range(100)]

    class Pausing(Seen):
        def received(self, message: str | bytes) -> None:
            super().received(message)
            if message in ("10", "50"):
                self.pause()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, b"".join(framed(number.encode()) for number in numbers))
        writer.write(framed(b"\x03\xe8", 8))
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(talk)}", Pausing)
    stops = [10, 50]
    while stops:
        await bench.until(lambda: bench.seen[-1:] == [str(stops[0])])
        await bench.clock.advance(100)  # nobody is asked whether it lives, nor cut
        await asyncio.sleep(0.01)
        assert bench.seen[-1] == str(stops.pop(0))
        bench.links[0].resume()
    await bench.until_state(dial, "waiting")
    assert bench.seen == ["opened", *numbers, ("closed", 1000, "")]


async def test_a_paused_link_that_is_closed(bench: Bench) -> None:
    """The answer to the close frame is read all the same."""
    dial = bench.websocket(f"ws://{await bench.peer(parrot)}")
    await bench.until_state(dial, "open")
    bench.links[0].pause()
    bench.links[0].close()
    await bench.until_state(dial, "waiting")
    assert bench.seen[-1] == ("closed", 1000, "")


async def test_a_peer_that_does_not_read(bench: Bench) -> None:
    """`write` never waits; over 4 MiB and a frame the link ends, `send` waits until then."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads
        await asyncio.Event().wait()

    dial = bench.websocket(f"ws://{await bench.peer(talk)}")
    await bench.until_state(dial, "open")
    link = bench.links[0]
    sending = asyncio.create_task(try_send(link, "x" * 40_000_000))
    await bench.until_state(dial, "waiting")
    assert not await sending
    assert "unread" in dial.reason
    assert bench.failed("lost") == 1


async def test_code_that_fails_ends_its_link_only(bench: Bench) -> None:
    """A `HubError` refuses one message; anything else ends the link, which is dialled again."""

    class Clumsy(Seen):
        def received(self, message: str | bytes) -> None:
            if message == "no":
                raise InvalidError("not that")
            if message == "bug":
                raise ZeroDivisionError
            super().received(message)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, framed(b"no") + framed(b"yes") + framed(b"bug"))
        await hang(reader, writer)

    dial = bench.websocket(f"ws://{await bench.peer(talk)}", Clumsy)
    await bench.until_state(dial, "waiting")
    assert bench.seen == ["opened", "yes", ("closed", 1006, "")]
    value = bench.metrics.registry.get_sample_value
    refused = value("hubbub_frames_refused_total", {"adapter": "test", "reason": "invalid"})
    assert refused == 1
    errors = value("hubbub_plugin_errors_total", {"plugin": "test", "hook": "connection"})
    assert errors == 1


@pytest.mark.skipif(OPENSSL is None, reason="makes certificates with openssl")
async def test_tls(bench: Bench, files: Files) -> None:
    """With an authority of one's own; without it the peer is a stranger."""
    from hubbub.listeners.tls import server_context

    address = await bench.peer(parrot, ssl=server_context(files.settings))
    stranger = bench.websocket(f"wss://{address}")
    await bench.until_state(stranger, "waiting")
    assert bench.failed("tls") == 1
    assert bench.links[0].link._transport is None
    known = bench.websocket(f"wss://{address}", tls=ClientTlsSettings(ca=files.cert))
    await bench.until_state(known, "open")
    bench.links[-1].write("secret")
    await bench.until(lambda: "secret" in bench.seen)
    known.close()
    await bench.until(lambda: known.is_gone)


@pytest.mark.skipif(OPENSSL is None, reason="makes certificates with openssl")
async def test_a_peer_that_never_agrees_on_encryption(bench: Bench, files: Files) -> None:
    """It has the time for connecting, and no more."""
    tls = ClientTlsSettings(ca=files.cert)
    dial = bench.websocket(f"wss://{await bench.peer(hang)}", tls=tls)
    await bench.until(lambda: bench.came == 1)
    await bench.clock.advance(10.1)
    await bench.until_state(dial, "waiting")
    assert bench.failed("timeout") == 1


async def test_closed_in_every_phase(bench: Bench) -> None:
    """Waiting, connecting, in the handshake: at once, and it is not dialled again."""
    address = await bench.peer(hang)
    shaking = bench.websocket(f"ws://{address}")
    connecting = bench.websocket(f"ws://{address}")
    connecting.close()
    await bench.until(lambda: bench.came)
    await bench.until(lambda: shaking._entered)
    shaking.close()
    await bench.until(lambda: shaking.is_gone and connecting.is_gone)
    closed = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    waiting = bench.websocket(f"ws://127.0.0.1:{port}")
    await bench.until_state(waiting, "waiting")
    assert bench.failed("connect") == 1
    waiting.close()
    came = bench.came
    await bench.clock.advance(1000)
    assert bench.came == came
    assert bench.seen == []


@pytest.mark.parametrize("when", ["connecting", "open", "waiting"])
@pytest.mark.parametrize("kind", ["tcp", "websocket"])
async def test_closed_by_who_is_told(bench: Bench, kind: str, when: str) -> None:
    """At each change of state: nothing goes on behind it."""
    closed: list[str] = []

    def changed(dial: Dial) -> None:
        if dial.state == when:
            closed.append(when)
            dial.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind == "websocket":
            await accept(reader, writer)
        if when == "open":
            await hang(reader, writer)

    address, policy = await bench.peer(talk), DialPolicy(changed=changed)
    if kind == "tcp":
        dial = bench.tcp(address, policy=policy)
    else:
        dial = bench.websocket(f"ws://{address}", policy=policy)
    await bench.until(lambda: closed)
    await bench.clock.advance(5)  # the peer does not answer the close frame
    await bench.until_gone(dial)
    await bench.clock.advance(100)
    assert closed == [when]
    assert bench.came <= 1


async def test_closed_by_its_own_protocol(bench: Bench) -> None:
    """In `refused`, and in `received` with more behind."""

    class Leaving(Seen):
        def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            super().refused(status, {}, body)
            self.dial.close()

        def received(self, message: str | bytes) -> None:
            super().received(message)
            self.dial.close()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        await hang(reader, writer)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, framed(b"one") + framed(b"two"))
        await frame_of(reader)
        writer.write(framed(b"\x03\xe9", 8))

    await bench.until_gone(bench.websocket(f"ws://{await bench.peer(refuse)}", Leaving))
    await bench.until_gone(bench.websocket(f"ws://{await bench.peer(talk)}", Leaving))
    assert bench.seen == [(410, {}, b""), "opened", "one", ("closed", 1001, "")]


async def test_a_peer_that_floods_with_pings(bench: Bench) -> None:
    """And reads no answer: the link ends, before answers take all memory."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads
        while True:
            writer.write(framed(b"x" * 125, 9) * 500)
            await writer.drain()

    dial = bench.websocket(f"ws://{await bench.peer(talk)}", limits={"frame": 1000})
    await bench.until_state(dial, "waiting")
    assert "unread" in dial.reason


async def test_ipv6(bench: Bench) -> None:
    """With its brackets in the URL and in `Host`."""
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await accept(reader, writer))
        await hang(reader, writer)

    try:
        address = await bench.peer(talk, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    dial = bench.websocket(f"ws://{address}/")
    await bench.until_state(dial, "open")
    assert f"Host: [::1]:{address.port}\r\n".encode() in asked[0]
    assert dial.url == f"ws://[::1]:{address.port}/"
