"""python-socketio and python-engineio, within the limits of docs/decisions/0015."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, cast

import engineio
import socketio
from engineio.async_drivers.asgi import WebSocket
from engineio.exceptions import EngineIOError
from engineio.payload import Payload
from socketio.exceptions import SocketIOError
from starlette.types import Scope, Send

from hubbub.listeners.buffers import BUFFERS, Buffer, Buffers
from hubbub_kenko.session import TOO_LARGE, UNREADABLE
from hubbub_kenko.wire.polling import MAX_PACKETS, MAX_POLLED, AttachmentsError, Packet

__all__ = ["GONE_ERRORS", "Server"]

CLOSE_S: Final = 1.0
"""How long a client may take to hear that its session is over."""

GONE_ERRORS: Final = (TimeoutError, EngineIOError, SocketIOError, KeyError, OSError, RuntimeError)
"""What comes of ending a session that has gone by itself, or does not read."""

_Transports: Final = cast("Any", engineio.AsyncServer)
_Sessions: Final = cast("Any", socketio.AsyncServer)
_Driver: Final = cast("Any", WebSocket)


class _Polled(asyncio.Queue[Any]):
    """What waits for one client; a poll takes `MAX_POLLED` packets of it at most.

    The library empties the queue into one answer: `get`, which ends in `get_nowait` itself, then
    `get_nowait` until there is no more.
    """

    _taken = 0

    async def get(self) -> Any:  # noqa: ANN401  # the library's packet
        self._taken = 0
        return await super().get()

    def get_nowait(self) -> Any:  # noqa: ANN401
        if self._taken == MAX_POLLED:
            raise asyncio.QueueEmpty
        self._taken += 1
        return super().get_nowait()


class _Socket(_Driver):  # type: ignore[misc,valid-type]  # published without types
    """The WebSocket of a session, which can be closed with a code."""

    def __init__(self, handler: Any, server: Any) -> None:  # noqa: ANN401
        untyped: Any = super()
        untyped.__init__(handler, server)
        self._session: Any = handler.__self__
        self._session.driver = self

    async def __call__(self, environ: Any) -> str:  # noqa: ANN401
        """Serve it; the library leaves its session open when it cannot read a packet."""
        untyped: Any = super()
        try:
            await untyped.__call__(environ)
        except Exception:  # noqa: BLE001  # garbage of a client
            await self.end(UNREADABLE, "no packet of Engine.IO")
        finally:
            if not self._session.closed:
                await self._session.queue.put(None)
                reason = self._session.server.reason.TRANSPORT_CLOSE
                await self._session.close(wait=False, abort=True, reason=reason)
        return ""

    async def end(self, code: int, reason: str) -> None:
        """Close it, whether the client agrees or not."""
        with suppress(*GONE_ERRORS):
            await self.asgi_send({"type": "websocket.close", "code": code, "reason": reason})


class _Engine(_Transports):  # type: ignore[misc,valid-type]  # published without types
    """The transports."""

    refuses: Callable[[Scope, Send], Awaitable[bool]]

    def __init__(self, **how: Any) -> None:  # noqa: ANN401
        untyped: Any = super()
        untyped.__init__(**how)
        drivers: dict[str, Any] = vars(self)["_async"]
        self._async: dict[str, Any] = {**drivers, "websocket": _Socket}

    def create_queue(self, *args: Any, **how: Any) -> _Polled:  # noqa: ANN401
        """Return a queue for what one client has to get."""
        return _Polled(*args, **how)

    async def _handle_connect(self, environ: Any, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Begin a session, if there is a place for it."""
        if await self.refuses(environ["asgi.scope"], environ["asgi.send"]):
            return ""
        untyped: Any = super()
        return await untyped._handle_connect(environ, *more, **how)  # noqa: SLF001  # our own base


class Server(_Sessions):  # type: ignore[misc,valid-type]  # published without types
    """The Socket.IO server.

    Attributes:
        max_bytes: Bytes of one event with its attachments.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        refuses: Callable[[Scope, Send], Awaitable[bool]],
        dropped: Callable[[str], None],
        began: Callable[[str], None],
        ended: Callable[[str], None],
        **how: Any,  # noqa: ANN401  # the library's
    ) -> None:
        """Make it.

        Args:
            refuses: Answers a handshake for which there is no place; tells whether it did.
            dropped: Counts what a client sent that is not taken, and why.
            began: Told the id of each session.
            ended: Told when it is over.
        """
        Payload.max_decode_packets = MAX_PACKETS
        untyped: Any = super()
        untyped.__init__(serializer=Packet, max_http_buffer_size=max_bytes, **how)
        self.eio.refuses = refuses
        self.max_bytes: Final = max_bytes
        self._dropped = dropped
        self._began = began
        self._ended = ended
        self._under_way: dict[str, Buffer] = {}

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    def is_connected(self, engine_sid: str, namespace: str) -> bool:
        """Tell whether a session is connected to a namespace."""
        sid = self.manager.sid_from_eio_sid(engine_sid, namespace)
        return sid is not None and bool(self.manager.is_connected(sid, namespace))

    def awaited(self, engine_sid: str) -> tuple[int, int]:
        """Return how many attachments are still to come from a session, and in how many bytes."""
        packet = self._binary_packet.get(engine_sid)
        if packet is None:
            return 0, 0
        return packet.attachment_count - len(packet.attachments), self.max_bytes - packet.size_bytes

    def forget(self, engine_sid: str) -> None:
        """Wait for no attachments of a session any more; the library would for ever."""
        self._binary_packet.pop(engine_sid, None)
        buffer = self._under_way.pop(engine_sid, None)
        if buffer is not None:
            buffer.resize(0)

    async def end(self, engine_sid: str, code: int, reason: str) -> None:
        """End a session, and its WebSocket if it has one."""
        socket = self.eio.sockets.get(engine_sid)
        self.forget(engine_sid)
        with suppress(*GONE_ERRORS):
            async with asyncio.timeout(CLOSE_S):
                await self.eio.disconnect(engine_sid)
        driver: _Socket | None = getattr(socket, "driver", None)
        if driver is not None:
            await driver.end(code, reason)

    async def _handle_eio_connect(self, eio_sid: str, environ: Any) -> Any:  # noqa: ANN401
        self._began(eio_sid)
        untyped: Any = super()
        return await untyped._handle_eio_connect(eio_sid, environ)  # noqa: SLF001  # our own base

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        """Forget what was to come, too: the library keeps it for ever."""
        untyped: Any = super()
        try:
            await untyped._handle_eio_disconnect(eio_sid, reason)  # noqa: SLF001  # our own base
        finally:
            self.forget(eio_sid)
            self._ended(eio_sid)

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:  # noqa: ANN401
        """Take a packet; an event and its attachments have the limit of one message together."""
        pending = self._binary_packet.get(eio_sid)
        untyped: Any = super()
        if isinstance(data, bytes):
            if pending is None:
                await self._drop(eio_sid, UNREADABLE, "an attachment that nothing announced")
                return
            if pending.size_bytes + len(data) > self.max_bytes:
                await self._drop(eio_sid, TOO_LARGE, f"over {self.max_bytes} bytes")
                return
        elif pending is not None:
            await self._drop(eio_sid, UNREADABLE, "an attachment is to come before it")
            return
        try:
            await untyped._handle_eio_message(eio_sid, data)  # noqa: SLF001  # our own base
        except AttachmentsError as error:
            await self._drop(eio_sid, TOO_LARGE, str(error))
            return
        finally:
            self._count(eio_sid)

    async def _drop(self, eio_sid: str, code: int, reason: str) -> None:
        """End a session for what it sent: how it goes on from there is not known."""
        self._dropped("too_large" if code == TOO_LARGE else "bad_attachment")
        await self.end(eio_sid, code, reason)

    def _count(self, eio_sid: str) -> None:
        """Count what is kept of a session at its listener, while there is something."""
        pending = self._binary_packet.get(eio_sid)
        buffer = self._under_way.get(eio_sid)
        if pending is None:
            if buffer is not None:
                self.forget(eio_sid)
            return
        if buffer is None:
            state = self.environ[eio_sid]["asgi.scope"].get("state", {})
            buffers: Buffers | None = state.get(BUFFERS)
            if buffers is None:
                return
            buffer = self._under_way[eio_sid] = buffers.open(lambda: self._give_up(eio_sid))
        buffer.resize(pending.size_bytes)

    def _give_up(self, eio_sid: str) -> None:
        self.forget(eio_sid)
        reason = "too much is under way to this listener"
        self.start_background_task(self._drop, eio_sid, TOO_LARGE, reason)
