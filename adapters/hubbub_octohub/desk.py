"""Tasks for nodes, as users and programs ask for them: submitted, shown, cancelled, run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlmodel import Session

from hubbub import Hub
from hubbub.callbacks import Callbacks
from hubbub.clock import Ids
from hubbub.envelope import rfc3339
from hubbub.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
)
from hubbub.intake import check_text
from hubbub.outgoing import Outgoing
from hubbub.store.reads import tasks as reads
from hubbub.store.tables import TaskAttemptRow
from hubbub.subjects import escape, unescape
from hubbub.times import parse_deadline, parse_duration
from hubbub.values import Principal, Submission, Task, TaskState
from hubbub_octohub.node import ADDRESSES, address_of
from hubbub_octohub.nodes import Nodes

__all__ = ["CALLBACKS", "Desk", "Submitted", "TaskIn", "is_user", "node_of", "read_task"]

CALLBACKS: Final = "octohub.callback"
"""What the addresses of results of tasks with a `callback_url` begin with."""

MAX_PRIORITY: Final = 9
USER_PREFIX: Final = "octohub.user."
NODE_PREFIX: Final = ADDRESSES.removesuffix("*")


class TaskIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A task that somebody wants done; None for what nobody said."""

    task_type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    node: str | None = None
    labels: dict[str, str] | None = None
    priority: int = 5
    timeout: float | str | None = None
    max_attempts: int | None = None
    idempotency_key: str | None = None
    not_before: float | str | None = None
    callback_url: str | None = None
    retry_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of a task; `duplicate` when it was there already."""

    task_id: str
    state: str
    trace_id: str
    duplicate: bool

    @property
    def shown(self) -> dict[str, str]:
        """Members of an answer."""
        return {"task_id": self.task_id, "state": self.state, "trace_id": self.trace_id}


_read = msgspec.json.Decoder(TaskIn).decode


def read_task(body: bytes) -> TaskIn:
    """Read `{"task_type", "data"?, "node"?, "labels"?, ...}`.

    Raises:
        MalformedError: not JSON, a member of a wrong kind, one that is not known, or no type.
    """
    try:
        task = _read(body)
        check_text("task_type", task.task_type)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, InvalidError) as error:
        raise MalformedError(f"this is no task: {error}") from error
    if not 0 <= task.priority <= MAX_PRIORITY:
        raise MalformedError(f"priority is {task.priority}, it must be 0 to {MAX_PRIORITY}")
    return task


def node_of(address: str | None) -> str | None:
    """Return the id of a node by its address; None when that is no node's."""
    if address is None or not address.startswith(NODE_PREFIX):
        return None
    return unescape(address[len(NODE_PREFIX) :])


def is_user(principal: Principal) -> bool:
    """Tell whether somebody is a user, and not a program with a token of the hub."""
    return principal.source.startswith(USER_PREFIX)


class Desk:
    """Takes tasks in and tells how they are."""

    def __init__(
        self, hub: Hub, nodes: Nodes, *, ids: Ids, outgoing: Outgoing, callbacks: Callbacks
    ) -> None:
        self._hub = hub
        self._nodes = nodes
        self._ids = ids
        self._outgoing = outgoing
        self._callbacks = callbacks

    async def submit(
        self,
        task: TaskIn,
        principal: Principal,
        *,
        reply_to: str | None = None,
        traceparent: str = "",
        task_id: str | None = None,
        extra: Mapping[str, object] | None = None,
        hops: int = 0,
    ) -> Submitted:
        """Publish a task request; returns when it is safe.

        Args:
            reply_to: Address that gets the result.
            task_id: An id that names this very act; made when there is none.
            extra: More for `data.octohub`, which comes back to whoever reads the request.

        Raises:
            MalformedError: a time that is none.
            NotFoundError: the node it is pinned to is not known.
            ConflictError: that node does not do this type.
        """
        to = () if task.node is None else (self._pinned(task.node, task.task_type),)
        own: dict[str, object] = dict(extra or {})
        if task.callback_url is not None:
            await self._outgoing.check(task.callback_url)
            own["callback_url"] = task.callback_url
            reply_to = self._callbacks.address_of(task.callback_url)
        named = task_id or f"task_{self._ids.ulid()}"
        keyed = task.idempotency_key is not None  # with an id in its body no two were alike
        receipt = await self._hub.submit(
            Submission(
                task_type=task.task_type,
                source=principal.source,
                params=task.data,
                task_id=None if keyed else named,
                id=named if keyed else "",
                subject=f"octohub.task.{escape(task.task_type)}",
                to=to,
                labels=task.labels or {},
                priority=task.priority,
                timeout_s=self._timeout_s(task),
                max_attempts=task.max_attempts,
                not_before=self._not_before(task),
                retry_on_failure=task.retry_on_failure,
                reply_to=reply_to,
                idempotency_key=task.idempotency_key,
                traceparent=traceparent,
                more={"octohub": own} if own else {},
                hops=hops,
            ),
            principal=principal,
        )
        known = receipt.task_id or named
        state, trace_id = str(TaskState.QUEUED), receipt.trace_id
        if receipt.duplicate and (found := await self._hub.work.find(known)) is not None:
            state, trace_id = found.state, found.trace_id
        return Submitted(known, state, trace_id, receipt.duplicate)

    def _pinned(self, pc_id: str, task_type: str) -> str:
        known = self._hub.known(address_of(pc_id))
        if not known:
            raise NotFoundError(f"node {pc_id[:100]!r} is not connected")
        if not known[0].does(task_type):
            types = ", ".join(sorted(known[0].task_types or ()))
            raise ConflictError(f"node {pc_id!r} does not do {task_type!r}; it does {types}")
        return known[0].address

    def _timeout_s(self, task: TaskIn) -> float | None:
        try:
            return None if task.timeout is None else parse_duration(task.timeout, what="timeout")
        except InvalidError as error:
            raise MalformedError(str(error)) from error

    def _not_before(self, task: TaskIn) -> str | None:
        """Return a time; a number is seconds since 1970, a text may be a duration from now."""
        given = task.not_before
        if given is None:
            return None
        try:
            if isinstance(given, str):
                now_us = self._hub.clock.now_us()
                return rfc3339(parse_deadline(given, what="not_before", now_us=now_us))
            return rfc3339(int(given * 1e6))
        except (InvalidError, ValueError, OverflowError) as error:
            raise MalformedError(f"`not_before` is no time: {error}") from error

    async def cancel(self, task_id: str, principal: Principal) -> dict[str, object]:
        """Take a task back; returns how it is then.

        Raises:
            NotFoundError: no such task.
            ForbiddenError: it is a user who did not ask for it.
            ConflictError: it has ended.
        """
        await self._check_own(task_id, principal)
        return shown(await self._hub.work.cancel(task_id))

    async def retry(self, task_id: str, principal: Principal) -> dict[str, object]:
        """Let a task that has ended run once more; returns how it is then.

        Raises:
            NotFoundError: no such task.
            ForbiddenError: it is a user who did not ask for it.
            ConflictError: it has not ended.
        """
        await self._check_own(task_id, principal)
        return shown(await self._hub.work.rerun(task_id))

    async def type_of(self, task_id: str) -> str:
        """Return the type of a task.

        Raises:
            NotFoundError: no such task.
        """
        task = await self._hub.work.find(task_id)
        if task is None:
            raise NotFoundError(f"no task {task_id[:100]!r}")
        return task.task_type

    async def _check_own(self, task_id: str, principal: Principal) -> None:
        """Check that a user changes only what the user asked for; programs have scopes for that."""
        if not is_user(principal):
            return
        task = await self._hub.work.find(task_id)
        if task is not None and task.asker != principal.source:
            raise ForbiddenError(
                f"task {task_id[:100]!r} is not yours; who asked for it, or an administrator, "
                "may cancel it and run it again"
            )

    async def get(self, task_id: str) -> dict[str, object]:
        """Return a task with its attempts.

        Raises:
            NotFoundError: no such task.
        """

        def read(session: Session) -> tuple[Task | None, Sequence[TaskAttemptRow]]:
            return reads.one(session, task_id), reads.attempts(session, task_id)

        task, attempts = await self._hub.read(read)
        if task is None:
            raise NotFoundError(f"no task {task_id[:100]!r}")
        return {**shown(task), "attempts": [_attempt(row) for row in attempts]}

    async def listed(
        self,
        *,
        state: str | None,
        task_types: frozenset[str] | None,
        node: str | None,
        before: int | None,
        limit: int,
    ) -> tuple[list[Task], int | None]:
        """Return a page of tasks, newest first, and where the next one begins.

        Args:
            task_types: Only of these types; None for all.
        """
        return await self._hub.read(
            lambda session: reads.listed(
                session,
                state=state,
                task_types=task_types,
                endpoint=None if node is None else address_of(node),
                before=before,
                limit=limit,
            )
        )

    def nodes(self) -> list[dict[str, object]]:
        """Return the nodes that are connected, and rules about others."""
        items: list[dict[str, object]] = [
            {
                "pc_id": one.pc_id,
                "connected": True,
                "enabled": not self._nodes.is_disabled(one.pc_id),
                "ready": one.session.ready is not None,
                "task_types": sorted(one.endpoint.task_types or ()),
                "labels": dict(one.endpoint.labels),
                "max_concurrency": one.slots,
                "in_hand": one.in_hand,
                "version": one.session.ready.version if one.session.ready else "",
                "peer": one.socket.peer,
                "connected_at": rfc3339(int(one.session.connected_s * 1e6)),
                "last_active": rfc3339(int(one.session.seen_s * 1e6)),
            }
            for one in self._nodes
        ]
        connected = {str(item["pc_id"]) for item in items}
        others: list[dict[str, object]] = [
            {
                "pc_id": rule.pc_id,
                "connected": False,
                "enabled": rule.enabled,
                "task_types": None if rule.task_types is None else list(rule.task_types),
                "labels": dict(rule.labels),
                "max_concurrency": rule.max_concurrency,
            }
            for rule in self._nodes.rules
            if rule.pc_id not in connected
        ]
        return items + others


def shown(task: Task) -> dict[str, object]:
    """Return a task as it is told to whoever asks."""
    return {
        "task_id": task.id,
        "task_type": task.task_type,
        "state": str(task.state),
        "node": node_of(task.endpoint),
        "endpoint": task.endpoint,
        "run": task.run,
        "attempt": task.attempt,
        "result": None if task.result is None else msgspec.Raw(task.result),
        "error": task.error,
        "trace_id": task.trace_id,
        "created_at": rfc3339(task.created_us),
        "updated_at": rfc3339(task.updated_us),
        "finished_at": None if task.finished_us is None else rfc3339(task.finished_us),
    }


def _attempt(row: TaskAttemptRow) -> dict[str, object]:
    return {
        "n": row.attempt,
        "run": row.run,
        "pc_id": node_of(row.endpoint),
        "endpoint": row.endpoint,
        "sent_at": rfc3339(row.started_us),
        "ended_at": None if row.ended_us is None else rfc3339(row.ended_us),
        "outcome": row.outcome,
        "error": row.error,
    }
