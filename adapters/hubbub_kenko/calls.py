"""Requests below `/api/kenko`: who calls, what came, and errors as this API writes them.

`operations(path, room, GET=list_apps, POST=...)` makes one route. A handler is
`async def (call: Call) -> Answer`, and may raise any `HubError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec
import structlog
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hubbub.envelope import encode_json
from hubbub.errors import (
    ForbiddenError,
    HubError,
    InvalidError,
    MalformedError,
    TooLargeError,
    UnauthorizedError,
)
from hubbub.values import Principal
from hubbub.web.auth import need
from hubbub.web.problems import InternalError, MethodError, header, problem_of, status_of
from hubbub_kenko.rooms import Room

__all__ = ["PREFIX", "Answer", "Call", "Handle", "operations"]

PREFIX: Final = "/api/kenko"
MAX_BODY: Final = 1024**2
MAX_PAGE: Final = 1000
PAGE: Final = 100

OF_CALLERS: Final = (UnauthorizedError, ForbiddenError)
"""Errors about who calls are problems on every path of the hub; those derived from them are not."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers.

    Attributes:
        value: Anything JSON can say; bytes go out as they are.
    """

    value: object = None
    status: int = 200
    media_type: str = "application/json"

    @property
    def body(self) -> bytes:
        """The body as it goes out."""
        if isinstance(self.value, bytes):
            return self.value
        return b"" if self.status == 204 else encode_json(self.value)  # noqa: PLR2004


class Call:
    """One request of a caller who may make it."""

    __slots__ = ("_receive", "principal", "query", "room", "scope")

    def __init__(self, room: Room, scope: Scope, receive: Receive, principal: Principal) -> None:
        self.room = room
        self.scope = scope
        self.principal = principal
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        self._receive = receive

    def part(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.scope["path_params"][name])

    def header(self, name: bytes) -> str | None:
        """Return a header, by its lower-case name."""
        return header(self.scope["headers"], name)

    def limit(self) -> int:
        """Return `?limit=`, how many items a page may have.

        Raises:
            InvalidError: it is no whole number from 1 to 1000.
        """
        return self.whole("limit", PAGE, least=1, most=MAX_PAGE)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a number of the query.

        Raises:
            InvalidError: it is no whole number, or outside its bounds.
        """
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and least <= int(text[:19]) <= most):
            raise InvalidError(f"?{name}={text[:20]!r} is no whole number from {least} to {most}")
        return int(text)

    async def body(self, limit_bytes: int = MAX_BODY) -> bytes:
        """Return the body.

        Raises:
            TooLargeError: it is over the limit.
            MalformedError: the caller left before its end.
        """
        parts: list[bytes] = []
        size = 0
        async for part in self.chunks():
            size += len(part)
            if size > limit_bytes:
                raise TooLargeError(what="the body", size_bytes=None, limit_bytes=limit_bytes)
            parts.append(part)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            MalformedError: the caller left before its end.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise MalformedError("the body ended too early")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def json(self) -> dict[str, Any]:
        """Return the body, a JSON object; an empty body is an empty object.

        Raises:
            MalformedError: it is no JSON.
            InvalidError: it is no object.
        """
        body = await self.body()
        try:
            value: object = msgspec.json.decode(body) if body else {}
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MalformedError(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidError("the body must be a JSON object")
        return cast("dict[str, Any]", value)


Handle = Callable[[Call], Awaitable[Answer]]


class _Path:
    """One path and its methods."""

    def __init__(self, room: Callable[[], Room | None], methods: dict[str, Handle]) -> None:
        self._room = room
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except HubError as error:
            if type(error) in OF_CALLERS:
                room = self._room()
                trace = room.new_trace() if room else ""
                problem, headers = problem_of(error, scope["headers"], trace)
                answer = Answer(problem, problem.status, "application/problem+json")
                return await _write(scope, send, answer, *headers)
            answer = _error(error)
        except Exception as error:  # one request fails; its caller gets JSON, we the trace
            log.exception("kenko.request_failed", path=scope["path"][:200])
            failed = InternalError("the hub made a mistake; its log says more")
            failed.__cause__ = error
            answer = _error(failed)
        return await _write(scope, send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        room = self._room()
        if room is None:
            error = {"code": "unavailable", "message": "the kenko adapter is not running"}
            return Answer({"error": error}, 503)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        principal = _caller(room, scope)
        handle = self._methods.get(method)
        if handle is None:
            raise MethodError(method=method, allowed=self._methods)
        need(principal, ("read",) if method == "GET" else ("admin",))
        return await handle(Call(room, scope, receive, principal))


def _caller(room: Room, scope: Scope) -> Principal:
    scheme, _, token = (header(scope["headers"], b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError(
            "this path needs a token: send the header `Authorization: Bearer <token>`; "
            "`hubbub token create` makes one"
        )
    return room.hub.authenticate(token.strip())


def _error(error: HubError) -> Answer:
    return Answer({"error": {"code": error.code, "message": error.message}}, status_of(error))


async def _write(scope: Scope, send: Send, answer: Answer, *more: tuple[bytes, bytes]) -> None:
    body = answer.body
    headers = [(b"content-length", b"%d" % len(body)), *more]
    if body:
        headers.append((b"content-type", answer.media_type.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def operations(path: str, room: Callable[[], Room | None], **methods: Handle) -> Route:
    """Return the route of one path below `/api/kenko`: `GET=...`, `POST=...`."""
    return Route(PREFIX + path, _Path(room, dict(methods)))
