"""Traces: every step of a message, put together from the rows that tell them and the ring."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlmodel import Session

from hubbub.core import Core
from hubbub.envelope import rfc3339
from hubbub.errors import NotFoundError
from hubbub.observe.tracing import Step
from hubbub.ports import Stored
from hubbub.store.reads import deliveries as delivery_reads
from hubbub.store.reads import envelopes as envelope_reads
from hubbub.store.reads import tasks as task_reads
from hubbub.store.tables import DeliveryRow, SpanRow, TaskAttemptRow
from hubbub.values import Delivery, DeliveryState, Task
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.encoding import Listing, Turns
from hubbub.web.shapes_of_the_hub import Trace
from hubbub.web.views import target_of

__all__ = ["OPERATIONS", "Span"]

CHUNK: Final = 1000
"""Steps of a trace that are sorted at once."""


class Span(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step.

    Attributes:
        at: When it was done; `took_ms` is how long before that it began.
    """

    name: str
    at: str
    took_ms: float
    span_id: str | None = None
    envelope: str | None = None
    endpoint: str | None = None
    detail: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class _Told:
    """What the store tells of a trace."""

    envelopes: Sequence[Stored]
    deliveries: Sequence[DeliveryRow]
    tasks: Sequence[Task]
    attempts: Sequence[TaskAttemptRow]
    spans: Sequence[SpanRow]


_Placed = tuple[int, int, Span]
"""When, which of several at that time, and the step."""


async def show(call: Call) -> Reply:
    """Show all steps of a trace, in order."""
    trace_id = call.params["id"]
    await call.settled()
    chunks = await _chunks_of(call.core, trace_id)
    if not chunks:
        raise NotFoundError(
            f"no trace {trace_id[:64]!r} is known; steps of volatile messages are forgotten after "
            "a while, those of durable ones after store.retention"
        )
    in_order = heapq.merge(*chunks, key=_place)
    spans = (span for _, _, span in in_order)
    return Reply(200, Listing("spans", spans, before={"trace_id": trace_id}))


def _place(one: _Placed) -> tuple[int, int]:
    return one[:2]


async def _chunks_of(core: Core, trace_id: str) -> list[list[_Placed]]:
    """Return the steps of a trace in chunks, each in order; none when it is unknown."""
    told = await core.read(lambda session: _told(session, trace_id))
    held = core.room.held(row.id for row in told.deliveries if row.state == DeliveryState.PENDING)
    chunks: list[list[_Placed]] = []
    turns = Turns()
    for one in _placed(told, held, core.tracer.of_trace(trace_id)):
        if not chunks or len(chunks[-1]) == CHUNK:
            chunks.append([])
        chunks[-1].append(one)
        await turns.give()
    for chunk in chunks:
        chunk.sort(key=_place)
        await turns.give()
    return chunks


def _placed(told: _Told, held: dict[int, Delivery], ring: Sequence[Step]) -> Iterator[_Placed]:
    ids = {stored.seq: stored.envelope.id for stored in told.envelopes}
    yield from _of_envelopes(told.envelopes)
    for row in told.deliveries:
        yield from _of_delivery(row, ids, held)
    for task in told.tasks:
        yield from _of_task(task)
    yield from map(_of_attempt, told.attempts)
    yield from _of_steps(told.spans, ring)


def _told(session: Session, trace_id: str) -> _Told:
    envelopes = envelope_reads.of_trace(session, trace_id)
    deliveries = delivery_reads.of_envelopes(session, [stored.seq for stored in envelopes])
    task_ids = sorted({row.task_id for row in deliveries if row.task_id is not None})
    return _Told(
        envelopes,
        deliveries,
        task_reads.without_results(session, task_ids),
        task_reads.attempts_of(session, task_ids),
        envelope_reads.spans_of(session, trace_id),
    )


def _span(  # what a step may say
    name: str,
    at_us: int,
    took_us: int,
    *,
    span_id: str | None = None,
    envelope: str | None = None,
    endpoint: str | None = None,
    detail: dict[str, Any],
) -> Span:
    return Span(
        name=name,
        at=rfc3339(at_us),
        took_ms=max(0, took_us) / 1000,
        span_id=span_id,
        envelope=envelope,
        endpoint=endpoint,
        detail=detail,
    )


def _of_envelopes(envelopes: Sequence[Stored]) -> Iterator[_Placed]:
    for stored in envelopes:
        envelope = stored.envelope
        name = "envelope.accepted" if stored.reason is None else "envelope.unrouted"
        detail: dict[str, Any] = {
            "subject": envelope.subject,
            "type": envelope.type,
            "source": envelope.source,
            "hops": envelope.hops,
        }
        if stored.reason is not None:
            detail["reason"] = stored.reason
        yield (
            envelope.time_us,
            0,
            _span(
                name,
                envelope.time_us,
                0,
                span_id=envelope.traceparent[36:52],
                envelope=envelope.id,
                detail=detail,
            ),
        )


def _of_delivery(
    row: DeliveryRow, ids: dict[int, str], held: dict[int, Delivery]
) -> Iterator[_Placed]:
    envelope = ids.get(row.envelope_seq)
    endpoint, pool = target_of(row)
    detail: dict[str, Any] = {"delivery": str(row.id), "route": row.route}
    if pool is not None:
        detail["pool"] = pool
    if row.replay_of is not None:
        detail["replay_of"] = str(row.replay_of)
    task = {} if row.task_id is None else {"task": row.task_id}
    detail |= task
    planned_for = None if pool is not None else endpoint
    planned = _span(
        "delivery.planned",
        row.created_us,
        0,
        envelope=envelope,
        endpoint=planned_for,
        detail=detail,
    )
    yield row.created_us, 2, planned
    now = held.get(row.id) or row
    name = {DeliveryState.DONE: f"delivery.{now.outcome}"}.get(
        DeliveryState(now.state), "delivery.in_flight"
    )
    if now.state == DeliveryState.PENDING or (now.leased and now.state != DeliveryState.DONE):
        return
    ended: dict[str, Any] = {"delivery": str(row.id), "attempts": now.attempts, **task}
    if now.reason is not None:
        ended["reason"] = now.reason
    took_us = now.updated_us - row.created_us
    yield (
        now.updated_us,
        5,
        _span(
            name, now.updated_us, took_us, envelope=envelope, endpoint=target_of(now)[0],
            detail=ended,
        ),
    )  # fmt: skip


def _of_task(task: Task) -> Iterator[_Placed]:
    facts: dict[str, Any] = {"task": task.id, "task_type": task.task_type}
    queued = _span("task.queued", task.created_us, 0, envelope=task.envelope_id, detail=dict(facts))
    yield task.created_us, 1, queued
    if task.finished_us is None:
        return
    facts["run"] = task.run
    if task.error is not None:
        facts["error"] = task.error
    yield (
        task.finished_us,
        6,
        _span(
            f"task.{task.state}",
            task.finished_us,
            task.finished_us - task.created_us,
            envelope=task.envelope_id,
            endpoint=task.endpoint,
            detail=facts,
        ),
    )


def _of_attempt(row: TaskAttemptRow) -> _Placed:
    detail: dict[str, Any] = {"task": row.task_id, "run": row.run, "attempt": row.attempt}
    if row.worker is not None:
        detail["worker"] = row.worker
    if row.outcome is not None:
        detail["outcome"] = row.outcome
    span = _span("task.leased", row.started_us, 0, endpoint=row.endpoint, detail=detail)
    return row.started_us, 3, span


def _of_steps(rows: Sequence[SpanRow], ring: Sequence[Step]) -> Iterator[_Placed]:
    """Yield steps with rows of their own, and those of the ring that have none."""
    seen: set[tuple[str, int, str]] = set()
    for row in rows:
        detail = msgspec.json.decode(row.detail, type=dict[str, Any])
        seen.add((row.name, row.at_us, str(detail.get("delivery"))))
        yield _of_step(row.name, row.at_us, row.took_us, detail)
    for step in ring:
        if (step.name, step.at_us, str(step.detail.get("delivery"))) not in seen:
            yield _of_step(step.name, step.at_us, step.took_us, dict(step.detail))


def _of_step(name: str, at_us: int, took_us: int, detail: dict[str, Any]) -> _Placed:
    endpoint = detail.pop("endpoint", None)
    known = {key: value for key, value in detail.items() if value is not None}
    done_us = at_us + took_us
    return done_us, 4, _span(name, done_us, took_us, endpoint=endpoint, detail=known)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/traces/{id}",
        show,
        "All steps of a trace",
        ("read",),
        Spec(answers={200: Trace}, problems=(404,)),
    ),
)
