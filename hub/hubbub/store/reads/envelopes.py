"""Reads of envelopes: one, history, and those of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, LargeBinary, Row, Select, literal
from sqlalchemy import select as sql_select
from sqlalchemy.sql.functions import Function
from sqlmodel import Session, col, func, select

from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.portions import PAGE_BYTES, READ_AHEAD
from hubbub.ports import Stored
from hubbub.store.rows import envelope_of
from hubbub.store.tables import DeliveryRow, EnvelopeRow, SpanRow, table_of
from hubbub.subjects import is_pattern, matches
from hubbub.values import Task

__all__ = [
    "PIECE",
    "SCAN",
    "EnvelopeFilter",
    "data_of",
    "fixed_part",
    "history",
    "later",
    "newest",
    "newest_seq",
    "of_trace",
    "of_traces",
    "one",
    "result_of",
    "seq_of",
    "sizes_of",
    "spans_of",
]

_envelope = table_of(EnvelopeRow)

SCAN: Final = 10_000
"""Rows one page of history looks at: a rare subject takes more pages, never a long read."""

PIECE: Final = 200
"""Rows of a scan in memory at once."""


def one(session: Session, envelope_id: str) -> Stored | None:
    """Return one envelope; of several sources' with one id, the first."""
    query = select(EnvelopeRow).where(EnvelopeRow.id == envelope_id)
    row = session.exec(query.order_by(col(EnvelopeRow.seq)).limit(1)).first()
    return None if row is None else _stored(row)


def seq_of(session: Session, envelope_id: str) -> int | None:
    """Return the number of an envelope; of several sources' with one id, that of the first."""
    query = select(EnvelopeRow.seq).where(EnvelopeRow.id == envelope_id)
    return session.exec(query.order_by(col(EnvelopeRow.seq)).limit(1)).first()


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
    session: Session,
    wanted: EnvelopeFilter,
    *,
    before: int | None,
    limit: int,
    limit_bytes: int = PAGE_BYTES,
) -> tuple[list[Stored], int | None]:
    """Return envelopes, newest first, and where to go on; None when that was all.

    Those that are shown are found first, without their data, so that no more is read of it.
    """
    query = select(EnvelopeRow.seq, EnvelopeRow.subject, _size()).where(*_conditions(wanted))
    query = query.order_by(col(EnvelopeRow.seq).desc())
    if before is not None:
        query = query.where(EnvelopeRow.seq < before)
    pattern = wanted.subject
    scans = pattern is not None and is_pattern(pattern)
    query = query.limit(SCAN if scans else limit + 1).execution_options(yield_per=PIECE)
    found: list[int] = []
    last: int | None = None
    looked_at, left_bytes = 0, limit_bytes
    with closing(session.exec(query)) as rows:
        for seq, subject, size in rows:
            looked_at += 1
            if pattern is None or matches(pattern, subject):
                left_bytes -= size
                if len(found) == limit or (found and left_bytes < 0):
                    return _newest_of(session, found), last
                found.append(seq)
            last = seq
    return _newest_of(session, found), last if scans and looked_at == SCAN else None


def _conditions(wanted: EnvelopeFilter) -> list[ColumnElement[bool]]:
    subject, unrouted = col(EnvelopeRow.subject), col(EnvelopeRow.unrouted)
    conditions: list[ColumnElement[bool]] = []
    pattern = wanted.subject
    if pattern is not None and not is_pattern(pattern):
        conditions.append(subject == pattern)
    elif pattern is not None:
        conditions.append(subject.startswith(fixed_part(pattern), autoescape=True))
    if wanted.type is not None:
        conditions.append(col(EnvelopeRow.type) == wanted.type)
    if wanted.outcome is not None:
        is_unrouted = wanted.outcome == "unrouted"
        conditions.append(unrouted.is_not(None) if is_unrouted else unrouted.is_(None))
    if wanted.since_seq is not None:
        conditions.append(col(EnvelopeRow.seq) >= wanted.since_seq)
    if wanted.until_seq is not None:
        conditions.append(col(EnvelopeRow.seq) < wanted.until_seq)
    return conditions


def _size() -> Function[int]:
    """Return the bytes of an envelope's data; neither database reads the data for that."""
    return func.length(col(EnvelopeRow.data))


def _newest_of(session: Session, seqs: Sequence[int]) -> list[Stored]:
    query = select(EnvelopeRow).where(col(EnvelopeRow.seq).in_(seqs))
    rows = session.exec(query.order_by(col(EnvelopeRow.seq).desc()))
    return [_stored(row) for row in rows]


def later(
    session: Session,
    seq: int,
    patterns: Sequence[str],
    *,
    limit: int,
    limit_bytes: int = PAGE_BYTES,
) -> tuple[list[Stored], int | None]:
    """Return what came after an envelope under some subject patterns, oldest first.

    The second is where to go on; None when that was all.
    """
    query = (
        select(EnvelopeRow.seq, EnvelopeRow.subject, _size())
        .where(EnvelopeRow.seq > seq)
        .order_by(col(EnvelopeRow.seq))
        .limit(SCAN)
        .execution_options(yield_per=PIECE)
    )
    found: list[int] = []
    last = seq
    looked_at, left_bytes = 0, limit_bytes
    with closing(session.exec(query)) as rows:
        for number, subject, size in rows:
            looked_at += 1
            if any(matches(pattern, subject) for pattern in patterns):
                left_bytes -= size
                if len(found) == limit or (found and left_bytes < 0):
                    break
                found.append(number)
            last = number
        else:
            if looked_at < SCAN:
                return _newest_of(session, found)[::-1], None
    return _newest_of(session, found)[::-1], last


def newest(session: Session, *, before: int | None, since: int | None, limit: int) -> list[Stored]:
    """Return envelopes without their data, newest first, of a range of numbers."""
    query = _without_data().order_by(col(EnvelopeRow.seq).desc()).limit(limit)
    if before is not None:
        query = query.where(col(EnvelopeRow.seq) < before)
    if since is not None:
        query = query.where(col(EnvelopeRow.seq) >= since)
    return _all_stored(session, query)


def of_traces(session: Session, trace_ids: Sequence[str], *, limit: int = 10_000) -> list[Stored]:
    """Return the envelopes of some traces, in order, without their data."""
    query = _without_data().where(col(EnvelopeRow.trace_id).in_(trace_ids)).limit(limit)
    return _all_stored(session, query.order_by(col(EnvelopeRow.seq)))


def of_trace(session: Session, trace_id: str, *, limit: int = 1000) -> list[Stored]:
    """Return the envelopes of a trace, in order, without their data."""
    return of_traces(session, [trace_id], limit=limit)


def sizes_of(session: Session, seqs: Sequence[int]) -> dict[int, int]:
    """Return the bytes of the data of some envelopes, by their numbers."""
    query = select(EnvelopeRow.seq, _size()).where(col(EnvelopeRow.seq).in_(seqs))
    return dict(session.exec(query).all())


def data_of(session: Session, seqs: Sequence[int], *, limit_bytes: int) -> Iterator[Envelope]:
    """Yield envelopes with their data, one after the other, so far as that has so many bytes."""
    query = select(EnvelopeRow).where(col(EnvelopeRow.seq).in_(seqs))
    query = query.order_by(col(EnvelopeRow.seq).desc())
    with closing(session.exec(query.execution_options(yield_per=READ_AHEAD))) as rows:
        for row in rows:
            limit_bytes -= len(row.data)
            if limit_bytes < 0:
                return
            yield envelope_of(row)


def _without_data() -> Select[Any]:
    columns = [each for each in _envelope.c if each is not _envelope.c.data]
    return sql_select(*columns, literal(b"", LargeBinary()).label("data"))


def _all_stored(session: Session, query: Select[Any]) -> list[Stored]:
    return [_stored(row) for row in session.connection().execute(query)]


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


def _stored(row: EnvelopeRow | Row[Any]) -> Stored:
    return Stored(envelope_of(row), row.seq, row.unrouted)
