"""Old rows of tables that say by which column they grow old: counted, and removed in small steps.

A table says it by `__table_args__ = {"info": {"prune_by": "at_us"}}`; where the column does not
hold microseconds, `prune_unit_us` says how many are in one of it.
"""

from __future__ import annotations

from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Table, delete, func, select
from sqlmodel import Session

from hubbub.store.entries import Statement
from hubbub.store.sizes import known_tables

__all__ = ["STEP", "count_old", "prunable", "removing"]

STEP: Final = 5000
"""Rows that one step removes, so that no message waits long for it."""


def prunable(session: Session) -> dict[str, Table]:
    """Return the tables whose old rows may be removed, by name."""
    return {
        name: table for name, table in known_tables(session).items() if "prune_by" in table.info
    }


def count_old(session: Session, table: Table, *, before_us: int) -> int:
    """Return how many rows are older than a time."""
    query = select(func.count()).select_from(table).where(_older(table, before_us))
    return int(session.connection().scalar(query) or 0)


def removing(table: Table, *, before_us: int) -> Statement:
    """Return the statement that removes one step's worth of rows older than a time."""
    older = _older(table, before_us)
    keys = list(table.primary_key)
    if len(keys) == 1:
        some = select(keys[0]).where(older).limit(STEP)
        return delete(table).where(keys[0].in_(some)), []
    return delete(table).where(older), []


def _older(table: Table, before_us: int) -> ColumnElement[bool]:
    unit: Any = table.info.get("prune_unit_us", 1)
    column = cast("ColumnElement[int]", table.c[str(table.info["prune_by"])])
    return column < before_us // int(unit)
