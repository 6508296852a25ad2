"""The relay over HTTP: keys, bodies, answers. Plain ASGI, because `send` is the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import structlog
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from hubbub.envelope import encode_json
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
from hubbub.observe.tracing import parse_traceparent
from hubbub_relay import importing, wire
from hubbub_relay.desk import Desk
from hubbub_relay.keys import ANONYMOUS, Caller, Keys, caller_of_token
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.results import Results
from hubbub_relay.wire import RelayError

if TYPE_CHECKING:
    from hubbub import Hub

__all__ = ["Api", "Room"]

JSON: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")

FORBIDDEN: Final = 403
METHOD_NOT_ALLOWED: Final = 405
TOO_LARGE: Final = 413

METHODS: Final[tuple[str, ...]] = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

DISCARD_LIMIT: Final = 8
"""Times the largest body that is read and thrown away, so that a refusal reaches the client."""

IMPORT_BODY: Final = 16 * 1024 * 1024
POLL_STEP_S: Final = 1.0
"""How often a long poll for a pattern of names looks for new names."""

Answer = tuple[int, bytes]

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
    desk: Desk
    results: Results
    keys: Keys
    metrics: RelayMetrics
    public_read: bool
    max_body_bytes: int


class Call:
    """One request under way."""

    __slots__ = ("_query", "headers", "method", "receive", "room", "scope")

    def __init__(self, room: Room, scope: Scope, receive: Receive) -> None:
        self.room = room
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters of the query string."""
        if self._query is None:
            self._query = wire.read_query(self.scope["query_string"])
        return self._query

    def header(self, name: bytes) -> bytes:
        """Return a header; empty when it is not there."""
        for known, value in self.headers:
            if known == name:
                return value
        return b""

    def part(self, name: str) -> str:
        """Return a part of the path that the route names."""
        return str(self.scope["path_params"][name])

    def known_caller(self) -> Caller | None:
        """Return whose key or token came with the request; None when it is nobody's.

        The header decides; a query parameter counts only where the header is absent or empty.
        """
        key = self.header(b"x-relay-api-key")
        if not key and self.scope["query_string"]:
            key = self.query.get("api_key", "").encode("utf-8", "surrogatepass")
        if key:
            return self.room.keys.find(key)
        scheme, _, token = self.header(b"authorization").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        try:
            return caller_of_token(self.room.hub.authenticate(token.strip()))
        except UnauthorizedError:
            return None

    def caller(self, *scopes: str) -> Caller:
        """Return who calls.

        Raises:
            RelayError: nobody known (401), or without one of these scopes (403).
        """
        found = self.known_caller()
        if found is None:
            raise RelayError(wire.UNAUTHORIZED, 401)
        found.need(*scopes)
        return found

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RelayError: it is over the limit.
        """
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > limit:
                raise RelayError("body too large", TOO_LARGE)
            return body
        return await self._rest(body, limit)

    async def _rest(self, first: bytes, limit: int) -> bytes:
        parts, size = [first], len(first)
        more = True
        while more and size <= limit * DISCARD_LIMIT:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RelayError("the client went away")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= limit:
                parts.append(part)
            more = message.get("more_body", False)
        if size > limit:
            raise RelayError("body too large", TOO_LARGE)
        return b"".join(parts)


Handle = Callable[[Call], Awaitable[Answer]]


class _Path:
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
        began = perf_counter()
        room = self._room()
        if room is None:
            return await _answer(send, 503, wire.error("the relay is not running"))
        handle = self._methods.get(scope["method"])
        if handle is None:
            status, body = METHOD_NOT_ALLOWED, wire.error("method not allowed")
        else:
            status, body = await self._handled(handle, Call(room, scope, receive))
        metrics = room.metrics
        metrics.requests[self._name, str(status)].inc()
        metrics.seconds.observe(perf_counter() - began)
        if status == METHOD_NOT_ALLOWED:
            return await _answer(send, status, body, self._allow)
        if status == TOO_LARGE:
            return await _answer(send, status, body, CLOSE)
        return await _answer(send, status, body)

    async def _handled(self, handle: Handle, call: Call) -> Answer:
        try:
            return await handle(call)
        except RelayError as error:
            if error.status == FORBIDDEN:
                log.info("relay.forbidden", endpoint=self._name)
            return error.status, wire.error(str(error))
        except HubError as error:
            for kind, status in _STATUS:
                if isinstance(error, kind):
                    return status, wire.error(error.message)
            log.exception("relay.failed", endpoint=self._name)
        except Exception:  # one request fails; its client gets JSON, we the trace
            log.exception("relay.failed", endpoint=self._name)
        return 500, wire.error("internal error")


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [JSON, (b"content-length", b"%d" % len(body)), *headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


class Api:
    """The endpoints.

    Attributes:
        room: What they work with; None while the adapter is down.
    """

    def __init__(self) -> None:
        self.room: Room | None = None

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Return the routes, the busiest first."""
        paths: list[tuple[str, str, Mapping[str, Handle]]] = [
            ("send", "/send", {"POST": _send}),
            ("callback", "/callback", {"POST": _callback}),
            ("tasks", "/tasks", {"GET": _tasks}),
            ("task-status", "/task-status/{task_id:path}", {"GET": _status}),
            ("logs", "/logs", {"GET": _logs}),
            ("ack", "/ack", {"POST": _ack}),
            ("renew", "/tasks/{task_id}/renew", {"POST": _renew}),
            ("clear", "/clear", {"POST": _clear}),
            ("import", "/import", {"POST": _import}),
        ]
        routes: list[BaseRoute] = [
            Route(prefix + path, _Path(name, lambda: self.room, methods), name=f"relay {name}")
            for name, path, methods in paths
        ]
        missing: dict[str, Handle] = dict.fromkeys(METHODS, _missing)
        other = _Path("other", lambda: self.room, missing)
        return [*routes, Route(prefix + "/{rest:path}", other, name="relay other")]


# Handlers


async def _send(call: Call) -> Answer:
    caller = call.caller("send")
    request = wire.read_send(await call.body(call.room.max_body_bytes))
    traceparent = None
    given = call.header(b"traceparent")
    if given:
        traceparent = given.decode("latin-1")
        parsed = parse_traceparent(traceparent)
        traceparent = f"00-{parsed[0]}-{parsed[1]}-01" if parsed else None
    sent = await call.room.desk.send(request, caller, traceparent=traceparent)
    return 200, wire.sent(sent.task_id, duplicate=sent.duplicate)


async def _callback(call: Call) -> Answer:
    caller = call.caller("callback")
    request = wire.read_callback(await call.body(call.room.max_body_bytes))
    duplicate = await call.room.results.callback(request, caller)
    return 200, b'{"status":"ok","duplicate":true}' if duplicate else wire.OK


async def _ack(call: Call) -> Answer:
    caller = call.caller("send", "callback")
    request = wire.read_ack(await call.body(call.room.max_body_bytes))
    await call.room.results.ack(request, caller)
    return 200, wire.OK


async def _logs(call: Call) -> Answer:
    if not call.room.public_read:
        call.caller("read")
    query = wire.read_logs_query(call.query)
    return 200, wire.logs(await call.room.desk.logs(query))


async def _status(call: Call) -> Answer:
    reader = ANONYMOUS if call.room.public_read else call.caller("read")
    reader = call.known_caller() or reader
    task_id = wire.task_id_of(call.part("task_id"))
    found = await call.room.desk.status(task_id)
    if found is None:
        raise RelayError("task not found", 404)
    shown: dict[str, object] = {"status": "ok", "task_id": task_id, "task_status": found.state}
    if reader.may("read"):
        shown |= wire.task_details(found.task)
    return 200, encode_json(shown)


async def _tasks(call: Call) -> Answer:
    caller = call.caller("work")
    query = wire.read_tasks_query(call.query)
    tasks = await _leased(call, query, caller)
    return 200, encode_json({"status": "ok", "tasks": tasks})


async def _leased(call: Call, query: wire.TasksQuery, caller: Caller) -> list[dict[str, object]]:
    """Take tasks; wait for the first one, as long as the client is there."""
    desk = call.room.desk
    if not query.wait_s:
        return await desk.lease(query, caller, wait_s=0)
    await call.body(call.room.max_body_bytes)
    leasing = asyncio.ensure_future(_poll(desk, query, caller))
    leaving = asyncio.ensure_future(call.receive())
    try:
        await asyncio.wait((leasing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not leasing.done():
            raise RelayError("the client went away")
        return leasing.result()
    finally:
        leasing.cancel()
        leaving.cancel()
        await asyncio.gather(leasing, leaving, return_exceptions=True)


async def _poll(desk: Desk, query: wire.TasksQuery, caller: Caller) -> list[dict[str, object]]:
    if not query.to.endswith("*"):
        return await desk.lease(query, caller, wait_s=query.wait_s)
    left = query.wait_s
    while True:
        wait_s = min(left, POLL_STEP_S)
        tasks = await desk.lease(query, caller, wait_s=wait_s)
        left -= wait_s
        if tasks or left <= 0:
            return tasks


async def _renew(call: Call) -> Answer:
    caller = call.caller("work")
    request = wire.read_renew(await call.body(call.room.max_body_bytes))
    task_id = wire.task_id_of(call.part("task_id"))
    until = await call.room.desk.renew(task_id, request, caller)
    return 200, encode_json({"status": "ok", "task_id": task_id, "lease_until": until})


async def _clear(call: Call) -> Answer:
    caller = call.caller("admin")
    newest = await call.room.desk.clear()
    await call.room.hub.audit(caller.name, "relay.clear", "relay_event", f"up to id {newest}")
    return 200, '{"status":"ok","msg":"对话日志已清空"}'.encode()


async def _import(call: Call) -> Answer:
    caller = call.caller("admin")
    batch = importing.read_batch(await call.body(IMPORT_BODY))
    done = await importing.take(call.room.hub, call.room.desk, batch, caller)
    await call.room.hub.audit(caller.name, "relay.import", "relay_event", f"{done.kept} records")
    return 200, encode_json(
        {"status": "ok", "kept": done.kept, "known": done.known, "queued": done.queued}
    )


async def _missing(call: Call) -> Answer:
    del call
    raise RelayError("not found", 404)
