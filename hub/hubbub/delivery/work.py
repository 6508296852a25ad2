"""Work: what workers and askers do with tasks. Take with a lease, renew, finish, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from sqlmodel import Session

from hubbub.delivery.endings import memory_of
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import WINDOW, Mailbox, requirement_of
from hubbub.delivery.room import DeliveryRoom
from hubbub.delivery.spans import late_record
from hubbub.errors import ConflictError, NotFoundError, StoreUnavailableError
from hubbub.ports import Change, Finished, Leased, Record, Row
from hubbub.store.database import Database
from hubbub.store.reads import deliveries as reads
from hubbub.store.reads import tasks as task_reads
from hubbub.tasks import after
from hubbub.values import Delivery, DeliveryState, Outcome, Requirement, Task, TaskResult

__all__ = ["WorkDesk"]

T = TypeVar("T")


class WorkDesk:
    """The tasks of one hub, for those who do them and those who asked for them."""

    def __init__(self, room: DeliveryRoom, database: Database) -> None:
        self._room = room
        self._database = database
        self._ending: dict[str, asyncio.Task[Any]] = {}
        self._polling: set[asyncio.Future[None]] = set()
        self._closed = False

    # Pulling

    async def lease(
        self,
        patterns: Sequence[str],
        *,
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None = None,
        wait_us: int = 0,
    ) -> list[Leased]:
        """Take up to `limit` tasks that wait for pull endpoints, lowest rank first.

        Args:
            patterns: Addresses or patterns of the pull endpoints.
            task_types: Only these; None for all.
            wait_us: Wait so long for the first one.

        Raises:
            StoreUnavailableError: nothing was taken.
        """
        until_us = self._room.clock.now_us() + wait_us
        while True:
            sources = self._sources(patterns)
            taken = await self._take(sources, worker, limit, lease_us, task_types)
            if taken or self._closed or self._room.clock.now_us() >= until_us:
                return taken
            await self._arrival([box for _, box in sources], until_us)

    def close(self) -> None:
        """Answer all who wait, with nothing."""
        self._closed = True
        for future in self._polling:
            if not future.done():
                future.set_result(None)

    async def renew(self, task_id: str, *, worker: str | None, lease_us: int) -> int:
        """Move the end of a lease; returns the new end, microseconds since the epoch.

        Raises:
            NotFoundError: no such task.
            ConflictError: it is not leased, or to somebody else.
        """
        delivery = self._room.in_hand.get(task_id)
        if delivery is None or delivery.state is not DeliveryState.IN_FLIGHT:
            if await self._database.read(lambda s: task_reads.one(s, task_id)) is None:
                raise NotFoundError(f"no task {task_id!r}")
            raise ConflictError(f"task {task_id!r} is not leased; take it first")
        if worker is not None and delivery.pulled_by != worker:
            raise ConflictError(
                f"task {task_id!r} is leased to another worker; "
                "it can be taken when that lease ends"
            )
        before_us = delivery.lease_until_us
        until_us = delivery.lease_until_us = self._room.clock.now_us() + lease_us
        try:
            change = Change(delivery, attempt_is=delivery.attempts)
            counted = (await self._room.engine.settle([change]))[0]
        except StoreUnavailableError:
            if delivery.lease_until_us == until_us:  # else it has ended, or was renewed again
                delivery.lease_until_us = before_us
            raise
        if not counted or delivery.state is not DeliveryState.IN_FLIGHT:
            raise ConflictError(f"task {task_id!r} ended meanwhile")
        self._room.leases.watch(delivery)
        return until_us

    async def begin(self, task_id: str, *, worker: str, lease_us: int) -> bool:
        """Note that a worker does a task it has not taken: one it read of elsewhere.

        Returns:
            False where it does not wait, or not for a pull endpoint that is here.

        Raises:
            StoreUnavailableError: nothing was changed.
        """
        return await self._alone(task_id, self._begin(task_id, worker, lease_us))

    async def _begin(self, task_id: str, worker: str, lease_us: int) -> bool:
        room = self._room
        _, delivery = await self._find(task_id)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            return False
        link = self._taker_of(delivery)
        over = delivery.deadline_us is not None and delivery.deadline_us <= room.clock.now_us()
        if link is None or over or delivery.attempts >= delivery.max_attempts:
            return False
        room.endings.forget(delivery)
        room.given(delivery, link.address)
        change = room.leases.lease(delivery, for_us=lease_us, worker=worker)
        try:
            counted = (await room.engine.settle([change]))[0]
        except StoreUnavailableError:
            room.endings.put_back(delivery)
            raise
        if counted:
            room.tell(delivery)
        return counted

    def _taker_of(self, delivery: Delivery) -> EndpointLink | None:
        """Return a pull endpoint that might take a delivery now, if it asked."""
        requirement = requirement_of(delivery.mailbox)
        patterns = (delivery.mailbox,) if requirement is None else requirement.patterns
        for link, box in self._sources(patterns):
            if box.name == delivery.mailbox:
                in_order = delivery.lane is None or box.line.leads(delivery)
                return link if in_order else None
        return None

    def _sources(self, patterns: Sequence[str]) -> list[tuple[EndpointLink, Mailbox]]:
        """Return the mailboxes that pull endpoints take from: their own and their pools."""
        room = self._room
        sources: list[tuple[EndpointLink, Mailbox]] = []
        for pattern in patterns:
            for known in room.directory.members(pattern):
                link = room.link_of(known.address)
                if link is not None and known.endpoint.pull:
                    room.boxes.get(known.address)
                    sources += [(link, box) for box in room.boxes_of(link)]
        return sources

    async def _take(
        self,
        sources: Sequence[tuple[EndpointLink, Mailbox]],
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None,
    ) -> list[Leased]:
        room = self._room
        taken: list[Delivery] = []
        changes: list[Change] = []
        for _, box in sources:
            await self._read_more(box, task_types)
        while len(taken) < limit:
            best = self._best(sources, task_types)
            if best is None:
                break
            link, box, delivery = best
            if delivery.deadline_us is not None and delivery.deadline_us <= room.clock.now_us():
                room.endings.expire(delivery)
            elif delivery.attempts >= delivery.max_attempts:
                room.endings.end(delivery, Outcome.DEAD, delivery.last_error or "timeout")
            else:
                room.taken(box, delivery, link.address)
                changes.append(room.leases.lease(delivery, for_us=lease_us, worker=worker))
                taken.append(delivery)
        if not taken:
            return []
        try:
            counted = await room.engine.settle(changes)
        except StoreUnavailableError:
            for delivery in taken:
                room.endings.put_back(delivery)
            raise
        mine = [d for d, held in zip(taken, counted, strict=True) if held]
        for delivery in mine:
            room.tell(delivery)
        return [
            Leased(d.envelope, d.task_id or "", d.attempts, d.lease_until_us or 0) for d in mine
        ]

    async def _read_more(self, box: Mailbox, task_types: frozenset[str] | None) -> None:
        """Read from the store what memory does not have and a filter may want."""
        room = self._room
        if _first(box, task_types, room.clock.now_us()) is not None:
            return
        await room.boxes.read_more(box)
        if task_types is None or not box.behind or box.refilling:
            return
        for task_type in sorted(task_types):
            if _first(box, task_types, room.clock.now_us()) is not None:
                return
            now_us = room.clock.now_us()
            wanted = Requirement((), task_type=task_type)
            found = await room.engine.take(
                box.name,
                limit=WINDOW // 8,
                now_us=now_us,
                skip_keys=box.line.busy_lanes(),
                where=wanted,
            )
            room.boxes.take_in(box, found, now_us=now_us, all_due=box.dry)

    def _best(
        self, sources: Sequence[tuple[EndpointLink, Mailbox]], task_types: frozenset[str] | None
    ) -> tuple[EndpointLink, Mailbox, Delivery] | None:
        best: tuple[EndpointLink, Mailbox, Delivery] | None = None
        now_us = self._room.clock.now_us()
        for link, box in sources:
            delivery = _first(box, task_types, now_us)
            if delivery is not None and (
                best is None or (delivery.rank, delivery.id) < (best[2].rank, best[2].id)
            ):
                best = (link, box, delivery)
        return best

    async def _arrival(self, boxes: Sequence[Mailbox], until_us: int) -> None:
        """Wait until something arrives in one of the mailboxes, or the time is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._room.clock.call_at(
            until_us, lambda: None if future.done() else future.set_result(None)
        )
        self._polling.add(future)
        for box in boxes:
            box.wait_for_arrival(future)
        try:
            await future
        finally:
            timer.cancel()
            self._polling.discard(future)
            for box in boxes:
                box.stop_waiting(future)

    # Ending

    async def finish(
        self,
        result: TaskResult,
        *,
        by: str,
        anyone: bool = False,
        rows: Sequence[Row] = (),
        late_rows: Sequence[Row] = (),
    ) -> Finished:
        """Take a result. The first final one counts; whoever comes later is told so.

        Args:
            by: Address of the endpoint that brings it.
            anyone: It counts also when that endpoint was never given the task.
            rows: Rows of the adapter's own, kept in the commit of the result.
            late_rows: Rows kept when another result was first.

        Raises:
            StoreUnavailableError: nothing was taken.
        """
        kept = Record(rows=list(rows))
        return await self._alone(result.task_id, self._finish(result, by, anyone, kept, late_rows))

    async def _alone(self, task_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Run one change of a task at a time, each to its end.

        Also when the caller is cancelled: a change written but not told would leave memory
        behind the store.
        """
        try:
            while (before := self._ending.get(task_id)) is not None:
                await asyncio.wait([before])
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        self._ending[task_id] = task
        task.add_done_callback(lambda _: self._ending.pop(task_id, None))
        return await asyncio.shield(task)

    async def _finish(
        self,
        result: TaskResult,
        by: str,
        anyone: bool,
        rows: Record,
        late_rows: Sequence[Row],
    ) -> Finished:
        room = self._room
        task, delivery = await self._find(result.task_id)
        if task is None:
            return Finished("unknown", None)
        known = anyone or delivery is None or by == delivery.endpoint
        if not known and not await self._was_given(task, by):
            return Finished("stranger", task)
        if delivery is None or delivery.state is DeliveryState.DONE:
            await self._late(delivery, result, by, late_rows)
            return Finished("late", task)
        in_hand = delivery.state is DeliveryState.IN_FLIGHT
        holds = in_hand and by == delivery.endpoint
        if holds:
            room.guards.succeeded(delivery)
        if task.retry_on_failure and result.state == "failed":
            if holds and delivery.attempts < delivery.max_attempts:
                due_us = room.clock.now_us() + room.backoff_us(delivery)
                room.endings.again(delivery, result.error or "failed", due_us=due_us)
                return Finished("again", delivery.task)
            if not holds:  # of an attempt that had its time; another one is there, or will be
                room.leases.answered(delivery, by)
                return Finished("again", delivery.task)
        before = memory_of(delivery)
        if in_hand and not holds:
            room.leases.grace(delivery)  # whoever has it now is still busy with it
        room.endings.forget(delivery)
        now_us = room.clock.now_us()
        delivery.state = DeliveryState.DONE
        delivery.outcome = Outcome.DELIVERED
        delivery.reason = None
        delivery.endpoint = by
        delivery.lease_until_us = None
        delivery.updated_us = now_us
        task = after(task, delivery, now_us=now_us, result=result)
        delivery.task = task
        assert room.follow is not None
        planned = room.follow.result(task, delivery)
        planned.record.merge(rows)
        late = late_record(delivery, result, by)
        late.rows += late_rows
        change = Change(
            delivery=delivery,
            task=task,
            ended=task.state,
            error=task.error,
            follows=planned.record,
            otherwise=late,
        )
        try:
            counted = (await room.engine.settle([change]))[0]
        except StoreUnavailableError:
            room.endings.restore(delivery, before)
            room.endings.release(planned)
            raise
        room.boxes.written(delivery)
        room.endings.done(delivery, before[1])
        if not holds:
            room.leases.answered(delivery, by)
        if not counted:
            room.endings.release(planned)
            return Finished("late", task)
        room.accept(planned.deliveries)
        room.tell(delivery)
        return Finished("done", task)

    async def cancel(self, task_id: str) -> Task:
        """Take a task back; the peer that has it is told if it can be.

        Raises:
            NotFoundError: no such task.
            ConflictError: it has ended already.
            StoreUnavailableError: nothing was changed.
        """
        return await self._alone(task_id, self._cancel(task_id))

    async def _cancel(self, task_id: str) -> Task:
        room = self._room
        task, delivery = await self._find(task_id)
        if task is None:
            raise NotFoundError(f"no task {task_id!r}")
        if delivery is None or delivery.state is DeliveryState.DONE:
            raise ConflictError(f"task {task_id!r} is {task.state} already")
        before = memory_of(delivery)
        in_flight = delivery.state is DeliveryState.IN_FLIGHT
        address = delivery.endpoint
        if in_flight:
            room.leases.grace(delivery)
        room.endings.forget(delivery)
        now_us = room.clock.now_us()
        delivery.state = DeliveryState.DONE
        delivery.outcome = Outcome.DROPPED
        delivery.reason = "cancelled"
        delivery.lease_until_us = None
        delivery.updated_us = now_us
        task = after(task, delivery, now_us=now_us)
        delivery.task = task
        assert room.follow is not None
        planned = room.follow.result(task, delivery)
        change = Change(delivery=delivery, task=task, ended="cancelled", follows=planned.record)
        try:
            counted = (await room.engine.settle([change]))[0]
        except StoreUnavailableError:
            room.endings.restore(delivery, before)
            room.endings.release(planned)
            raise
        room.boxes.written(delivery)
        room.endings.done(delivery, before[1])
        if not counted:
            room.endings.release(planned)
            raise ConflictError(f"task {task_id!r} ended meanwhile")
        link = room.link_of(address or "")
        if in_flight and link is not None:
            link.endpoint.cancel(task_id)
        room.accept(planned.deliveries)
        room.tell(delivery)
        return task

    async def rerun(self, task_id: str, *, attempts: int | None = 1) -> Task:
        """Let a task that has ended run once more: a new delivery, one run more.

        Args:
            attempts: How many; None for as many as at first.

        Raises:
            NotFoundError: no such task.
            ConflictError: it has not ended, or is an orphan, or somebody else was quicker.
            StoreUnavailableError: nothing was changed.
        """
        return await self._alone(task_id, self._rerun(task_id, attempts))

    async def _rerun(self, task_id: str, attempts: int | None) -> Task:
        def find(session: Session) -> tuple[Task, Delivery] | None:
            task = task_reads.one(session, task_id)
            if task is None:
                return None
            delivery = reads.of_task(session, task_id)
            if delivery is None or not task.state.final:
                raise ConflictError(
                    f"task {task_id!r} is {task.state}; only a task that has ended "
                    "and has a request can run again"
                )
            return task, delivery

        found = await self._database.read(find)
        if found is None:
            raise NotFoundError(f"no task {task_id!r}")
        room = self._room
        assert room.follow is not None
        planned, task = room.follow.rerun(*found, attempts)
        try:
            kept = await room.engine.keep(planned.record)
        except StoreUnavailableError:
            room.endings.release(planned)
            raise
        if kept.verdict != "kept":
            room.endings.release(planned)
            raise ConflictError(f"task {task_id!r} was started again by somebody else")
        room.accept(planned.deliveries)
        if planned.deliveries:
            room.tell(planned.deliveries[0])
        return task

    async def find(self, task_id: str) -> Task | None:
        """Return a task as it is now."""
        return (await self._find(task_id))[0]

    async def _find(self, task_id: str) -> tuple[Task | None, Delivery | None]:
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

    async def _was_given(self, task: Task, by: str) -> bool:
        """Tell whether an endpoint ever was handed this run."""
        given = await self._database.read(lambda s: task_reads.attempts(s, task.id))
        return any(row.endpoint == by and row.run == task.run for row in given)

    async def _late(
        self, delivery: Delivery | None, result: TaskResult, by: str, late_rows: Sequence[Row]
    ) -> None:
        record = late_record(delivery, result, by) if delivery is not None else Record()
        record.rows += late_rows
        if delivery is not None:
            self._room.leases.answered(delivery, by)
        await self._room.engine.keep(record)


def _first(box: Mailbox, task_types: frozenset[str] | None, now_us: int) -> Delivery | None:
    if task_types is None:
        return box.line.find(_leased, now_us=now_us)
    return box.line.find(lambda d: d.leased and d.task_type in task_types, now_us=now_us)


def _leased(delivery: Delivery) -> bool:
    return delivery.leased
