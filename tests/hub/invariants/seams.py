"""The seams of a simulated hub: time, the journal's thread and reads, all at the test's word.

Nothing of the hub is replaced that decides anything. The journal gathers, decides and writes as
it always does, on a real SQLite file; only the moment is the test's. So a run is a function of
its seed, and a moment that is rare beside a thread is as likely here as the test wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from hubbub.errors import StoreUnavailableError
from hubbub.ports import Change
from hubbub.store.database import Database
from hubbub.store.entries import Entry
from hubbub.store.journal import Journal
from hubbub.testing import FakeClock

T = TypeVar("T")

LINGERED = 0.5
"""How often outcomes go along with a batch that could leave them aside."""


async def quiet(most: int = 2000) -> None:
    """Return once nothing is left that can run without the test."""
    ready: Sequence[object] = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(most):
        await asyncio.sleep(0)
        if not ready:
            return
    raise AssertionError(f"the hub never comes to rest: {ready}")


class SimClock(FakeClock):
    """A clock that may leap, as that of a machine that slept, and forget a process that died."""

    async def leap(self, seconds: float) -> None:
        """Move at once to a time, then run what fell due on the way."""
        self._now_us += int(seconds * 1e6)
        while self._timers and self._timers[0][0] <= self._now_us:
            timer = heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()
                await quiet()

    def forget(self) -> None:
        """Drop all timers: the process they were of is dead."""
        self._timers.clear()


class SteppedJournal(Journal):
    """The journal without its thread: commits when the loop comes by, or when it is let.

    Attributes:
        held: Nothing is written until it is false again.
        broken: The disk is full.
        dead: The process is: nothing is ever written again.
        refused: Entries the database refused as bad; there should be none.
        chance: Decides whether outcomes have stood aside for long enough; None writes them at once.
        committed: Called after each commit, before anybody is answered.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.held = False
        self.broken = False
        self.dead = False
        self.refused: list[str] = []
        self.committed: Callable[[], None] = lambda: None
        self.chance: Random | None = None
        self._connection: Connection | None = None
        self._coming = False

    def start(self) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._come()

    async def stop(self) -> None:
        """Write what is queued and end."""
        self.held = self.broken = False
        while self._queue and not self.dead:
            self._commit_some()
            for _ in range(3):  # what follows from it may be written too
                await asyncio.sleep(0)
        self.close()
        self._ended()
        self.dead = True  # no connection is opened for who still asks

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def let(self) -> None:
        """Write again."""
        self.held = self.broken = False
        self._come()

    def fail(self) -> None:
        """Write nothing more, and say so to all who wait."""
        self.held, self.broken = False, True
        self._come()

    @property
    def behind(self) -> int:
        """Entries that are not written."""
        return len(self._queue)

    def note(self, change: Change, then: Callable[[bool], None] | None = None) -> None:
        """Write a change as everything else is: real time decides nothing here."""
        super().note(change, then)
        self._come()

    def _push(self, entry: Entry) -> None:
        if not self.dead:
            self._queue.add(entry)
            self._come()

    def _come(self) -> None:
        if self._loop is not None and not (self._coming or self.held or self.dead):
            self._coming = True
            self._loop.call_soon(self._came)

    def _came(self) -> None:
        self._coming = False
        if not (self.held or self.dead):
            self._commit_some()

    def _commit_some(self) -> None:
        due = self.chance is None or not self._queue.waiting or self.chance.random() < LINGERED
        entries = self._queue.gather(due=due)
        if not entries:
            return
        if self.broken:
            told = [entry for entry in entries if entry.future is not None]
            self._queue.put_back([entry for entry in entries if entry.future is None])
            self._call(self._fail, told, StoreUnavailableError("the disk is full"))
            return
        self._connection = self._connection or self._database.writer()
        try:
            self._write(self._connection, entries)
        except OperationalError as error:
            self.refused.append(str(error))
            raise
        self.committed()
        self._call(self._resolve, [entry for entry in entries if not entry.done])
        if self._queue:
            self._come()

    def _refuse(self, entry: Entry, error: Exception) -> None:
        self.refused.append(str(error))
        super()._refuse(entry, error)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        if self._loop is not None and not self.dead:
            self._loop.call_soon(callback, *args)


class SteppedDatabase(Database):
    """Reads on the loop, which take a while: others run between question and answer."""

    chance: Random | None = None

    async def read(self, query: Callable[[Session], T], *, patient: bool = False) -> T:
        """Run a query."""
        del patient  # time is the test's
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        found = self.read_now(query)
        for _ in range(self._turns()):
            await asyncio.sleep(0)
        return found

    def _turns(self) -> int:
        return self.chance.randrange(4) if self.chance is not None else 1
