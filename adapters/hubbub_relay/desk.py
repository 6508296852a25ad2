"""What the relay does for those who send, take and look: typed requests to typed answers."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from hubbub import Envelope, Hub, Receipt
from hubbub.envelope import CHAT_MESSAGE
from hubbub.errors import ConflictError, ForbiddenError, HubError, InvalidError, NotFoundError
from hubbub.outgoing import Outgoing
from hubbub.ports import Clock, Leased, Row
from hubbub.subjects import escape
from hubbub.values import Delivery, Submission, Task, TaskState
from hubbub_relay import events
from hubbub_relay.afterwards import Afterwards
from hubbub_relay.config import RelaySettings
from hubbub_relay.endpoint import Logged, address_of
from hubbub_relay.events import event_row
from hubbub_relay.keys import ANONYMOUS, Caller
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.mirror import Mirror
from hubbub_relay.names import Names
from hubbub_relay.sagas import saga_row
from hubbub_relay.wire import (
    LogsQuery,
    RelayError,
    RenewRequest,
    SendRequest,
    TasksQuery,
    chat_data,
    leased_task,
    log_record,
    read_send,
    task_of,
    utc_time,
)

__all__ = ["Desk", "RelayState", "TaskIds", "is_ours", "state_of"]

RowsOf = Callable[[Sequence[Delivery]], Iterator[Row] | tuple[Row]]

RelayState = str
"""`pending`, `processing`, `completed` or `failed`."""

_STATES: Final = {
    TaskState.QUEUED: "pending",
    TaskState.DISPATCHED: "processing",
    TaskState.COMPLETED: "completed",
}
_COUNTER: Final = 1_000_000
_CLEAR_STEP: Final = 5000


def state_of(task: Task) -> RelayState:
    """Return what the relay says of a task."""
    return _STATES.get(task.state, "failed")


class TaskIds:
    """Makes ids: `t_`, 13 digits of milliseconds, 6 digits that count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counter = secrets.randbelow(_COUNTER)

    def next(self) -> str:
        """Return an id that this process has not made in this millisecond."""
        self._counter = (self._counter + 1) % _COUNTER
        return f"t_{self._clock.now_us() // 1000:013d}{self._counter:06d}"

    @staticmethod
    def of_key(owner: str, key: str) -> str:
        """Return the id of what an idempotency key names: the same one each time.

        It begins with 9, where no id made of the time begins before the year 2255.
        """
        said = blake2b(f"{owner}\0{key}".encode(), digest_size=8).digest()
        return f"t_9{int.from_bytes(said) % 10**18:018d}"


class Sent(msgspec.Struct, frozen=True):
    """What became of a `send`."""

    task_id: str | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What `task-status` tells."""

    task: Task
    state: RelayState


class Desk:
    """Takes requests of callers that are known already."""

    def __init__(  # the rooms it works with
        self,
        hub: Hub,
        settings: RelaySettings,
        *,
        names: Names,
        logged: Logged,
        afterwards: Afterwards,
        outgoing: Outgoing,
        metrics: RelayMetrics,
        mirror: Mirror | None,
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._names = names
        self._logged = logged
        self._afterwards = afterwards
        self._outgoing = outgoing
        self._metrics = metrics
        self._mirror = mirror
        self._ids = TaskIds(hub.clock)
        self._trace_tail = secrets.randbits(63)

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return self._hub.clock.now_us() // 1000

    # Send

    async def send(
        self, request: SendRequest, caller: Caller, *, traceparent: str | None = None
    ) -> Sent:
        """Take a task or a message; returns when it is safe.

        Raises:
            RelayError: outside the caller's limits, too many names, or a URL that is refused.
            HubError: the hub refused it.
        """
        caller.check_names(
            sender=request.sender,
            to=request.to,
            cmd=(request.cmd or "") if request.is_task else None,
        )
        for name in (request.sender, request.to):
            if name not in self._names:
                await self._names.add(name)
        if traceparent is None:
            traceparent = self._new_trace()
        if request.is_task:
            return await self._send_task(request, caller, traceparent)
        return await self._send_message(request, caller, traceparent)

    async def _send_task(self, request: SendRequest, caller: Caller, traceparent: str) -> Sent:
        if request.callback_url is not None:
            if not caller.signs:
                raise RelayError("callback_url needs an API key, a token signs nothing")
            await self._check_url(request.callback_url)
        task_id, own = request.task_id, False
        if task_id is None and request.idempotency_key is not None:
            task_id = self._ids.of_key(caller.name, request.idempotency_key)
        elif task_id is None:
            task_id, own = self._ids.next(), True
        while True:
            receipt = await self._publish_task(request, task_id, caller, traceparent)
            if not (own and receipt.duplicate):
                break
            task_id = self._ids.next()
        if receipt.duplicate and request.task_id is not None and receipt.task_id is not None:
            await self._run_again(request, caller, receipt.task_id)
        return Sent(receipt.task_id or task_id, receipt.duplicate)

    async def _publish_task(
        self, request: SendRequest, task_id: str, caller: Caller, traceparent: str
    ) -> Receipt:
        work = _task(request, task_id, caller, traceparent)
        url = request.callback_url
        now_ms = self.now_ms()
        saga = saga_row(request, task_id, now_ms=now_ms)

        def rows(planned: Sequence[Delivery]) -> Iterator[Row]:
            first = planned[0]
            members = request.members
            if members.get("task_id") != task_id:
                members = {**members, "task_id": task_id}
            yield event_row(
                "send",
                members,
                ts_ms=now_ms,
                task_id=task_id,
                trace_id=first.envelope.trace_id,
                mirrored=first.mailbox.startswith("relay."),
            )
            if url is not None:
                yield events.callback_row(task_id, url=url, key=caller.name, now_ms=now_ms)
            if saga is not None:
                yield saga

        if url is None and saga is None:
            return await self._submit(work, rows)
        self._afterwards.open(task_id, url=url, key=caller.name, saga=saga is not None)
        try:
            receipt = await self._submit(work, rows)
        except BaseException:
            self._afterwards.forget(task_id)
            raise
        if receipt.duplicate:
            self._afterwards.forget(task_id)
        return receipt

    async def queue(self, request: SendRequest, task_id: str, caller: Caller, row: Row) -> bool:
        """Queue a task that another relay had taken, with the record of it; False if it exists.

        Raises:
            HubError: the hub refused it.
        """
        for name in (request.sender, request.to):
            if name not in self._names:
                await self._names.add(name)
        work = _task(request, task_id, caller, self._new_trace())
        work = msgspec.structs.replace(work, idempotency_key=None)
        receipt = await self._submit(work, lambda _: (row,))
        return not receipt.duplicate

    async def _run_again(self, request: SendRequest, caller: Caller, task_id: str) -> None:
        """Queue a task again that was sent before, when it has failed."""
        task = await self._hub.work.find(task_id)
        if task is None or state_of(task) != "failed" or not await is_ours(self._hub, task):
            return
        if request.callback_url is not None:
            await self._afterwards.reopen(task_id, url=request.callback_url, key=caller.name)
        try:
            await self._hub.work.rerun(task_id, attempts=None)
        except (ConflictError, NotFoundError):
            return

    async def _send_message(self, request: SendRequest, caller: Caller, traceparent: str) -> Sent:
        address = address_of(request.to)
        envelope = Envelope(
            source=address_of(request.sender),
            subject=f"{address}.message",
            type=CHAT_MESSAGE,
            data=chat_data(request),
            priority=request.priority,
            idempotency_key=_scoped_key(request, caller),
            traceparent=traceparent,
        )
        row = event_row(
            "send",
            _echoed(request),
            ts_ms=self.now_ms(),
            task_id=request.task_id,
            trace_id=traceparent[3:35],
        )
        receipt = await self._publish(envelope, lambda _: (row,))
        return Sent(request.task_id, receipt.duplicate)

    async def _publish(self, envelope: Envelope, rows: RowsOf) -> Receipt:
        return await self._noted(envelope.trace_id, self._hub.publish(envelope, rows=rows))

    async def _submit(self, work: Submission, rows: RowsOf) -> Receipt:
        return await self._noted(work.traceparent[3:35], self._hub.submit(work, rows=rows))

    async def _noted(self, trace_id: str, publishing: Awaitable[Receipt]) -> Receipt:
        """Await what publishes a `send` whose log record is written with it."""
        request = self._logged.begin("send", trace_id)
        try:
            receipt = await publishing
        finally:
            self._logged.end(request)
        self._wake()
        return receipt

    async def _check_url(self, url: str) -> None:
        try:
            await self._outgoing.check(url)
        except (InvalidError, ForbiddenError) as error:
            raise RelayError(f"callback_url is refused: {error.message}") from error
        except HubError:
            return  # Its host is not found now; it is looked at again when the time has come.

    def _new_trace(self) -> str:
        tail = self._trace_tail = (self._trace_tail + 1) % 2**64
        return f"00-{self._hub.clock.now_us():016x}{tail:016x}-{tail or 1:016x}-01"

    async def make_up(self, task_id: str, body: bytes) -> None:
        """Queue what makes up for a task that failed, once however often it is asked for.

        Raises:
            HubError: the hub refused it.
        """
        request = read_send(body)
        own = self._ids.of_key("relay.saga", task_id)
        row = event_row(
            "send", {**request.members, "task_id": own}, ts_ms=self.now_ms(), task_id=own
        )
        await self.queue(request, own, ANONYMOUS, row)

    def _wake(self) -> None:
        if self._mirror is not None:
            self._mirror.wake()

    # Work

    async def lease(
        self, query: TasksQuery, caller: Caller, *, wait_s: float
    ) -> list[dict[str, object]]:
        """Take tasks that wait; returns what each one is.

        Raises:
            RelayError: outside the caller's limits, or too many names.
            HubError: nothing was taken.
        """
        caller.check_names(to=query.to)
        task_types = caller.commands(query.cmd)
        if not query.to.endswith("*") and query.to not in self._names:
            await self._names.add(query.to)
        lease_s = query.lease_s or self._settings.lease_seconds
        taken = await self._hub.work.lease(
            [address_of(name) for name in self._names.covered(query.to)],
            worker=query.worker or caller.name,
            limit=query.limit,
            lease_us=int(lease_s * 1e6),
            task_types=task_types,
            wait_us=int(wait_s * 1e6),
        )
        return [self._shown(leased, query.to) for leased in taken]

    def _shown(self, leased: Leased, to: str) -> dict[str, object]:
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
            RelayError: no such task (404), or another worker's lease (409).
        """
        lease_s = request.lease_s or self._settings.lease_seconds
        try:
            until_us = await self._hub.work.renew(
                task_id, worker=request.worker or caller.name, lease_us=int(lease_s * 1e6)
            )
        except NotFoundError:
            raise RelayError("task not found", 404) from None
        except ConflictError as error:
            raise RelayError(error.message, 409) from error
        return utc_time(until_us)

    # Reading, clearing

    async def logs(self, query: LogsQuery) -> list[bytes]:
        """Return log records, oldest first."""
        found = await self._hub.read(lambda session: events.listed(session, query))
        return [
            log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
            for event in found
        ]

    async def status(self, task_id: str) -> Status | None:
        """Return how a task is; None when there is none of the relay's, or it was cleared."""
        task = await self._hub.work.find(task_id)
        if task is None:
            return None
        logged, shown = await self._hub.read(lambda session: events.known(session, task_id))
        if not shown and (logged or not _of_relay_names(task)):
            return None
        return Status(task, state_of(task))

    async def clear(self) -> int:
        """Hide all records there are; returns the newest one's id. Leases stay."""
        low, newest = await self._hub.read(events.bounds)
        now_ms = self.now_ms()
        if newest > low:
            # The newest one first: it hides all before it at once.
            await self._hub.execute(events.clear_step(newest - 1, newest, now_ms=now_ms))
        for start in range(low, newest - 1, _CLEAR_STEP):
            up_to = min(start + _CLEAR_STEP, newest - 1)
            await self._hub.execute(events.clear_step(start, up_to, now_ms=now_ms))
        if self._mirror is not None:
            await self._mirror.rotate(newest, now_ms=now_ms)
        return newest


async def is_ours(hub: Hub, task: Task) -> bool:
    """Tell whether a task came over the relay, or was given to one of its names."""
    if _of_relay_names(task):
        return True
    logged, _ = await hub.read(lambda session: events.known(session, task.id))
    return logged


def _of_relay_names(task: Task) -> bool:
    return task.asker.startswith("relay.") or (task.endpoint or "").startswith("relay.")


def _task(request: SendRequest, task_id: str, caller: Caller, traceparent: str) -> Submission:
    work = task_of(
        request,
        task_id,
        source=address_of(request.sender),
        subject=f"{address_of(request.to)}.task.{escape(request.cmd or 'task')}",
    )
    key = _scoped_key(request, caller)
    return msgspec.structs.replace(work, idempotency_key=key, traceparent=traceparent)


def _scoped_key(request: SendRequest, caller: Caller) -> str | None:
    """Return an idempotency key that is the caller's own."""
    if request.idempotency_key is None:
        return None
    owner = blake2b(caller.name.encode(), digest_size=8).hexdigest()
    return f"relay:{owner}:{request.idempotency_key}"


def _echoed(request: SendRequest) -> dict[str, object]:
    """Return the members of a message, with a task id that was given as a text."""
    if request.task_id is None or request.members["task_id"] == request.task_id:
        return request.members
    return {**request.members, "task_id": request.task_id}
