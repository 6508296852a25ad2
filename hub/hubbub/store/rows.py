"""Values to rows and back. Tuples in column order: the hot path makes no object per row.

A new row may be short: what it leaves out at its end is empty.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Row

from hubbub.envelope import Envelope, encode_json
from hubbub.ports import Claim, Stored
from hubbub.store.tables import DeliveryRow, EnvelopeRow, TaskRow
from hubbub.values import Attempt, Delivery, DeliveryState, Outcome, Task, TaskState

__all__ = [
    "ATTEMPTS",
    "CHANGING",
    "STATE",
    "TASK_CHANGING",
    "UPDATED",
    "Changed",
    "attempt_values",
    "changed_task_values",
    "changed_values",
    "claim_values",
    "delivery_of",
    "delivery_values",
    "envelope_of",
    "envelope_values",
    "task_of",
    "task_values",
]


_NOTHING = (None,) * 7


def envelope_values(stored: Stored) -> tuple[object, ...]:
    """Return the row of an envelope."""
    e = stored.envelope
    row = (
        stored.seq, e.id, e.source, e.subject, e.type, e.time_us, e.data, e.priority,
        e.traceparent[3:35], e.traceparent[36:52], e.hops,
    )  # fmt: skip
    rare = (
        e.key, e.reply_to, e.in_reply_to, encode_json(e.to).decode() if e.to else None,
        e.expires_us, stored.reason, e.content_type,
    )  # fmt: skip
    return row if rare == _NOTHING else row + rare


def envelope_of(row: EnvelopeRow | Row[Any]) -> Envelope:
    """Return the envelope of a row."""
    envelope = Envelope(  # 15 keywords: with more, CPython makes a dict first
        id=row.id,
        source=row.source,
        subject=row.subject,
        type=row.type,
        time_us=row.time_us,
        data=bytes(row.data),
        key=row.key,
        priority=row.priority,
        reply_to=row.reply_to,
        in_reply_to=row.in_reply_to,
        to=tuple(msgspec.json.decode(row.to_json, type=list[str])) if row.to_json else (),
        expires_us=row.expires_us,
        traceparent=f"00-{row.trace_id}-{row.span_id}-01",
        hops=row.hops,
        durable=True,
    )
    kind = row.content_type
    return envelope if kind is None else envelope.replace(content_type=kind)


def delivery_values(d: Delivery) -> tuple[object, ...]:
    """Return the row of a new delivery."""
    row = (
        d.id, d.seq, d.mailbox, d.route, d.leased, d.rank, d.lane, d.max_attempts, d.timeout_us,
        d.wait_us, d.hold, d.created_us, d.task_id, d.task_type, d.replay_of, d.transform,
        d.state, d.attempts, d.due_us, d.deadline_us, d.updated_us,
    )  # fmt: skip
    later = (d.endpoint, d.outcome, d.reason, d.lease_until_us, d.pulled_by, d.last_error)
    return row if later == _NOTHING[:6] else row + later


CHANGING: Final = (
    "endpoint", "state", "outcome", "reason", "attempts", "due_us", "deadline_us",
    "lease_until_us", "pulled_by", "last_error", "updated_us",
)  # fmt: skip
"""Columns of a delivery that change as it lives, in the order of `changed_values`."""

Changed = tuple[
    str | None, DeliveryState, Outcome | None, str | None, int, int, int | None,
    int | None, str | None, str | None, int, int,
]  # fmt: skip
"""What `CHANGING` names, then the id."""

STATE: Final = 1
ATTEMPTS: Final = 4
UPDATED: Final = 10
"""Places in `Changed`."""


def changed_values(d: Delivery) -> Changed:
    """Return what changes in a delivery, its id last."""
    return (
        d.endpoint, d.state, d.outcome, d.reason, d.attempts, d.due_us, d.deadline_us,
        d.lease_until_us, d.pulled_by, d.last_error, d.updated_us, d.id,
    )  # fmt: skip


def delivery_of(row: DeliveryRow | Row[Any], envelope: Envelope) -> Delivery:
    """Return the delivery of a row."""
    return Delivery(
        id=row.id,
        envelope=envelope,
        seq=row.envelope_seq,
        mailbox=row.mailbox,
        route=row.route,
        leased=row.leased,
        rank=row.rank,
        lane=row.lane,
        max_attempts=row.max_attempts,
        timeout_us=row.timeout_us,
        wait_us=row.wait_us,
        hold=row.hold,
        created_us=row.created_us,
        task_id=row.task_id,
        task_type=row.task_type,
        replay_of=row.replay_of,
        transform=row.transform,
        endpoint=row.endpoint,
        state=DeliveryState(row.state),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        reason=row.reason,
        attempts=row.attempts,
        due_us=row.due_us,
        deadline_us=row.deadline_us,
        lease_until_us=row.lease_until_us,
        pulled_by=row.pulled_by,
        last_error=row.last_error,
        updated_us=row.updated_us,
    )


def task_values(t: Task) -> tuple[object, ...]:
    """Return the row of a new task."""
    row = (
        t.id, t.seq, t.envelope_seq, t.envelope_id, t.task_type, t.asker, t.reply_to, t.state,
        t.run, t.delivery_id, t.attempt, t.orphan, t.retry_on_failure, t.trace_id, t.created_us,
        t.updated_us,
    )  # fmt: skip
    later = (t.endpoint, t.result, t.error, t.finished_us)
    return row if later == _NOTHING[:4] else row + later


TASK_CHANGING: Final = (
    "state", "run", "delivery_id", "endpoint", "attempt", "result", "error", "updated_us",
    "finished_us",
)  # fmt: skip
"""Columns of a task that change as it lives, in the order of `changed_task_values`."""


def changed_task_values(t: Task) -> tuple[object, ...]:
    """Return what changes in a task, its id last."""
    return (
        t.state, t.run, t.delivery_id, t.endpoint, t.attempt, t.result, t.error, t.updated_us,
        t.finished_us, t.id,
    )  # fmt: skip


def task_of(row: TaskRow | Row[Any]) -> Task:
    """Return the task of a row."""
    return Task(
        id=row.id,
        seq=row.seq,
        envelope_seq=row.envelope_seq,
        envelope_id=row.envelope_id,
        task_type=row.task_type,
        asker=row.asker,
        reply_to=row.reply_to,
        state=TaskState(row.state),
        run=row.run,
        delivery_id=row.delivery_id,
        endpoint=row.endpoint,
        attempt=row.attempt,
        result=None if row.result is None else bytes(row.result),
        error=row.error,
        orphan=row.orphan,
        retry_on_failure=row.retry_on_failure,
        trace_id=row.trace_id,
        created_us=row.created_us,
        updated_us=row.updated_us,
        finished_us=row.finished_us,
    )


def attempt_values(a: Attempt) -> tuple[object, ...]:
    """Return the row of an attempt that began."""
    return (a.task_id, a.run, a.attempt, a.endpoint, a.worker, a.started_us, None, None, None)


def claim_values(c: Claim) -> tuple[object, ...]:
    """Return the row of a claim."""
    return (c.principal, c.kind, c.name, c.body_hash, c.answer, c.at_us)
