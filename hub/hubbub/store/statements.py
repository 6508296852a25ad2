"""SQL of the journal's batch: many rows in one statement, values by position.

A driver gives the interpreter free at every step of a statement and must wait to get it back;
with one statement for many rows the journal's thread and the event loop meet once, not once a row.
The texts are the same for SQLite and PostgreSQL but for the placeholder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Column, Connection, Dialect, Table

__all__ = ["insert_rows", "update_rows"]

_CHUNKS: Final = (64, 16, 4, 1)
"""Rows of one statement: few sizes, so that few texts are prepared; 64 rows stay below every
database's limit of bound values."""

Rows = Sequence[tuple[object, ...]]


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows of all columns, in order, but without an automatic key."""
    for chunk in _chunked(rows):
        text = _insert_text(table, len(chunk), connection.dialect)
        connection.exec_driver_sql(text, tuple(chain.from_iterable(chunk)))


def update_rows(
    connection: Connection,
    table: Table,
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Rows,
) -> None:
    """Set columns of the rows with these keys; each row is the values, then the keys."""
    for chunk in _chunked(rows):
        text = _update_text(table, keys, columns, len(chunk), connection.dialect)
        connection.exec_driver_sql(text, tuple(chain.from_iterable(chunk)))


def _chunked(rows: Rows) -> Iterator[Rows]:
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _row(values: int, dialect: Dialect) -> str:
    placeholder = "?" if dialect.paramstyle == "qmark" else "%s"
    return f"({', '.join([placeholder] * values)})"


@lru_cache(maxsize=256)
def _insert_text(table: Table, rows: int, dialect: Dialect) -> str:
    automatic = table.autoincrement_column
    names = [column.name for column in table.columns if column is not automatic]
    row = _row(len(names), dialect)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"  # noqa: S608  # names of our own tables


@lru_cache(maxsize=256)
def _update_text(
    table: Table, keys: tuple[str, ...], columns: tuple[str, ...], rows: int, dialect: Dialect
) -> str:
    names = (*columns, *keys)
    row = _row(len(names), dialect)
    given = ", ".join(f"{name}_" for name in names)
    # PostgreSQL takes a bare NULL for text: every value is cast to its column's type.
    sets = ", ".join(f"{name} = {_cast(table.columns[name], dialect)}" for name in columns)
    same = " AND ".join(
        f"{table.name}.{key} = {_cast(table.columns[key], dialect)}" for key in keys
    )
    return (
        f"WITH given({given}) AS (VALUES {', '.join([row] * rows)}) "  # noqa: S608
        f"UPDATE {table.name} SET {sets} FROM given WHERE {same}"
    )


def _cast(column: Column[Any], dialect: Dialect) -> str:
    return f"CAST(given.{column.name}_ AS {column.type.compile(dialect=dialect)})"
