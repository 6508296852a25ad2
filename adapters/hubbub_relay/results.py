"""What workers say of tasks: results, signs of life, acknowledgements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from hubbub import Envelope, Hub
from hubbub.clock import seq_of_time
from hubbub.envelope import TASK_RESULT, TASK_UPDATE
from hubbub.errors import ConflictError, HubError, NotFoundError
from hubbub.ports import Finished, Record, Row
from hubbub.values import Task, TaskResult, TaskState
from hubbub_relay.config import RelaySettings
from hubbub_relay.endpoint import Logged, address_of
from hubbub_relay.events import event_row
from hubbub_relay.keys import Caller
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.states import is_ours, state_of
from hubbub_relay.wire import AckRequest, CallbackRequest

__all__ = ["Results"]

UNNAMED_CHILD: Final = "relay.callback"
"""Who brings a result that says no `child_id`."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Results:
    """Takes what workers say, from callers that are known already."""

    def __init__(
        self,
        hub: Hub,
        settings: RelaySettings,
        *,
        logged: Logged,
        metrics: RelayMetrics,
        ended: Callable[[str, str], None],
        wake: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            ended: Told the id and the state of a task that has ended.
            wake: Told that there are new records.
        """
        self._hub = hub
        self._settings = settings
        self._logged = logged
        self._metrics = metrics
        self._ended = ended
        self._wake = wake

    async def callback(self, request: CallbackRequest, caller: Caller) -> bool:
        """Take what a worker says of a task; True when the task had ended already.

        Raises:
            RelayError: `child_id` is outside the caller's limits.
            HubError: the hub could not keep it.
        """
        caller.check_names(sender=request.child_id)
        while True:
            task = await self._hub.work.current(request.task_id)
            ours = task is not None and await is_ours(self._hub, task)
            if request.status == "processing":
                await self._processing(request, task if ours else None)
                return False
            if task is not None and not ours:
                await self._keep(self._callback_row(request, ignored=True))
                return False
            if task is None:
                if await self._orphan(request):
                    await self._tell(request, None)
                    return False
                continue
            finished = await self._finish(request, task)
            if finished.verdict != "unknown":
                return await self._finished(request, finished)

    async def _finish(self, request: CallbackRequest, task: Task) -> Finished:
        failed = request.status == "failed"
        result = TaskResult(
            task_id=request.task_id,
            state=request.status,
            result=msgspec.Raw(request.result),
            error=_error_text(request) if failed else None,
        )
        logged = self._logged.begin("callback", request.task_id)
        try:
            return await self._hub.work.finish(
                result,
                by=_address_of_child(request),
                anyone=True,
                rows=[self._callback_row(request, final=True, trace_id=task.trace_id)],
            )
        finally:
            self._logged.end(logged)

    async def _finished(self, request: CallbackRequest, finished: Finished) -> bool:
        if finished.verdict == "done":
            self._ended(request.task_id, request.status)
            self._wake()
            await self._tell(request, finished.task)
            return False
        task = finished.task
        if finished.verdict == "again" or task is None:
            await self._keep(self._callback_row(request))
            return False
        self._metrics.duplicate_callbacks.inc()
        if state_of(task) != request.status or (task.result or b"null") != request.result:
            await self._keep(
                self._callback_row(request, ignored=True, trace_id=task.trace_id)
            )  # fmt: skip
        return True

    async def _processing(self, request: CallbackRequest, task: Task | None) -> None:
        """Renew the lease; a worker that read the mirror has none, and begins one by this."""
        if task is not None and not task.state.final:
            lease_us = int(self._settings.lease_seconds * 1e6)
            worker = request.child_id or UNNAMED_CHILD
            try:
                if not await self._hub.work.begin(task.id, worker=worker, lease_us=lease_us):
                    await self._hub.work.renew(task.id, worker=None, lease_us=lease_us)
            except (ConflictError, NotFoundError):
                log.debug("relay.processing_ignored", task=task.id)
        await self._keep(self._callback_row(request))
        await self._tell(request, task)

    async def _orphan(self, request: CallbackRequest) -> bool:
        """Keep a result nobody asked for; False when somebody asked meanwhile."""
        now_us = self._hub.clock.now_us()
        failed = request.status == "failed"
        task = Task(
            id=request.task_id,
            seq=seq_of_time(now_us),
            envelope_seq=None,
            envelope_id=None,
            task_type="task",
            asker=UNNAMED_CHILD,
            state=TaskState.FAILED if failed else TaskState.COMPLETED,
            endpoint=None if request.child_id is None else address_of(request.child_id),
            result=request.result,
            error=_error_text(request) if failed else None,
            orphan=True,
            created_us=now_us,
            updated_us=now_us,
            finished_us=now_us,
        )
        row = self._callback_row(request, final=True)
        kept = await self._hub.keep(Record(tasks=[task], rows=[row]))
        self._wake()
        return kept.verdict == "kept"

    def _callback_row(
        self,
        request: CallbackRequest,
        *,
        final: bool = False,
        ignored: bool = False,
        trace_id: str = "",
    ) -> Row:
        members = {**request.members, "ignored": True} if ignored else request.members
        return event_row(
            "callback",
            members,
            ts_ms=self._now_ms(),
            task_id=request.task_id,
            trace_id=trace_id,
            final=final,
        )

    async def ack(self, request: AckRequest, caller: Caller) -> None:
        """Log that somebody has seen a result; whether the task exists does not matter.

        Raises:
            RelayError: `ack_by` is outside the caller's limits.
            HubError: the hub could not keep it.
        """
        by = request.members.get("ack_by")
        caller.check_names(sender=by if isinstance(by, str) else None)
        await self._keep(
            event_row(
                "ack",
                request.members,
                ts_ms=self._now_ms(),
                task_id=request.task_id,
            )
        )

    def _now_ms(self) -> int:
        return self._hub.clock.now_us() // 1000

    async def _keep(self, *rows: Row) -> None:
        await self._hub.keep(Record(rows=list(rows)))
        self._wake()

    async def _tell(self, request: CallbackRequest, task: Task | None) -> None:
        """Publish what a worker said, if a route or somebody live wants to know."""
        source = _address_of_child(request)
        subject = f"{source}.callback"
        kind = TASK_UPDATE if request.status == "processing" else TASK_RESULT
        if not self._hub.wanted(subject, kind):
            return
        trace_id = "" if task is None else task.trace_id
        envelope = Envelope.new(
            source=source,
            subject=subject,
            type=kind,
            data=_told(request, task),
            traceparent=f"00-{trace_id}-{trace_id[16:]}-01" if trace_id else "",
        )
        try:
            await self._hub.publish(envelope)
        except HubError as error:  # what was said is kept; the worker is not to say it again
            log.warning("relay.callback_untold", task=request.task_id, error=str(error))


def _told(request: CallbackRequest, task: Task | None) -> dict[str, object]:
    """Return what a worker said as the data of a canonical type, with its own under `relay`."""
    own = {k: v for k, v in request.members.items() if k not in ("task_id", "result")}
    if request.status == "processing":
        return {
            "task_id": request.task_id,
            "state": TaskState.DISPATCHED,
            "attempt": 0 if task is None else task.attempt,
            "endpoint": _address_of_child(request),
            "relay": own,
        }
    told: dict[str, object] = {
        "task_id": request.task_id,
        "state": request.status,
        "result": request.members.get("result"),
        "relay": own,
    }
    return told | {"error": _error_text(request)} if request.status == "failed" else told


def _address_of_child(request: CallbackRequest) -> str:
    return UNNAMED_CHILD if request.child_id is None else address_of(request.child_id)


def _error_text(request: CallbackRequest) -> str:
    result = request.members.get("result")
    return result[:256] if isinstance(result, str) and result else request.said or "failed"
