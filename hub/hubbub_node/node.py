"""The node: keeps a connection, does tasks, and keeps their results until the hub has them."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from hubbub_node import wire
from hubbub_node.handlers import Handler, call, is_async
from hubbub_node.journal import Journal
from hubbub_node.pauses import Pauses
from hubbub_node.settings import NodeSettings

__all__ = ["AddressError", "Node"]

OPEN_S: Final = 10.0
"""Seconds to ask for an address, and to open a connection."""

ACK_S: Final = 5.0
"""Seconds that a stop waits for the acknowledgements of the last results."""

CANCEL_S: Final = 1.0
"""How long what was cancelled may take to end."""

log = logging.getLogger("hubbub_node")


class AddressError(Exception):
    """The hub gives this node no address."""


class Node:
    """One node. `run` returns after `stop`, and only then.

    Attributes:
        pc_id: Its id in the hub; its address is `octohub.node.<pc_id>`.
    """

    def __init__(
        self,
        settings: NodeSettings,
        handlers: Mapping[str, Handler],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Open the journal.

        Raises:
            JournalError: it cannot be used.
        """
        self._settings = settings
        self._handlers = dict(handlers)
        self._chance = chance
        self._journal = Journal(settings.journal)
        self.pc_id: Final = self._journal.node_id(settings.name)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sent_s: dict[str, float] = {}
        self._socket: ClientConnection | None = None
        self._changed = asyncio.Condition()
        self._stop = asyncio.Event()
        self._nonce = 0

    @property
    def connected(self) -> bool:
        """Whether the hub has greeted it on the connection it has."""
        return self._socket is not None

    @property
    def unacknowledged(self) -> int:
        """Results that the hub may not have."""
        return len(self._journal)

    def stop(self) -> None:
        """Take no more tasks; `run` returns when those under way are done, or `grace_s` is over."""
        self._stop.set()

    async def run(self) -> None:
        """Connect, again and again, and do what the hub gives."""
        link = asyncio.create_task(self._keep_connected())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((link, stopped), return_when=asyncio.FIRST_COMPLETED)
            if link.done():
                await link  # it never ends but by an error of ours, which must not be silent
            await self._finish()
        finally:
            tasks = (link, stopped, *self._running.values())
            for task in tasks:
                task.cancel()
            _, left = await asyncio.wait(tasks, timeout=CANCEL_S)
            if left:
                log.warning("%d tasks do not let themselves be cancelled", len(left))
            self._journal.close()

    # Connecting

    async def _keep_connected(self) -> None:
        settings = self._settings
        pauses = Pauses(settings.backoff_s, settings.backoff_max_s, settings.stable_s)
        while True:
            began_s = time.monotonic()
            connected = False
            try:
                async with connect(
                    await self._address(),
                    max_size=settings.max_message_bytes * 2,
                    open_timeout=OPEN_S,
                    ping_interval=settings.ping_s,
                    ping_timeout=settings.ping_timeout_s,
                    compression=None,
                ) as socket:
                    began_s, connected = time.monotonic(), True
                    await self._talk(socket)
            except (OSError, TimeoutError, WebSocketException, httpx2.HTTPError) as error:
                log.warning(
                    "no connection to %s: %s", settings.url, str(error) or type(error).__name__
                )
            except AddressError as error:
                log.warning("%s", error)
            finally:
                await self._lost()
            pauses = pauses.after(time.monotonic() - began_s if connected else 0.0)
            await asyncio.sleep(pauses.next_s(self._chance()))

    async def _address(self) -> str:
        """Ask the hub for the address of this node's WebSocket.

        Raises:
            AddressError: it gives none.
            httpx2.HTTPError: it does not answer.
        """
        url = self._settings.address_url
        self._nonce = max(self._nonce + 1, time.time_ns() // 1_000_000)
        params = {"pc_id": self.pc_id}
        headers = wire.signed_headers(
            urlsplit(url).path,
            params,
            self._settings.signature_key,
            now_s=int(time.time()),
            nonce=str(self._nonce),
        )
        async with httpx2.AsyncClient(timeout=OPEN_S) as client:
            answer = await client.get(url, params=params, headers=headers)
        try:
            body: Any = answer.json()
            address = body["data"]["wsUrl"] if body["errcode"] == 0 else None
        except (ValueError, LookupError, TypeError):
            address = None
        if not isinstance(address, str) or not address:
            raise AddressError(
                f"{url} gives no address: {answer.status_code} {answer.text[:200]}; "
                "compare the signature key, and the clocks of both machines"
            )
        return address

    async def _talk(self, socket: ClientConnection) -> None:
        """Read frames until the connection ends."""
        resending: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                frame = wire.read_frame(text)
                if isinstance(frame, wire.Connected):
                    await self._greeted(socket)
                    resending = resending or asyncio.create_task(self._send_kept())
                elif frame is not None:
                    await self._take(frame)
        finally:
            if resending is not None:
                resending.cancel()

    async def _lost(self) -> None:
        self._socket = None
        self._sent_s.clear()
        async with self._changed:
            self._changed.notify_all()

    # What the hub says

    async def _take(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Task():
                await self._begin(frame)
            case wire.Ack(task_id):
                self._journal.forget(task_id)
                self._sent_s.pop(task_id, None)
                async with self._changed:
                    self._changed.notify_all()
            case wire.Cancel(task_id):
                doing = self._running.get(task_id)
                if doing is not None and is_async(self._handlers.get(doing.get_name())):
                    doing.cancel()  # a thread cannot be stopped: its result will be late
            case wire.Ping():
                await self._send(wire.pong())
            case wire.Notice(reason):
                log.warning("the hub closes the connection of %s: %s", self.pc_id, reason)
            case _:
                pass

    async def _greeted(self, socket: ClientConnection) -> None:
        """Say what this node is."""
        self._socket = socket
        log.info("connected to %s as %s", self._settings.url, self.pc_id)
        await self._send(
            wire.ready(
                self.pc_id,
                task_types=self._handlers,
                labels=self._settings.labels,
                concurrency=self._settings.concurrency,
                version=_version(),
                now_s=int(time.time()),
            )
        )
        if self._stop.is_set():
            await self._send(wire.stopping(self.pc_id))

    async def _begin(self, task: wire.Task) -> None:
        """Do a task, unless it is under way or done already: the hub may give it twice."""
        if task.id in self._running:
            return
        kept = self._journal.find(task.id)
        if kept is not None and wire.is_completed(kept):
            await self._send_result(task.id, kept)
            return
        if kept is not None:  # it had failed, and shall be tried again
            self._journal.forget(task.id)
        if self._stop.is_set():
            return  # the hub gives it to another one when this one leaves
        doing = asyncio.create_task(self._do(task), name=task.type)
        self._running[task.id] = doing
        doing.add_done_callback(lambda _: self._running.pop(task.id, None))

    # Work

    async def _do(self, task: wire.Task) -> None:
        try:
            frame = await self._done(task)
        except asyncio.CancelledError:
            if self._socket is None or self._stop.is_set():
                raise
            frame = wire.failed(task.id, "cancelled", now_s=int(time.time()))
        try:
            self._journal.keep(task.id, frame)
        except sqlite3.Error as error:  # then it is only as safe as the connection
            log.exception("result of task %s is not kept: %s", task.id, error)  # noqa: TRY401
        await self._send_result(task.id, frame)

    async def _done(self, task: wire.Task) -> str:
        """Return the frame that tells how a task ended."""
        handler = self._handlers.get(task.type)
        if handler is None:
            said = f"this node does not know the task type {task.type!r}"
            return wire.failed(task.id, said, now_s=int(time.time()))
        async with self._slots:
            try:
                value = await call(handler, task)
            except Exception as error:  # a handler's own affair, told to the asker
                log.info("task %s (%s) failed", task.id, task.type, exc_info=error)
                said = str(error) or type(error).__name__
                return wire.failed(task.id, said, now_s=int(time.time()))
        limit_bytes = self._settings.max_message_bytes
        return wire.result(task.id, value, now_s=int(time.time()), limit_bytes=limit_bytes)

    async def _send_result(self, task_id: str, frame: str) -> None:
        if self._socket is not None:
            self._sent_s[task_id] = time.monotonic()
            await self._send(frame)

    async def _send(self, text: str) -> None:
        """Write a frame; where the connection is gone the reader sees it, and results are kept."""
        if self._socket is not None:
            with suppress(ConnectionClosed):
                await self._socket.send(text)

    async def _send_kept(self) -> None:
        """Send what was done while the hub was away, and again what it does not acknowledge.

        Beside the reading: the hub answers each, and stops reading where nobody reads.
        """
        while True:
            before_s = time.monotonic() - self._settings.resend_s
            for task_id, frame in self._journal.all():
                if self._sent_s.get(task_id, before_s) <= before_s:
                    await self._send_result(task_id, frame)
            await asyncio.sleep(self._settings.resend_s)

    # The end

    async def _finish(self) -> None:
        """Let tasks under way end, and the hub take their results."""
        await self._send(wire.stopping(self.pc_id))
        if self._running:
            log.info("waits for %d tasks", len(self._running))
            await asyncio.wait(self._running.values(), timeout=self._settings.grace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(ACK_S), self._changed:
                await self._changed.wait_for(lambda: not (self.connected and self.unacknowledged))
        left = len(self._running)
        if left or self.unacknowledged:
            log.warning(
                "%d tasks not done, %d results kept for the next start", left, self.unacknowledged
            )


def _version() -> str:
    try:
        return f"hubbub-node {version('hubbub')}"
    except PackageNotFoundError:
        return "hubbub-node"
