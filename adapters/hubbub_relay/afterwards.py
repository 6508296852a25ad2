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
from hubbub.errors import HubError, InvalidError, KeyReusedError
from hubbub_relay import events, sagas
from hubbub_relay.callbacks import envelope_of
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
        destination: Gives the address of what posts to a URL.
    """

    hub: Hub
    now_ms: Callable[[], int]
    make_up: Callable[[str, bytes], Awaitable[None]]
    destination: Callable[[str], str]
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])
    _ended: dict[str, None] = field(default_factory=dict[str, None])
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
            for task_id in await self.hub.read(partial(events.ended_ids, task_ids=chunk)):
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
            self._ended[task_id] = None
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
                pause_s = (
                    min(LAST_PAUSE_S, pause_s * 2)
                    if await self._nothing(pause_s)
                    else (FIRST_PAUSE_S)
                )

    async def _nothing(self, pause_s: float) -> bool:
        """Wait; False when something has ended meanwhile, which waits for nobody."""
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return True
        self._wake.clear()
        return False

    async def look(self) -> None:
        """Look for final records of the tasks that ended, and do what is to be done for each."""
        names = list(self._ended)[:CHUNK]
        found, is_all = await self.hub.read(lambda session: events.ended(session, names))
        # Side by side: their commits are one, and what cannot be done now holds up no other.
        outcomes = await asyncio.gather(*(self._done(*one) for one in found.items()))
        done = [task_id for task_id, is_done in zip(found, outcomes, strict=True) if is_done]
        if done:
            now_ms = self.now_ms()
            await self.hub.execute(
                events.callbacks_done(done, now_ms=now_ms), sagas.sagas_done(done, now_ms=now_ms)
            )
        for task_id in done:
            self._open.pop(task_id, None)
            self._ended.pop(task_id, None)
        if is_all:
            self._count_looks([task_id for task_id in names if task_id not in found])
        for task_id in names:  # others have their turn before these
            if task_id in self._ended:
                self._ended[task_id] = self._ended.pop(task_id)

    def _count_looks(self, names: Sequence[str]) -> None:
        for task_id in names:
            waiting = self._open.get(task_id)
            if waiting is None:
                self._ended.pop(task_id, None)
                continue
            waiting.looks += 1
            if waiting.looks >= LOOKS:
                self._ended.pop(task_id, None)

    async def _done(self, task_id: str, event: events.Event) -> bool:
        """Do what is to be done for one task; False when it has to be asked for again."""
        waiting = self._open.get(task_id)
        try:
            if waiting is not None:
                await self._do(task_id, waiting, event)
        except HubError as error:
            log.warning("relay.afterwards_waits", task=task_id, error=str(error))
            return False
        return True

    async def _do(self, task_id: str, waiting: _Open, event: events.Event) -> None:
        if waiting.saga and read_callback(event.body.encode()).status == "failed":
            for of, body in await self.hub.read(partial(sagas.bodies_for, task_id=task_id)):
                await self.make_up(of, body.encode())
        if waiting.url is not None:
            await self._post(event, waiting.url, waiting.key)

    async def _post(self, event: events.Event, url: str, key: str) -> None:
        try:
            envelope = envelope_of(event, url=url, key=key, to=self.destination(url))
            await self.hub.publish(envelope)
        except KeyReusedError:
            log.debug("relay.posted_before", record=event.id)  # by a hub that named it otherwise
        except InvalidError as error:  # what was no URL when it was sent was refused then
            log.warning("relay.no_post", record=event.id, error=str(error))
