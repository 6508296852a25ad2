"""What is to be done once a task has ended: its record posted, its saga made up for.

The rows that say so are written in the commit of the task, the final log record in the commit of
its result. Whoever finds both has something to do: at once when the result passes by, and after a
restart by looking. Doing it twice does it once: posts and tasks are named by what they are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from hubbub import Hub
from hubbub.errors import HubError
from hubbub_relay import events, sagas
from hubbub_relay.callbacks import post_of
from hubbub_relay.wire import read_callback

__all__ = ["Afterwards"]

LOOKS: Final = 20
"""Times the record of a result is looked for; it may have been removed since."""

CHUNK: Final = 500
FIRST_PAUSE_S: Final = 0.02
LAST_PAUSE_S: Final = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Open:
    """A task that is waited for.

    Attributes:
        url: Where its record is posted.
        key: Whose key signs that.
        saga: Whether something may have to be made up for.
    """

    url: str | None = None
    key: str = ""
    saga: bool = False
    looks: int = 0


@dataclass(slots=True)
class Afterwards:
    """Knows which tasks are waited for, and does what is to be done when they have ended.

    Attributes:
        make_up: Queues a task that makes up for another one: the id of that, and what is sent.
    """

    hub: Hub
    now_ms: Callable[[], int]
    make_up: Callable[[str, bytes], Awaitable[None]]
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])
    _ended: set[str] = field(default_factory=set[str])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> None:
        """Read what is still open, and note what of it has ended."""
        for task_id, url, key in await self.hub.read(events.open_callbacks):
            self.open(task_id, url=url, key=key)
        for task_id in await self.hub.read(sagas.open_sagas):
            self._open.setdefault(task_id, _Open()).saga = True
        names = list(self._open)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            for task_id in await self.hub.read(partial(events.ended, task_ids=chunk)):
                self.ended(task_id)

    def open(self, task_id: str, *, url: str | None, key: str, saga: bool = False) -> None:
        """Remember a task whose end is waited for."""
        self._open[task_id] = _Open(url, key, saga)

    def forget(self, task_id: str) -> None:
        """The task was not taken."""
        self._open.pop(task_id, None)

    def ended(self, task_id: str) -> None:
        """A result is in the store."""
        if task_id in self._open:
            self._open[task_id].looks = 0
            self._ended.add(task_id)
            self._wake.set()

    async def reopen(self, task_id: str, *, url: str, key: str) -> None:
        """A task runs once more: its next result is posted too."""
        await self.hub.execute(events.callbacks_done([task_id], now_ms=None))
        self.open(task_id, url=url, key=key)

    async def run(self) -> None:
        """Do what is to be done for tasks that ended, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause_s = FIRST_PAUSE_S
            while self._ended:
                try:
                    await self.look()
                except HubError as error:
                    log.warning("relay.afterwards_waits", error=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(LAST_PAUSE_S, pause_s * 2)

    async def look(self) -> None:
        """Look for final records of the tasks that ended, and do what is to be done for each."""
        names = list(self._ended)[:CHUNK]
        found = await self.hub.read(lambda session: events.ended(session, names))
        for task_id, event in found.items():
            waiting = self._open.get(task_id)
            if waiting is not None:
                await self._do(task_id, waiting, event)
        if found:
            done = list(found)
            now_ms = self.now_ms()
            await self.hub.execute(
                events.callbacks_done(done, now_ms=now_ms), sagas.sagas_done(done, now_ms=now_ms)
            )
        for task_id in found:
            self._open.pop(task_id, None)
            self._ended.discard(task_id)
        self._count_looks(names)

    def _count_looks(self, names: Sequence[str]) -> None:
        for task_id in names:
            waiting = self._open.get(task_id)
            if waiting is None:
                self._ended.discard(task_id)
                continue
            waiting.looks += 1
            if waiting.looks >= LOOKS:
                self._ended.discard(task_id)

    async def _do(self, task_id: str, waiting: _Open, event: events.Event) -> None:
        if waiting.saga and read_callback(event.body.encode()).status == "failed":
            for of, body in await self.hub.read(partial(sagas.bodies_for, task_id=task_id)):
                await self.make_up(of, body.encode())
        if waiting.url is not None:
            await self.hub.publish(post_of(event, url=waiting.url, key=waiting.key))
