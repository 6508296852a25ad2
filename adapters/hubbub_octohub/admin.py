"""`/api/octohub/...`: tasks for nodes, the nodes, and users. Errors are problem+json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.routing import BaseRoute

from hubbub.envelope import rfc3339
from hubbub.errors import HubError, MalformedError
from hubbub.intake import check_text
from hubbub.rights import may_work, tasks_shown
from hubbub.values import Principal, TaskState
from hubbub.web import (
    Call,
    Manners,
    Operation,
    Reply,
    Spec,
    in_room,
    limit_of,
    number_after,
    operation_routes,
    page,
    while_up,
)
from hubbub_octohub import shapes, specs
from hubbub_octohub.accounts import is_jwt
from hubbub_octohub.api import Room
from hubbub_octohub.desk import is_user, read_task
from hubbub_octohub.desk import shown as shown_task
from hubbub_octohub.records import NodeRule, User
from hubbub_octohub.talk import canonical_traceparent
from hubbub_octohub.user import principal_of, submitter
from hubbub_octohub.wire import MAX_CONCURRENCY

__all__ = ["PREFIX", "admin_routes"]

PREFIX: Final = "/api/octohub"
TASK_BYTES: Final = "adapters.octohub.max_message_bytes"

Handle = Callable[[Room, Call], Awaitable[Reply]]

WORK: Final = ("tasks", "tasks:PATTERN")
LOOK: Final = (*WORK, "read")
RULE: Final = ("admin",)


def admin_routes(room: Callable[[], Room | None]) -> list[BaseRoute]:
    """Return the routes; they answer 503 while there is no room."""
    here = while_up("the adapter octohub", room)
    paths: list[tuple[str, str, Handle, str, tuple[str, ...], Spec]] = [
        ("POST", "/tasks", _submit, "Submit a task", WORK, specs.SUBMIT),
        ("GET", "/tasks", _tasks, "Tasks, the newest first", LOOK, specs.TASKS),
        ("GET", "/tasks/{task_id}", _task, "A task with its attempts", LOOK, specs.TASK),
        ("POST", "/tasks/{task_id}/cancel", _cancel, "Take a task back", WORK, specs.ENDED),
        ("POST", "/tasks/{task_id}/retry", _retry, "Run a task once more", WORK, specs.RETRIED),
        ("GET", "/nodes", _nodes, "Nodes, and what was said of them", LOOK, specs.NODES),
        ("PUT", "/nodes/{pc_id}", _change_node, "Say what holds", RULE, specs.CHANGE_NODE),
        ("DELETE", "/nodes/{pc_id}", _forget_node, "Take that back", RULE, specs.FORGET_NODE),
        ("POST", "/nodes/{pc_id}/kick", _kick, "Close a connection", RULE, specs.KICK),
        ("GET", "/users", _users, "Users", RULE, specs.USERS),
        ("POST", "/users", _create_user, "Add a user", RULE, specs.CREATE_USER),
        ("DELETE", "/users/{user}", _delete_user, "Remove a user", RULE, specs.DELETE_USER),
    ]

    async def login(call: Call) -> Principal | None:
        token = call.bearer
        if token is None or not is_jwt(token):
            return None
        return principal_of(str((await here().accounts.user(token, peer=call.peer)).id))

    operations = [
        Operation(method, PREFIX + path, in_room(here, handle), says, scopes, spec)
        for method, path, handle, says, scopes, spec in paths
    ]
    return [*operation_routes(operations, Manners(ready=here, login=login, refuse=_refused))]


def _refused(error: HubError) -> HubError:
    """Return an error as these paths have it: what is not valid is 400, as what is no JSON."""
    return MalformedError(error.message) if error.code == "invalid" else error


async def _audit(room: Room, call: Call, act: str, target: str, detail: str = "") -> None:
    await room.hub.audit(call.principal.name, act, target, detail)


# Tasks


async def _submit(room: Room, call: Call) -> Reply:
    limit = room.settings.max_message_bytes
    task = read_task(await call.body_within(limit, setting=TASK_BYTES))
    who = submitter(call.principal)
    done = await room.desk.submit(
        task,
        who,
        reply_to=who.source if is_user(who) else None,
        traceparent=canonical_traceparent(call.traceparent),
    )
    return Reply(200 if done.duplicate else 202, done.shown)


async def _tasks(room: Room, call: Call) -> Reply:
    state = call.argument("state")
    if state is not None and state not in list(TaskState):
        raise MalformedError(f"state is {state[:20]!r}; there are {', '.join(TaskState)}")
    found, after = await room.desk.listed(
        state=state,
        task_types=tasks_shown(call.principal, call.argument("task_type")),
        node=call.argument("node"),
        before=number_after(call),
        limit=limit_of(call),
    )
    return page(map(shown_task, found), after, places=[task.seq for task in found])


async def _task(room: Room, call: Call) -> Reply:
    task_id = call.params["task_id"]
    tasks_shown(call.principal, await room.desk.type_of(task_id))
    return Reply(200, await room.desk.get(task_id))


async def _cancel(room: Room, call: Call) -> Reply:
    task_id = call.params["task_id"]
    may_work(call.principal, await room.desk.type_of(task_id))
    task = await room.desk.cancel(task_id, call.principal)
    await _audit(room, call, "task.cancel", task_id)
    return Reply(200, task)


async def _retry(room: Room, call: Call) -> Reply:
    task_id = call.params["task_id"]
    may_work(call.principal, await room.desk.type_of(task_id))
    task = await room.desk.retry(task_id, call.principal)
    await _audit(room, call, "task.retry", task_id)
    return Reply(202, task)


# Nodes


async def _nodes(room: Room, call: Call) -> Reply:
    start = number_after(call) or 0
    nodes = room.desk.nodes()[start:]
    return page(nodes, None, places=range(start + 1, start + len(nodes) + 1))


async def _change_node(room: Room, call: Call) -> Reply:
    pc_id = _pc_id(call)
    given = await call.json(shapes.NodeRuleIn)
    for text in (*given.labels, *given.labels.values(), *(given.task_types or ())):
        check_text("a label or task type", text)
    most = given.max_concurrency
    if most is not None and not 1 <= most <= MAX_CONCURRENCY:
        raise MalformedError(f"max_concurrency is {most}, it must be 1 to {MAX_CONCURRENCY}")
    rule = NodeRule(
        pc_id=pc_id,
        labels=given.labels,
        task_types=None if given.task_types is None else tuple(given.task_types),
        max_concurrency=most,
        enabled=given.enabled,
    )
    await room.nodes.change(rule)
    await _audit(room, call, "octohub.node", pc_id, f"enabled {given.enabled}")
    shown = shapes.NodeRuleView(
        pc_id, given.labels, given.task_types, given.max_concurrency, given.enabled
    )
    return Reply(200, shown)


async def _forget_node(room: Room, call: Call) -> Reply:
    pc_id = _pc_id(call)
    await room.nodes.forget(pc_id)
    await _audit(room, call, "octohub.node", pc_id, "forgotten")
    return Reply(204)


async def _kick(room: Room, call: Call) -> Reply:
    pc_id = _pc_id(call)
    await room.nodes.kick(pc_id, "kicked")
    await _audit(room, call, "octohub.kick", pc_id)
    return Reply(200, shapes.NodeKicked(pc_id, kicked=True))


def _pc_id(call: Call) -> str:
    return check_text("pc_id", call.params["pc_id"])


# Users


async def _users(room: Room, call: Call) -> Reply:
    limit = limit_of(call)
    found = await room.accounts.listed(after=number_after(call) or 0, limit=limit + 1)
    after = found[limit - 1].id if len(found) > limit else None
    places = [user.id for user in found]
    return page(map(_shown, found[:limit]), after, places=places)


async def _create_user(room: Room, call: Call) -> Reply:
    given = await call.json(shapes.UserIn)
    user = await room.accounts.create(given.email, given.password)
    await _audit(room, call, "octohub.user.create", user.email)
    return Reply(201, _shown(user))


async def _delete_user(room: Room, call: Call) -> Reply:
    user = await room.accounts.delete(call.params["user"])
    room.users.end(str(user.id))
    await room.gate.user_gone(str(user.id))
    await _audit(room, call, "octohub.user.delete", user.email)
    return Reply(204)


def _shown(user: User) -> shapes.UserView:
    return shapes.UserView(user.id, user.email, rfc3339(user.created_us))
