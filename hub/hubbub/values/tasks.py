"""Tasks: work with a result, from who asks to how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = ["Attempt", "Submission", "Task", "TaskResult", "TaskState"]


class TaskState(StrEnum):
    """Where a task is; a function of its delivery (`tasks.state_of`)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to this run."""
        return self not in (TaskState.QUEUED, TaskState.DISPATCHED)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Work with a result: who asked, its state, its result, its run.

    Attributes:
        seq: Its place in the journal; orders lists.
        asker: Source of the request.
        reply_to: Where the result goes.
        run: 1, and one more with each retry of a finished task.
        delivery_id: The delivery of this run; None for an orphan.
        result: JSON of the result, when there is one.
        error: Why it failed, as a code or as the worker's own words.
        orphan: A result for an id that nobody asked for.
    """

    id: str
    seq: int
    envelope_seq: int | None
    envelope_id: str | None
    task_type: str
    asker: str
    reply_to: str | None = None
    state: TaskState = TaskState.QUEUED
    run: int = 1
    delivery_id: int | None = None
    endpoint: str | None = None
    attempt: int = 0
    result: bytes | None = None
    error: str | None = None
    orphan: bool = False
    retry_on_failure: bool = False
    trace_id: str = ""
    created_us: int = 0
    updated_us: int = 0
    finished_us: int | None = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A task that somebody wants done, whoever asks and by whatever protocol.

    Attributes:
        task_type: What kind of work.
        source: Address of who asks.
        params: What the worker needs: a value, or JSON as `msgspec.Raw`.
        subject: Where it is published; None for `tasks.<task_type>.request`.
        to: Addresses or patterns of workers, past the routing table; a single address is a pin,
            and then labels do not count.
        labels: Labels a worker must have.
        timeout_s: Seconds of one attempt; None leaves it to route, adapter and core.
        max_attempts: None as above.
        not_before: Not handed over before: RFC 3339, or seconds since the epoch.
        retry_on_failure: Whether a result that says failed is tried again.
        reply_to: Address that gets the result, beside whoever has a route for it.
        more: Members of the request beside the hub's own, such as the asker's protocol's.
        id: Of the envelope, and of the task where `task_id` says none; made by the hub when empty.
        hops: Of the message that this task was made of.
    """

    task_type: str
    source: str
    params: object = msgspec.Raw(b"{}")
    task_id: str | None = None
    text: str | None = None
    subject: str | None = None
    to: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    priority: int = 5
    timeout_s: float | None = None
    max_attempts: int | None = None
    not_before: str | float | None = None
    retry_on_failure: bool = False
    key: str | None = None
    reply_to: str | None = None
    expires_us: int | None = None
    idempotency_key: str | None = None
    traceparent: str = ""
    more: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    id: str = ""
    hops: int = 0


class TaskResult(msgspec.Struct, frozen=True):
    """What the hub itself reads of `hubbub.task.result.v1`."""

    task_id: str
    state: str = "completed"
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """History: one hand-over of a task to one endpoint."""

    task_id: str
    run: int
    attempt: int
    endpoint: str
    worker: str | None
    started_us: int
