"""HTTP and WebSocket: a listener that serves an ASGI application, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

from uvicorn import Config as UvicornConfig
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

from hubbub.clock import SystemClock
from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.config.models import PortLimits
from hubbub.listeners.http_deadlines import KEEP_ALIVE_S, SWEEP_S, UPGRADE_S, Guest
from hubbub.listeners.http_requests import HttpConnection
from hubbub.listeners.sockets import host_of
from hubbub.listeners.streams import StreamListener
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock, Timer

__all__ = ["WRITE_TEXTS", "HttpListener"]

WRITE_TEXTS: Final = "hubbub.write_texts"
"""ASGI extension of a WebSocket: `write_texts(texts) -> bool` writes text frames without waiting.

False when nothing was written, because the peer is behind or gone; `send` waits for it. What is
written for one socket in one turn of the loop goes out together at its end: between two messages
that are worked on, a write each would wake the peer each time.
"""

PING_INTERVAL_S: Final = 20.0
PING_TIMEOUT_S: Final = 20.0
"""Of WebSockets: how often the peer is asked, and how long it may take to answer (else 1011)."""

UNSENT_BYTES: Final = 65_536
"""So much of one socket is not held back to the end of a turn."""

_HANDSHAKE: Final = b"GET / HTTP/1.1\r\n\r\n"
"""Brings the parser of websockets behind a handshake, which was read and judged before."""

NOT_UTF8: Final = 1007
"""Close code for text that cannot be read."""

VANISHED: Final = 1006
"""Close code of a peer that sent none (RFC 6455, 7.1.5)."""

_LENGTH_16: Final = 126
"""In the place of a frame's length: it stands in the next two bytes."""


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

    def __init__(self, *, guest: Guest | None, outbox: _Outbox, **how: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(**how)
        self.guest = guest
        self._outbox = outbox
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._asked: Request | None = None
        self._early: bytes | None = None

    def ask(self, handshake: Request, early: bytes) -> None:
        """Ask the application for its word on a handshake.

        Args:
            early: What came with it, for which the peer should have waited.
        """
        self._asked, self._early = handshake, b""
        if self.guest is not None:
            self.guest.unanswered = self._refuse_unanswered
            self.guest.watch.read_within(UPGRADE_S, "handshake")
        super().data_received(_HANDSHAKE)
        if self.handshake_complete:
            self._answered()
        elif early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            super().data_received(data)
            return
        self._early += data  # no frame is read before the handshake is answered
        self.transport.pause_reading()

    def _answered(self) -> None:
        early, self._early = self._early, None
        if self.guest is not None:
            self.guest.watch.read_within(0)
        if early and not (self.close_sent or self.transport.is_closing()):
            self.transport.resume_reading()
            super().data_received(early)

    def _refuse_unanswered(self) -> None:
        """Answer 503 for an application that says neither yes nor no."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": VANISHED})
        self.conn.send_response(
            self.conn.reject(503, f"the handshake was not answered in {UPGRADE_S:g} s; try again")
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.disconnected = self.close_sent = self.handshake_complete = True
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(self._asked or event)
        if self.handshake_initiated and not self.close_sent:
            cast("dict[str, Any]", self.scope)["extensions"][WRITE_TEXTS] = self.write_texts

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
        if self._early is not None and (self.handshake_complete or self.close_sent):
            self._answered()
        if self.close_sent:  # refused, perhaps: uvicorn would log that as an unfinished handshake
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        """Hand a message over; text that is no UTF-8 ends the connection (RFC 6455, 8.1).

        As uvicorn does it, except that it logs a traceback for what is the client's mistake.
        """
        if self.curr_msg_data_type != "text" or self.close_sent:
            super().send_receive_event_to_app()
            return
        frames, self.frames = self.frames, []
        try:
            text = (frames[0] if len(frames) == 1 else b"".join(frames)).decode()
        except UnicodeDecodeError:
            self.conn.send_close(NOT_UTF8)
            self.handle_parser_exception()
            return
        self.queue.put_nowait({"type": "websocket.receive", "text": text})
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
        if self.guest is not None:
            self.guest.leave()
            self.guest = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.guest is not None:
            self.guest.unread(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.guest is not None:
            self.guest.unread(False)


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
        self._sweeping: Timer | None = None

    def change_limits(self, limits: LimitSettings, *, frame_bytes: int | None = None) -> None:
        """Hold to other limits from here on; who is inside stays.

        Args:
            frame_bytes: Largest WebSocket message of those who connect from here on, where that is
                not `limits.frame`.
        """
        super().change_limits(limits)
        if self._uvicorn is not None:
            self._uvicorn.ws_max_size = frame_bytes or limits.frame

    async def serve(
        self,
        app: Any,  # noqa: ANN401  # ASGI
        *,
        drain_timeout_s: float,
        frame_bytes: int | None = None,
    ) -> None:
        """Begin to answer.

        Args:
            drain_timeout_s: How long `stop` waits for answers under way, unless it is told.
            frame_bytes: Largest WebSocket message, where that is not `limits.frame`.
        """
        self._drain_s = drain_timeout_s
        config = UvicornConfig(
            app,
            loop="none",
            http=HttpConnection,
            ws=_WebSocket,
            ws_per_message_deflate=False,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PING_TIMEOUT_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws_max_size=frame_bytes or self.limits.frame,
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
        await self._accept(
            lambda: HttpConnection(
                listener=self, config=config, server_state=self._state, app_state={}
            )
        )
        self._sweep()

    def _sweep(self) -> None:
        for connection in self._state.connections:
            guest: Guest | None = cast("Any", connection).guest
            if guest is not None:
                guest.sweep()
        self._sweeping = self._clock.call_at(self._clock.now_us() + int(SWEEP_S * 1e6), self._sweep)

    def refuse(self, reason: str) -> None:
        """Count a connection that is ended for what it sent."""
        self._gate.refuse(reason)

    def admit(self, transport: asyncio.Transport) -> Guest | None:
        """Give a connection its place; None when there is none for it."""
        source = self._gate.enter(host_of(transport.get_extra_info("peername")))
        return None if source is None else Guest(self._gate, self._clock, transport, source)

    def succeed(self, guest: Guest | None) -> _WebSocket:
        """Return a WebSocket in the place of a connection."""
        config = self._uvicorn
        assert config is not None  # there is a connection, so it serves
        return _WebSocket(
            guest=guest,
            outbox=self.outbox,
            config=config,
            server_state=self._state,
            app_state={},
        )

    async def stop(self, timeout_s: float | None = None) -> None:
        """Close the connections that are idle, wait for the others, and give the address free."""
        self.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
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
