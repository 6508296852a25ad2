"""Bodies of requests: read up to a limit, parsed into what a handler expects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from difflib import get_close_matches
from typing import Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from hubbub.errors import HubError, InvalidError, MalformedError, TooLargeError
from hubbub.intake import check_depth
from hubbub.listeners.buffers import BUFFERS, Buffers

__all__ = [
    "ClientGoneError",
    "UnreadBodyError",
    "body_chunks",
    "check_utf8",
    "decode",
    "members_of",
    "near",
    "read_body",
]

T = TypeVar("T")

DISCARDED: Final = 8
"""Times the largest body that is read of one without a length before its connection is closed."""

DEPTH: Final = 64
"""How deeply a body that is no envelope may be nested."""

_skip = msgspec.json.Decoder(msgspec.Raw).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ClientGoneError(ClientDisconnect):
    """The caller hung up while it was still sending; nobody is left to answer.

    Whoever reads a body by `Request` gets Starlette's; what holds for that one holds for both.
    """


class UnreadBodyError(TooLargeError):
    """A body over the limit that was not read to its end; nothing can follow on its connection."""


class TooMuchUnderWayError(UnreadBodyError):
    """The largest body while its listener has more under way than `limits.buffered`."""

    def __init__(self) -> None:
        HubError.__init__(
            self,
            "too much is under way to this listener (limits.buffered), and this body is the "
            "largest of it; send it again later, or in smaller parts",
        )


async def read_body(
    scope: Scope, receive: Receive, limit_bytes: int, *, setting: str | None = "hub.max_body"
) -> bytes:
    """Read a whole body, and no more of it than the limit.

    Args:
        setting: What sets the limit; None where it is fixed.

    Raises:
        TooLargeError: over the limit, by what Content-Length says or by what came.
        UnreadBodyError: so far over it that it was not read to its end.
        ClientGoneError: the caller hung up.
    """
    check_length(scope, limit_bytes, what="the body", setting=setting)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) <= limit_bytes:
            return body
    body_under_way = _UnderWay(scope, receive, message)
    try:
        return await body_under_way.read(limit_bytes, setting=setting)
    finally:
        body_under_way.close()


class _UnderWay:
    """A body that comes in pieces; what has come counts at its listener."""

    def __init__(self, scope: Scope, receive: Receive, first: Message) -> None:
        self._receive = receive
        self._message = first
        self._chunks: list[bytes] = []
        self._waiting = asyncio.timeout(None)
        buffers: Buffers | None = scope.get("state", {}).get(BUFFERS)
        self._buffer = None if buffers is None else buffers.open(self._give_up)

    async def read(self, limit_bytes: int, *, setting: str | None) -> bytes:
        """Return it whole; errors as of `read_body`."""
        try:
            async with self._waiting:
                return await self._read(limit_bytes, setting=setting)
        except TimeoutError:
            if not self._waiting.expired():
                raise
            raise TooMuchUnderWayError from None

    async def _read(self, limit_bytes: int, *, setting: str | None) -> bytes:
        size, message = 0, self._message
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            more: bool = message.get("more_body", False)
            if size > limit_bytes:
                self._chunks.clear()
                self.close()
                refusal = await _over(self._receive, size, limit_bytes, more=more)
                raise refusal(
                    what="the body", size_bytes=None, limit_bytes=limit_bytes, setting=setting
                )
            self._chunks.append(chunk)
            if not more:
                return b"".join(self._chunks)
            if self._buffer is not None:
                self._buffer.resize(size)
            message = await self._receive()

    def _give_up(self) -> None:
        self._chunks.clear()
        self._waiting.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Count it no more."""
        if self._buffer is not None:
            self._buffer.resize(0)


async def body_chunks(
    scope: Scope,
    receive: Receive,
    limit_bytes: int,
    *,
    what: str = "the body",
    setting: str | None = None,
) -> AsyncGenerator[bytes]:
    """Yield a body as it comes, for one that is too large for memory; errors as of `read_body`.

    Args:
        what: What the body is, for whoever sent too much of it.
        setting: What sets the limit; None where it is fixed.
    """
    check_length(scope, limit_bytes, what=what, setting=setting)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        more = message.get("more_body", False)
        if size > limit_bytes:
            refusal = await _over(receive, size, limit_bytes, more=more)
            raise refusal(what=what, size_bytes=None, limit_bytes=limit_bytes, setting=setting)
        yield chunk


def check_length(scope: Scope, limit_bytes: int, *, what: str, setting: str | None) -> None:
    """Refuse a body that says by itself that it is too long.

    Raises:
        TooLargeError: by what Content-Length says.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit_bytes:
            raise TooLargeError(
                what=what, size_bytes=int(value), limit_bytes=limit_bytes, setting=setting
            )


async def _over(
    receive: Receive, size: int, limit_bytes: int, *, more: bool
) -> type[TooLargeError]:
    """Throw the rest of a body away, so that the refusal reaches who is still sending it.

    Returns:
        What to raise: another error where there is so much more that it was not read.

    Raises:
        ClientGoneError: the caller hung up.
    """
    while more and size <= DISCARDED * limit_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return UnreadBodyError if more else TooLargeError


def check_utf8(body: bytes) -> None:
    """Refuse what is not UTF-8; a parser that passes values through does not look.

    Raises:
        MalformedError: it is not.
    """
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"the body is not UTF-8 at byte {error.start}") from None


def decode(body: bytes, model: type[T]) -> T:
    """Parse a small body into a model; an empty one is `{}`.

    Raises:
        MalformedError: not JSON, or nested too deep.
        InvalidError: JSON of another shape, with what to change.
    """
    body = body.strip() or b"{}"
    check_utf8(body)
    check_depth(body, DEPTH)
    try:
        return msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        raise invalid(error, body, _names_of(model)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def members_of(body: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the members of an object unread; None when the body is JSON, but no object.

    Raises:
        MalformedError: not JSON.
    """
    check_json(body)
    try:
        return _members(body)
    except msgspec.ValidationError:
        return None


def check_json(body: bytes) -> None:
    """Refuse what is not JSON from end to end; a decoder may complain of something else first.

    Raises:
        MalformedError: it is not.
    """
    try:
        _skip(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None


def malformed(error: Exception) -> MalformedError:
    """Say that a body is no JSON."""
    return MalformedError(f"the body is not JSON: {error}")


def invalid(error: msgspec.ValidationError, body: bytes, known: tuple[str, ...]) -> InvalidError:
    """Say which member does not fit, and which one was meant.

    Raises:
        MalformedError: not JSON at all.
    """
    members = members_of(body)
    for name in members or ():
        if known and name not in known:
            return InvalidError(f"{name!r} is no member of this body{near(name, known)}")
    return InvalidError(f"the body does not fit: {error}")


def near(name: str, known: tuple[str, ...]) -> str:
    """Return a hint at the known name that is most like a wrong one."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it may have {', '.join(known)}"


def _names_of(model: object) -> tuple[str, ...]:
    if isinstance(model, type) and issubclass(model, msgspec.Struct):
        return tuple(model.__struct_encode_fields__)
    return ()
