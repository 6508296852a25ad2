"""One WebSocket, with a bound on what waits to be written and on how long that may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from starlette.types import Receive, Scope, Send

from hubbub.envelope import encode_json
from hubbub.intake import is_over

__all__ = ["DISMISS_S", "Socket", "SocketGoneError"]

WRITE_S: Final = 10.0
"""Seconds a frame may wait for a peer that does not read."""

DISMISS_S: Final = 1.0
"""Seconds that a peer which is not trusted any more may take to be told so."""

TOO_BIG: Final = 1009

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SocketGoneError(ConnectionError):
    """The peer is not there any more, or does not read."""


class Socket:
    """A connection to a node or a user."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, queue_size: int, message_bytes: int
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._queue_size = queue_size
        self._message_bytes = message_bytes
        self._waiting = 0
        self._closed = False
        self._dismissed = False
        self._serving: asyncio.Timeout | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed or self._dismissed

    @property
    def dismissed(self) -> bool:
        """Whether its peer is not trusted any more."""
        return self._dismissed

    @property
    def peer(self) -> str:
        """Host of the peer; empty when it is not known."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Let the peer in, and serve it until one side ends it."""
        await self._send({"type": "websocket.accept"})
        serving = self._serving = asyncio.timeout(None)
        try:
            async with serving:
                yield
        except SocketGoneError:
            pass
        except TimeoutError:
            if not serving.expired():
                raise
        finally:
            self._closed = True
            self._serving = None

    async def deny(
        self, status: int, body: Mapping[str, object], *, retry_after: str | None = None
    ) -> None:
        """Answer the handshake with a status and JSON where the server can, else with 403."""
        self._closed = True
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"application/json")]
        if retry_after is not None:
            headers.append((b"retry-after", retry_after.encode()))
        await self._send(
            {"type": "websocket.http.response.start", "status": status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": encode_json(body)})

    async def read(self) -> str | bytes:
        """Return the next message.

        Raises:
            SocketGoneError: there will be none any more.
        """
        message = await self._receive()
        if message["type"] == "websocket.disconnect" or self._dismissed:
            self._closed = True
            raise SocketGoneError("the peer has left")
        text: str | None = message.get("text")
        data: str | bytes = message.get("bytes", b"") if text is None else text
        if is_over(data, self._message_bytes):
            await self.close(TOO_BIG, "message too big")
            raise SocketGoneError("a message was too big")
        return data

    async def write(self, text: str) -> None:
        """Return when the peer's side of the network has it.

        Raises:
            SocketGoneError: the peer is gone, or too much waits for it, or it has not read for
                too long; then the connection is closed too.
        """
        if self.closed:
            raise SocketGoneError("the connection is closed")
        await self._put(text)

    async def _put(self, text: str) -> None:
        if self._waiting >= self._queue_size:
            self._abandon()
            raise SocketGoneError(f"{self._waiting} frames wait for the peer already")
        self._waiting += 1
        try:
            async with asyncio.timeout(WRITE_S):
                await self._send({"type": "websocket.send", "text": text})
        except (TimeoutError, OSError, RuntimeError) as error:
            self._abandon()
            raise SocketGoneError("the peer does not read") from error
        finally:
            self._waiting -= 1

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; what was written before goes out first."""
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(WRITE_S):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except (TimeoutError, OSError, RuntimeError) as error:
            log.debug("octohub.not_closed", error=str(error))
            self._abandon()

    async def dismiss(self, notice: str, *, code: int, reason: str) -> None:
        """End it in any case and soon: what the peer says from now on is not read.

        Args:
            notice: What it is told last, if it reads that in time.
        """
        if self.closed:
            return
        self._dismissed = True
        with suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(DISMISS_S):
                await self._put(notice)
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self._abandon()

    def _abandon(self) -> None:
        """End the serving: nobody would tell it that this peer is given up."""
        self._closed = True
        if self._serving is not None and not self._serving.expired():
            self._serving.reschedule(asyncio.get_running_loop().time())
