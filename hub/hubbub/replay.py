"""Dead letters: each goes out once more as a new delivery, or off the list for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import structlog

from hubbub.core import Core
from hubbub.delivery.mailbox import requirement_of
from hubbub.delivery.rules import deadline_of
from hubbub.envelope import Envelope, encode_json
from hubbub.errors import ConflictError, HubError, MailboxFullError, NotFoundError
from hubbub.lanes import rank_of
from hubbub.ports import Kept, Record
from hubbub.store.reads import deliveries as reads
from hubbub.store.reads.deliveries import DeliveryFilter
from hubbub.values import Delivery, DeliveryState, Outcome, Receipt

__all__ = ["Replayed", "Replays"]

PAGE = 500
"""Deliveries read at once."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Replayed:
    """How far a replay by filter is."""

    matched: int = 0
    replayed: int = 0
    refused: int = 0


class Replays:
    """Sends dead deliveries out once more."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def one(self, delivery_id: int) -> Delivery:
        """Replay one delivery: to the same mailbox, or as a new run of its task.

        Raises:
            NotFoundError: no such delivery.
            ConflictError: it is not dead.
            MailboxFullError: its mailbox takes no more.
            StoreUnavailableError: nothing was changed.
        """
        dead = await self._dead(delivery_id)
        if dead.leased and dead.task_id is not None:
            return await self._run_again(dead, dead.task_id)
        core = self._core
        again = self._copy(dead)
        box = core.room.boxes.get(again.mailbox)
        if box.full:
            raise MailboxFullError(mailbox=box.name, limit=box.limit)
        box.depth += 1

        def settled(kept: Kept | None) -> None:
            if kept is None:
                box.left()
            else:
                core.room.accept([again])

        await core.engine.keep(Record(deliveries=[again]), settled)
        return again

    async def one_with(self, delivery_id: int, data: object) -> Receipt:
        """Publish the envelope of a dead delivery anew, with other data, for the same endpoint.

        Raises:
            NotFoundError: no such delivery.
            ConflictError: it is not dead.
            HubError: the new envelope was refused.
        """
        dead = await self._dead(delivery_id)
        encoded = bytes(data) if isinstance(data, msgspec.Raw) else encode_json(data)
        own = requirement_of(dead.mailbox) is None
        before = dead.envelope
        envelope = Envelope(
            source=before.source,
            subject=before.subject,
            type=before.type,
            data=_without_task_id(encoded, dead.task_id),
            key=before.key,
            priority=before.priority,
            reply_to=before.reply_to,
            to=(dead.mailbox,) if own else before.to,
            traceparent=before.traceparent,
            durable=True,
        )
        return await self._core.router.publish(envelope)

    async def drop(self, delivery_id: int) -> Delivery:
        """Forget a dead delivery before its retention is over; returns what it was.

        Raises:
            NotFoundError: no such delivery.
            ConflictError: it is not dead.
            StoreUnavailableError: nothing was changed.
        """
        dead = await self._dead(delivery_id, "dropped")
        await self._core.journal.execute((reads.dropping(delivery_id), []))
        return dead

    async def many(
        self, wanted: DeliveryFilter, *, rate_per_s: float | None, dry_run: bool, wait_s: float
    ) -> Replayed:
        """Replay all dead deliveries of a filter that were not replayed before, oldest last.

        Args:
            wait_s: Return after so long; the rest is replayed in the background.
        """
        ids = await self._matching(replace(wanted, outcome=Outcome.DEAD, unreplayed=True))
        done = Replayed(matched=len(ids))
        if dry_run or not ids:
            return done
        task = self._core.spawn(self._all(ids, done, rate_per_s))
        await asyncio.wait([task], timeout=wait_s)
        return replace(done)

    async def _matching(self, wanted: DeliveryFilter) -> list[int]:
        ids: list[int] = []
        before: int | None = None
        while True:
            query = partial(reads.listed, wanted=wanted, before=before, limit=PAGE)
            found, after = await self._core.read(query)
            ids += [row.id for row, _, _ in found]
            if after is None:
                return ids
            before = after

    async def _all(self, ids: Sequence[int], done: Replayed, rate_per_s: float | None) -> None:
        """Replay in order of age, so that order per key is kept."""
        clock = self._core.clock
        due_us = clock.now_us()
        for delivery_id in reversed(ids):
            if rate_per_s is not None:
                await self._until(due_us)
                due_us += int(1e6 / rate_per_s)
            try:
                await self.one(delivery_id)
            except HubError as error:
                done.refused += 1
                log.warning("replay.refused", delivery=str(delivery_id), reason=error.code)
            else:
                done.replayed += 1

    async def _until(self, due_us: int) -> None:
        if due_us <= self._core.clock.now_us():
            return
        arrived = asyncio.get_running_loop().create_future()
        timer = self._core.clock.call_at(
            due_us, lambda: None if arrived.done() else arrived.set_result(None)
        )
        try:
            await arrived
        finally:
            timer.cancel()

    async def _dead(self, delivery_id: int, what: str = "replayed") -> Delivery:
        found = await self._core.read(lambda session: reads.one(session, delivery_id))
        if found is None:
            raise NotFoundError(f"no delivery {str(delivery_id)!r} is stored")
        if found.state is not DeliveryState.DONE or found.outcome is not Outcome.DEAD:
            raise ConflictError(
                f"delivery {str(delivery_id)!r} is {found.outcome or found.state}; "
                f"only a dead one can be {what}"
            )
        return found

    async def _run_again(self, dead: Delivery, task_id: str) -> Delivery:
        task = await self._core.work.rerun(task_id)
        again = await self._core.read(lambda session: reads.of_task(session, task_id))
        if again is None or again.id != task.delivery_id:
            raise ConflictError(f"task {task_id!r} of delivery {str(dead.id)!r} ended meanwhile")
        return again

    def _copy(self, dead: Delivery) -> Delivery:
        """Return the delivery as it was before its first attempt, under a new id."""
        core = self._core
        now_us = core.clock.now_us()
        again = Delivery(
            id=core.ids.seq(),
            envelope=dead.envelope,
            seq=dead.seq,
            mailbox=dead.mailbox,
            route=dead.route,
            durable=True,
            rank=rank_of(
                created_us=now_us,
                not_before_us=0,
                priority=dead.envelope.priority,
                keyed=dead.lane is not None,
            ),
            lane=dead.lane,
            max_attempts=dead.max_attempts,
            timeout_us=dead.timeout_us,
            wait_us=dead.wait_us,
            created_us=now_us,
            updated_us=now_us,
            transform=dead.transform,
            hold=dead.hold,
            replay_of=dead.id,
        )
        again.deadline_us = deadline_of(again, now_us=now_us)
        return again


def _without_task_id(data: bytes, task_id: str | None) -> bytes:
    """Take the id of the old task out of the data of a new one."""
    if task_id is None:
        return data
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return data
    members.pop("task_id", None)
    return encode_json(members)
