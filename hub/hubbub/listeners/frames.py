"""Connections whose bytes are frames: cut by the protocol, handled one by one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Self

from hubbub.errors import HubError
from hubbub.listeners.buffers import COUNTED_BYTES, Buffer
from hubbub.listeners.connections import Connection

__all__ = ["FrameConnection", "HttpLineError", "LineConnection"]

WAITING_FRAMES: Final = 256
"""Frames of one connection that wait for its `talk`; then nothing more is read. Nor is it once
they have `limits.frame` bytes together."""


HTTP_LINES: Final = (b"POST ", b"GET ", b"PUT ", b"OPTIONS ", b"Host:")
"""How lines begin that a browser sends to whatever a web page names as an address."""


class HttpLineError(HubError):
    """A peer of a line protocol speaks HTTP: a browser, whose page wants its body to be read."""

    code = "http_line"

    def __init__(self) -> None:
        super().__init__("this is no HTTP server; the connection is closed")


class FrameConnection(Connection, ABC):
    """A connection that is read frame by frame, in one of two ways.

    Fast: override `frame`, which is called for each. Comfortable: override `talk`, and read with
    `async for frame in self`; while it works on one frame, a bounded number waits and then the
    peer does. The connection closes when `talk` returns.

    A `HubError` in `frame` refuses that frame, which is counted under its code, and goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._under_way: Buffer | None = None
        self._came = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None
        self._cutting = False

    # To override

    @abstractmethod
    def cut(self, buffer: bytearray, start: int) -> int | None:
        """Return where the frame that begins at `start` ends; None while it is not all there.

        Raises:
            HubError: what is there is no beginning of a frame; counted, and the connection ends.
        """

    def frame(self, frame: bytes) -> None:
        """Take one frame."""
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._came.set()

    async def talk(self) -> None:
        """Talk to the peer until it leaves."""

    # Inside

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in, and begin to talk."""
        self._under_way = self.home.gate.buffers.open(self._give_up)
        super().connection_made(transport)
        if self.is_open and type(self).talk is not FrameConnection.talk:
            self._talking = self.home.spawn(self._talk())
            self.home.talking.add(self._talking)
            self._talking.add_done_callback(self.home.talking.discard)

    def received(self, data: bytes) -> None:
        """Cut what has come."""
        self._buffer += data
        self._cut_on()

    def _cut_on(self) -> None:
        if self._cutting:
            return
        self._cutting = True
        try:
            self._cut_all()
        finally:
            self._cutting = False
        self._count()

    def _count(self) -> None:
        """Count what is kept, where it is much."""
        kept = len(self._buffer) + self._waiting_bytes
        if self._under_way is not None and (kept >= COUNTED_BYTES or self._under_way.size_bytes):
            self._under_way.resize(kept)

    def _cut_all(self) -> None:
        buffer, limit, start = self._buffer, self.limits.frame, 0
        while start < len(buffer) and not self.paused and self.is_open:
            end = self.cut(buffer, start)
            if (len(buffer) if end is None else end) - start > limit:
                self._too_large()
                return
            if end is None:
                break
            frame = bytes(memoryview(buffer)[start:end])
            start = end
            try:
                self.frame(frame)
            except HubError as error:
                self.refuse(error.code)
            if len(self._waiting) >= WAITING_FRAMES or self._waiting_bytes >= limit:
                self.pause()
        if start:
            del buffer[:start]

    def _too_large(self) -> None:
        """End: where the next frame begins is not known."""
        self._buffer.clear()
        self.refuse("too_large")
        self.home.gate.refuse("too_large")
        self.close()

    def _give_up(self) -> None:
        """End, since all connections together have too much under way, and this one most."""
        self._buffer.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self.refuse("buffered")
        self.abort()

    def resume(self) -> None:
        """Read on, what was cut off first."""
        self.paused = False
        self._cut_on()
        if not self.paused:
            super().resume()

    def finished(self) -> None:
        """Close; when there is a talk, once it has had the frames that wait."""
        self._came.set()
        if self._talking is None:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._buffer.clear()
        self._count()
        self._came.set()

    async def _talk(self) -> None:
        try:
            await self.talk()
        except HubError as error:
            self.refuse(error.code)
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            self._broken(error)
        finally:
            self._waiting.clear()
            self._waiting_bytes = 0
            self._count()
            self.close()

    def __aiter__(self) -> Self:
        """Return the frames."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next frame, once it is there."""
        while not self._waiting:
            if self.paused:
                self.resume()
                continue
            if self.ended or not self.is_open:
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        frame = self._waiting.popleft()
        self._waiting_bytes -= len(frame)
        self._count()
        return frame


class LineConnection(FrameConnection):
    r"""A connection whose frames are lines, handed over with their `\n`.

    It ends at a line of HTTP: any web page can make a browser send what it likes to any port, and
    the lines of its body would be taken as this protocol's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looked = 0

    def cut(self, buffer: bytearray, start: int) -> int | None:
        r"""Return the end of the line, behind its `\n`.

        Raises:
            HttpLineError: it is one of HTTP.
        """
        if buffer.startswith(HTTP_LINES, start):
            raise HttpLineError
        end = buffer.find(b"\n", max(start, self._looked))
        self._looked = 0 if end >= 0 else len(buffer) - start
        return end + 1 if end >= 0 else None
