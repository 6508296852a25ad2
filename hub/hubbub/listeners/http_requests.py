"""Requests of one connection: read within limits, by RFC 9112, and served in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from websockets.datastructures import Headers
from websockets.http11 import Request

from hubbub.config import LimitSettings
from hubbub.listeners.http_deadlines import HEADERS_S, LINGER_S, Guest
from hubbub.listeners.http_framing import (
    CHUNK_BYTES,
    answer_of,
    closing_unless_continued,
    plain_head,
    refusal_of,
    unchunked,
)
from hubbub.listeners.http_headers import (
    JUDGED,
    Refusal,
    asks_for_websocket,
    check_handshake,
    check_head,
    check_size,
    is_plain,
    origin_form_of,
    too_large,
)

__all__ = ["HttpConnection", "Owner", "Successor"]

SLICE_BYTES: Final = 65_536
"""So much is parsed between two looks at the limits."""

MAX_PIPELINED: Final = 100
"""Requests of one connection that may wait for the answers to those before them; more is 429."""

ORIGIN_FORMS: Final = (b"/", b"*")
"""What the target of a request begins with, unless it was meant for a proxy."""


class Successor(Protocol):
    """The WebSocket that a connection becomes; an `asyncio.Protocol`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection over."""
        ...

    def data_received(self, data: bytes) -> None:
        """Take what came behind the handshake."""
        ...

    def ask(self, handshake: Request, early: bytes) -> None:
        """Ask the application for its word on a handshake.

        Args:
            early: What came with it, for which the peer should have waited.
        """
        ...


class Owner(Protocol):
    """The listener's side of a connection."""

    @property
    def limits(self) -> LimitSettings:
        """What it holds to."""
        ...

    def admit(self, transport: asyncio.Transport) -> Guest | None:
        """Give a connection its place; None when there is none for it."""
        ...

    def refuse(self, reason: str) -> None:
        """Count a connection that is ended for what it sent."""
        ...

    def succeed(self, guest: Guest | None) -> Successor:
        """Return a WebSocket in the place of a connection."""
        ...


class HttpConnection(HttpToolsProtocol):
    """Uvicorn's connection, with a place at the gate and deadlines for what the client owes.

    On the way of each request the base is called by its name: `super()` costs more than the call.
    """

    def __init__(self, *, listener: Owner, **how: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(**how)
        self._listener = listener
        self.guest: Guest | None = None
        self._owed = 0
        self._read = 0
        self._read_first = 0
        self._trailer_bytes = 0
        self._in_body = False
        self._is_served = False  # what is read is the body of the last cycle
        self._is_websocket = False
        self._owes = self._watched = "headers"  # of the watch: what it waits for by now
        self._has_moved = False
        self._judged: list[tuple[bytes, bytes]] = []
        self._plain: bytes | None = None
        self._socket: Successor | None = None
        self._refused = False
        self._refusal: bytes | None = None
        self._lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in, if there is room."""
        transport = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self.guest = self._listener.admit(transport)
        if self.guest is None:
            transport.abort()
        else:
            self.guest.is_paused = lambda: self.flow.read_paused
            self.guest.watch.read_within(HEADERS_S, "headers")

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave; a WebSocket has taken the place with it."""
        super().connection_lost(exc)
        if self._lingering is not None:
            self._lingering.cancel()
        if self.guest is not None:
            self.guest.leave()
            self.guest = None

    def data_received(self, data: bytes) -> None:
        """Read requests, some of them perhaps not to their end."""
        if len(data) <= SLICE_BYTES:
            self._feed(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            if self._socket is not None:
                self._socket.data_received(bytes(view[start:]))
                return
            self._feed(view[start : start + SLICE_BYTES])

    def _feed(self, data: bytes | memoryview) -> None:
        # Not uvicorn's: it forgets the deadline between requests for a line end, what comes with an
        # upgrade, and the body of a request whose upgrade it does not know.
        if self._refused:
            return  # read, so that the refusal is not lost with a reset
        self._owed += len(data)
        self._read = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(refusal_of(error))
        else:
            if self._owed:  # else a request has just ended
                limit_bytes = self._listener.limits.header_bytes
                if self._owed > limit_bytes:
                    self._refuse(too_large(limit_bytes, is_behind=self._in_body))
            if self._has_moved:
                self._has_moved = False
                if self._owes or self._watched:  # else a whole request came, and was none before
                    self._watch()

    def _watch(self) -> None:
        """Set the deadline once for all that came in one piece."""
        if self.guest is None or self._refused:
            return
        owes = self._watched = self._owes
        if owes == "headers":
            self.guest.watch.read_within(HEADERS_S, owes)
        else:
            self.guest.watch.read_within(self._listener.limits.idle if owes else 0)

    def _upgrade(self, rest: memoryview) -> None:
        if self._refused:
            return
        if self._is_websocket:
            self._hand_over(bytes(rest))
            return
        plain, self._plain = self._plain, None
        assert plain is not None  # on_headers_complete made it
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(plain)
        if rest:
            self._feed(rest)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer behind what is being answered, and end the connection."""
        if self._refused:
            return
        self._refused = True
        self._listener.refuse(refusal.reason)
        if self.guest is not None:
            self.guest.watch.read_within(0)
        answer = answer_of(refusal, is_head=self._in_body and self.parser.get_method() == b"HEAD")
        cycle = cast("Any", self.cycle)  # None before the first request, whatever uvicorn says
        if cycle is None or cycle.response_complete:
            self._end(b"" if self._is_served else answer)
        elif not self._is_served:
            self._refusal = answer
        elif cycle.response_started or self.pipeline:
            self.transport.abort()
        else:  # its body cannot be read to the end
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(answer)

    def _end(self, answer: bytes) -> None:
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._lingering = self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Go on with the next request, or with the refusal behind the last one."""
        if self._refusal is None or self.pipeline or self.transport.is_closing():
            HttpToolsProtocol.on_response_complete(self)
        else:
            self._end(self._refusal)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        if cycle.scope["http_version"] == "1.0":
            app = unchunked(app, cycle)
        elif cycle.waiting_for_100_continue:
            app = closing_unless_continued(app, cycle)
        HttpToolsProtocol._start_asgi_task(self, cycle, app)  # noqa: SLF001  # our own base

    def on_message_begin(self) -> None:
        """Begin a request, with the time for its headers."""
        HttpToolsProtocol.on_message_begin(self)
        self._unset_keepalive_if_required()
        self._in_body = self._is_served = False
        self._judged = []
        self._owed = self._trailer_bytes = 0
        self._read_first = self._read
        self._owes, self._has_moved = "headers", True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is dropped."""
        if not self._in_body:
            name = name.lower()
            header = (name, value)
            self.headers.append(header)
            if name in JUDGED:
                self._judged.append(header)
                if name == b"expect" and value.lower() == b"100-continue":
                    self.expect_100_continue = True
            return
        # A trailer: dropped, as it comes behind what was judged by the headers (RFC 9110, 6.5.1).
        self._trailer_bytes += len(name) + len(value) + 4
        limit_bytes = self._listener.limits.header_bytes
        if self._trailer_bytes > limit_bytes:
            self._refuse(too_large(limit_bytes, is_behind=True))

    def on_headers_complete(self) -> None:
        """Judge a head, and serve the request or go over to WebSocket."""
        self._in_body = True
        if self._refused:
            return
        parser = self.parser
        limits = self._listener.limits
        version, is_upgrade = parser.get_http_version(), parser.should_upgrade()
        if (
            is_upgrade
            or len(self.headers) > limits.headers
            or self._owed + self._read_first > limits.header_bytes
            or len(self.pipeline) >= MAX_PIPELINED
            or not is_plain(self.url, version, self._judged)
        ):
            refusal = self._check_head(parser.get_method(), version)
            if refusal is not None:
                self._refuse(refusal)
                return
            if is_upgrade:
                self._owed = 0
                self._judge_upgrade(parser.get_method(), version)
                return
        if self.url[:1] not in ORIGIN_FORMS:
            self._ask_as_the_target_says()
        self._owed = 0
        self._owes, self._has_moved = "idle", True
        if version == "1.0":
            self.expect_100_continue = False
            HttpToolsProtocol.on_headers_complete(self)
            self.cycle.keep_alive = parser.should_keep_alive()
        else:
            HttpToolsProtocol.on_headers_complete(self)
        self._is_served = True

    def _check_head(self, method: bytes, version: str) -> Refusal | None:
        limits, headers, size = self._listener.limits, self.headers, 0
        if self._owed + self._read_first > limits.header_bytes:
            # As they are usually written; nearly always there is less, and nothing to count.
            size = len(method) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
            size += sum(len(name) + len(value) + 4 for name, value in headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            return Refusal(
                429,
                f"over {MAX_PIPELINED} requests wait on one connection; read the answers first",
                reason="pipelined",
            )
        return check_size(
            size, headers, limit_bytes=limits.header_bytes, limit=limits.headers
        ) or check_head(method, self.url, version, self._judged)

    def _ask_as_the_target_says(self) -> None:
        """Take the host out of `GET http://host/path`; what `Host` says does not count then.

        RFC 9112, 3.2.2. Such a request was meant for a proxy, so it is judged by that name.
        """
        found = origin_form_of(self.url)
        assert found is not None  # `check_head` refused others
        authority, self.url = found
        # In place: the scope has this very list.
        self.headers[:] = [each for each in self.headers if each[0] != b"host"]
        self.headers.append((b"host", authority))

    def _judge_upgrade(self, method: bytes, version: str) -> None:
        """Say what the parser, which ends here in any case, is to go on with."""
        cycle = cast("Any", self.cycle)
        is_free = cycle is None or cycle.response_complete
        self._is_websocket = is_free and asks_for_websocket(method, version, self.headers)
        if self._is_websocket:
            refusal = check_handshake(self.headers)
            if refusal is not None:
                self._refuse(refusal)
            return
        self._plain = plain_head(method, self.url, version, self.headers)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._refused:
            self._owed = max(0, self._owed - len(body))
            self._owes, self._has_moved = "idle", True
            HttpToolsProtocol.on_body(self, body)

    def on_chunk_header(self) -> None:
        """Note that a chunk may have so much around it."""
        self._owed = max(0, self._owed - CHUNK_BYTES)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._refused or not self._is_served:
            return
        self._owed = 0
        self._is_served = False
        self._owes, self._has_moved = "", True
        HttpToolsProtocol.on_message_complete(self)

    def pause_writing(self) -> None:
        """The peer does not read fast enough."""
        super().pause_writing()
        if self.guest is not None:
            self.guest.unread(True)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self.guest is not None:
            self.guest.unread(False)

    def _hand_over(self, early: bytes) -> None:
        """Go on as a WebSocket: `connection_lost` is the other protocol's from here on."""
        guest, self.guest = self.guest, None
        self.connections.discard(self)
        socket = self._socket = self._listener.succeed(guest)
        if self.url[:1] not in ORIGIN_FORMS:
            self._ask_as_the_target_says()
        socket.connection_made(self.transport)
        self.transport.set_protocol(cast("asyncio.Protocol", socket))
        socket.ask(_handshake_of(self.url, self.headers), early)


def _handshake_of(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Request:
    """Return a handshake in which WebSocket is the only upgrade that was asked for."""
    others = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name != b"upgrade"
    ]
    return Request(target.decode(), Headers([*others, ("upgrade", "websocket")]))
