"""The original's own paths: the address of a node, logins of users, the state of the server."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from hubbub import Hub
from hubbub.envelope import encode_json
from hubbub.errors import (
    HubError,
    InvalidError,
    MalformedError,
    RateLimitedError,
    TooLargeError,
    TooManyFailuresError,
    UnauthorizedError,
)
from hubbub.web import (
    UnreadBodyError,
    bearer_of,
    header,
    is_local,
    linkable,
    peer_of,
    read_body,
)
from hubbub_octohub.accounts import Accounts, Login
from hubbub_octohub.config import OctohubSettings
from hubbub_octohub.desk import Desk
from hubbub_octohub.gate import Gate, first_of
from hubbub_octohub.metrics import OctohubMetrics
from hubbub_octohub.node import speaker_of
from hubbub_octohub.nodes import Nodes
from hubbub_octohub.signatures import Kind, SignatureError
from hubbub_octohub.socket import Socket
from hubbub_octohub.talk import Talk
from hubbub_octohub.user import Users

__all__ = ["Api", "Room"]

LOGIN_BODY: Final = 64 * 1024
"""Bytes of a login, at most."""

SIGNED: Final = ("x-timestamp", "x-nonce", "x-signature")
"""Headers of a signed request."""

DETAILS: Final = 100
"""Connections of one side that `/status` lists, at most."""

GENERAL: Final = 1000
NOT_LOGGED_IN: Final = 401
LOGIN_FAILED: Final = 1001
BAD_SIGNATURE: Final = 1002
RATE_LIMITED: Final = 1005
DISABLED: Final = 1006

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """What the handlers work with while the adapter is up."""

    hub: Hub
    settings: OctohubSettings
    gate: Gate
    nodes: Nodes
    users: Users
    accounts: Accounts
    desk: Desk
    metrics: OctohubMetrics
    public_status: bool | None


class ApiError(HubError):
    """An answer of the original's API that says no.

    Attributes:
        status: HTTP status.
        errcode: The number that OctoHub has for it.
        after_s: Seconds after which it may be tried again; None where nothing is said of that.
    """

    code = "octohub_api"

    def __init__(
        self, status: int, errcode: int, message: str, *, after_s: float | None = None
    ) -> None:
        self.after_s = after_s
        self.status = status
        self.errcode = errcode
        super().__init__(message)


Handler = Callable[[Room, Request], Awaitable[object]]


def retry_after(after_s: float) -> str:
    """Return a time to wait as the header `Retry-After` has it: whole seconds, at least one."""
    return str(max(1, math.ceil(after_s)))


def _too_many(error: RateLimitedError) -> ApiError:
    return ApiError(429, RATE_LIMITED, "请求过于频繁", after_s=error.after_s)


def _json(status: int, body: Mapping[str, object]) -> Response:
    return Response(encode_json(body), status, media_type="application/json")


class Api:
    """The endpoints.

    Attributes:
        room: What they work with; None while the adapter is down.
    """

    def __init__(self) -> None:
        self.room: Room | None = None

    def routes(self, settings: OctohubSettings) -> list[BaseRoute]:
        """Return the routes."""
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/node/ws", _node_ws),
            ("POST", "/login/login", _login),
            ("GET", "/user/info", _user_info),
            ("GET", "/user/ws", _user_ws),
        ]

        def here() -> Room | None:
            return self.room

        routes: list[BaseRoute] = [
            Route(
                prefix + path,
                self._answering(handler, prefix),
                methods=[method],
            )
            for prefix in dict.fromkeys(settings.api_prefixes)
            for method, path, handler in handlers
        ]
        routes += [
            linkable(Route("/status", self._answering(_status))),
            linkable(Route("/health", self._answering(_health))),
            WebSocketRoute("/ws/node", _Door("node", here)),
            WebSocketRoute("/ws/pc", _Door("node", here)),
            WebSocketRoute("/ws/user", _Door("user", here)),
        ]
        return routes

    def _answering(
        self, handler: Handler, prefix: str = ""
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers in the envelope of the original."""

        async def answer(request: Request) -> Response:
            room = self.room
            if room is None:
                return _json(503, {"errcode": GENERAL, "errmsg": "the adapter is not running"})
            request.scope["octohub.prefix"] = prefix
            try:
                return _json(200, cast("Mapping[str, object]", await handler(room, request)))
            except ApiError as error:
                refused = _json(error.status, {"errcode": error.errcode, "errmsg": str(error)})
                if error.after_s is not None:
                    refused.headers["retry-after"] = retry_after(error.after_s)
                return refused
            except MalformedError as error:
                return _json(400, {"errcode": GENERAL, "errmsg": str(error)})
            except TooLargeError as error:
                refused = _json(413, {"errcode": GENERAL, "errmsg": str(error)})
                if isinstance(error, UnreadBodyError):
                    refused.headers["connection"] = "close"
                return refused

        return answer


class _Door:
    """One WebSocket path, an ASGI application: checks handshakes and serves who comes in."""

    def __init__(self, kind: Kind, room: Callable[[], Room | None]) -> None:
        self._kind: Kind = kind
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        room = self._room()
        settings = room.settings if room else OctohubSettings()
        socket = Socket(
            scope,
            receive,
            send,
            queue_size=settings.queue_size,
            message_bytes=settings.max_message_bytes,
        )
        if room is None:
            await socket.deny(503, {"error": "the adapter is not running"})
        elif len(room.nodes) + len(room.users) >= settings.max_connections:
            await socket.deny(503, {"error": "too many connections"})
        else:
            await self._serve(room, socket, scope)

    async def _serve(self, room: Room, socket: Socket, scope: Scope) -> None:
        try:
            query = first_of(scope["query_string"])
            identity, time_s = await room.gate.enter(self._kind, query, local=is_local(scope))
            expires_us = room.gate.login_of(identity, time_s) if self._kind == "user" else None
        except SignatureError:
            room.metrics.auth_failures[f"ws_{self._kind}"].inc()
            wait_s = room.hub.auth_failures.count("octohub_address", socket.peer)
            if wait_s:
                await socket.deny(429, {"error": "请求过于频繁"}, retry_after=retry_after(wait_s))
            else:
                await socket.deny(401, {"error": "签名验证失败"})
        except (InvalidError, MalformedError) as error:
            await socket.deny(400, {"error": str(error)})
        else:
            if self._kind == "user":
                await room.users.serve(identity, socket, expires_us=expires_us)
            elif room.nodes.is_disabled(identity):
                await socket.deny(403, {"error": "node disabled"})
            else:
                talk = Talk("node", identity, speaker_of(identity), hub=room.hub)
                await room.nodes.serve(identity, socket, talk)


# Handlers


async def _node_ws(room: Room, request: Request) -> object:
    """`GET /node/ws`: a signed address for a node."""
    path = bytes(request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1")
    paths = dict.fromkeys((path, path.removeprefix(request.scope["octohub.prefix"])))
    try:
        pc_id = await room.gate.check_request(
            method=request.method,
            paths=tuple(paths),
            query=request.scope["query_string"],
            headers={name: header(request.headers.raw, name.encode()) or "" for name in SIGNED},
            local=is_local(request.scope),
        )
    except SignatureError as error:
        room.metrics.auth_failures["api"].inc()
        try:
            room.hub.auth_failures.failed("octohub_request", peer_of(request.scope))
        except RateLimitedError as too_many:
            raise _too_many(too_many) from error
        raise ApiError(401, BAD_SIGNATURE, "签名验证失败") from error
    except (InvalidError, MalformedError) as error:
        raise ApiError(400, GENERAL, f"生成WebSocket连接地址失败: {error}") from error
    if not pc_id:
        raise ApiError(400, GENERAL, "pc_id required")
    if room.nodes.is_disabled(pc_id):
        raise ApiError(403, DISABLED, "node disabled")
    try:
        url = await room.gate.address("node", pc_id, base=_base(request))
    except RateLimitedError as error:
        message = "pc_id is being taken over too often"
        raise ApiError(429, RATE_LIMITED, message, after_s=error.after_s) from error
    except InvalidError as error:
        raise ApiError(400, GENERAL, f"生成WebSocket连接地址失败: {error}") from error
    return {"errcode": 0, "data": {"wsUrl": url}}


def _base(request: Request) -> str:
    """Return where the hub was asked, as the beginning of a WebSocket address."""
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}"


class _Login(msgspec.Struct, frozen=True):
    email: str
    password: str


async def _login(room: Room, request: Request) -> object:
    """`POST /login/login`: a token for an email address and a password."""
    body = await read_body(request.scope, request.receive, LOGIN_BODY, setting=None)
    try:
        given = msgspec.json.decode(body, type=_Login)
        user, token = await room.accounts.log_in(
            given.email, given.password, peer=peer_of(request.scope)
        )
    except RateLimitedError as error:
        raise _too_many(error) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError, UnauthorizedError) as error:
        room.metrics.auth_failures["login"].inc()
        raise ApiError(400, LOGIN_FAILED, "登录失败") from error
    return {"errcode": 0, "data": {"token": token, "type": "Bearer", "id": user.id}}


async def _logged_in(room: Room, request: Request) -> Login:
    try:
        token = bearer_of(request.scope["headers"]) or ""
        return await room.accounts.login(token, peer=peer_of(request.scope))
    except TooManyFailuresError as error:
        room.metrics.auth_failures["token"].inc()
        raise _too_many(error) from error
    except UnauthorizedError as error:
        room.metrics.auth_failures["token"].inc()
        raise ApiError(401, NOT_LOGGED_IN, f"认证失败：{error}") from error


async def _user_info(room: Room, request: Request) -> object:
    """`GET /user/info`: who is logged in."""
    user = (await _logged_in(room, request)).user
    data = {
        "id": user.id,
        "email": user.email,
        "createdAt": _local(user.created_us),
        "updatedAt": _local(user.updated_us),
    }
    return {"errcode": 0, "data": data}


def _local(time_us: int) -> str:
    """Write a time as the original's front end reads it: UTC, without saying so."""
    return f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}"


async def _user_ws(room: Room, request: Request) -> object:
    """`GET /user/ws`: a signed address for a user."""
    login = await _logged_in(room, request)
    try:
        url = await room.gate.address(
            "user", str(login.user.id), base=_base(request), expires_us=login.expires_us
        )
    except RateLimitedError as error:
        raise _too_many(error) from error
    return {"errcode": 0, "data": {"wsUrl": url}}


async def _health(room: Room, request: Request) -> object:
    """`GET /health`: alive."""
    del request
    return {"status": "ok", "timestamp": int(room.gate.now_s)}


async def _status(room: Room, request: Request) -> object:
    """`GET /status`: who is connected."""
    public = room.public_status
    if not (is_local(request.scope) if public is None else public):
        token = bearer_of(request.headers.raw) or ""
        try:
            principal = room.hub.authenticate(token)
        except UnauthorizedError as error:
            peer = peer_of(request.scope)
            wait_s = room.hub.auth_failures.count("token", peer) if token else 0
            if wait_s:
                raise ApiError(429, RATE_LIMITED, "请求过于频繁", after_s=wait_s) from error
            raise ApiError(401, NOT_LOGGED_IN, f"认证失败：{error}") from error
        if principal.scopes.isdisjoint({"admin", "read"}):
            raise ApiError(403, NOT_LOGGED_IN, "this token may not read")
    now_s = room.gate.now_s
    users = [(one.identity, float(one.talk.seen_s)) for one in room.users]
    nodes = [(one.pc_id, one.session.seen_s) for one in room.nodes]
    said: dict[str, object] = {
        "user_connections": len(users),
        "pc_connections": len(nodes),
        "total_connections": len(users) + len(nodes),
        "cleanup_queue_size": 0,
        "timestamp": int(now_s),
    }
    for name, known in (("user_details", users), ("pc_details", nodes)):
        if len(known) <= DETAILS:
            said[name] = _details(known, now_s)
    return said


def _details(known: Sequence[tuple[str, float]], now_s: float) -> list[dict[str, object]]:
    return [
        {
            "id": identity,
            "last_active": int(seen_s),
            "duration": round(max(0.0, now_s - seen_s), 1),
        }
        for identity, seen_s in known
    ]
