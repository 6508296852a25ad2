"""HTTP and WebSocket: a listener that serves an ASGI application, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

from uvicorn import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request

from hubbub.clock import SystemClock
from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.config.models import PortLimits
from hubbub.listeners.buffers import BUFFERS, COUNTED_BYTES, Buffers
from hubbub.listeners.limits import Gate, Watch
from hubbub.listeners.sockets import host_of
from hubbub.listeners.streams import StreamListener
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock

__all__ = ["LIMIT_FRAMES", "WRITE_TEXTS", "HttpListener"]

WRITE_TEXTS: Final = "hubbub.write_texts"
"""ASGI extension of a WebSocket: `write_texts(texts) -> bool` writes text frames without waiting.

False when nothing was written, because the peer is behind or gone; `send` waits for it. What is
written for one socket in one turn of the loop goes out together at its end: between two messages
that are worked on, a write each would wake the peer each time.
"""

LIMIT_FRAMES: Final = "hubbub.limit_frames"
"""ASGI extension of a WebSocket: `limit_frames(size_bytes)` sets the largest message it takes.

To be called before it is accepted; until then it is `limits.frame` of the listener.
"""

HEADERS_S: Final = 10.0
"""How long a client may take from its first byte, or from connecting, to the end of its headers."""

HEADER_BYTES: Final = 65_536
"""Request line and headers together; more is 431."""

TOO_LONG: Final = f"request line and headers are over {HEADER_BYTES} bytes"

ORIGIN_FORMS: Final = (b"/", b"*")
"""What the target of a request begins with, unless it was meant for a proxy."""

LINGER_S: Final = 1.0
"""How long a client that was refused may take to hear it and leave."""

KEEP_ALIVE_S: Final = 5
"""How long a connection without a request stays open."""

PING_INTERVAL_S: Final = 20.0
PING_TIMEOUT_S: Final = 20.0
"""Of WebSockets: how often the peer is asked, and how long it may take to answer (else 1011)."""

UNSENT_BYTES: Final = 65_536
"""So much of one socket is not held back to the end of a turn."""

HANDSHAKE_LINE: Final = MAX_LINE_LENGTH - 64
"""Bytes of the address, or of a header, of a WebSocket handshake: a line of it without method,
version, colon and line end."""

TOO_BIG: Final = 1009
"""Close code of a message over the limit, and of the largest where too much is under way."""

TOO_MUCH: Final = "too much is under way to this listener"
"""Why the largest one is closed then (`limits.buffered`)."""

NOT_UTF8: Final = 1007
"""Close code for text that cannot be read."""

VANISHED: Final = 1006
"""Close code of a peer that sent none (RFC 6455, 7.1.5)."""

_LENGTH_16: Final = 126
"""In the place of a frame's length: it stands in the next two bytes."""


class _Guest:
    """One connection inside: its place, its deadlines."""

    __slots__ = ("_gate", "_source", "is_paused", "transport", "watch")

    def __init__(self, gate: Gate, clock: Clock, transport: asyncio.Transport, source: str) -> None:
        self._gate = gate
        self._source = source
        self.transport = transport
        self.is_paused: Callable[[], bool] = bool
        self.watch: Final = Watch(clock, self.overdue)

    @property
    def limits(self) -> LimitSettings:
        return self._gate.limits

    def refuse(self, reason: str) -> None:
        self._gate.refuse(reason)

    def overdue(self, reason: str) -> None:
        if reason == "idle" and self.is_paused():  # the application is slow, not the client
            self.watch.read_within(self._gate.limits.idle)
            return
        self._gate.refuse(reason)
        self.transport.abort()

    def unread(self, waits: bool) -> None:
        self.watch.write_within(self._gate.limits.idle if waits else 0)

    def leave(self) -> None:
        self.watch.close()
        self._gate.leave(self._source)


class _Http(HttpToolsProtocol):
    """Uvicorn's connection, with a place at the gate and deadlines for what the client owes."""

    def __init__(self, *, listener: HttpListener, **how: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(**how)
        self._listener = listener
        self._guest: _Guest | None = None
        self._owed = 0
        self._read = 0
        self._in_body = False
        self._refused = False
        self._lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._guest = self._listener.admit(transport)
        if self._guest is None:
            transport.abort()
        else:
            self._guest.is_paused = lambda: self.flow.read_paused
            self._guest.watch.read_within(HEADERS_S, "headers")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._lingering is not None:
            self._lingering.cancel()
        if self._guest is not None:
            self._guest.leave()
            self._guest = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # read, so that the refusal is not lost with a reset
        self._owed += len(data)
        self._read = len(data)
        super().data_received(data)
        if self._owed > HEADER_BYTES and not (self._in_body or self._refused):
            self._refuse_headers(TOO_LONG)

    def _refuse_headers(self, why: str) -> None:
        """Answer 431 and end the connection, if nothing else is being answered on it."""
        self._refused = True
        self._listener.refuse("too_large")
        cycle = cast("Any", self.cycle)  # None before the first request, whatever uvicorn says
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()
            return
        body = why.encode()
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._lingering = self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_body = False
        self._owed = 0
        if self._guest is not None:
            self._guest.watch.read_within(HEADERS_S, "headers")

    def on_headers_complete(self) -> None:
        self._in_body = True
        if self._refused:
            return
        if self._owed + self._read > HEADER_BYTES and self._header_bytes() > HEADER_BYTES:
            self._refuse_headers(TOO_LONG)
            return
        if self.url[:1] not in ORIGIN_FORMS:
            self._ask_as_the_target_says()
        self._owes_body()
        super().on_headers_complete()

    def _ask_as_the_target_says(self) -> None:
        """Take the host out of `GET http://host/path`; what `Host` says does not count then.

        RFC 9112, 3.2.2. Such a request was meant for a proxy, so it is judged by that name.
        """
        authority = self.url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
        # In place: the scope has this very list.
        self.headers[:] = [each for each in self.headers if each[0] != b"host"]
        self.headers.append((b"host", authority))

    def _header_bytes(self) -> int:
        """Return the bytes of request line and headers, as they are usually written."""
        assert self.parser is not None  # it is what calls
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + sum(len(name) + len(value) + 4 for name, value in self.headers) + 2

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._owes_body()
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._owed = 0
        if self._guest is not None:
            self._guest.watch.read_within(0)
        super().on_message_complete()

    def _owes_body(self) -> None:
        if self._guest is not None:
            self._guest.watch.read_within(self._listener.limits.idle)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._guest is not None:
            self._guest.unread(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._guest is not None:
            self._guest.unread(False)

    def handle_websocket_upgrade(self) -> None:
        """Hand over the place as well: `connection_lost` is the other protocol's from here on.

        What the other protocol's parser has a limit for is refused here, where it can be said.
        """
        if self._refused:
            return
        lines = [self.url, *(name + value for name, value in self.headers)]
        if len(self.headers) > MAX_NUM_HEADERS or max(map(len, lines)) > HANDSHAKE_LINE:
            self._refuse_headers(
                f"a WebSocket handshake has at most {MAX_NUM_HEADERS} headers, "
                f"and {HANDSHAKE_LINE} bytes in each of its lines"
            )
            return
        guest, self._guest = self._guest, None
        made: Any = self.ws_protocol_class

        def with_guest(**how: Any) -> Any:  # noqa: ANN401  # uvicorn's
            listener = self._listener
            return made(guest=guest, outbox=listener.outbox, buffers=listener.buffers, **how)

        self.ws_protocol_class = cast("Any", with_guest)
        super().handle_websocket_upgrade()


class _Outbox:
    """What is to be written at the end of this turn of the loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def later(self, write: Callable[[], None]) -> None:
        """Call `write` before the loop looks for new input a second time."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._empty)
        self._waiting.append(write)

    def _empty(self) -> None:
        waiting, self._waiting = self._waiting, []
        for write in waiting:
            write()


class _WebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket in the place of its HTTP connection."""

    def __init__(
        self,
        *,
        guest: _Guest | None,
        outbox: _Outbox,
        buffers: Buffers,
        **how: Any,  # noqa: ANN401  # uvicorn's
    ) -> None:
        super().__init__(**how)
        self._guest = guest
        self._outbox = outbox
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._under_way: Final = buffers.open(self._give_up)
        self._untaken = 0
        self._owed = False
        self._lingers = False
        if guest is not None:
            guest.is_paused = lambda: self.read_paused
            guest.watch.read_within(0)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            extensions = cast("dict[str, Any]", self.scope)["extensions"]
            extensions[WRITE_TEXTS] = self.write_texts
            extensions[LIMIT_FRAMES] = self.limit_frames

    def limit_frames(self, size_bytes: int) -> None:
        """Take messages of that size, put together from whatever frames."""
        self.conn.max_message_size = size_bytes

    # What is under way

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return  # read, so that the close frame is not lost with a reset
        super().data_received(data)
        conn = self.conn
        kept = self._kept()
        if kept >= COUNTED_BYTES or self._under_way.size_bytes:
            self._under_way.resize(kept)
        waits = bool(conn.reader.buffer) or conn.current_size is not None
        if (waits or self._owed) and self._guest is not None:
            self._owed = waits
            self._guest.watch.read_within(self._guest.limits.idle if waits else 0)

    def _kept(self) -> int:
        return len(self.conn.reader.buffer) + (self.conn.current_size or 0) + self._untaken

    async def receive(self) -> Any:  # noqa: ANN401  # ASGI's
        message: Any = await super().receive()
        if self._untaken:
            self._untaken -= len(message.get("text") or message.get("bytes") or "")
            if self._under_way.size_bytes:
                self._under_way.resize(self._kept())
        return message

    def handle_cont(self, event: Frame) -> None:
        """Put a message together as it comes: a list of empty frames would have no limit."""
        whole: Any = self.frames[0]
        if not isinstance(whole, bytearray):
            whole = bytearray(whole)
            self.frames = [whole]
        whole += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, unless the peer reads nothing: what it is owed would have no limit."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def _give_up(self) -> None:
        """Keep nothing more of what comes, and say why."""
        if self.handshake_complete:
            while not self.queue.empty():
                self.queue.get_nowait()
        self._untaken = 0
        self.frames = []
        if not self.close_sent and not self.disconnected:
            self.conn.fail(TOO_BIG, TOO_MUCH)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Close, and let the peer hear why, which may be sending still."""
        if self._guest is not None and isinstance(self.conn.parser_exc, PayloadTooBig):
            self._guest.refuse("too_large")
        said = self.conn.close_sent
        if said is None:  # it sent frames before it was let in
            self.transport.close()
            return
        end = {"type": "websocket.disconnect", "code": said.code, "reason": said.reason}
        self.queue.put_nowait(cast("Any", end))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.frames = []
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._lingers = True  # bytes that nobody reads would make a reset of the end
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def write_texts(self, texts: Iterable[bytes]) -> bool:
        """Write text frames, if they can be written now."""
        if not self.handshake_complete or self.close_sent or self.disconnected:
            return False
        if not self.writable.is_set() or self.transport.is_closing():
            return False
        unsent = self._unsent
        if not unsent:
            self._outbox.later(self._flush)
        for text in texts:
            unsent.append(_framed(text))
            self._unsent_bytes += len(text)
        if self._unsent_bytes > UNSENT_BYTES:
            self._flush()
        return True

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        if unsent and not self.disconnected and not self.transport.is_closing():
            self.transport.write(b"".join(unsent))

    async def send(self, message: Any) -> None:  # noqa: ANN401  # ASGI's
        if self._unsent:
            self._flush()
        await super().send(message)
        if self.close_sent:  # refused, perhaps: uvicorn would log that as an unfinished handshake
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        """Hand a message over; text that is no UTF-8 ends the connection (RFC 6455, 8.1).

        As uvicorn does it, except that it logs a traceback for what is the client's mistake.
        """
        data = self.frames[0]
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self.conn.send_close(NOT_UTF8)
                self.handle_parser_exception()
                return
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
            self._untaken += len(text)
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": bytes(data)})
            self._untaken += len(data)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def shutdown(self) -> None:
        self._flush()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        # For one that left without a close frame; uvicorn says 1005, a close frame without a code.
        self.queue.put_nowait({"type": "websocket.disconnect", "code": VANISHED})
        super().connection_lost(exc)
        self._under_way.resize(0)
        if self._guest is not None:
            self._guest.leave()
            self._guest = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._guest is not None:
            self._guest.unread(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._guest is not None:
            self._guest.unread(False)


def _framed(text: bytes) -> bytes:
    """Return a text frame of a server (RFC 6455, 5.2): whole, and without a mask."""
    size = len(text)
    if size < _LENGTH_16:
        return b"\x81" + size.to_bytes(1, "big") + text
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


class HttpListener(StreamListener):
    """One address, serving one application until it is stopped.

    Attributes:
        outbox: What its WebSockets have to write.
    """

    kind = "http"
    schemes = ("http", "https")
    alpn = ("http/1.1",)

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str = "hub",
        limits: LimitSettings | None = None,
        tls: TlsSettings | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        super().__init__(
            Address(host, port),
            name=name,
            limits=limits or PortLimits(),
            clock=self._clock,
            metrics=metrics,
            tls=tls,
        )
        self._uvicorn: UvicornConfig | None = None
        self._state = ServerState()
        self.outbox: Final = _Outbox()
        self._drain_s = 1.0

    def change_limits(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on; who is inside stays."""
        super().change_limits(limits)
        if self._uvicorn is not None:
            self._uvicorn.ws_max_size = limits.frame

    async def serve(
        self,
        app: Any,  # noqa: ANN401  # ASGI
        *,
        drain_timeout_s: float,
    ) -> None:
        """Begin to answer.

        Args:
            drain_timeout_s: How long `stop` waits for answers under way, unless it is told.
        """
        self._drain_s = drain_timeout_s
        config = UvicornConfig(
            app,
            loop="none",
            http=_Http,
            ws=_WebSocket,
            ws_per_message_deflate=False,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws_max_size=self.limits.frame,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        config.load()
        self._uvicorn = config
        # Not `uvicorn.Server`: docs/decisions/0012 has why.
        state = {BUFFERS: self.buffers}
        await self._accept(
            lambda: _Http(listener=self, config=config, server_state=self._state, app_state=state)
        )

    @property
    def buffers(self) -> Buffers:
        """What is under way to it."""
        return self._gate.buffers

    def refuse(self, reason: str) -> None:
        """Count a connection that is ended for what it sent."""
        self._gate.refuse(reason)

    def admit(self, transport: asyncio.Transport) -> _Guest | None:
        """Give a connection its place; None when there is none for it."""
        source = self._gate.enter(host_of(transport.get_extra_info("peername")))
        return None if source is None else _Guest(self._gate, self._clock, transport, source)

    async def stop(self, timeout_s: float | None = None) -> None:
        """Close the connections that are idle, wait for the others, and give the address free."""
        self.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s if timeout_s is None else timeout_s):
                await self._gate.emptied()
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await asyncio.sleep(0)
