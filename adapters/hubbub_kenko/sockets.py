"""Family W: plain WebSocket, as a plain ASGI callable. No task and no future per message."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final

from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from hubbub.envelope import encode_json
from hubbub.errors import InvalidError, MalformedError
from hubbub.intake import is_over
from hubbub.listeners.http import WRITE_TEXTS
from hubbub.web import bearer_of, is_local, parse_query, peer_of
from hubbub_kenko import wire
from hubbub_kenko.connection import GONE, Connection
from hubbub_kenko.desk import Desk
from hubbub_kenko.session import TOO_LARGE
from hubbub_kenko.wire import Frame, FrameError
from hubbub_kenko.wording import preferred

__all__ = ["NO_PLACE", "UNAVAILABLE", "Sockets", "deny", "token_of"]

CLOSE_S: Final = 1.0
"""How long a close frame may wait for a client that does not read."""

TURN: Final = 64
"""Frames of one client that came together are taken so many at a time, then others have a turn."""

UNAVAILABLE: Final = 503
UNAUTHORIZED: Final = 401
TOO_MANY: Final = 429
NO_PLACE: Final = "no client more just now"
CODES: Final = {
    UNAVAILABLE: "unavailable",
    UNAUTHORIZED: "unauthorized",
    TOO_MANY: "rate_limited",
}


class SocketConnection(Connection):
    """A client of family W."""

    transport = "websocket"
    must_show_token = False  # the handshake did

    def __init__(self, desk: Desk, scope: Scope, send: Send) -> None:
        client = scope.get("client") or ("", 0)
        remote = f"{client[0]}:{client[1]}"
        lang = preferred(scope["headers"])
        super().__init__(desk, desk.rules("websocket"), remote=remote, lang=lang)
        self._send: Callable[[AsgiMessage], Any] = send
        self.write_now = scope.get("extensions", {}).get(WRITE_TEXTS)
        self._limit_bytes = desk.settings.max_message_bytes
        self._serving = asyncio.current_task()
        self._closed = False

    async def serve(self, receive: Receive) -> None:
        """Read until one side ends it."""
        code = GONE
        try:
            code = await self._read(receive)
        except asyncio.CancelledError:
            if not self._closed:
                raise
        finally:
            self.gone(code)
            self._closed = True

    async def _read(self, receive: Receive) -> int:
        received = self.desk.metrics.received
        for number in count(1):
            if not number % TURN:
                await asyncio.sleep(0)
            message = await receive()
            if message["type"] != "websocket.receive":
                return int(message.get("code") or GONE)
            frame: str | bytes = message.get("text") or message.get("bytes") or ""
            if is_over(frame, self._limit_bytes):
                self.close(TOO_LARGE, f"over {self._limit_bytes} bytes")
                continue
            try:
                inbound = wire.decode(frame)
            except FrameError as failed:
                received("unreadable")
                await self.refuse(failed)
            else:
                received(inbound.kind)
                rest = self.receive_now(inbound)
                if rest is not None:
                    await rest
        raise AssertionError  # it counts without end

    async def _put(self, frame: Frame) -> None:
        if self._closed:
            raise ConnectionError("the client has left")
        text = wire.encode(frame)
        if self.write_now is not None and self.write_now((text,)):
            return
        try:
            await self._send({"type": "websocket.send", "text": text.decode()})
        except OSError as error:  # uvicorn's ClientDisconnected
            raise ConnectionError("the client has left") from error

    async def _end(self, code: int, reason: str) -> None:
        """Close it; one that does not read is left to the listener's own limits."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._outlet.write(self._close_frame, (code, reason))
        except (TimeoutError, OSError):
            self._closed = True
            if self._serving is not None:
                self._serving.cancel()

    async def _close_frame(self, how: tuple[int, str]) -> None:
        self._closed = True
        await self._send({"type": "websocket.close", "code": how[0], "reason": how[1]})


class Sockets:
    """Everything on the paths of family W."""

    def __init__(self, desk: Callable[[], Desk | None]) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it is gone."""
        await receive()  # websocket.connect
        desk = self._desk()
        if desk is None or desk.draining or desk.full:
            await deny(scope, send, UNAVAILABLE, NO_PLACE)
            return
        token = token_of(scope)
        if not desk.may_enter(token, local=is_local(scope)):
            wait_s = desk.wrong("kenko_token", peer_of(scope)) if token else 0.0
            await _deny_entry(scope, send, wait_s, desk.wrong_token)
            return
        connection = SocketConnection(desk, scope, send)
        desk.entered(connection)
        with suppress(OSError):
            await send({"type": "websocket.accept"})
        await connection.serve(receive)


def token_of(scope: Scope) -> str | None:
    """Return the access token of a handshake: its header, else its query; None without one.

    Two of them, and one that cannot be decoded, are none.
    """
    try:
        token = bearer_of(scope["headers"])
        if token is None:
            given = parse_query(scope["query_string"])
            tokens = {value for name, value in given if name == "access_token" and value}
            token = tokens.pop() if len(tokens) == 1 else None
    except (InvalidError, MalformedError):
        return None
    return token


async def _deny_entry(scope: Scope, send: Send, wait_s: float, wrong: str) -> None:
    """Answer a handshake whose token is missing or wrong; `wait_s` after too many of these."""
    if wait_s:
        message = "too many wrong access tokens came from this address"
        await deny(scope, send, TOO_MANY, message, (b"retry-after", b"%d" % math.ceil(wait_s)))
    else:
        await deny(scope, send, UNAUTHORIZED, wrong, (b"www-authenticate", b"Bearer"))


async def deny(
    scope: Scope, send: Send, status: int, message: str, *more: tuple[bytes, bytes]
) -> None:
    """Answer a handshake with an HTTP status, where the server can; else with 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1013})
        return
    code = CODES[status]
    headers = [(b"content-type", b"application/json"), *more]
    start = {"status": status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    body = encode_json({"error": {"code": code, "message": message}})
    await send({"type": "websocket.http.response.body", "body": body})
