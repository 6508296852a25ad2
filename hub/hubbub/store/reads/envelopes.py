"""Reads of envelopes: one, history, and those of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session, col, func, select

from hubbub.envelope import TASK_RESULT
from hubbub.ports import Stored
from hubbub.store.rows import envelope_of
from hubbub.store.tables import DeliveryRow, EnvelopeRow, SpanRow
from hubbub.subjects import is_pattern, matches
from hubbub.values import Task

__all__ = [
    "PIECE",
    "SCAN",
    "EnvelopeFilter",
    "fixed_part",
    "history",
    "later",
    "newest",
    "newest_seq",
    "of_trace",
    "of_traces",
    "one",
    "result_of",
    "spans_of",
]

SCAN: Final = 10_000
"""Rows one page of history looks at: a rare subject takes more pages, never a long read."""

PIECE: Final = 200
"""Rows of a scan in memory at once."""


def one(session: Session, envelope_id: str) -> Stored | None:
    """Return one envelope; of several sources' with one id, the first."""
    query = select(EnvelopeRow).where(EnvelopeRow.id == envelope_id)
    row = session.exec(query.order_by(col(EnvelopeRow.seq)).limit(1)).first()
    return None if row is None else _stored(row)


def newest_seq(session: Session) -> int:
    """Return the highest number ever given to an envelope or a delivery."""
    highest = 0
    for column in (EnvelopeRow.seq, DeliveryRow.id):
        found = session.exec(select(column).order_by(col(column).desc()).limit(1)).first()
        highest = max(highest, found or 0)
    return highest


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeFilter:
    """Which envelopes history shows; None is any."""

    subject: str | None = None
    type: str | None = None
    since_seq: int | None = None
    until_seq: int | None = None
    outcome: str | None = None


def history(
    session: Session, wanted: EnvelopeFilter, *, before: int | None, limit: int
) -> tuple[list[Stored], int | None]:
    """Return envelopes, newest first, and where to go on; None when that was all."""
    query = select(EnvelopeRow).order_by(col(EnvelopeRow.seq).desc())
    pattern = wanted.subject
    if pattern is not None and not is_pattern(pattern):
        query = query.where(EnvelopeRow.subject == pattern)
    elif pattern is not None:
        query = query.where(
            col(EnvelopeRow.subject).startswith(fixed_part(pattern), autoescape=True)
        )
    if wanted.type is not None:
        query = query.where(EnvelopeRow.type == wanted.type)
    if wanted.outcome is not None:
        unrouted = col(EnvelopeRow.unrouted)
        query = query.where(
            unrouted.is_not(None) if wanted.outcome == "unrouted" else unrouted.is_(None)
        )
    if wanted.since_seq is not None:
        query = query.where(EnvelopeRow.seq >= wanted.since_seq)
    if wanted.until_seq is not None:
        query = query.where(EnvelopeRow.seq < wanted.until_seq)
    if before is not None:
        query = query.where(EnvelopeRow.seq < before)
    found: list[Stored] = []
    last: int | None = None
    looked_at = 0
    scans = pattern is not None and is_pattern(pattern)
    query = query.limit(SCAN if scans else limit + 1).execution_options(yield_per=PIECE)
    with closing(session.exec(query)) as rows:
        for row in rows:
            looked_at += 1
            if pattern is None or matches(pattern, row.subject):
                if len(found) == limit:
                    return found, last
                found.append(_stored(row))
            last = row.seq
    return found, last if scans and looked_at == SCAN else None


def later(session: Session, seq: int, patterns: Sequence[str], *, limit: int) -> list[Stored]:
    """Return what came after an envelope under some subject patterns, oldest first."""
    query = (
        select(EnvelopeRow)
        .where(EnvelopeRow.seq > seq)
        .order_by(col(EnvelopeRow.seq))
        .limit(SCAN)
        .execution_options(yield_per=PIECE)
    )
    found: list[Stored] = []
    with closing(session.exec(query)) as rows:
        for row in rows:
            if any(matches(pattern, row.subject) for pattern in patterns):
                found.append(_stored(row))
                if len(found) == limit:
                    break
    return found


def newest(session: Session, *, before: int | None, since: int | None, limit: int) -> list[Stored]:
    """Return envelopes, newest first, of a range of numbers."""
    query = select(EnvelopeRow).order_by(col(EnvelopeRow.seq).desc()).limit(limit)
    if before is not None:
        query = query.where(EnvelopeRow.seq < before)
    if since is not None:
        query = query.where(EnvelopeRow.seq >= since)
    return [_stored(row) for row in session.exec(query).all()]


def of_traces(session: Session, trace_ids: Sequence[str], *, limit: int = 10_000) -> list[Stored]:
    """Return the envelopes of some traces, in order."""
    query = select(EnvelopeRow).where(col(EnvelopeRow.trace_id).in_(trace_ids)).limit(limit)
    return [_stored(row) for row in session.exec(query.order_by(col(EnvelopeRow.seq))).all()]


def of_trace(session: Session, trace_id: str, *, limit: int = 1000) -> list[Stored]:
    """Return the envelopes of a trace, in order."""
    query = select(EnvelopeRow).where(EnvelopeRow.trace_id == trace_id).limit(limit)
    return [_stored(row) for row in session.exec(query.order_by(col(EnvelopeRow.seq))).all()]


def result_of(session: Session, task: Task) -> tuple[str, int] | None:
    """Return the id of a task's latest result and how many deliveries it has; None for none."""
    query = (
        select(EnvelopeRow.seq, EnvelopeRow.id)
        .where(
            EnvelopeRow.trace_id == task.trace_id,
            EnvelopeRow.type == TASK_RESULT,
            EnvelopeRow.in_reply_to == task.envelope_id,
        )
        .order_by(col(EnvelopeRow.seq).desc())
    )
    found = session.exec(query).first()
    if found is None:
        return None
    of = DeliveryRow.envelope_seq == found[0]
    return found[1], session.exec(select(func.count()).select_from(DeliveryRow).where(of)).one()


def spans_of(session: Session, trace_id: str) -> list[SpanRow]:
    """Return the steps of a trace that have rows of their own."""
    query = select(SpanRow).where(SpanRow.trace_id == trace_id)
    return list(session.exec(query.order_by(col(SpanRow.seq))).all())


def fixed_part(pattern: str) -> str:
    """Return what every subject of a pattern begins with."""
    fixed: list[str] = []
    for token in pattern.split("."):
        if token in ("*", ">"):
            break
        fixed.append(token + ".")
    return "".join(fixed)


def _stored(row: EnvelopeRow) -> Stored:
    return Stored(envelope_of(row), row.seq, row.unrouted)
