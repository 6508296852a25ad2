"""One call of the API: what a handler is given, what it gives back, and how it is found.

Plain ASGI without middleware: the path of a message is look up, authenticate, read, publish,
answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import (
    ForbiddenError,
    HubError,
    InvalidError,
    NotFoundError,
    StoreUnavailableError,
    UnauthorizedError,
)
from hubbub.portions import PORTION_BYTES
from hubbub.values import Principal
from hubbub.web.auth import authenticated, need, peer_of
from hubbub.web.bodies import body_chunks, decode, read_body
from hubbub.web.decoding import bearer_of, header, parse_query, traceparent
from hubbub.web.encoding import Listing, send_portions
from hubbub.web.manners import HUBS, Manners
from hubbub.web.problems import InternalError, MethodError, problem_of
from hubbub.web.specs import NOTHING, Parameter, Spec

__all__ = [
    "ANYONE",
    "OPEN",
    "Call",
    "Handler",
    "Operation",
    "Parameter",
    "Paths",
    "Reply",
    "Spec",
    "send_problem",
]

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"
TRUST_US: Final = 1_000_000
"""How long a login, which costs a look into the store, is believed while a body comes."""

SETTLE_S: Final = 1.0
"""How long a read waits for a commit that is under way."""


OF_CALLERS: Final = (UnauthorizedError, ForbiddenError)
"""Errors about who calls are problems on every path; those derived from them need not be."""

OPEN: Final = None
"""For everybody, without a token."""

ANYONE: Final[tuple[str, ...]] = ()
"""For every known token; what it may do is looked at later."""


@dataclass(slots=True)
class Reply:
    """What goes back: a value that is sent as JSON, or bytes as they are.

    A value with a list that may be long is a `Listing`.
    """

    status: int
    value: object = None
    content_type: bytes = JSON
    headers: Iterable[tuple[bytes, bytes]] = ()


class Call:
    """One request under way.

    Attributes:
        params: Parts of the path that its template names.
        principal: Who calls; only for operations that are not open.
    """

    __slots__ = (
        "_login", "_login_us", "_principal", "_query", "core", "params", "receive", "scope", "send",
    )  # fmt: skip

    def __init__(
        self, core: Core, scope: Scope, receive: Receive, send: Send, params: Mapping[str, str]
    ) -> None:
        self.core = core
        self.scope = scope
        self.receive = receive
        self.send = send
        self.params = params
        self._principal: Principal | None = None
        self._query: list[tuple[str, str]] | None = None
        self._login: Login | None = None
        self._login_us = 0

    @property
    def principal(self) -> Principal:
        """Who calls."""
        assert self._principal is not None
        return self._principal

    async def log_in(self, login: Login) -> Principal | None:
        """Return who calls, by a login that is not one of the hub; None where it is none such.

        Raises:
            UnauthorizedError: it is one, and not good.
        """
        known = await login(self)
        if known is not None:
            self._login, self._login_us = login, self.core.clock.now_us()
        return known

    async def _check_again(self) -> None:
        """Check that the caller is still trusted: a body may have taken any time to come.

        Raises:
            UnauthorizedError: it is not.
        """
        if self._principal is not None:
            self.core.credentials.check(self._principal.id)
        if self._login is not None and self.core.clock.now_us() - self._login_us >= TRUST_US:
            await self.log_in(self._login)

    def authenticate(self, scopes: tuple[str, ...], known: Principal | None = None) -> None:
        """Find out who calls, and whether it has one of these scopes.

        Args:
            known: Who calls, where something else than a token of the hub has told that.

        Raises:
            UnauthorizedError: no known token.
            ForbiddenError: none of the scopes.
        """
        self._principal = known or authenticated(self.core, self.scope)
        if scopes:
            need(self._principal, scopes)

    @property
    def peer(self) -> str | None:
        """The address the request came from; None where it is not known."""
        return peer_of(self.scope)

    @property
    def bearer(self) -> str | None:
        """The token that came with the request, whoever's it is; None without one."""
        return bearer_of(self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        """Return a header by its lower-case name; None without it.

        Raises:
            MalformedError: it is there twice, or it is not UTF-8.
        """
        return header(self.scope["headers"], name)

    @property
    def traceparent(self) -> str:
        """The trace that the request is on; empty for none."""
        return traceparent(self.scope["headers"])

    @property
    def query(self) -> list[tuple[str, str]]:
        """The parameters of the query, in order.

        Raises:
            MalformedError: one that cannot be decoded.
            InvalidError: too many, or one with a NUL character.
        """
        if self._query is None:
            self._query = parse_query(self.scope["query_string"])
            for name, value in self._query:
                if "\0" in value:
                    raise InvalidError(f"?{name}= has a NUL character; take it out")
        return self._query

    def argument(self, name: str) -> str | None:
        """Return a parameter of the query; None when it is not there or empty.

        Raises:
            InvalidError: it is there twice: which of the two would be meant?
        """
        values = {value for key, value in self.query if key == name and value}
        if len(values) > 1:
            raise InvalidError(f"?{name}= is there twice, with different values; send one")
        return values.pop() if values else None

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            TooLargeError: over `hub.max_body`.
            ClientGoneError: the caller hung up; it is nobody's mistake and passes through.
            UnauthorizedError: its token ended while the body came.
        """
        body = await read_body(self.scope, self.receive, self.core.config.hub.max_body)
        await self._check_again()
        return body

    async def body_within(self, limit_bytes: int, *, setting: str) -> bytes:
        """Return the body, where another limit holds, which `setting` says; errors as above."""
        body = await read_body(self.scope, self.receive, limit_bytes, setting=setting)
        await self._check_again()
        return body

    async def chunks(
        self, limit_bytes: int, *, what: str = "the body", setting: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Return the body as it comes, for one that is too large for memory; errors as above.

        Args:
            what: What the body is, for whoever sent too much of it.
            setting: What sets the limit; None where it is fixed.
        """
        coming = body_chunks(self.scope, self.receive, limit_bytes, what=what, setting=setting)
        async with aclosing(coming):
            async for chunk in coming:
                await self._check_again()
                yield chunk

    async def json(self, model: type[T]) -> T:
        """Return the body as a model.

        Raises:
            MalformedError: not JSON.
            InvalidError: JSON of another shape.
        """
        return decode(await self.body(), model)

    async def settled(self) -> None:
        """Wait until outcomes that are known are written, so that a reader sees them.

        At most `SETTLE_S`: without them the answer is older, and as true.
        """
        journal = self.core.journal
        if journal.problem is None:
            with suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await journal.flush()


Login = Callable[[Call], Awaitable[Principal | None]]
"""Tells who calls; None where a token of the hub does."""

Handler = Callable[[Call], Awaitable[Reply | None]]
"""Answers a call; None when it has sent the answer itself."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        path: `{name}` is one part of the path, `{name:any}` all of the rest.
        scopes: One of them is needed; `ANYONE` for every token, `OPEN` for no token.
        says: What it does, in a line.
        spec: What it takes and gives.
    """

    method: str
    path: str
    handle: Handler
    says: str
    scopes: tuple[str, ...] | None = ("admin",)
    spec: Spec = NOTHING


class _Path:
    """The methods of one path."""

    def __init__(self) -> None:
        self.methods: dict[str, Operation] = {}


class Paths:
    """Operations as one ASGI application."""

    def __init__(
        self, core: Core, operations: Iterable[Operation], manners: Manners = HUBS
    ) -> None:
        self.operations: Final = tuple(operations)
        self._manners = manners
        self.sockets: Final[dict[str, ASGIApp]] = {}
        self._core = core
        self._exact: dict[str, _Path] = {}
        self._templates: list[tuple[re.Pattern[str], _Path]] = []
        by_path: dict[str, _Path] = {}
        for operation in self.operations:
            path = by_path.get(operation.path)
            if path is None:
                path = by_path[operation.path] = _Path()
                if "{" in operation.path:
                    self._templates.append((_compiled(operation.path), path))
                else:
                    self._exact[operation.path] = path
            path.methods[operation.method] = operation

    def knows(self, path: str) -> bool:
        """Tell whether a path without parts to fill in is one of these."""
        return path in self._exact

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        manners = self._manners
        try:
            if manners.ready is not None:
                manners.ready()
            operation, params = self._find(scope["method"], scope["path"])
            call = Call(self._core, scope, receive, send, params)
            if operation.scopes is not None:
                known = None if manners.login is None else await call.log_in(manners.login)
                call.authenticate(operation.scopes, known)
            reply = await operation.handle(call)
            if reply is not None:
                await _send(scope, send, reply)
        except HubError as error:
            await send_problem(self._core, scope, send, error, manners)
        except ClientDisconnect:
            log.debug("web.client_gone", path=scope["path"][:200])
        except Exception as error:
            log.exception("web.failed", method=scope["method"], path=scope["path"][:200])
            await send_problem(self._core, scope, send, _internal(error), manners)

    def _find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        """Return what answers a request.

        Raises:
            NotFoundError: no such path.
            MethodError: not this method.
        """
        allowed: set[str] = set()
        exact = self._exact.get(path)
        if exact is not None:
            operation = _of(exact, method)
            if operation is not None:
                return operation, {}
            allowed |= exact.methods.keys()
        for pattern, found in self._templates:
            filled = pattern.fullmatch(path)
            if filled is not None:
                operation = _of(found, method)
                if operation is not None:
                    return operation, filled.groupdict()
                allowed |= found.methods.keys()
        if allowed:
            raise MethodError(method=method, allowed=allowed)
        raise NotFoundError(
            f"there is no path {path[:200]!r} here; docs/http-api.md has all of them"
        )

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.sockets.get(scope["path"])
        if app is not None:
            await app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404, "reason": "no such path"})


async def send_problem(
    core: Core, scope: Scope, send: Send, error: HubError, manners: Manners = HUBS
) -> None:
    """Answer with a problem, or with what stands for it by these manners."""
    said: HubError | Reply = error
    if manners.refuse is not None and type(error) not in OF_CALLERS:
        said = manners.refuse(error)
    if isinstance(said, HubError):
        error = said
    problem, headers = problem_of(error, scope["headers"], core.ids.trace())
    if isinstance(said, HubError):
        reply = Reply(problem.status, problem, PROBLEM, headers)
    else:
        reply = Reply(said.status, said.value, said.content_type, (*headers, *said.headers))
    await _send(scope, send, reply)


async def _send(scope: Scope, send: Send, reply: Reply) -> None:
    value = reply.value
    if isinstance(value, Listing):
        await _send_long(scope, send, reply, await value.encode())
        return
    body = b"" if reply.status == 204 else value if isinstance(value, bytes) else encode_json(value)  # noqa: PLR2004
    if len(body) > PORTION_BYTES:
        await _send_long(scope, send, reply, [body])
        return
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(body)),
        *reply.headers,
    ]
    if reply.status == 204:  # noqa: PLR2004
        del headers[:2]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _send_long(scope: Scope, send: Send, reply: Reply, portions: list[bytes]) -> None:
    """Send an answer in portions: who reads slowly has what is left of it in memory, once."""
    length = sum(map(len, portions))
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % length),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send_portions(send, [] if scope["method"] == "HEAD" else portions)


def _internal(error: Exception) -> InternalError:
    """Say that something went wrong, and nothing of what."""
    del error
    return InternalError("the hub made a mistake; its log says more under this trace_id")


def _of(path: _Path, method: str) -> Operation | None:
    return path.methods.get("GET" if method == "HEAD" else method)


def _compiled(template: str) -> re.Pattern[str]:
    """Return the pattern of a path: `{name}` is one part, `{name:any}` all of the rest."""
    pattern = re.escape(template)
    pattern = re.sub(r"\\{(\w+):any\\}", r"(?P<\1>[\\s\\S]+)", pattern)
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", pattern)
    return re.compile(pattern)
