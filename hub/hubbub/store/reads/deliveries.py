"""Reads of deliveries: what waits, what is overdue, what ended how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Executable, Row, delete, exists, func, literal_column
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from hubbub.envelope import Envelope
from hubbub.portions import until_full
from hubbub.store.reads.envelopes import PIECE, SCAN, fixed_part
from hubbub.store.rows import delivery_of, envelope_of, task_of
from hubbub.store.tables import DeliveryRow, EnvelopeRow, TaskRow, table_of
from hubbub.subjects import is_pattern, matches
from hubbub.values import Delivery, DeliveryState, Outcome, Task

__all__ = [
    "DeliveryFilter",
    "addresses_of",
    "counts",
    "dropping",
    "due_mailboxes",
    "in_flight",
    "listed",
    "of_envelope",
    "of_envelopes",
    "of_task",
    "one",
    "overdue",
    "routes_waiting",
    "subject_of",
    "waiting",
    "waiting_of",
]

_delivery = table_of(DeliveryRow)
_envelope = table_of(EnvelopeRow)
_task = table_of(TaskRow)

OVERDUE_AT_ONCE = 500
OVERDUE_BYTES = 16 * 1024 * 1024
"""Bytes of their data; the sweeper takes the rest with its next step."""

MOST_HELD = 10_000
"""Ids of one query; what is in flight beyond that is shown as the store has it."""


def waiting(
    session: Session,
    mailbox: str,
    *,
    limit: int,
    now_us: int,
    skip_keys: frozenset[str] = frozenset(),
) -> list[Delivery]:
    """Return deliveries that may be handed over now, lowest rank first."""
    of = _delivery.c
    query = _delivery.select().where(*_due(mailbox, now_us, skip_keys))
    query = query.order_by(of.rank, of.id).limit(limit)
    return _whole(session, session.connection().execute(query).all())


def waiting_of(
    session: Session,
    mailbox: str,
    *,
    task_types: frozenset[str],
    limit: int,
    now_us: int,
    skip_keys: frozenset[str] = frozenset(),
    held: frozenset[int] = frozenset(),
) -> list[Delivery]:
    """Return tasks of some types that may be handed over now, lowest rank first.

    Of a key at most the first: what stands before it may be of any type.

    Args:
        held: Memory has these. They are not returned, and nothing of their key waits for them
            here: memory sees to that.
    """
    of = _delivery.c
    due = _due(mailbox, now_us, skip_keys)
    wanted = of.task_type.in_(task_types)
    lanes = select(of.lane).where(*due, wanted, of.lane.is_not(None))
    query = (
        _delivery.select()
        .where(*due, wanted | of.lane.in_(lanes))
        .order_by(of.rank, of.id)
        .execution_options(yield_per=PIECE)
    )
    found: list[Row[Any]] = []
    begun: set[str] = set()
    with closing(session.connection().execute(query)) as rows:
        for row in rows:
            if row.id in held or row.lane in begun:
                continue
            if row.lane is not None:
                begun.add(row.lane)
            if row.task_type in task_types:
                found.append(row)
                if len(found) == limit:
                    break
    return _whole(session, found)


def _due(mailbox: str, now_us: int, skip_keys: frozenset[str]) -> list[ColumnElement[bool]]:
    """Return the conditions of what waits in a mailbox, is due, and has none of some keys."""
    of = _delivery.c
    conditions = [
        of.mailbox == mailbox,
        of.state != DeliveryState.DONE,
        of.state == DeliveryState.PENDING,
        of.due_us <= now_us,
    ]
    if skip_keys:
        conditions.append(of.lane.is_(None) | of.lane.not_in(skip_keys))
    return conditions


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


def routes_waiting(session: Session, mailbox: str) -> list[str]:
    """Return the names of the routes by which something that is not done came to a mailbox."""
    query = (
        select(DeliveryRow.route)
        .where(DeliveryRow.state != DeliveryState.DONE, DeliveryRow.mailbox == mailbox)
        .distinct()
    )
    return list(session.exec(query).all())


def overdue(session: Session, *, now_us: int) -> list[Delivery]:
    """Return waiting deliveries whose deadline has passed, a step's worth; less if large."""
    query = (
        select(DeliveryRow, func.length(col(EnvelopeRow.data)))
        .join(EnvelopeRow, col(EnvelopeRow.seq) == col(DeliveryRow.envelope_seq))
        .where(
            DeliveryRow.state != DeliveryState.DONE,
            DeliveryRow.state == DeliveryState.PENDING,
            col(DeliveryRow.deadline_us).is_not(None),
            col(DeliveryRow.deadline_us) <= now_us,
        )
        .order_by(col(DeliveryRow.deadline_us))
        .limit(OVERDUE_AT_ONCE)
    )
    found = until_full(session.exec(query), itemgetter(1), OVERDUE_BYTES)
    return _whole(session, [row for row, _ in found])


def in_flight(session: Session) -> list[Delivery]:
    """Return what was handed over as a task and is not done."""
    query = select(DeliveryRow).where(DeliveryRow.state == DeliveryState.IN_FLIGHT)
    return _whole(session, session.exec(query.order_by(col(DeliveryRow.id))).all())


def one(session: Session, delivery_id: int) -> Delivery | None:
    """Return one delivery."""
    row = session.get(DeliveryRow, delivery_id)
    return _whole(session, [row])[0] if row else None


def dropping(delivery_id: int) -> Executable:
    """Return the statement that forgets a dead delivery before its retention is over."""
    return delete(DeliveryRow).where(
        col(DeliveryRow.id) == delivery_id, col(DeliveryRow.outcome) == Outcome.DEAD
    )


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


def addresses_of(session: Session, envelope_id: str) -> set[str]:
    """Return the mailboxes and endpoints of an envelope's deliveries."""
    query = (
        select(DeliveryRow.mailbox, DeliveryRow.endpoint)
        .join(EnvelopeRow, col(EnvelopeRow.seq) == col(DeliveryRow.envelope_seq))
        .where(EnvelopeRow.id == envelope_id)
    )
    return {address for row in session.exec(query).all() for address in row if address is not None}


def of_envelopes(session: Session, seqs: Sequence[int]) -> list[DeliveryRow]:
    """Return all deliveries of some envelopes, in order."""
    query = select(DeliveryRow).where(col(DeliveryRow.envelope_seq).in_(seqs))
    return list(session.exec(query.order_by(col(DeliveryRow.id))).all())


def subject_of(session: Session, envelope_seq: int | None) -> str:
    """Return the subject of an envelope; empty when it is not there."""
    query = select(EnvelopeRow.subject).where(EnvelopeRow.seq == envelope_seq)
    return session.exec(query).first() or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries a list shows; None is any.

    Attributes:
        subject: Pattern.
        held: Ids that are in flight in memory only; the state `in_flight` has them too, and
            `pending` has them not.
        unreplayed: Only those that were not replayed before.
    """

    outcome: str | None = None
    state: str | None = None
    endpoint: str | None = None
    route: str | None = None
    reason: str | None = None
    subject: str | None = None
    since_seq: int | None = None
    until_seq: int | None = None
    held: frozenset[int] = frozenset()
    unreplayed: bool = False


def listed(
    session: Session, wanted: DeliveryFilter, *, before: int | None, limit: int
) -> tuple[list[tuple[DeliveryRow, str, str]], int | None]:
    """Return `(delivery, envelope id, subject)`, newest first, and where to go on.

    The second is None when that was all. A page of a rare subject may be short: it looks at no
    more than `SCAN` rows.
    """
    pattern = wanted.subject
    scans = pattern is not None and is_pattern(pattern)
    query = (
        select(DeliveryRow, EnvelopeRow.id, EnvelopeRow.subject)
        .join(EnvelopeRow, col(EnvelopeRow.seq) == col(DeliveryRow.envelope_seq))
        .order_by(col(DeliveryRow.id).desc())
        .where(*_conditions(wanted, before, limit))
        .limit(SCAN if scans else limit + 1)
        .execution_options(yield_per=PIECE)
    )
    found: list[tuple[DeliveryRow, str, str]] = []
    last: int | None = None
    looked_at = 0
    with closing(session.exec(query)) as rows:
        for row, envelope_id, subject in rows:
            looked_at += 1
            if pattern is None or matches(pattern, subject):
                if len(found) == limit:
                    return found, last
                found.append((row, envelope_id, subject))
            last = row.id
    return found, last if scans and looked_at == SCAN else None


def _conditions(
    wanted: DeliveryFilter, before: int | None, limit: int
) -> list[ColumnElement[bool]]:
    number = col(DeliveryRow.id)
    equal = (
        (col(DeliveryRow.route), wanted.route),
        (col(DeliveryRow.reason), wanted.reason),
    )
    conditions = [column == value for column, value in equal if value is not None]
    if wanted.outcome == Outcome.DEAD:
        conditions.append(col(DeliveryRow.outcome) == literal_column("'dead'"))  # has an index
    elif wanted.outcome is not None:
        conditions.append(col(DeliveryRow.outcome) == wanted.outcome)
    if wanted.state is not None:
        conditions.append(_in_state(wanted, before, limit))
    if wanted.subject is not None:
        conditions.append(_of_subject(wanted.subject))
    if wanted.endpoint is not None:
        endpoint, mailbox = col(DeliveryRow.endpoint), col(DeliveryRow.mailbox)
        conditions.append((endpoint == wanted.endpoint) | (mailbox == wanted.endpoint))
    if wanted.unreplayed:
        again = aliased(DeliveryRow)
        conditions.append(
            ~exists().where(
                col(again.envelope_seq) == col(DeliveryRow.envelope_seq),
                col(again.replay_of) == number,
            )
        )
    if wanted.since_seq is not None:
        conditions.append(number >= wanted.since_seq)
    if wanted.until_seq is not None:
        conditions.append(number < wanted.until_seq)
    if before is not None:
        conditions.append(number < before)
    return conditions


def _in_state(wanted: DeliveryFilter, before: int | None, limit: int) -> ColumnElement[bool]:
    """Return the condition of a state, with what only memory knows."""
    state, number = col(DeliveryRow.state), col(DeliveryRow.id)
    here = state == wanted.state
    newest = sorted((held for held in wanted.held if before is None or held < before), reverse=True)
    if wanted.state == DeliveryState.IN_FLIGHT:
        return here | number.in_(newest[: limit + 1])
    if wanted.state == DeliveryState.PENDING and newest:
        return here & number.not_in(newest[:MOST_HELD])
    return here


def _of_subject(pattern: str) -> ColumnElement[bool]:
    subject = col(EnvelopeRow.subject)
    if not is_pattern(pattern):
        return subject == pattern
    return subject.startswith(fixed_part(pattern), autoescape=True)


def _whole(session: Session, rows: Sequence[DeliveryRow | Row[Any]]) -> list[Delivery]:
    """Return deliveries with their envelopes and tasks, in two reads for all of them.

    Mailboxes are refilled by this: an object of a table class a row would cost more than the rest.
    """
    seqs = {row.envelope_seq for row in rows}
    if not seqs:
        return []
    found = session.connection().execute(_envelope.select().where(_envelope.c.seq.in_(seqs)))
    envelopes = {row.seq: envelope_of(row) for row in found}
    task_ids = {row.task_id for row in rows if row.task_id is not None}
    tasks: dict[str, Task] = {}
    if task_ids:
        found = session.connection().execute(_task.select().where(_task.c.id.in_(task_ids)))
        tasks = {row.id: task_of(row) for row in found}
    siblings = _siblings(session, {row.envelope_seq for row in rows if not row.leased}, envelopes)
    whole: list[Delivery] = []
    for row in rows:
        delivery = delivery_of(row, envelopes[row.envelope_seq])
        delivery.task = tasks.get(row.task_id) if row.task_id is not None else None
        others = siblings.get(row.envelope_seq, ())
        if len(others) > 1 and not row.leased and row.replay_of is None:
            delivery.siblings = tuple(others)
        whole.append(delivery)
    return whole


def _siblings(
    session: Session, seqs: set[int], envelopes: Mapping[int, Envelope]
) -> dict[int, list[Delivery]]:
    """Return what was planned together, by envelope; replays and tasks have none."""
    siblings: dict[int, list[Delivery]] = {}
    if not seqs:
        return siblings
    of = _delivery.c
    first_given = of.envelope_seq.in_(seqs), of.leased.is_(False), of.replay_of.is_(None)
    for row in session.connection().execute(_delivery.select().where(*first_given)):
        one = delivery_of(row, envelopes[row.envelope_seq])
        siblings.setdefault(row.envelope_seq, []).append(one)
    return siblings
