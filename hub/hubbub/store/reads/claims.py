"""Reads of claims."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session

from hubbub.ports import Claim, ClaimKind
from hubbub.store.statements import rows_with
from hubbub.store.tables import ClaimRow, table_of

__all__ = ["ClaimName", "known"]

_claim = table_of(ClaimRow)
_COLUMNS = tuple(column.name for column in _claim.columns)

ClaimName = tuple[str, ClaimKind, str]
"""Principal, kind and name: what makes two claims the same."""


def known(session: Session, names: Sequence[ClaimName]) -> dict[ClaimName, Claim]:
    """Return the claims of these names that are in the store."""
    found: dict[ClaimName, Claim] = {}
    for row in rows_with(session.connection(), _claim, _COLUMNS, names):
        kind: ClaimKind = "id" if row[1] == "id" else "key"
        found[row[0], kind, row[2]] = Claim(row[0], kind, *row[2:])
    return found
