"""Results of tasks: which one counts, which is late, and which is a failure to be tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubbub.delivery.finals import End, Finals
from hubbub.delivery.ledger import Ledger
from hubbub.delivery.spans import late_record
from hubbub.ports import Finished, Record, Row
from hubbub.values import Delivery, DeliveryState, Outcome, Task, TaskResult

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Results", "Said"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A result as it came.

    Attributes:
        by: Address of the endpoint that brings it.
        anyone: It counts also when that endpoint was never given the task.
        rows: Rows of the adapter's own, kept in the commit of the result.
        late_rows: Rows kept when another result was first.
    """

    result: TaskResult
    by: str
    anyone: bool = False
    rows: Sequence[Row] = ()
    late_rows: Sequence[Row] = ()


class Results:
    """Takes results."""

    def __init__(self, room: DeliveryRoom, ledger: Ledger, finals: Finals) -> None:
        self._room = room
        self._ledger = ledger
        self._finals = finals

    async def take(self, said: Said) -> Finished:
        """Take a result. The first final one counts; whoever comes later is told so.

        Raises:
            StoreUnavailableError: nothing was taken.
        """
        return await self._ledger.alone(said.result.task_id, self._take(said))

    async def _take(self, said: Said) -> Finished:
        with self._room.boxes.reading() as here:
            task, delivery = await self._ledger.find(said.result.task_id)
            if task is None:
                return Finished("unknown", None)
            runs = await self._runs_given(task, delivery, said)
            if delivery is not None:  # memory may have come to have it while that was read
                delivery = here.get(delivery.id, delivery)
                task = delivery.task or task
        if task.run not in runs:
            # Not believed; but if it was given an earlier run, it is free again.
            self._room.leases.answered(task.id, said.by)
            return Finished("stranger", task, earlier=bool(runs))
        if delivery is None or delivery.state is DeliveryState.DONE:
            await self._keep_late(delivery, said)
            return Finished("late", task)
        holds = delivery.state is DeliveryState.IN_FLIGHT and said.by == delivery.endpoint
        if holds:
            self._room.guards.succeeded(delivery)
        failed = task.retry_on_failure and said.result.state == "failed"
        if failed and self._tried_again(delivery, said, holds=holds):
            return Finished("again", delivery.task)
        return await self._end(delivery, said, holds=holds)

    async def _runs_given(self, task: Task, delivery: Delivery | None, said: Said) -> set[int]:
        """Return the runs that whoever brings a result was given; this one, where all may."""
        if said.anyone or (delivery is not None and said.by == delivery.endpoint):
            return {task.run}
        return (await self._ledger.runs_by_endpoint(task)).get(said.by, set())

    def _tried_again(self, delivery: Delivery, said: Said, *, holds: bool) -> bool:
        """Let a task that failed be tried again, if an attempt is left; tell whether it is."""
        if not holds:  # of an attempt that had its time; another one is there, or will be
            self._room.leases.answered(said.result.task_id, said.by)
            return True
        if delivery.attempts >= delivery.max_attempts:
            return False
        due_us = self._room.clock.now_us() + self._room.backoff_us(delivery)
        self._room.endings.again(delivery, said.result.error or "failed", due_us=due_us)
        return True

    async def _end(self, delivery: Delivery, said: Said, *, holds: bool) -> Finished:
        """End a task by its result.

        Args:
            holds: Whoever brings it has the task just now.
        """
        if delivery.state is DeliveryState.IN_FLIGHT and not holds:
            self._room.leases.grace(delivery)  # whoever has it now is still busy with it
        end = End(
            outcome=Outcome.DELIVERED,
            by=said.by,
            result=said.result,
            rows=said.rows,
            otherwise=self._late(delivery, said),
        )
        published = await self._finals.write(delivery, end)
        if not holds:
            self._room.leases.answered(said.result.task_id, said.by)
        return Finished("late" if published is None else "done", delivery.task, published)

    async def _keep_late(self, delivery: Delivery | None, said: Said) -> None:
        """Keep what came after another result."""
        self._room.leases.answered(said.result.task_id, said.by)
        if delivery is None:
            await self._room.engine.keep(Record(rows=list(said.late_rows)))
        else:
            await self._room.engine.keep(self._late(delivery, said))

    def _late(self, delivery: Delivery, said: Said) -> Record:
        """Return what remembers a result that did not count, and when it came."""
        at_us = self._room.clock.now_us()
        record = late_record(delivery, said.result, said.by, at_us=at_us)
        record.rows += said.late_rows
        return record
