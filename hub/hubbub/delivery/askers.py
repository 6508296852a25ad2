"""Askers of tasks: they take them back, or let them run once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.delivery.finals import End, Finals
from hubbub.delivery.ledger import Ledger
from hubbub.errors import ConflictError, NotFoundError, StoreUnavailableError
from hubbub.values import DeliveryState, Outcome, Task

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Askers"]


class Askers:
    """What those do who asked for a task."""

    def __init__(self, room: DeliveryRoom, ledger: Ledger, finals: Finals) -> None:
        self._room = room
        self._ledger = ledger
        self._finals = finals

    async def cancel(self, task_id: str) -> Task:
        """Take a task back; the peer that has it is told if it can be.

        Raises:
            NotFoundError: no such task.
            ConflictError: it has ended already.
            StoreUnavailableError: nothing was changed.
        """
        return await self._ledger.alone(task_id, self._cancel(task_id))

    async def _cancel(self, task_id: str) -> Task:
        task, delivery = await self._ledger.find(task_id)
        if task is None:
            raise NotFoundError(f"no task {task_id!r}")
        if delivery is None or delivery.state is DeliveryState.DONE:
            await self._room.engine.flush()  # that it has ended is told once it is written
            raise ConflictError(f"task {task_id!r} is {task.state} already")
        in_flight = delivery.state is DeliveryState.IN_FLIGHT
        if in_flight:
            self._room.leases.grace(delivery)
        end = End(outcome=Outcome.DROPPED, reason="cancelled")
        if await self._finals.write(delivery, end) is None:
            raise ConflictError(f"task {task_id!r} ended meanwhile")
        link = self._room.link_of(delivery.endpoint or "")
        if in_flight and link is not None:
            link.endpoint.cancel(task_id)
        assert delivery.task is not None
        return delivery.task

    async def rerun(self, task_id: str, attempts: int | None) -> Task:
        """Let a task that has ended run once more: a new delivery, one run more.

        Args:
            attempts: How many; None for as many as at first.

        Raises:
            NotFoundError: no such task.
            ConflictError: it has not ended, or is an orphan, or somebody else was quicker.
            StoreUnavailableError: nothing was changed.
        """
        return await self._ledger.alone(task_id, self._rerun(task_id, attempts))

    async def _rerun(self, task_id: str, attempts: int | None) -> Task:
        found = await self._ledger.ended(task_id)
        if found is None:
            raise NotFoundError(f"no task {task_id!r}")
        before, delivery = found
        if delivery is None or not before.state.final:
            raise ConflictError(
                f"task {task_id!r} is {before.state}; only a task that has ended "
                "and has a request can run again"
            )
        room = self._room
        assert room.follow is not None
        planned, task = room.follow.rerun(before, delivery, attempts)
        try:
            kept = await room.engine.keep(planned.record)
        except StoreUnavailableError:
            room.endings.release(planned)
            raise
        if kept.verdict != "kept":
            room.endings.release(planned)
            raise ConflictError(f"task {task_id!r} was started again by somebody else")
        room.follow.kept(planned)
        return task
