"""Messages as RFC 9112 has them, and as it refuses them; byte by byte over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from hubbub.config import LimitSettings
from hubbub.listeners.http_requests import MAX_PIPELINED
from tests.hub.listeners.conftest import Bench, Files

HEADER_BYTES = LimitSettings().header_bytes
HEADERS = LimitSettings().headers
LAST = b"GET /last HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
SOCKET = (
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: %b\r\n"
)
CHUNKED = b"POST /a HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class App:
    """Answers with what it saw, and remembers the paths."""

    seen: list[str] = field(default_factory=list[str])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.seen.append(path)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body, more = b"", path != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append("disconnect")
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if path == "/slow":
            await asyncio.sleep(0.02)
        status = {"/unread": 413, "/204": 204, "/304": 304}.get(path, 200)
        headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
        told = json.dumps({"path": path, "body": body.decode(), "headers": headers}).encode()
        length = [(b"content-length", b"%d" % len(told))] if path == "/length" else []
        await send({"type": "http.response.start", "status": status, "headers": length})
        if status in (204, 304):
            told = b""
        await send({"type": "http.response.body", "body": told})


def get(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/a", version: bytes = b"1.1"
) -> bytes:
    """Return a request with these header lines, without a `Host` of its own."""
    head = b"%b %b HTTP/%b\r\n" % (method, target, version)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


HOST = b"Host: hub"
ASKED = get(HOST)

# Each: what is sent, with LAST behind it; the statuses that come back until the end. A refusal is
# the last of them, as nothing behind it is looked at.
TABLE: Mapping[str, tuple[bytes, list[int]]] = {
    # 2.2 line ends
    "an empty line before": (b"\r\n\r\n" + ASKED, [200, 200]),
    "bare LF": (b"GET /a HTTP/1.1\nHost: hub\n\n", [400]),
    "bare LF in a header": (b"GET /a HTTP/1.1\r\nHost: hub\nX: y\r\n\r\n", [400]),
    "bare CR in a value": (get(HOST, b"X: a\rb"), [400]),
    "NUL in a value": (get(HOST, b"X: a\0b"), [400]),
    "space before the first header": (get(b" X: y", HOST), [400]),
    # 3 request line
    "no version": (b"GET /a\r\n\r\n", [505]),
    "HTTP/0.9": (get(HOST, version=b"0.9"), [505]),
    "HTTP/2.0": (get(HOST, version=b"2.0"), [505]),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "HTTP/9.9": (get(HOST, version=b"9.9"), [400]),
    "lower-case method": (get(HOST, method=b"get"), [501]),
    "unknown method": (get(HOST, method=b"BREW"), [501]),
    "long method": (get(HOST, method=b"A" * 10_000), [501]),
    "two spaces": (b"GET  /a HTTP/1.1\r\nHost: hub\r\n\r\n", [200, 200]),
    "CONNECT": (get(HOST, method=b"CONNECT", target=b"hub:443"), [501]),
    "asterisk": (get(HOST, method=b"OPTIONS", target=b"*"), [200, 200]),
    "asterisk of GET": (get(HOST, target=b"*"), [400]),
    "asterisk and more": (get(HOST, method=b"OPTIONS", target=b"*x"), [400]),
    "absolute": (get(HOST, target=b"http://other/a"), [200, 200]),
    "absolute without path": (get(HOST, target=b"http://other"), [200, 200]),
    "absolute with a query alone": (get(HOST, target=b"http://other?x"), [200, 200]),
    "absolute of another scheme": (get(HOST, target=b"ftp://other/a"), [400]),
    "absolute with a user": (get(HOST, target=b"http://me@other/a"), [400]),
    "absolute without a host": (get(HOST, target=b"http:///a"), [400]),
    "authority": (get(HOST, target=b"hub:80"), [400]),
    "target that is no ASCII": (get(HOST, target=b"/\xc3\xa4"), [400]),
    # 3.2 Host
    "no Host": (get(), [400]),
    "no Host, absolute": (get(target=b"http://hub/a"), [400]),
    "two Hosts": (get(HOST, HOST), [400]),
    "two Hosts of 1.0": (get(HOST, HOST, version=b"1.0"), [400]),
    "empty Host": (get(b"Host:"), [400]),
    "Host with a path": (get(b"Host: hub/a"), [400]),
    "Host with a user": (get(b"Host: me@hub"), [400]),
    "Host with a space": (get(b"Host: hub hub"), [400]),
    "Host with a word for a port": (get(b"Host: hub:http"), [400]),
    "Host of IPv6": (get(b"Host: [::1]:80"), [200, 200]),
    "no Host of 1.0": (get(version=b"1.0"), [200]),
    # 5 headers
    "empty value": (get(HOST, b"X:", b"Y: z"), [200, 200]),
    "folded": (get(HOST, b"X: a", b" b"), [400]),
    "space before the colon": (get(HOST, b"X : a"), [400]),
    "no name": (get(HOST, b": a"), [400]),
    "no colon": (get(HOST, b"X"), [400]),
    "name with a space": (get(HOST, b"X Y: a"), [400]),
    "burst over the size": (get(HOST, *[b"X: " + b"x" * 1000] * 150), [431]),
    "burst over the count": (get(HOST, *[b"X: y"] * HEADERS), [431]),
    "burst at the count": (get(HOST, *[b"X: y"] * (HEADERS - 1)), [200, 200]),
    # 6 framing
    "two lengths": (get(HOST, b"Content-Length: 1", b"Content-Length: 2") + b"ab", [400]),
    "two equal lengths": (get(HOST, b"Content-Length: 1", b"Content-Length: 1") + b"a", [400]),
    "list of lengths": (get(HOST, b"Content-Length: 1, 1") + b"a", [400]),
    "negative length": (get(HOST, b"Content-Length: -1"), [400]),
    "length with a plus": (get(HOST, b"Content-Length: +1") + b"a", [400]),
    "length in hex": (get(HOST, b"Content-Length: 0x1") + b"a", [400]),
    "empty length": (get(HOST, b"Content-Length:"), [400]),
    "length that overflows": (get(HOST, b"Content-Length: " + b"9" * 30), [400]),
    "length and chunks": (
        get(HOST, b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        [400],
    ),
    "chunks and length": (
        get(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n",
        [400],
    ),
    "coding unknown": (get(HOST, b"Transfer-Encoding: rot13"), [400]),
    "coding identity": (get(HOST, b"Transfer-Encoding: identity"), [400]),
    "chunked not last": (get(HOST, b"Transfer-Encoding: chunked, gzip"), [400]),
    "chunked twice": (get(HOST, b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", [400]),
    "chunked in two lines": (
        get(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        [400],
    ),
    "gzip, chunked": (get(HOST, b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", [501]),
    "chunked like": (get(HOST, b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", [400]),
    "chunks of 1.0": (
        get(HOST, b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\n",
        [400],
    ),
    # 7 chunks
    "chunks": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", [200, 200]),
    "extension": (CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n", [200, 200]),
    "long extension": (CHUNKED + b"3;a=" + b"x" * 3 * HEADER_BYTES, [431]),
    "many extensions": (CHUNKED + (b"1;a=%b\r\nx\r\n" % (b"x" * 1000)) * 200, [431]),
    "many chunks": (CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", [200, 200]),
    "size that overflows": (CHUNKED + b"1" + b"0" * 16 + b"\r\nabc\r\n", [400]),
    "size with a sign": (CHUNKED + b"-1\r\nabc\r\n", [400]),
    "size with 0x": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", [400]),
    "chunk that is longer": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", [400]),
    "bare LF behind a size": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", [400]),
    "trailer": (CHUNKED + b"0\r\nX: y\r\n\r\n", [200, 200]),
    "trailers over the size": (CHUNKED + b"0\r\n" + b"X: yyyy\r\n" * HEADER_BYTES, [431]),
    "trailer without end": (CHUNKED + b"0\r\nX: " + b"y" * 3 * HEADER_BYTES, [431]),
    # RFC 9110, 10.1.1
    "Expect": (get(HOST, b"Expect: 100-continue", b"Content-Length: 1") + b"a", [100, 200, 200]),
    "Expect of 1.0": (
        get(b"Expect: 100-continue", b"Content-Length: 1", version=b"1.0") + b"a",
        [200],
    ),
    "other expectation": (get(HOST, b"Expect: tea"), [417]),
    # RFC 9110, 7.8 and RFC 6455
    "h2c": (
        get(HOST, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),
        [200, 200],
    ),
    "Upgrade that nobody wants": (get(HOST, b"Upgrade: websocket"), [200, 200]),
    "websocket of 1.0": (
        get(b"Upgrade: websocket", (SOCKET % b"13").rstrip(), version=b"1.0"),
        [200],
    ),
    "websocket of another version": (
        get(HOST, b"Upgrade: websocket", (SOCKET % b"12").rstrip()),
        [426],
    ),
    "websocket with a body": (
        get(HOST, b"Upgrade: websocket", (SOCKET % b"13").rstrip(), b"Content-Length: 1") + b"a",
        [400],
    ),
    "websocket in chunks": (
        get(HOST, b"Upgrade: websocket", (SOCKET % b"13").rstrip(), b"Transfer-Encoding: chunked")
        + b"0\r\n\r\n",
        [400],
    ),
    "websocket without a key": (
        get(HOST, b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Version: 13"),
        [400],
    ),
    "websocket of an absolute target": (
        get(HOST, b"Upgrade: websocket", (SOCKET % b"13").rstrip(), target=b"http://other/a"),
        [101],
    ),
    "websocket among others": (
        get(HOST, b"Upgrade: h2c, websocket", (SOCKET % b"13").rstrip()),
        [101],
    ),
    # 9 connections
    "asked to close": (get(HOST, b"Connection: close"), [200]),
    "of 1.0": (get(version=b"1.0"), [200]),
    "pipelined": (get(HOST, target=b"/slow") + ASKED * 5, [200] * 7),
    "pipelined and broken": (get(HOST, target=b"/slow") + ASKED + get(b"X"), [200, 200, 400]),
    "pipelined too far": (ASKED * 300, [200] * (MAX_PIPELINED + 1) + [429]),
    "pipelined upgrade": (
        get(HOST, target=b"/slow") + get(HOST, b"Upgrade: websocket", (SOCKET % b"13").rstrip()),
        [200, 200, 200],
    ),
}


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of answers in a row."""
    return [int(each[:3]) for each in answers.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(("sent", "expected"), TABLE.values(), ids=TABLE)
async def test_the_table(bench: Bench, sent: bytes, expected: list[int]) -> None:
    """One meaning or a refusal; behind a refusal nothing is served, and the connection ends."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(sent + LAST)
    assert statuses(await peer.rest()) == expected
    assert ("/last" in app.seen) == (expected[-1] == 200 and len(expected) > 1)
    assert bench.refused("unread") == 0


@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_cut_as_the_network_likes(bench: Bench, cut: int) -> None:
    """What a request means does not depend on its packets."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    upgrade = get(
        HOST, b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 4", method=b"POST"
    )
    sent = upgrade + b"four" + CHUNKED + b"4;x\r\nfour\r\n0\r\nX: y\r\n\r\n" + LAST
    for start in range(0, len(sent), cut):
        await peer.send(sent[start : start + cut])
        if cut < 1000:
            await bench.read_all(listener, peer)
    answer = await peer.rest()
    assert statuses(answer) == [200] * 3
    assert answer.count(b'"body": "four"') == 2


@pytest.mark.parametrize("upgrade", [b"h2c", b"HTTP/2.0", b"foo, bar", b"websocket"])
@pytest.mark.parametrize("framing", [b"Content-Length: 4", b"Transfer-Encoding: chunked"])
async def test_an_upgrade_that_is_not_spoken(bench: Bench, upgrade: bytes, framing: bytes) -> None:
    """It is ignored: the request keeps its body, and the next one its beginning."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    head = get(
        HOST,
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: " + upgrade,
        framing,
        method=b"POST",
    )
    await peer.send(head + (b"four" if b"4" in framing else b"4\r\nfour\r\n0\r\n\r\n") + LAST)
    answer = await peer.rest()
    assert statuses(answer) == [200, 200]
    assert b'"body": "four"' in answer
    assert b'"upgrade"' not in answer
    assert app.seen == ["/a", "/last"]


async def test_trailers_are_no_headers(bench: Bench) -> None:
    """Neither of their own request, which still runs, nor of the next one."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(CHUNKED)
    await bench.until(lambda: bool(app.seen))
    await peer.send(b"0\r\nAuthorization: Bearer x\r\nX-Other: y\r\nHost: evil\r\n\r\n" + LAST)
    answer = await peer.rest()
    assert statuses(answer) == [200, 200]
    assert b"authorization" not in answer
    assert b"x-other" not in answer
    assert b"evil" not in answer


@pytest.mark.parametrize("path", [b"/length", b"/a"])
@pytest.mark.parametrize("keep", [True, False])
async def test_http_1_0(bench: Bench, path: bytes, keep: bool) -> None:
    """No chunks; the connection stays for who asks for it, if the length of the answer is known."""
    listener = await bench.http(App())
    peer = await bench.peer(listener)
    option = [b"Connection: keep-alive"] if keep else []
    await peer.send(get(*option, target=path, version=b"1.0") + LAST)
    answer = await peer.rest()
    head, _, rest = answer.partition(b"\r\n\r\n")
    stays = keep and path == b"/length"
    assert b"chunked" not in head
    assert (b"connection: keep-alive" in head) == stays
    assert (b"connection: close" in head) == (not stays)
    assert rest.startswith(b'{"path"')
    assert statuses(answer) == [200] * (1 + stays)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    ("method", "target"),
    [(b"HEAD", b"/length"), (b"HEAD", b"/a"), (b"GET", b"/204"), (b"GET", b"/304")],
)
async def test_answers_without_a_body(
    bench: Bench, version: bytes, method: bytes, target: bytes
) -> None:
    """Neither a body nor chunks of none."""
    listener = await bench.http(App())
    peer = await bench.peer(listener)
    await peer.send(get(HOST, b"Connection: close", method=method, target=target, version=version))
    head, end, rest = (await peer.rest()).partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    assert b"transfer-encoding" not in head


async def test_a_refused_head_has_no_body(bench: Bench) -> None:
    """The answer to a HEAD ends with its headers, whatever they say."""
    listener = await bench.http(App())
    peer = await bench.peer(listener)
    await peer.send(get(method=b"HEAD"))
    head, end, rest = (await peer.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert (end, rest) == (b"\r\n\r\n", b"")


async def test_a_body_that_was_not_read(bench: Bench) -> None:
    """Answered early, it is passed over; the request behind it is the next."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    hidden = b"GET /hidden HTTP/1.1\r\nHost: hub\r\n\r\n" * 1000
    length = b"Content-Length: %d" % len(hidden)
    await peer.send(get(HOST, length, target=b"/unread", method=b"POST") + hidden + LAST)
    assert statuses(await peer.rest()) == [413, 200]
    assert app.seen == ["/unread", "/last"]


async def test_a_body_that_was_not_asked_for(bench: Bench) -> None:
    """After a final answer in the place of 100, what follows may be the body or a request."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    length = b"Content-Length: %d" % len(LAST)
    await peer.send(get(HOST, length, b"Expect: 100-continue", target=b"/unread", method=b"POST"))
    answer = await peer.rest()
    assert statuses(answer) == [413]
    assert b"connection: close" in answer


async def test_a_broken_body_ends_its_request(bench: Bench) -> None:
    """The application is told that nothing more comes."""
    app = App()
    listener = await bench.http(app)
    peer = await bench.peer(listener)
    await peer.send(CHUNKED)
    await bench.until(lambda: bool(app.seen))
    await peer.send(b"zz\r\n")
    assert statuses(await peer.rest()) == [400]
    assert app.seen == ["/a", "disconnect"]


async def test_it_holds_for_encrypted_connections(bench: Bench, files: Files) -> None:
    """The same answers behind TLS."""
    app = App()
    listener = await bench.http(app, tls=files.settings)
    for sent, expected in (TABLE["two Hosts"], TABLE["burst over the size"], TABLE["h2c"]):
        peer = await bench.peer(listener, tls=files.client())
        await peer.send(sent + LAST)
        assert statuses(await peer.rest()) == expected
