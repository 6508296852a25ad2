"""Reads of deliveries: what waits, what is overdue, what ended how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from hubbub.store.rows import delivery_of, envelope_of, task_of
from hubbub.store.tables import DeliveryRow, EnvelopeRow, TaskRow
from hubbub.values import Delivery, DeliveryState

__all__ = [
    "DeliveryFilter",
    "counts",
    "due_mailboxes",
    "in_flight",
    "listed",
    "of_envelope",
    "of_task",
    "one",
    "overdue",
    "waiting",
]

OVERDUE_AT_ONCE = 500


def waiting(
    session: Session,
    mailbox: str,
    *,
    limit: int,
    now_us: int,
    skip_keys: frozenset[str] = frozenset(),
    task_type: str | None = None,
) -> list[Delivery]:
    """Return deliveries that may be handed over now, lowest rank first."""
    query = (
        select(DeliveryRow)
        .where(
            DeliveryRow.mailbox == mailbox,
            DeliveryRow.state != DeliveryState.DONE,
            DeliveryRow.state == DeliveryState.PENDING,
            DeliveryRow.due_us <= now_us,
        )
        .order_by(col(DeliveryRow.rank), col(DeliveryRow.id))
        .limit(limit)
    )
    if skip_keys:
        lane = col(DeliveryRow.lane)
        query = query.where(lane.is_(None) | lane.not_in(skip_keys))
    if task_type is not None:
        query = query.where(DeliveryRow.task_type == task_type)
    return _whole(session, session.exec(query).all())


def counts(session: Session) -> dict[str, int]:
    """Return how many deliveries wait, by mailbox."""
    query = (
        select(DeliveryRow.mailbox, func.count())
        .where(DeliveryRow.state != DeliveryState.DONE, DeliveryRow.state == DeliveryState.PENDING)
        .group_by(DeliveryRow.mailbox)
    )
    return dict(session.exec(query).all())


def due_mailboxes(session: Session, *, after_us: int, now_us: int) -> list[str]:
    """Return mailboxes in which something that waited for its time is due."""
    query = (
        select(DeliveryRow.mailbox)
        .where(
            DeliveryRow.state != DeliveryState.DONE,
            DeliveryRow.due_us > 0,
            DeliveryRow.due_us > after_us,
            DeliveryRow.due_us <= now_us,
        )
        .distinct()
    )
    return list(session.exec(query).all())


def overdue(session: Session, *, now_us: int) -> list[Delivery]:
    """Return waiting deliveries whose deadline has passed, a step's worth."""
    query = (
        select(DeliveryRow)
        .where(
            DeliveryRow.state != DeliveryState.DONE,
            DeliveryRow.state == DeliveryState.PENDING,
            col(DeliveryRow.deadline_us).is_not(None),
            col(DeliveryRow.deadline_us) <= now_us,
        )
        .order_by(col(DeliveryRow.deadline_us))
        .limit(OVERDUE_AT_ONCE)
    )
    return _whole(session, session.exec(query).all())


def in_flight(session: Session) -> list[Delivery]:
    """Return what was handed over as a task and is not done."""
    query = select(DeliveryRow).where(DeliveryRow.state == DeliveryState.IN_FLIGHT)
    return _whole(session, session.exec(query.order_by(col(DeliveryRow.id))).all())


def one(session: Session, delivery_id: int) -> Delivery | None:
    """Return one delivery."""
    row = session.get(DeliveryRow, delivery_id)
    return _whole(session, [row])[0] if row else None


def of_task(session: Session, task_id: str) -> Delivery | None:
    """Return the delivery of a task's latest run; None for an orphan or an unknown id."""
    task = session.get(TaskRow, task_id)
    if task is None or task.delivery_id is None:
        return None
    return one(session, task.delivery_id)


def of_envelope(session: Session, envelope_seq: int) -> list[DeliveryRow]:
    """Return all deliveries of one envelope, in order."""
    query = select(DeliveryRow).where(DeliveryRow.envelope_seq == envelope_seq)
    return list(session.exec(query.order_by(col(DeliveryRow.id))).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries a list shows; None is any."""

    outcome: str | None = None
    state: str | None = None
    endpoint: str | None = None
    route: str | None = None
    reason: str | None = None
    subject: str | None = None
    since_seq: int | None = None
    until_seq: int | None = None


def listed(
    session: Session, wanted: DeliveryFilter, *, before: int | None, limit: int
) -> list[tuple[DeliveryRow, str, str]]:
    """Return `(delivery, envelope id, subject)`, newest first."""
    query = (
        select(DeliveryRow, EnvelopeRow.id, EnvelopeRow.subject)
        .join(EnvelopeRow, col(EnvelopeRow.seq) == col(DeliveryRow.envelope_seq))
        .order_by(col(DeliveryRow.id).desc())
        .limit(limit)
    )
    equal = {
        DeliveryRow.outcome: wanted.outcome,
        DeliveryRow.state: wanted.state,
        DeliveryRow.route: wanted.route,
        DeliveryRow.reason: wanted.reason,
    }
    for column, value in equal.items():
        if value is not None:
            query = query.where(column == value)
    if wanted.endpoint is not None:
        query = query.where(
            (col(DeliveryRow.endpoint) == wanted.endpoint)
            | (col(DeliveryRow.mailbox) == wanted.endpoint)
        )
    if wanted.since_seq is not None:
        query = query.where(DeliveryRow.id >= wanted.since_seq)
    if wanted.until_seq is not None:
        query = query.where(DeliveryRow.id <= wanted.until_seq)
    if before is not None:
        query = query.where(DeliveryRow.id < before)
    return [(row[0], row[1], row[2]) for row in session.exec(query).all()]


def _whole(session: Session, rows: Sequence[DeliveryRow]) -> list[Delivery]:
    """Return deliveries with their envelopes and tasks, in two reads for all of them."""
    seqs = {row.envelope_seq for row in rows}
    if not seqs:
        return []
    envelopes = {
        row.seq: envelope_of(row)
        for row in session.exec(select(EnvelopeRow).where(col(EnvelopeRow.seq).in_(seqs)))
    }
    task_ids = {row.task_id for row in rows if row.task_id is not None}
    tasks = {
        row.id: task_of(row)
        for row in session.exec(select(TaskRow).where(col(TaskRow.id).in_(task_ids)))
    }
    whole: list[Delivery] = []
    for row in rows:
        delivery = delivery_of(row, envelopes[row.envelope_seq])
        delivery.task = tasks.get(row.task_id) if row.task_id is not None else None
        whole.append(delivery)
    return whole
