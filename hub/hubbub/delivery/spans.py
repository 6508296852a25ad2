"""Steps of a delivery that no row of it tells afterwards: each retry, each late result.

Also when an attempt was written to a peer that acknowledges: its row tells when that did.
"""

from __future__ import annotations

from hubbub.envelope import encode_json
from hubbub.observe.tracing import Tracer
from hubbub.ports import Record
from hubbub.store.tables import SpanRow, table_of
from hubbub.values import Delivery, TaskResult

__all__ = ["late_record", "retry_record", "sent_record", "trace_end", "trace_retry", "trace_sent"]

_span = table_of(SpanRow)


def retry_record(delivery: Delivery, reason: str) -> Record:
    """Return the rows that remember a failed attempt; the delivery itself keeps only the last."""
    record = _record(delivery, "delivery.retry", reason, at_us=delivery.updated_us)
    sent = sent_record(delivery)
    if sent is not None:
        record.rows += sent.rows
    return record


def sent_record(delivery: Delivery) -> Record | None:
    """Return the row that remembers when an attempt was written; None where nobody noted it."""
    if delivery.sent_us is None:
        return None
    return _record(delivery, "delivery.sent", None, at_us=delivery.sent_us)


def late_record(delivery: Delivery, result: TaskResult, by: str, *, at_us: int) -> Record:
    """Return the row that remembers a result that came after another one, and who brought it."""
    facts = {"state": result.state, "error": result.error}
    return _record(delivery, "task.late", by, at_us=at_us, **facts)


def trace_sent(tracer: Tracer, delivery: Delivery, now_us: int) -> None:
    """Note that an attempt was written to a peer that is to acknowledge it."""
    delivery.sent_us = now_us
    tracer.step(delivery.envelope.trace_id, "delivery.sent", now_us, 0, _facts(delivery, None))


def trace_retry(tracer: Tracer, delivery: Delivery, reason: str) -> None:
    """Note a failed attempt in the ring."""
    tracer.step(
        delivery.envelope.trace_id,
        "delivery.retry",
        delivery.updated_us,
        0,
        _facts(delivery, reason),
    )


def trace_end(tracer: Tracer, delivery: Delivery) -> None:
    """Note an outcome in the ring; a durable one is told by its row."""
    if not delivery.durable:
        tracer.step(
            delivery.envelope.trace_id,
            f"delivery.{delivery.outcome}",
            delivery.created_us,
            delivery.updated_us - delivery.created_us,
            _facts(delivery, delivery.reason),
        )


def _facts(delivery: Delivery, reason: str | None) -> dict[str, object]:
    return {
        "delivery": str(delivery.id),
        "mailbox": delivery.mailbox,
        "endpoint": delivery.endpoint,
        "attempt": delivery.attempts,
        "reason": reason,
    }


def _record(
    delivery: Delivery, name: str, reason: str | None, *, at_us: int, **more: object
) -> Record:
    row = (
        delivery.envelope.trace_id,
        name,
        at_us,
        0,
        encode_json({**_facts(delivery, reason), **more}).decode(),
    )
    return Record(rows=[(_span, row)])
