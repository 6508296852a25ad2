"""The one task model, pure: (task, what happened to its delivery, now) to (task, what to publish).

A task's state is a function of its delivery: `state_of`. Attempts, leases and deadlines belong to
the delivery; this module counts and times nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from hubbub.envelope import TASK_REQUEST, TASK_RESULT, TASK_UPDATE, Envelope, encode_json
from hubbub.errors import InvalidError
from hubbub.subjects import escape
from hubbub.values import (
    Delivery,
    DeliveryState,
    Outcome,
    Submission,
    Task,
    TaskResult,
    TaskState,
)

__all__ = [
    "TaskRequest",
    "TaskUpdate",
    "after",
    "new_run",
    "new_task",
    "read_request",
    "read_result",
    "read_update",
    "request_envelope",
    "request_subject",
    "result_envelope",
    "state_of",
    "task_subject",
    "update_envelope",
]

MAX_TASK_ID: Final = 128

TIMEOUT_REASON: Final = "timeout"


class TaskRequest(msgspec.Struct, frozen=True):
    """What the hub itself reads of `hubbub.task.request.v1`; `params` is the worker's."""

    task_type: str
    task_id: str | None = None
    labels: dict[str, str] = {}
    timeout_s: float | None = None
    max_attempts: int | None = None
    not_before: float | str | None = None
    retry_on_failure: bool = False


class TaskUpdate(msgspec.Struct, frozen=True):
    """What the hub itself reads of `hubbub.task.update.v1`."""

    task_id: str
    state: str = TaskState.DISPATCHED.value


_read_request = msgspec.json.Decoder(TaskRequest).decode
_read_result = msgspec.json.Decoder(TaskResult).decode
_read_update = msgspec.json.Decoder(TaskUpdate).decode
_TASK_ID_SIGNS: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
)


def read_request(envelope: Envelope) -> TaskRequest:
    """Read the data of a task request.

    Raises:
        InvalidError: a member is missing or of the wrong kind, or the id has forbidden signs.
    """
    try:
        request = _read_request(envelope.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidError(
            f"data is no task request: {error}; it needs at least a text `task_type`"
        ) from error
    if request.task_id is not None:
        check_task_id(request.task_id)
    if not request.task_type:
        raise InvalidError("`task_type` is empty; say what kind of work this is")
    if request.max_attempts is not None and not 1 <= request.max_attempts <= 1000:  # noqa: PLR2004
        raise InvalidError(f"`max_attempts` is {request.max_attempts}, it must be 1 to 1000")
    if request.timeout_s is not None and not 0 < request.timeout_s <= 30 * 86400:
        raise InvalidError(
            f"`timeout_s` is {request.timeout_s}, it must be over 0 and up to 30 days"
        )
    return request


def check_task_id(task_id: str) -> str:
    """Return a task id that may be used.

    Raises:
        InvalidError: empty, too long, or signs other than `A-Za-z0-9_.:-`.
    """
    if not 1 <= len(task_id) <= MAX_TASK_ID or not _TASK_ID_SIGNS.issuperset(task_id):
        raise InvalidError(
            f"task id {task_id[:64]!r} is not valid; use 1 to {MAX_TASK_ID} of A-Z a-z 0-9 _ . : -"
        )
    return task_id


def read_result(envelope: Envelope) -> TaskResult:
    """Read the data of a task result.

    Raises:
        InvalidError: a member is missing or of the wrong kind.
    """
    try:
        result = _read_result(envelope.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidError(
            f"data is no task result: {error}; it needs `task_id` and `state`"
        ) from error
    if result.state not in ("completed", "failed", "timeout", "cancelled"):
        raise InvalidError(
            f"task state {result.state!r} is no final one; "
            "use completed, failed, timeout or cancelled"
        )
    return result


def read_update(envelope: Envelope) -> TaskUpdate:
    """Read the data of a sign of progress.

    Raises:
        InvalidError: a member is missing or of the wrong kind.
    """
    try:
        return _read_update(envelope.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidError(f"data is no task update: {error}; it needs `task_id`") from error


def state_of(delivery: Delivery, *, said: str | None = None) -> TaskState:
    """Return what a task is when its delivery is so.

    Args:
        said: State in the worker's result, when the delivery ended with one.
    """
    if delivery.state is DeliveryState.PENDING:
        return TaskState.QUEUED
    if delivery.state is DeliveryState.IN_FLIGHT:
        return TaskState.DISPATCHED
    match delivery.outcome:
        case Outcome.DELIVERED:
            return TaskState.COMPLETED if said == "completed" else TaskState.FAILED
        case Outcome.DEAD if delivery.reason == TIMEOUT_REASON:
            return TaskState.TIMEOUT
        case Outcome.DROPPED if delivery.reason == "cancelled":
            return TaskState.CANCELLED
        case _:
            return TaskState.FAILED


def new_task(envelope: Envelope, request: TaskRequest, delivery: Delivery, *, seq: int) -> Task:
    """Return the task of a request whose delivery was planned; failed already if that is done."""
    now_us = envelope.time_us
    dead = delivery.state is DeliveryState.DONE
    return Task(
        id=request.task_id or envelope.id,
        seq=seq,
        envelope_seq=seq,
        envelope_id=envelope.id,
        task_type=request.task_type,
        asker=envelope.source,
        reply_to=envelope.reply_to,
        state=state_of(delivery),
        error=delivery.reason if dead else None,
        delivery_id=delivery.id,
        retry_on_failure=request.retry_on_failure,
        trace_id=envelope.trace_id,
        created_us=now_us,
        updated_us=now_us,
        finished_us=now_us if dead else None,
    )


def new_run(task: Task, delivery: Delivery, *, now_us: int) -> Task:
    """Return a finished task on its next run, whose delivery was planned."""
    dead = delivery.state is DeliveryState.DONE
    return msgspec.structs.replace(
        task,
        state=state_of(delivery),
        run=task.run + 1,
        delivery_id=delivery.id,
        endpoint=None,
        attempt=0,
        result=None,
        error=delivery.reason if dead else None,
        updated_us=now_us,
        finished_us=now_us if dead else None,
    )


def after(task: Task, delivery: Delivery, *, now_us: int, result: TaskResult | None = None) -> Task:
    """Return the task as its delivery makes it.

    Args:
        result: The worker's result, when it ended the delivery.
    """
    state = state_of(delivery, said=result.state if result else None)
    error: str | None = None
    if result is not None:
        error = result.error or (None if state is TaskState.COMPLETED else "error")
    elif state.final:
        error = delivery.reason or "error"
    return msgspec.structs.replace(
        task,
        state=state,
        endpoint=delivery.endpoint,
        attempt=delivery.attempts,
        result=bytes(result.result) if result is not None else None,
        error=error,
        updated_us=now_us,
        finished_us=now_us if state.final else None,
    )


def request_envelope(work: Submission) -> Envelope:
    """Return the canonical request of a task; what it says is checked when it is published."""
    data: dict[str, object] = {"task_type": work.task_type, "params": work.params}
    given = {
        "task_id": work.task_id,
        "text": work.text,
        "labels": work.labels or None,
        "timeout_s": work.timeout_s,
        "max_attempts": work.max_attempts,
        "not_before": work.not_before,
        "retry_on_failure": work.retry_on_failure or None,
    }
    data.update((name, value) for name, value in given.items() if value is not None)
    data.update(work.more)
    return Envelope(
        source=work.source,
        subject=work.subject or request_subject(work.task_type),
        type=TASK_REQUEST,
        data=encode_json(data),
        key=work.key,
        priority=work.priority,
        reply_to=work.reply_to,
        to=work.to,
        expires_us=work.expires_us,
        idempotency_key=work.idempotency_key,
        traceparent=work.traceparent,
        durable=True,
        id=work.id,
        hops=work.hops,
    )


def request_subject(task_type: str) -> str:
    """Return where requests of that type are published when nothing else is said."""
    return f"tasks.{escape(task_type)}.request"


@lru_cache(maxsize=4096)
def _subject(task_type: str, state: str) -> str:
    return f"tasks.{escape(task_type)}.{state}"


def task_subject(task: Task) -> str:
    """Return where a task's state is told."""
    return _subject(task.task_type, task.state)


def update_envelope(task: Task, *, source: str) -> Envelope:
    """Return the volatile `hubbub.task.update.v1` that tells a change of state."""
    return Envelope(
        source=source,
        subject=task_subject(task),
        type=TASK_UPDATE,
        data=encode_json(
            {
                "task_id": task.id,
                "state": task.state,
                "attempt": task.attempt,
                "endpoint": task.endpoint,
            }
        ),
        durable=False,
    )


def result_envelope(task: Task, *, source: str) -> Envelope:
    """Return the durable `hubbub.task.result.v1` of a task that is final."""
    return Envelope(
        source=source,
        subject=task_subject(task),
        type=TASK_RESULT,
        data=encode_json(
            {
                "task_id": task.id,
                "state": task.state,
                "result": msgspec.Raw(task.result or b"null"),
                "error": task.error,
            }
        ),
        in_reply_to=task.envelope_id,
        to=(),
        durable=True,
    )
