"""`/api/octohub/...`: tasks for nodes, the nodes, and users. Errors are problem+json."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubbub.envelope import encode_json, rfc3339
from hubbub.errors import (
    ForbiddenError,
    InvalidError,
    MalformedError,
    UnauthorizedError,
    UnavailableError,
)
from hubbub.intake import check_text
from hubbub.values import Principal, TaskState
from hubbub_octohub.accounts import is_jwt
from hubbub_octohub.api import Room, read_body
from hubbub_octohub.desk import read_task
from hubbub_octohub.records import NodeRule, User
from hubbub_octohub.talk import canonical_traceparent
from hubbub_octohub.user import principal_of, submitter
from hubbub_octohub.wire import MAX_CONCURRENCY

__all__ = ["PREFIX", "admin_routes"]

PREFIX: Final = "/api/octohub"
MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
BODY: Final = 64 * 1024
"""Bytes of a body that is no task."""

Answer = tuple[int, object]
Handler = Callable[["Visit"], Awaitable[Answer]]


class Visit:
    """One request, and who makes it."""

    def __init__(self, room: Room, request: Request, principal: Principal) -> None:
        self.room = room
        self.request = request
        self.principal = principal

    def part(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def argument(self, name: str) -> str | None:
        """Return a parameter of the query."""
        return self.request.query_params.get(name)

    @property
    def limit(self) -> int:
        """How many items of a list are asked for.

        Raises:
            MalformedError: not 1 to 1000.
        """
        text = self.argument("limit") or str(DEFAULT_LIMIT)
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LIMIT):
            raise MalformedError(f"limit is {text[:20]!r}, it must be 1 to {MAX_LIMIT}")
        return int(text)

    @property
    def after(self) -> int | None:
        """What `?cursor=` stands for.

        Raises:
            MalformedError: no cursor of ours.
        """
        text = self.argument("cursor")
        if text is None:
            return None
        try:
            return int(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError):
            raise MalformedError(f"{text[:40]!r} is no cursor; take the `next` of a list") from None

    async def body(self, limit: int = BODY) -> bytes:
        """Return the body.

        Raises:
            TooLargeError: over the limit.
        """
        return await read_body(self.request, limit)


def admin_routes(room: Callable[[], Room | None]) -> list[BaseRoute]:
    """Return the routes."""
    paths: list[tuple[str, str, Handler, tuple[str, ...]]] = [
        ("POST", "/tasks", _submit, ("tasks",)),
        ("GET", "/tasks", _tasks, ("tasks", "read")),
        ("GET", "/tasks/{task_id}", _task, ("tasks", "read")),
        ("POST", "/tasks/{task_id}/cancel", _cancel, ("tasks",)),
        ("POST", "/tasks/{task_id}/retry", _retry, ("tasks",)),
        ("GET", "/nodes", _nodes, ("tasks", "read")),
        ("PUT", "/nodes/{pc_id}", _change_node, ("admin",)),
        ("DELETE", "/nodes/{pc_id}", _forget_node, ("admin",)),
        ("POST", "/nodes/{pc_id}/kick", _kick, ("admin",)),
        ("GET", "/users", _users, ("admin",)),
        ("POST", "/users", _create_user, ("admin",)),
        ("DELETE", "/users/{user}", _delete_user, ("admin",)),
    ]
    return [
        Route(PREFIX + path, _answering(room, handler, scopes), methods=[method])
        for method, path, handler, scopes in paths
    ]


def _answering(
    room: Callable[[], Room | None], handler: Handler, scopes: tuple[str, ...]
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint; a `HubError` becomes a problem in the hub's application."""

    async def answer(request: Request) -> Response:
        here = room()
        if here is None:
            raise UnavailableError("the adapter octohub is not running")
        principal = await _caller(here, request)
        if principal.scopes.isdisjoint({"admin", *scopes}):
            raise ForbiddenError(
                f"{principal.name!r} may not do this; it needs the scope {' or '.join(scopes)}"
            )
        status, body = await handler(Visit(here, request, principal))
        if body is None:
            return Response(status_code=status)
        return Response(encode_json(body), status, media_type="application/json")

    return answer


async def _caller(room: Room, request: Request) -> Principal:
    """Return who calls: a token of the hub, or the login of a user.

    Raises:
        UnauthorizedError: neither.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError(
            "this path needs a token of the hub or the login of a user: send the header "
            "`Authorization: Bearer <token>`"
        )
    if is_jwt(token):
        user = await room.accounts.user(token)
        return principal_of(str(user.id))
    return room.hub.authenticate(token)


def _page(items: list[object], after: int | None) -> dict[str, object]:
    cursor = None
    if after is not None:
        cursor = base64.urlsafe_b64encode(str(after).encode()).decode().rstrip("=")
    return {"items": items, "next": cursor}


# Tasks


async def _submit(visit: Visit) -> Answer:
    room = visit.room
    limit = room.settings.max_message_bytes
    task = read_task(await visit.body(limit), limit=limit)
    who = submitter(visit.principal)
    is_user = who.source.startswith("octohub.user.")
    try:
        done = await room.desk.submit(
            task,
            who,
            reply_to=who.source if is_user else None,
            traceparent=canonical_traceparent(visit.request.headers.get("traceparent", "")),
        )
    except InvalidError as error:
        if error.code != "invalid":
            raise
        raise MalformedError(str(error)) from error
    return (200 if done.duplicate else 202), done.shown


async def _tasks(visit: Visit) -> Answer:
    state = visit.argument("state")
    if state is not None and state not in list(TaskState):
        raise MalformedError(f"state is {state[:20]!r}; there are {', '.join(TaskState)}")
    items, after = await visit.room.desk.listed(
        state=state,
        task_type=visit.argument("task_type"),
        node=visit.argument("node"),
        before=visit.after,
        limit=visit.limit,
    )
    return 200, _page([*items], after)


async def _task(visit: Visit) -> Answer:
    return 200, await visit.room.desk.get(visit.part("task_id"))


async def _cancel(visit: Visit) -> Answer:
    task = await visit.room.desk.cancel(visit.part("task_id"))
    await _audit(visit, "task.cancel", visit.part("task_id"))
    return 200, task


async def _retry(visit: Visit) -> Answer:
    task = await visit.room.desk.retry(visit.part("task_id"))
    await _audit(visit, "task.retry", visit.part("task_id"))
    return 202, task


async def _audit(visit: Visit, act: str, target: str, detail: str = "") -> None:
    await visit.room.hub.audit(visit.principal.name, act, target, detail)


# Nodes


class _NodeIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: dict[str, str] = {}
    task_types: list[str] | None = None
    max_concurrency: int | None = None
    enabled: bool = True


async def _nodes(visit: Visit) -> Answer:
    return 200, _page([*visit.room.desk.nodes()], None)


async def _change_node(visit: Visit) -> Answer:
    pc_id = _pc_id(visit)
    try:
        given = msgspec.json.decode(await visit.body(), type=_NodeIn)
        for text in (*given.labels, *given.labels.values(), *(given.task_types or ())):
            check_text("a label or task type", text)
    except (msgspec.MsgspecError, UnicodeError, InvalidError) as error:
        raise MalformedError(f"this is nothing about a node: {error}") from error
    most = given.max_concurrency
    if most is not None and not 1 <= most <= MAX_CONCURRENCY:
        raise MalformedError(f"max_concurrency is {most}, it must be 1 to {MAX_CONCURRENCY}")
    types = None if given.task_types is None else tuple(given.task_types)
    rule = NodeRule(
        pc_id=pc_id,
        labels=given.labels,
        task_types=types,
        max_concurrency=most,
        enabled=given.enabled,
    )
    await visit.room.nodes.change(rule)
    await _audit(visit, "octohub.node", pc_id, f"enabled {given.enabled}")
    return 200, {"pc_id": pc_id, **msgspec.to_builtins(given)}


async def _forget_node(visit: Visit) -> Answer:
    pc_id = _pc_id(visit)
    await visit.room.nodes.forget(pc_id)
    await _audit(visit, "octohub.node", pc_id, "forgotten")
    return 204, None


async def _kick(visit: Visit) -> Answer:
    pc_id = _pc_id(visit)
    await visit.room.nodes.kick(pc_id, "kicked")
    await _audit(visit, "octohub.kick", pc_id)
    return 200, {"pc_id": pc_id, "kicked": True}


def _pc_id(visit: Visit) -> str:
    try:
        return check_text("pc_id", visit.part("pc_id"))
    except InvalidError as error:
        raise MalformedError(str(error)) from error


# Users


class _UserIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: str
    password: str


async def _users(visit: Visit) -> Answer:
    limit = visit.limit
    found = await visit.room.accounts.listed(after=visit.after or 0, limit=limit + 1)
    after = found[limit - 1].id if len(found) > limit else None
    return 200, _page([_shown(user) for user in found[:limit]], after)


async def _create_user(visit: Visit) -> Answer:
    try:
        given = msgspec.json.decode(await visit.body(), type=_UserIn)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedError("this is no user; give `email` and `password`") from error
    try:
        user = await visit.room.accounts.create(given.email, given.password)
    except InvalidError as error:
        raise MalformedError(str(error)) from error
    await _audit(visit, "octohub.user.create", user.email)
    return 201, _shown(user)


async def _delete_user(visit: Visit) -> Answer:
    user = await visit.room.accounts.delete(visit.part("user"))
    await _audit(visit, "octohub.user.delete", user.email)
    return 204, None


def _shown(user: User) -> Mapping[str, object]:
    return {"id": user.id, "email": user.email, "created_at": rfc3339(user.created_us)}
