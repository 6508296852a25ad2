"""The ledger: where a task is, in memory or in the store, and one change of each at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlmodel import Session

from hubbub.store.database import Database
from hubbub.store.reads import deliveries as reads
from hubbub.store.reads import tasks as task_reads
from hubbub.values import Delivery, Task

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Ledger"]

T = TypeVar("T")


class Ledger:
    """The tasks of one hub.

    Attributes:
        changing: The change of a task that is under way, by the task's id.
    """

    def __init__(self, room: DeliveryRoom, database: Database) -> None:
        self._room = room
        self._database = database
        self.changing: Final[dict[str, asyncio.Task[Any]]] = {}

    async def alone(self, task_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Run one change of a task at a time, each to its end.

        Also when the caller is cancelled: a change written but not told would leave memory
        behind the store.
        """
        try:
            while (before := self.changing.get(task_id)) is not None:
                await asyncio.wait([before])
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        self.changing[task_id] = task
        task.add_done_callback(lambda _: self.changing.pop(task_id, None))
        return await asyncio.shield(task)

    async def find(self, task_id: str) -> tuple[Task | None, Delivery | None]:
        """Return a task and the delivery of its run; the one in memory, where it is there."""
        in_hand = self._room.in_hand.get(task_id)
        if in_hand is not None and in_hand.task is not None:
            return in_hand.task, in_hand

        def find(session: Session) -> tuple[Task | None, Delivery | None]:
            return task_reads.one(session, task_id), reads.of_task(session, task_id)

        with self._room.boxes.reading() as here:
            task, stored = await self._database.read(find)
            known = None if stored is None else here.get(stored.id)
            if known is not None and known.task is not None:
                return known.task, known
            return task, stored

    async def runs_by_endpoint(self, task: Task) -> Mapping[str, set[int]]:
        """Return the runs of a task of which endpoints ever were handed an attempt."""
        given = await self._database.read(lambda s: task_reads.attempts(s, task.id))
        runs: dict[str, set[int]] = {}
        for row in given:
            runs.setdefault(row.endpoint, set()).add(row.run)
        return runs

    async def task(self, task_id: str) -> Task | None:
        """Return a task as the store has it."""
        return await self._database.read(lambda session: task_reads.one(session, task_id))

    async def ended(self, task_id: str) -> tuple[Task, Delivery | None] | None:
        """Return a task and the delivery of its run as the store has them."""

        def read(session: Session) -> tuple[Task, Delivery | None] | None:
            task = task_reads.one(session, task_id)
            return None if task is None else (task, reads.of_task(session, task_id))

        return await self._database.read(read)
