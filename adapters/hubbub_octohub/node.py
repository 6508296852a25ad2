"""One connection of a node, and the endpoint that it is in the hub."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from msgspec import Raw

from hubbub import Endpoint, Envelope, Hub, Retry
from hubbub.envelope import TASK_REQUEST, encode_json
from hubbub.errors import HubError, StoreUnavailableError
from hubbub.ports import Link
from hubbub.subjects import escape
from hubbub.values import Principal, TaskResult
from hubbub_octohub import wire
from hubbub_octohub.config import OctohubSettings
from hubbub_octohub.metrics import OctohubMetrics
from hubbub_octohub.records import NodeRule
from hubbub_octohub.session import NodeSession
from hubbub_octohub.socket import Socket, SocketGoneError
from hubbub_octohub.talk import Talk

__all__ = ["ADDRESSES", "LINGER_S", "NodeConnection", "NodeEndpoint", "address_of", "speaker_of"]

ADDRESSES: Final = "octohub.node.*"
"""Every node."""

LINGER_S: Final = 60.0
"""Seconds a node that left is waited for."""

NODE_LOST: Final = "node_lost"
REPLACED: Final = "新连接建立"
MAX_FINISHING: Final = 1000
"""Results of one node that are on their way to the store at once; then it is not read."""

LEAVE_S: Final = 5.0
"""Seconds that results of a node that has left may still take to the store."""

STORE_TRIES: Final = 60
"""Times a result is offered to a store that cannot be written, a second apart."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def address_of(pc_id: str) -> str:
    """Return the address of a node."""
    return f"octohub.node.{escape(pc_id)}"


def speaker_of(pc_id: str) -> Principal:
    """Return who a node is to the hub, when it says something itself."""
    address = address_of(pc_id)
    return Principal(
        address, address, frozenset({f"publish:octohub.{escape(pc_id)}.>"}), durable=False
    )


@dataclass(slots=True)
class _Given:
    """A task that was written to a node and has no result yet."""

    task_type: str
    at_us: int


class NodeEndpoint(Endpoint):
    """A node, as the hub sees it: takes task requests.

    Attributes:
        given: Tasks that it has in hand, by id.
    """

    def __init__(
        self,
        pc_id: str,
        socket: Socket,
        *,
        hub: Hub,
        settings: OctohubSettings,
        metrics: OctohubMetrics,
    ) -> None:
        super().__init__(
            address=address_of(pc_id),
            accepts=(TASK_REQUEST,),
            concurrency=0,  # until it has said what it does
            task_types=settings.legacy_task_types,
            linger_s=LINGER_S,
            attempts=settings.max_attempts,
            timeout_s=settings.task_timeout,
            queue_ttl_s=settings.queue_ttl,
        )
        self._socket = socket
        self._hub = hub
        self._metrics = metrics
        self.given: Final[dict[str, _Given]] = {}
        self.can_cancel = False

    async def deliver(self, envelope: Envelope) -> None:
        """Write a task; its result ends the delivery."""
        now_us = self._hub.clock.now_us()
        task_id, task_type, frame = wire.task_frame(envelope, now_s=now_us // 1_000_000)
        self.given[task_id] = _Given(task_type, now_us)
        try:
            await self._socket.write(frame)
        except SocketGoneError as error:
            self.given.pop(task_id, None)
            raise Retry(0, NODE_LOST) from error
        self._metrics.dispatch_seconds.observe(max(0, now_us - envelope.time_us) / 1e6)

    def taken(self, task_id: str, given: _Given | None) -> _Given | None:
        """Forget a task that the node had, unless it was given it anew, or it is forgotten."""
        if given is None or self.given.get(task_id) is not given:
            return None
        return self.given.pop(task_id)

    def cancel(self, task_id: str) -> None:
        """Tell the node, if it is one that understands."""
        if self.can_cancel and not self._socket.closed:
            self._hub.spawn(self._tell(wire.task_cancelled(task_id)))

    async def _tell(self, frame: str) -> None:
        try:
            await self._socket.write(frame)
        except SocketGoneError:
            log.debug("octohub.not_told", node=self.address)


class Home(Protocol):
    """What a connection asks of the registry of nodes."""

    def rule(self, pc_id: str) -> NodeRule | None:
        """Return what an administrator said of a node."""
        ...

    def left(self, connection: NodeConnection) -> None:
        """A connection has ended."""
        ...


class NodeConnection:
    """Talks to one node until one side ends it."""

    def __init__(  # what it works with
        self,
        pc_id: str,
        socket: Socket,
        *,
        home: Home,
        hub: Hub,
        settings: OctohubSettings,
        metrics: OctohubMetrics,
        talk: Talk,
    ) -> None:
        self.pc_id: Final = pc_id
        self.socket: Final = socket
        self.endpoint: Final = NodeEndpoint(
            pc_id, socket, hub=hub, settings=settings, metrics=metrics
        )
        self._home = home
        self._hub = hub
        self._settings = settings
        self._metrics = metrics
        self._talk = talk
        self.session = NodeSession(pc_id, self._now_s(), self._now_s())
        self._link: Link | None = None
        self._finishing: set[asyncio.Task[None]] = set()
        self.ended: Final = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """Tasks that the node has."""
        return len(self.endpoint.given)

    @property
    def slots(self) -> int:
        """Tasks it may be given at once."""
        return 0 if self._link is None else self._link.slots

    def _now_s(self) -> float:
        return self._hub.clock.now_us() / 1e6

    async def serve(self, session_id: str) -> None:
        """Greet the node, give it work, read what it says."""
        try:
            async with self.socket.open():
                now_s = int(self._now_s())
                await self.socket.write(
                    wire.connected("pc_id", self.pc_id, session_id, now_s=now_s)
                )
                self._begin()
                while True:
                    await self._take(await self.socket.read())
        finally:
            await self._end()

    async def make_way(self, reason: str = REPLACED, *, code: int = 1000) -> None:
        """Tell the node why, and close once that is out."""
        try:
            notice = wire.disconnected(reason, now_s=int(self._now_s()), code=code)
            await self.socket.write(notice)
        except SocketGoneError:
            return
        await self.socket.close(code, reason)

    def apply(self) -> None:
        """Give it what it may be given now: it, an administrator, or the time has said so."""
        if self._link is None or self.ended.is_set():
            return
        can = self.session.abilities(
            self._home.rule(self.pc_id),
            legacy_types=self._settings.legacy_task_types,
            ready_wait_s=self._settings.ready_wait,
            now_s=self._now_s(),
        )
        endpoint = self.endpoint
        endpoint.can_cancel = self.session.has("cancel")
        if (endpoint.task_types, endpoint.labels) != (can.task_types, can.labels):
            endpoint.task_types, endpoint.labels = can.task_types, can.labels
            self._link.refresh()
        if self._link.slots != can.concurrency:
            self._link.slots = can.concurrency

    def _begin(self) -> None:
        self._link = self._hub.attach(self.endpoint)
        self._link.slots = 0
        wait_us = int(self._settings.ready_wait * 1e6)
        self._hub.clock.call_at(self._hub.clock.now_us() + wait_us, self.apply)
        self.apply()

    async def _end(self) -> None:
        """Let results that have come be taken first: what is in hand after that is lost."""
        if self._link is not None:
            self._link.slots = 0
            if self._finishing:
                await asyncio.wait(self._finishing, timeout=LEAVE_S)
            self._link.close()
        self.endpoint.given.clear()
        self.ended.set()
        self._home.left(self)

    # What it says

    async def _take(self, data: str | bytes) -> None:
        now_s = self._now_s()
        try:
            frame = wire.read_node_frame(data)
        except wire.FrameError as error:
            self.session = self.session.receive(None, now_s=now_s)
            self._metrics.refused(error.code)
            await self._talk.refuse(self.socket, error)
            return
        self.session = self.session.receive(frame, now_s=now_s)
        match frame:
            case wire.Result():
                await self._beside(frame)
            case wire.NodeReady() | wire.Stopping():
                self.apply()
            case wire.Ask():
                await self._talk.answer(self.socket, frame)
            case wire.Pong():
                pass

    async def _beside(self, result: wire.Result) -> None:
        """Take a result while reading goes on; read no further while there are too many."""
        while len(self._finishing) >= MAX_FINISHING:
            await asyncio.wait(self._finishing, return_when=asyncio.FIRST_COMPLETED)
        task = self._hub.spawn(self._finish(result))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish(self, result: wire.Result) -> None:
        given = self.endpoint.given.get(result.task_id)
        try:
            verdict = await self._verdict(result)
        except HubError as error:
            log.error(  # noqa: TRY400  # its message says all
                "octohub.result_lost", task=result.task_id, error=str(error)
            )
            return
        finally:
            given = self.endpoint.taken(result.task_id, given)
        if verdict in ("done", "again"):
            self._metrics.ended[result.status] += 1
        else:
            self._metrics.late_results.inc()
            log.info("octohub.result", verdict=verdict, task=result.task_id, node=self.pc_id)
        if given is not None:
            took_s = (self._hub.clock.now_us() - given.at_us) / 1e6
            self._metrics.task_seconds[given.task_type, result.status].observe(max(0, took_s))
        if self.session.has("ack") and not self.socket.closed:
            try:
                await self.socket.write(wire.result_taken(result.task_id, verdict))
            except SocketGoneError:
                log.debug("octohub.not_told", node=self.pc_id)

    async def _verdict(self, result: wire.Result) -> str:
        """Hand a result to the core; a store that cannot be written is tried again for a while.

        Raises:
            HubError: it was not taken.
        """
        said = TaskResult(
            result.task_id, result.status, Raw(result.result or encode_json(None)), result.error
        )
        for _ in range(STORE_TRIES):
            try:
                return (await self._hub.work.finish(said, by=self.endpoint.address)).verdict
            except StoreUnavailableError:
                await asyncio.sleep(1)
        return (await self._hub.work.finish(said, by=self.endpoint.address)).verdict
