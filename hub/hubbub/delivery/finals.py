"""Finals: a task ends by what its worker or its asker said, who waits until it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubbub.errors import StoreUnavailableError
from hubbub.ports import Change, Record, Row
from hubbub.tasks import after
from hubbub.values import Delivery, DeliveryState, Outcome, Receipt, TaskResult

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["End", "Finals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ends.

    Attributes:
        by: Endpoint that brought the result; None for the one that has the task.
        result: What the worker said.
        rows: Of the adapter's own, kept in the commit of the result.
        otherwise: Kept when somebody was quicker.
    """

    outcome: Outcome
    reason: str | None = None
    by: str | None = None
    result: TaskResult | None = None
    rows: Sequence[Row] = ()
    otherwise: Record | None = field(default=None, repr=False)


class Finals:
    """Writes them."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room

    async def write(self, delivery: Delivery, end: End) -> Receipt | None:
        """End a task, and publish its result; None when somebody was quicker.

        Raises:
            StoreUnavailableError: everything is as it was.
        """
        room = self._room
        # Its slot is free from here on: whoever said this is done with it, committed or not. What
        # is handed over meanwhile is the lowest rank that waits, and none of its key: the lane is
        # free only in `freed`. If the commit fails, the link has one more than its slots until the
        # result is said again, and is given nothing.
        before = room.endings.suspend(delivery)
        self._end(delivery, end)
        assert room.follow is not None
        assert delivery.task is not None
        planned = room.follow.result(delivery.task, delivery)
        planned.record.rows += end.rows
        change = Change(
            delivery=delivery,
            task=delivery.task,
            ended=delivery.task.state,
            error=delivery.task.error if end.result is not None else None,
            follows=planned.record,
            otherwise=end.otherwise,
        )
        try:
            counted = (await room.engine.settle([change]))[0]
        except StoreUnavailableError:
            room.endings.restore(delivery)
            room.endings.release(planned)
            raise
        del room.endings.unwritten[delivery.id]
        room.boxes.written(delivery)
        if counted:
            room.endings.count(delivery)
        room.endings.freed(delivery, before.endpoint)
        if not counted:
            room.endings.release(planned)
            return None
        room.follow.kept(planned)
        return planned.receipt

    def _end(self, delivery: Delivery, end: End) -> None:
        now_us = self._room.clock.now_us()
        delivery.state = DeliveryState.DONE
        delivery.outcome = end.outcome
        delivery.reason = end.reason
        delivery.endpoint = end.by or delivery.endpoint
        delivery.lease_until_us = None
        delivery.updated_us = now_us
        assert delivery.task is not None
        delivery.task = after(delivery.task, delivery, now_us=now_us, result=end.result)
