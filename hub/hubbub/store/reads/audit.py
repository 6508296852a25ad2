"""Reads of the audit."""

from __future__ import annotations

from sqlmodel import Session, col, select

from hubbub.store.tables import AuditRow

__all__ = ["listed"]


def listed(session: Session, *, before: int | None, limit: int) -> list[AuditRow]:
    """Return administrative acts, newest first."""
    query = select(AuditRow).order_by(col(AuditRow.seq).desc()).limit(limit)
    if before is not None:
        query = query.where(col(AuditRow.seq) < before)
    return list(session.exec(query).all())
