"""Reads of the audit."""

from __future__ import annotations

from contextlib import closing

from sqlmodel import Session, col, select

from hubbub.portions import PAGE_BYTES, READ_AHEAD, until_past
from hubbub.store.tables import AuditRow

__all__ = ["listed"]


def listed(session: Session, *, before: int | None, limit: int) -> list[AuditRow]:
    """Return administrative acts, newest first; fewer where they say much."""
    query = select(AuditRow).order_by(col(AuditRow.seq).desc()).limit(limit)
    query = query.execution_options(yield_per=READ_AHEAD)
    if before is not None:
        query = query.where(col(AuditRow.seq) < before)
    with closing(session.exec(query)) as rows:
        return until_past(rows, lambda row: len(row.target) + len(row.detail), PAGE_BYTES)
