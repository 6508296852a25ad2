"""One HTTP request of the relay: whose it is, its body, its answer.

Plain ASGI, because `send` is the hot path.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import structlog
from starlette.types import Message, Receive, Scope, Send

from hubbub.errors import (
    ConflictError,
    ForbiddenError,
    HubError,
    InvalidError,
    KeyReusedError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from hubbub.web import (
    ClientGoneError,
    UnreadBodyError,
    is_local,
    peer_of,
    read_body,
    send_portions,
)
from hubbub_relay import wire
from hubbub_relay.desk import Desk
from hubbub_relay.keys import Caller, Keys, caller_of_token
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.results import Results
from hubbub_relay.sending import Sending
from hubbub_relay.wire import RelayError

if TYPE_CHECKING:
    from hubbub import Hub

__all__ = ["Answer", "Call", "Handle", "Path", "Room"]

JSON: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")

FORBIDDEN: Final = 403

Body = bytes | list[bytes] | AsyncGenerator[bytes]
Answer = tuple[int, Body]
"""Status and body: whole, in portions, or without a length as it comes."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# The first one that fits: subclasses before their classes.
_STATUS: Final[tuple[tuple[type[HubError], int], ...]] = (
    (KeyReusedError, 422),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooLargeError, 413),
    (RateLimitedError, 429),
    (UnavailableError, 503),
    (MalformedError, 400),
    (InvalidError, 400),
)


@dataclass(frozen=True, slots=True)
class Room:
    """What the handlers work with while the adapter is up."""

    hub: Hub
    sending: Sending
    desk: Desk
    results: Results
    keys: Keys
    metrics: RelayMetrics
    public_read: bool | None
    max_body_bytes: int


class Call:
    """One request under way.

    Attributes:
        unread: Its body was not read to its end, so that nothing can follow on its connection.
        after_s: Seconds after which it may be tried again; None where nothing is said of that.
    """

    __slots__ = (
        "_credential", "_invalid", "_query", "after_s", "headers", "method", "receive", "room",
        "scope", "unread",
    )  # fmt: skip

    def __init__(self, room: Room, scope: Scope, receive: Receive) -> None:
        self.room = room
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.unread = False
        self._credential = ""
        self.after_s: float | None = None
        self._invalid = ""
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters of the query string."""
        if self._query is None:
            self._query = wire.read_query(self.scope["query_string"])
        return self._query

    def header(self, name: bytes) -> bytes:
        """Return a header; empty when it is not there.

        Raises:
            RelayError: it is there twice: which of the two would be meant?
        """
        found = [value for known, value in self.headers if known == name]
        if len(found) > 1:
            raise RelayError(f"the header {name.decode()} is there twice")
        return found[0] if found else b""

    def part(self, name: str) -> str:
        """Return a part of the path that the route names."""
        return str(self.scope["path_params"][name])

    @property
    def may_read(self) -> bool:
        """Whether logs and task states are read without a key; unset, by local requests."""
        public = self.room.public_read
        return is_local(self.scope) if public is None else public

    def known_caller(self) -> Caller | None:
        """Return whose key or token came with the request; None when it is nobody's.

        The header decides; a query parameter counts only where the header is absent or empty.
        """
        key = self.header(b"x-relay-api-key")
        if not key and self.scope["query_string"]:
            key = self.query.get("api_key", "").encode("utf-8", "surrogatepass")
        if key:
            found = self.room.keys.find(key, local=is_local(self.scope))
            self._invalid = "" if found else "relay_key"
            return found
        scheme, _, token = self.header(b"authorization").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        try:
            return caller_of_token(self.room.hub.authenticate(token.strip()))
        except UnauthorizedError:
            self._invalid = "token"
            return None

    def reader(self) -> Caller | None:
        """Return who reads what is public, as `known_caller` does; a wrong key is counted."""
        found = self.known_caller()
        if self._invalid:
            self.room.hub.auth_failures.count(self._invalid, peer_of(self.scope))
        return found

    def caller(self, *scopes: str) -> Caller:
        """Return who calls.

        Raises:
            RelayError: nobody known (401), or without one of these scopes (403).
            TooManyFailuresError: a wrong key or token, after too many of these from its source.
        """
        found = self.known_caller()
        if found is None:
            if self._invalid:
                self.room.hub.auth_failures.failed(self._invalid, peer_of(self.scope))
            raise RelayError(wire.UNAUTHORIZED, 401)
        found.need(*scopes)
        self._credential = found.credential
        return found

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RelayError: it is over the limit, or the client went away.
            CredentialEndedError: the caller's key or token ended while the body came.
        """
        try:
            body = await read_body(self.scope, self.receive, limit)
        except TooLargeError as error:
            self.unread = isinstance(error, UnreadBodyError)
            raise RelayError("body too large", 413) from None
        except ClientGoneError:
            raise RelayError("the client went away") from None
        self.room.hub.credentials.check(self._credential)
        return body


Handle = Callable[[Call], Awaitable[Answer]]


class Path:
    """One path: its methods, and what is the same for all of them."""

    def __init__(
        self, name: str, room: Callable[[], Room | None], methods: Mapping[str, Handle]
    ) -> None:
        self._name = name
        self._room = room
        self._methods = dict(methods)
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]
        self._allow = (b"allow", ", ".join(sorted(self._methods)).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        room = self._room()
        if room is None:
            await _answer(send, 503, wire.error("the relay is not running"))
            return
        call = Call(room, scope, receive)
        handle = self._methods.get(call.method)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        answer: Answer = (405, wire.error("method not allowed"))
        if handle is None:
            headers = (self._allow,)
        else:
            answer = await self._handled(handle, call)
        status, body = answer
        if call.unread:
            headers = (CLOSE,)
        if call.after_s is not None:
            headers = (*headers, (b"retry-after", b"%d" % max(1, math.ceil(call.after_s))))
        metrics = room.metrics
        metrics.requests[self._name, str(status)].inc()
        metrics.seconds.observe(perf_counter() - began)
        if isinstance(body, bytes | list):
            await _answer(send, status, body, headers)
        else:
            await _stream(scope, send, body, headers)

    async def _handled(self, handle: Handle, call: Call) -> Answer:
        try:
            return await handle(call)
        except RelayError as error:
            if error.status == FORBIDDEN:
                log.info("relay.forbidden", endpoint=self._name)
            return error.status, wire.error(str(error))
        except HubError as error:
            if isinstance(error, RateLimitedError):
                call.after_s = error.after_s
            for kind, status in _STATUS:
                if isinstance(error, kind):
                    return status, wire.error(error.message)
            log.exception("relay.failed", endpoint=self._name)
        except Exception:  # one request fails; its client gets JSON, we the trace
            log.exception("relay.failed", endpoint=self._name)
        return 500, wire.error("internal error")


async def _stream(
    scope: Scope,
    send: Send,
    body: AsyncGenerator[bytes],
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    """Send a body in portions, as fast as the client takes them; without a length.

    Where it cannot be read to its end the answer is cut off: the client sees that it is not whole.
    """
    await send({"type": "http.response.start", "status": 200, "headers": [JSON, *headers]})
    try:
        async with aclosing(body):
            async for portion in body:
                if scope["method"] == "HEAD":
                    break
                await send({"type": "http.response.body", "body": portion, "more_body": True})
    except HubError as error:
        log.warning("relay.cut_off", path=scope["path"][:200], error=str(error))
        return
    await send({"type": "http.response.body", "body": b""})


async def _answer(
    send: Send,
    status: int,
    body: bytes | list[bytes],
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    length = len(body) if isinstance(body, bytes) else sum(map(len, body))
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [JSON, (b"content-length", b"%d" % length), *headers],
    }
    await send(start)
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
    else:
        await send_portions(send, body)
