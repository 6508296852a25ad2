"""Reads of claims."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from hubbub.ports import Claim, ClaimKind
from hubbub.store.tables import ClaimRow

__all__ = ["ClaimName", "known"]

ClaimName = tuple[str, ClaimKind, str]
"""Principal, kind and name: what makes two claims the same."""


def known(session: Session, names: Sequence[ClaimName]) -> dict[ClaimName, Claim]:
    """Return the claims of these names that are in the store."""
    key = tuple_(col(ClaimRow.principal), col(ClaimRow.kind), col(ClaimRow.name))
    found: dict[ClaimName, Claim] = {}
    for row in session.exec(select(ClaimRow).where(key.in_(names))):
        kind: ClaimKind = "id" if row.kind == "id" else "key"
        found[row.principal, kind, row.name] = Claim(
            row.principal, kind, row.name, bytes(row.body_hash), bytes(row.answer), row.at_us
        )
    return found
