"""Users who are connected: what they say, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final, cast

import structlog

from hubbub import Endpoint, Envelope, Hub, Retry
from hubbub.envelope import CHAT_MESSAGE, TASK_RESULT, TASK_UPDATE
from hubbub.errors import NotFoundError
from hubbub.ports import Link
from hubbub.subjects import escape, unescape
from hubbub.values import Principal
from hubbub_octohub import actions, wire
from hubbub_octohub.desk import CALLBACKS, node_of
from hubbub_octohub.metrics import OctohubMetrics
from hubbub_octohub.node import ADDRESSES, REPLACED
from hubbub_octohub.orders import Orders
from hubbub_octohub.session import Wishes
from hubbub_octohub.socket import Socket, SocketGoneError
from hubbub_octohub.talk import Talk, user_address

__all__ = ["UserConnection", "Users", "principal_of", "submitter"]

TOLD: Final = ("queued", "dispatched", "completed", "failed", "timeout", "cancelled")
"""States of a task that users can be told; a request is none, and must not be routed to them."""

STOP_S: Final = 2.0

SUBMITS: Final = frozenset({"publish:octohub.task.>", f"direct:{CALLBACKS}"})
"""What comes with the scope for a task's type: where requests and results of these tasks go."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def principal_of(identity: str) -> Principal:
    """Return who a user is to the hub."""
    address = user_address(identity)
    scopes = {
        "tasks",
        "read",
        f"publish:octohub.{escape(identity)}.>",
        "direct:octohub.user.*",
        f"direct:{ADDRESSES}",
    }
    return Principal(address, address, SUBMITS | scopes, durable=False)


def submitter(principal: Principal) -> Principal:
    """Return a holder of a scope for tasks as one who may submit them by these paths.

    To name a node is to write to its address: that needs `direct:` of whoever is no user here.
    """
    return replace(principal, scopes=principal.scopes | SUBMITS)


class UserEndpoint(Endpoint):
    """A user, as the hub sees it: is told messages, and what becomes of tasks."""

    def __init__(self, identity: str, socket: Socket, talk: Talk) -> None:
        super().__init__(
            address=user_address(identity),
            accepts=(CHAT_MESSAGE, TASK_RESULT, TASK_UPDATE),
            concurrency=16,
        )
        self._socket = socket
        self._talk = talk

    async def deliver(self, envelope: Envelope) -> None:
        """Write one frame; what the user did not ask to be told is taken, and left out."""
        frame = self._frame(envelope)
        if frame is None:
            return
        try:
            await self._socket.write(frame)
        except SocketGoneError as error:
            raise Retry(reason="the user has left") from error

    def _frame(self, envelope: Envelope) -> str | None:
        data = _members(envelope.json())
        now_s = self._talk.now_s
        if envelope.type != CHAT_MESSAGE:
            told = self._event(envelope, data)
            return None if told is None else actions.pushed("notification", told, now_s=now_s)
        sender = _members(data.get("sender")).get("id")
        own = _members(data.get("octohub"))
        if data.get("platform") == "octohub" and self.address in envelope.to:
            return actions.pushed("private", own.get("data"), now_s=now_s, sender=str(sender))
        return actions.pushed("chat", data, now_s=now_s, sender=str(sender))

    def _event(self, envelope: Envelope, data: dict[str, object]) -> dict[str, object] | None:
        """Return what is told of a task; None when nobody here wants to know."""
        tokens = envelope.subject.split(".")
        task_id = str(data.get("task_id"))
        task_type = unescape(tokens[1]) if tokens[0] == "tasks" else ""
        talk = self._talk
        if talk.wishes and task_id not in talk.own and not talk.wishes.want(task_id, task_type):
            return None
        result = envelope.type == TASK_RESULT
        endpoint = envelope.source if result else data.get("endpoint")
        told: dict[str, object] = {
            "event": f"task.{data.get('state')}",
            "task_id": task_id,
            "task_type": task_type,
            "state": data.get("state"),
            "node": node_of(endpoint if isinstance(endpoint, str) else None),
            "trace_id": envelope.trace_id,
        }
        if result:
            told |= {"result": data.get("result"), "error": data.get("error")}
            talk.own.discard(task_id)
        else:
            told["attempt"] = data.get("attempt")
        return told


def _members(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


class UserConnection:
    """Talks to one user until one side ends it."""

    def __init__(
        self, identity: str, socket: Socket, *, hub: Hub, orders: Orders, metrics: OctohubMetrics
    ) -> None:
        self.identity: Final = identity
        self.socket: Final = socket
        self.talk: Final = Talk(
            "user", identity, principal_of(identity), hub=hub, commands=orders, holder=self
        )
        self._endpoint = UserEndpoint(identity, socket, self.talk)
        self._hub = hub
        self._metrics = metrics
        self._patterns: frozenset[str] = frozenset()
        self._link: Link | None = None
        self.ended: Final = asyncio.Event()

    async def serve(self, session_id: str) -> None:
        """Greet the user, tell what is wanted, do what is asked."""
        try:
            async with self.socket.open():
                greeting = wire.connected(
                    "user_id", self.identity, session_id, now_s=self.talk.now_s
                )
                await self.socket.write(greeting)
                self._link = self._hub.attach(self._endpoint)
                while True:
                    await self._take(await self.socket.read())
        finally:
            if self._link is not None:
                self._link.close()
            self.ended.set()

    async def make_way(self) -> None:
        """Tell the user that a newer connection has come, and close once that is out."""
        try:
            await self.socket.write(wire.disconnected(REPLACED, now_s=self.talk.now_s))
        except SocketGoneError:
            return
        await self.socket.close(1000, REPLACED)

    async def wish(self, wishes: Wishes) -> None:
        """Subscribe in the hub to what covers these wishes."""
        kinds = {"*"} if wishes.everything or wishes.task_ids else set[str]()
        if "*" not in kinds:
            kinds = {escape(task_type) for task_type in wishes.task_types}
        wanted = frozenset(f"tasks.{kind}.{state}" for kind in kinds for state in TOLD)
        for pattern in wanted - self._patterns:
            await self._hub.subscribe(self._endpoint, pattern)
        for pattern in self._patterns - wanted:
            with suppress(NotFoundError):
                await self._hub.unsubscribe(self._endpoint, pattern)
        self._patterns = wanted

    async def _take(self, data: str | bytes) -> None:
        try:
            ask = wire.read_ask(data)
        except wire.FrameError as error:
            self._metrics.refused(error.code)
            await self.talk.refuse(self.socket, error)
            return
        await self.talk.answer(self.socket, ask)


class Users:
    """Who is connected: one connection an id, the newest wins."""

    def __init__(self, hub: Hub, orders: Orders, metrics: OctohubMetrics) -> None:
        self._hub = hub
        self._orders = orders
        self._metrics = metrics
        self._by_id: dict[str, UserConnection] = {}
        self._all: set[UserConnection] = set()
        self._number = 0

    def __iter__(self) -> Iterator[UserConnection]:
        return iter(sorted(self._by_id.values(), key=lambda one: one.identity))

    def __len__(self) -> int:
        return len(self._by_id)

    async def serve(self, identity: str, socket: Socket) -> None:
        """Serve a user whose address was good."""
        connection = UserConnection(
            identity, socket, hub=self._hub, orders=self._orders, metrics=self._metrics
        )
        older = self._by_id.get(identity)
        if older is not None:
            self._hub.spawn(older.make_way())
        self._by_id[identity] = connection
        self._all.add(connection)
        self._number += 1
        try:
            await connection.serve(f"{identity}-{self._number}")
        finally:
            self._all.discard(connection)
            if self._by_id.get(identity) is connection:
                del self._by_id[identity]

    async def stop(self) -> None:
        """Close all connections."""
        connections = list(self._all)
        for connection in connections:
            self._hub.spawn(connection.socket.close(1012, "the hub stops"))
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                for connection in connections:
                    await connection.ended.wait()
