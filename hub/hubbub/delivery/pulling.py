"""Pulling: workers that ask for tasks, take them with a lease, renew it, or say that they began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubbub.delivery.courier import is_mine
from hubbub.delivery.ledger import Ledger
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import WINDOW, Mailbox, requirement_of
from hubbub.errors import ConflictError, NotFoundError, StoreUnavailableError
from hubbub.portions import PAGE_BYTES
from hubbub.ports import Change, Leased
from hubbub.values import Delivery, DeliveryState, Outcome

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Pulling"]


class Pulling:
    """What pull workers do. They have no slots: whoever asks is free."""

    def __init__(self, room: DeliveryRoom, ledger: Ledger) -> None:
        self._room = room
        self._ledger = ledger
        self._polling: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Workers that wait for something to take."""
        return len(self._polling)

    async def lease(
        self,
        patterns: Sequence[str],
        *,
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None = None,
        wait_us: int = 0,
        credential: str = "",
    ) -> list[Leased]:
        """Take up to `limit` tasks that wait for pull endpoints, lowest rank first.

        Fewer, or none, where the guard of an endpoint says so; who waits gets them in its time.
        Fewer too where they are large: at least one, and others up to `PAGE_BYTES`.

        Args:
            patterns: Addresses or patterns of the pull endpoints.
            task_types: Only these; None for all.
            wait_us: Wait so long for the first one.
            credential: What the worker came with; its leases end with it.

        Raises:
            StoreUnavailableError: nothing was taken.
        """
        until_us = self._room.clock.now_us() + wait_us
        while True:
            sources = self._sources(patterns)
            how = (worker, limit, lease_us, credential)
            taken = await self._take(sources, *how, task_types)
            if taken or self._closed or self._room.clock.now_us() >= until_us:
                return taken
            await self._arrival([box for _, box in sources], until_us)

    def close(self) -> None:
        """Answer all who wait, with nothing."""
        self._closed = True
        for future in self._polling:
            if not future.done():
                future.set_result(None)

    async def renew(
        self, task_id: str, *, worker: str | None, lease_us: int, credential: str = ""
    ) -> int:
        """Move the end of a lease; returns the new end, microseconds since the epoch.

        Args:
            credential: What the worker came with; the lease ends with it from here on.

        Raises:
            NotFoundError: no such task.
            ConflictError: it is not leased, or to somebody else.
        """
        delivery = self._room.in_hand.get(task_id)
        if delivery is None or delivery.state is not DeliveryState.IN_FLIGHT:
            if await self._ledger.task(task_id) is None:
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
        delivery.credential = credential or delivery.credential
        self._room.leases.watch(delivery)
        return until_us

    async def begin(
        self, task_id: str, *, worker: str, lease_us: int, credential: str = ""
    ) -> bool:
        """Note that a worker does a task it has not taken: one it read of elsewhere.

        Returns:
            False where it does not wait, or not for a pull endpoint that is here.

        Raises:
            StoreUnavailableError: nothing was changed.
        """
        return await self._ledger.alone(task_id, self._begin(task_id, worker, lease_us, credential))

    async def _begin(self, task_id: str, worker: str, lease_us: int, credential: str) -> bool:
        room = self._room
        _, delivery = await self._ledger.find(task_id)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            return False
        link = self._taker_of(delivery)
        over = delivery.deadline_us is not None and delivery.deadline_us <= room.clock.now_us()
        if link is None or over or delivery.attempts >= delivery.max_attempts:
            return False
        room.endings.forget(delivery)
        room.given(delivery, link.address)
        change = room.leases.lease(delivery, for_us=lease_us, worker=worker, credential=credential)
        attempt = delivery.attempts
        try:
            counted = (await room.engine.settle([change]))[0]
        except StoreUnavailableError:
            self._put_back(delivery, attempt)
            raise
        if counted and is_mine(delivery, attempt):
            room.tell(delivery, change.task)
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
        credential: str,
        task_types: frozenset[str] | None,
    ) -> list[Leased]:
        room = self._room
        taken: list[Delivery] = []
        left_bytes = PAGE_BYTES
        changes: list[Change] = []
        for _, box in sources:
            await self._read_more(box, task_types, limit)
        while len(taken) < limit:
            best = self._best([one for one in sources if room.leases.may_take(one[0])], task_types)
            if best is None:
                break
            link, box, delivery = best
            size_bytes = len(delivery.envelope.data)
            if taken and size_bytes > left_bytes:
                break
            excess = link.guard.excess(size_bytes) if link.guard else None
            if delivery.deadline_us is not None and delivery.deadline_us <= room.clock.now_us():
                room.endings.expire(delivery)
            elif delivery.attempts >= delivery.max_attempts:
                room.endings.end(delivery, Outcome.DEAD, delivery.last_error or "timeout")
            elif excess is not None:
                delivery.last_error = excess
                room.endings.end(delivery, Outcome.DEAD, "too_large")
            else:
                room.taken(box, delivery, link.address)
                if link.guard is not None:
                    room.guards.begun(link.guard, delivery)
                changes.append(
                    room.leases.lease(
                        delivery, for_us=lease_us, worker=worker, credential=credential
                    )
                )
                taken.append(delivery)
                left_bytes -= size_bytes
        if not taken:
            return []
        attempts = [delivery.attempts for delivery in taken]
        try:
            counted = await room.engine.settle(changes)
        except StoreUnavailableError:
            for delivery, attempt in zip(taken, attempts, strict=True):
                self._put_back(delivery, attempt)
            raise
        held = [change for change, holds in zip(changes, counted, strict=True) if holds]
        return [leased for change in held if (leased := self._leased(change)) is not None]

    def _leased(self, change: Change) -> Leased | None:
        """Return what a worker has by a lease that is written; None where that is over by now."""
        delivery, attempt = change.delivery, change.attempt
        assert attempt is not None
        if not is_mine(delivery, attempt.attempt):
            return None
        self._room.tell(delivery, change.task)
        until_us = delivery.lease_until_us or 0
        return Leased(delivery.envelope, attempt.task_id, attempt.attempt, until_us)

    def _put_back(self, delivery: Delivery, attempt: int) -> None:
        """Let a task wait whose lease could not be written, if that was not over before."""
        if is_mine(delivery, attempt):
            self._room.endings.put_back(delivery)

    async def _read_more(self, box: Mailbox, task_types: frozenset[str] | None, limit: int) -> None:
        """Read from the store what memory does not have and a filter may want."""
        room = self._room
        if _first(box, task_types, room.clock.now_us()) is not None:
            return
        await room.boxes.read_more(box)
        if task_types is None:
            return
        limit = min(limit, WINDOW)
        while box.behind > 0 and _first(box, task_types, room.clock.now_us()) is None:
            if not await room.boxes.fetch(box, task_types, limit=limit):
                return

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


def _first(box: Mailbox, task_types: frozenset[str] | None, now_us: int) -> Delivery | None:
    if task_types is None:
        return box.line.find(_leased, now_us=now_us)
    return box.line.find(lambda d: d.leased and d.task_type in task_types, now_us=now_us)


def _leased(delivery: Delivery) -> bool:
    return delivery.leased
