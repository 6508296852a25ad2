"""python-socketio and python-engineio, within the limits of docs/decisions/0015."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import engineio
import socketio
from engineio.payload import Payload

from hubbub_kenko.wire.polling import MAX_PACKETS, MAX_POLLED, Packet

__all__ = ["Server"]

_Transports: Final = cast("Any", engineio.AsyncServer)
_Sessions: Final = cast("Any", socketio.AsyncServer)


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


class _Engine(_Transports):  # type: ignore[misc,valid-type]  # published without types
    """The transports."""

    def create_queue(self, *args: Any, **how: Any) -> _Polled:  # noqa: ANN401
        """Return a queue for what one client has to get."""
        return _Polled(*args, **how)


class Server(_Sessions):  # type: ignore[misc,valid-type]  # published without types
    """The Socket.IO server."""

    def __init__(self, **how: Any) -> None:  # noqa: ANN401  # the library's
        Payload.max_decode_packets = MAX_PACKETS
        untyped: Any = super()
        untyped.__init__(serializer=Packet, **how)

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    def is_connected(self, engine_sid: str, namespace: str) -> bool:
        """Tell whether a session is connected to a namespace."""
        sid = self.manager.sid_from_eio_sid(engine_sid, namespace)
        return sid is not None and bool(self.manager.is_connected(sid, namespace))

    def awaited(self, engine_sid: str) -> int:
        """Return how many attachments of a packet are still to come from a session."""
        packet = self._binary_packet.get(engine_sid)
        return 0 if packet is None else packet.attachment_count - len(packet.attachments)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        """Forget what was to come, too: the library keeps it for ever."""
        untyped: Any = super()
        await untyped._handle_eio_disconnect(eio_sid, reason)  # noqa: SLF001  # of our own base
        self._binary_packet.pop(eio_sid, None)
