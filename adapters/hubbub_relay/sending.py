"""What senders give the relay: a task or a message, kept with its record in the log."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from hubbub import Envelope, Hub, Receipt
from hubbub.envelope import CHAT_MESSAGE
from hubbub.errors import ConflictError, ForbiddenError, HubError, InvalidError, NotFoundError
from hubbub.outgoing import Outgoing
from hubbub.ports import Row, RowsOf
from hubbub.subjects import escape
from hubbub.values import Delivery, Submission
from hubbub_relay import events
from hubbub_relay.afterwards import Afterwards
from hubbub_relay.endpoint import Logged, address_of
from hubbub_relay.events import event_row
from hubbub_relay.ids import TaskIds
from hubbub_relay.keys import ANONYMOUS, Caller, Keys
from hubbub_relay.limits import check_task, orphan_maker
from hubbub_relay.names import Names
from hubbub_relay.sagas import saga_row
from hubbub_relay.states import is_ours, state_of
from hubbub_relay.wire import FORBIDDEN, RelayError, SendRequest, chat_data, read_send, task_of

__all__ = ["Sending", "Sent"]


class Sent(msgspec.Struct, frozen=True):
    """What became of a `send`."""

    task_id: str | None
    duplicate: bool = False


class Sending:
    """Takes what callers send who are known already."""

    def __init__(
        self,
        hub: Hub,
        *,
        names: Names,
        logged: Logged,
        afterwards: Afterwards,
        keys: Keys,
        outgoing: Outgoing,
        wake: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._names = names
        self._logged = logged
        self._afterwards = afterwards
        self._keys = keys
        self._outgoing = outgoing
        self._wake = wake
        self._ids = TaskIds(hub.clock)
        self._trace_tail = secrets.randbits(63)

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return self._hub.clock.now_us() // 1000

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
        caller.check_names(cmd=request.compensate_cmd)
        if caller.limited and request.parent_task_id is not None:
            await self._check_known(caller, request.parent_task_id)
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
            if not receipt.duplicate:
                break
            if await self._made_way(receipt.task_id or task_id, request):
                continue
            if not own:
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

    async def _check_known(self, caller: Caller, task_id: str) -> None:
        """Check that a limited key may touch a task it names, which must be there for that.

        Raises:
            RelayError: it may not.
        """
        task = await self._hub.work.find(task_id)
        if task is None:
            raise RelayError(FORBIDDEN, 403)
        await check_task(self._hub, caller, task)

    async def _made_way(self, task_id: str, request: SendRequest) -> bool:
        """Take away what only a callback of a key knows that may not touch this task; tell if so.

        Else a limited key could end, by its id, a task that is still to be sent.
        """
        task = await self._hub.work.find(task_id)
        maker = None if task is None else orphan_maker(task)
        if task is None or maker is None:
            return False
        cmd = request.cmd or "task"
        if any(key.may_touch((request.to,), cmd) for key in self._keys.named(maker)):
            return False
        await self._hub.execute(events.forget_orphan(task_id, task.asker))
        return True

    async def _run_again(self, request: SendRequest, caller: Caller, task_id: str) -> None:
        """Queue a task again that was sent before, when it has failed."""
        task = await self._hub.work.find(task_id)
        if task is None:
            return
        await check_task(self._hub, caller, task)
        if state_of(task) != "failed" or not await is_ours(self._hub, task):
            return
        if request.callback_url is not None:
            await self._afterwards.reopen(task_id, url=request.callback_url, key=caller.name)
        try:
            await self._hub.work.rerun(task_id, attempts=None)
        except (ConflictError, NotFoundError):
            return

    async def _send_message(self, request: SendRequest, caller: Caller, traceparent: str) -> Sent:
        if caller.limited and request.task_id is not None:
            task = await self._hub.work.find(request.task_id)
            if task is not None:
                await check_task(self._hub, caller, task)
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
        receipt = await self._noted(
            envelope.trace_id, self._hub.publish(envelope, rows=lambda _: (row,))
        )
        return Sent(request.task_id, receipt.duplicate)

    def _submit(self, work: Submission, rows: RowsOf) -> Awaitable[Receipt]:
        return self._noted(work.traceparent[3:35], self._hub.submit(work, rows=rows))

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


def _task(request: SendRequest, task_id: str, caller: Caller, traceparent: str) -> Submission:
    return task_of(
        request,
        task_id,
        source=address_of(request.sender),
        subject=f"{address_of(request.to)}.task.{escape(request.cmd or 'task')}",
        idempotency_key=_scoped_key(request, caller),
        traceparent=traceparent,
    )


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
