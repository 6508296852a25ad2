"""One TCP connection as an object, with back-pressure both ways and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog

from hubbub.config import LimitSettings
from hubbub.errors import HubError, Retry
from hubbub.listeners.limits import Gate, Watch
from hubbub.listeners.sockets import host_of
from hubbub.ports import Clock

__all__ = ["Connection", "Home", "Spawn"]

JOIN_BYTES: Final = 65_536
"""Writes of one turn of the event loop are joined, up to this."""

UNSENT_BYTES: Final = 4 * 1024 * 1024
"""What may wait for one peer beside a frame; a peer that reads less is closed."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(slots=True, eq=False)
class Home:
    """What all connections of one listener share."""

    name: str
    gate: Gate
    clock: Clock
    spawn: Spawn
    failed: Callable[[str], None]
    connections: set[Connection] = field(default_factory=set["Connection"])
    talking: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])


class Connection(asyncio.Protocol):
    """One TCP connection. A protocol is a subclass that overrides `received`.

    `opened`, `received` and `closed` are called on the event loop: keep them short. An exception in
    one of them is logged and closes this connection only.

    Attributes:
        peer: Host of the peer; empty before it is connected.
        paused: Whether `pause` was called: nothing is read.
        ended: Whether the peer has said that it sends nothing more, or is gone.
    """

    def __init__(self) -> None:
        self.peer = ""
        self.paused = False
        self.ended = False
        self._home: Home | None = None
        self._transport: asyncio.Transport | None = None
        self._watch: Watch | None = None
        self._source: str | None = None
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    # To override

    def opened(self) -> None:
        """Begin; the peer may be written to."""

    def received(self, data: bytes) -> None:
        """Take what has come, cut as the network likes."""

    def finished(self) -> None:
        """The peer sends nothing more, but may still read; closes unless overridden."""
        self.close()

    def closed(self) -> None:
        """End; nothing can be written any more."""

    def leave(self) -> None:
        """The listener stops; say goodbye if the protocol has a word for it, and close."""
        self.close()

    # To call

    @property
    def home(self) -> Home:
        """Its listener's side."""
        assert self._home is not None, "a connection is used before it was opened"
        return self._home

    @property
    def limits(self) -> LimitSettings:
        """The limits of its listener."""
        return self.home.gate.limits

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send something; joined with what else is written in this turn of the event loop.

        It is dropped when the connection has ended. A peer for which more than `UNSENT_BYTES` and
        a frame wait is closed.
        """
        if not self.is_open:
            return
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        if self._unwritten_bytes >= JOIN_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over now what was written."""
        if not self._unwritten or self._transport is None:
            return
        joined = self._unwritten[0] if len(self._unwritten) == 1 else b"".join(self._unwritten)
        self._unwritten.clear()
        self._unwritten_bytes = 0
        if self._transport.is_closing():
            return
        self._transport.write(joined)
        if self._transport.get_write_buffer_size() > UNSENT_BYTES + self.limits.frame:
            self._overdue("unread")

    async def send(self, data: bytes) -> None:
        """Send something, and return when the peer keeps up: what `deliver` waits for.

        Raises:
            Retry: the connection has ended.
        """
        self.write(data)
        self.flush()
        await self._room.wait()
        if not self.is_open:
            raise Retry(reason="connection_lost")

    def pause(self) -> None:
        """Read nothing more for now; the peer has to wait."""
        self.paused = True
        if self._transport is not None and self.is_open and not self.ended:
            self._transport.pause_reading()
        if self._watch is not None:
            self._watch.read_within(0)

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if self._transport is not None and self.is_open and not self.ended:
            self._transport.resume_reading()
            self._expect()

    def refuse(self, reason: str) -> None:
        """Count a frame that could not be used; the connection goes on."""
        self.home.gate.refuse_frame(reason)

    def close(self) -> None:
        """Send what was written, then end."""
        self.flush()
        if self._transport is None or self._transport.is_closing():
            return
        if self._watch is not None:
            self._watch.read_within(0)
            if self._transport.get_write_buffer_size():
                self._watch.write_within(self.limits.idle)
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def settle(self, home: Home) -> Connection:
        """Belong to a listener."""
        self._home = home
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in, if there is room."""
        transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        home = self.home
        self._transport = transport
        self.peer = host_of(transport.get_extra_info("peername"))
        self._source = home.gate.enter(self.peer)
        if self._source is None:
            transport.abort()
            return
        home.connections.add(self)
        self._watch = Watch(home.clock, self._overdue)
        self._expect()
        self._fenced(self.opened)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if not self.paused:
            self._expect()
        try:
            self.received(data)
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            self._broken(error)

    def eof_received(self) -> bool:
        """The peer has shut its side; ours stays open for answers, as long as `idle` at most."""
        self.ended = True
        self._expect()
        self._fenced(self.finished)
        return self._transport is not None and not self._transport.get_extra_info("sslcontext")

    def pause_writing(self) -> None:
        """The peer does not read fast enough."""
        self._room.clear()
        if self._watch is not None:
            self._watch.write_within(self.limits.idle)

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()
        if self._watch is not None:
            self._watch.write_within(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        del exc
        self.ended = True
        self._unwritten.clear()
        self._room.set()
        if self._watch is not None:
            self._watch.close()
        if self._source is not None:
            self.home.connections.discard(self)
            self.home.gate.leave(self._source)
            self._fenced(self.closed)

    # Inside

    def _expect(self) -> None:
        if self._watch is not None:
            self._watch.read_within(self.limits.idle)

    def _overdue(self, reason: str) -> None:
        self.home.gate.refuse(reason)
        if reason == "idle" and self._room.is_set():
            self.close()
        else:
            self.abort()

    def _fenced(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """End this connection: its code has a fault, and its state is unknown."""
        if isinstance(error, HubError):
            self.refuse(error.code)
        else:
            log.error(
                "connection.failed",
                adapter=self.home.name,
                error=f"{type(error).__name__}: {error}",
                exc_info=error,
            )
            self.home.failed("connection")
        self.abort()
