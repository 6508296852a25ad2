"""What the relay does for workers and for those who look: typed requests to typed answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlmodel import Session

from hubbub import Hub
from hubbub.errors import ConflictError, NotFoundError
from hubbub.ports import Leased
from hubbub.store.reads import tasks as reads
from hubbub.values import Task
from hubbub_relay import events
from hubbub_relay.config import RelaySettings
from hubbub_relay.endpoint import address_of
from hubbub_relay.keys import Caller
from hubbub_relay.limits import check_task, visible
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.mirror import Mirror
from hubbub_relay.names import Names
from hubbub_relay.states import RelayState, is_ours, state_of
from hubbub_relay.wire import (
    LogsQuery,
    RelayError,
    RenewRequest,
    TasksQuery,
    leased_task,
    log_record,
    utc_time,
)

__all__ = ["Desk", "Status"]

_CLEAR_STEP: Final = 5000

LOG_BYTES: Final = 1024 * 1024
"""Bytes of log records that are in memory at once for one reader, and at least one record."""


@dataclass(frozen=True, slots=True)
class Status:
    """What `task-status` tells."""

    task: Task
    state: RelayState


class Desk:
    """Serves callers that are known already."""

    def __init__(
        self,
        hub: Hub,
        settings: RelaySettings,
        *,
        names: Names,
        metrics: RelayMetrics,
        mirror: Mirror | None,
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._names = names
        self._metrics = metrics
        self._mirror = mirror

    # Work

    async def lease(self, query: TasksQuery, caller: Caller, *, wait_s: float) -> list[Leased]:
        """Take tasks that wait; `shown` tells what each one is.

        Raises:
            RelayError: outside the caller's limits, or too many names.
            HubError: nothing was taken.
        """
        caller.check_names(sender=query.worker, to=query.to)
        task_types = caller.commands(query.cmd)
        if not query.to.endswith("*") and query.to not in self._names:
            await self._names.add(query.to)
        lease_s = query.lease_s or self._settings.lease_seconds
        return await self._hub.work.lease(
            [address_of(name) for name in self._names.covered(query.to)],
            worker=query.worker or caller.name,
            limit=query.limit,
            lease_us=int(lease_s * 1e6),
            task_types=task_types,
            wait_us=int(wait_s * 1e6),
            credential=caller.credential,
        )

    def shown(self, leased: Leased, to: str) -> dict[str, object]:
        """Return a task as its worker is told of it."""
        if leased.attempt > 1:
            self._metrics.leases_expired.inc()
        return leased_task(
            leased.envelope,
            task_id=leased.task_id,
            to=to,
            attempt=leased.attempt,
            lease_until_us=leased.lease_until_us,
        )

    async def renew(self, task_id: str, request: RenewRequest, caller: Caller) -> str:
        """Move the end of a lease; returns it.

        Raises:
            RelayError: no such task (404), outside the caller's limits (403), or another worker's
                lease (409).
        """
        caller.check_names(sender=request.worker)
        task = await self._hub.work.find(task_id)
        if task is not None:
            await check_task(self._hub, caller, task)
        lease_s = request.lease_s or self._settings.lease_seconds
        try:
            until_us = await self._hub.work.renew(
                task_id,
                worker=request.worker or caller.name,
                lease_us=int(lease_s * 1e6),
                credential=caller.credential,
            )
        except NotFoundError:
            raise RelayError("task not found", 404) from None
        except ConflictError as error:
            raise RelayError(error.message, 409) from error
        return utc_time(until_us)

    # Reading, clearing

    async def logs(self, query: LogsQuery, reader: Caller) -> AsyncGenerator[list[bytes]]:
        """Yield log records within the reader's limits, oldest first, `LOG_BYTES` at once.

        They are those there were at the beginning, less those that are cleared meanwhile.

        Raises:
            RelayError: it asks for a name outside of them.
        """
        if query.to is not None and query.to not in reader.speaks_as:
            reader.check_names(to=query.to)
        only = visible(reader)
        ids = await self._hub.read(lambda session: events.chosen(session, query, only=only))
        while ids:
            records, looked_at = await self._hub.read(partial(_records, ids=ids))
            ids = ids[looked_at:]
            yield records

    async def status(self, task_id: str, reader: Caller) -> Status | None:
        """Return how a task is; None when there is none of the relay's, or it was cleared.

        Raises:
            RelayError: it is outside the reader's limits.
        """

        def read(session: Session) -> tuple[Task | None, tuple[bool, bool]]:
            return reads.one(session, task_id), events.known(session, task_id)

        task, (logged, shown) = await self._hub.read(read)
        if task is None or not await is_ours(self._hub, task):
            return None
        if logged and not shown:
            return None
        await check_task(self._hub, reader, task)
        return Status(task, state_of(task))

    async def clear(self) -> int:
        """Hide all records there are; returns the newest one's id. Leases stay."""
        low, newest = await self._hub.read(events.bounds)
        now_ms = self._hub.clock.now_us() // 1000
        if newest > low:
            # The newest one first: it hides all before it at once.
            await self._hub.execute(events.clear_step(newest - 1, newest, now_ms=now_ms))
        for start in range(low, newest - 1, _CLEAR_STEP):
            up_to = min(start + _CLEAR_STEP, newest - 1)
            await self._hub.execute(events.clear_step(start, up_to, now_ms=now_ms))
        if self._mirror is not None:
            await self._mirror.rotate(newest, now_ms=now_ms)
        return newest


def _records(session: Session, *, ids: Sequence[int]) -> tuple[list[bytes], int]:
    """Return the first of some records, and how many of the ids that were."""
    found, looked_at = events.some(session, ids, limit_bytes=LOG_BYTES)
    records = [
        log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id) for event in found
    ]
    return records, looked_at
