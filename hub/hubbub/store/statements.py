"""SQL of the journal's batch: many rows in one statement, values by position.

A driver gives the interpreter free at every step of a statement and must wait to get it back;
with one statement for many rows the journal's thread and the event loop meet once, not once a row.
SQLite gets long lists of values, PostgreSQL `COPY` in binary form for what is new (a tenth of the
time that the hub spends on values) and arrays for what changes: one round trip, whatever the
number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, cast

from sqlalchemy import Connection, Dialect, Table

__all__ = ["TEXTS", "driver_of", "insert_rows", "rows_with", "update_rows"]

MOST_ROWS: Final = 64
"""Rows of one statement: below every database's limit of bound values, and few enough that the
text of each size is prepared once and kept. Sizes below are exact: what a thread pays for most is
getting the interpreter back from the event loop, at each statement anew."""

TEXTS: Final = 512
"""Texts that are kept, here and prepared in the driver."""

_BINARY: Final = {
    "BIGINT": "int8",
    "BOOLEAN": "bool",
    "BYTEA": "bytea",
    "INTEGER": "int4",
    "TEXT": "text",
    "VARCHAR": "text",
}
"""Types that `COPY` takes in binary form; a table with another one gets lists of values."""

Rows = Sequence[tuple[object, ...]]


def driver_of(connection: Connection) -> Any:  # noqa: ANN401  # psycopg is optional
    """Return the driver's own connection."""
    return cast("Any", connection.connection.driver_connection)


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows of all columns, in order, but without an automatic key.

    A row may be shorter than its table: what it leaves out is NULL.
    """
    width = max(map(len, rows))
    rows = [row if len(row) == width else row + (None,) * (width - len(row)) for row in rows]
    if connection.dialect.name == "postgresql":
        text, types = _copy_text(table, width, connection.dialect)
        if types is not None:
            with driver_of(connection).cursor() as cursor, cursor.copy(text) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            return
    for chunk in _chunked(rows):
        _run(connection, _insert_text(table, width, len(chunk), connection.dialect), chunk)


def update_rows(
    connection: Connection,
    table: Table,
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Rows,
) -> None:
    """Set columns of the rows with these keys; each row is the values, then the keys."""
    if connection.dialect.name == "postgresql":
        text, plain = _arrays_text(table, keys, columns, connection.dialect)
        given = zip(*rows, strict=True)
        arrays = [
            [None if value is None else str(value) for value in values] if is_text else list(values)
            for values, is_text in zip(given, plain, strict=True)
        ]
        driver_of(connection).execute(text, arrays)
        return
    for chunk in _chunked(rows):
        _run(connection, _update_text(table, keys, columns, len(chunk), connection.dialect), chunk)


def rows_with(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    keys: Rows,
    *,
    lock: bool = False,
) -> Iterator[tuple[Any, ...]]:
    """Return columns of the rows with these keys, the first columns of which they are.

    Args:
        lock: Nobody else may change them before the commit.
    """
    for chunk in _chunked(keys):
        text = _look_up_text(table, columns, len(chunk[0]), len(chunk), connection.dialect)
        if lock and connection.dialect.name == "postgresql":
            text += " FOR UPDATE"
        yield from _run(connection, text, chunk)


def _run(connection: Connection, text: str, rows: Rows) -> Any:  # noqa: ANN401  # a DBAPI cursor
    """Run a statement on the driver itself: SQLAlchemy's part would cost more than SQLite's."""
    return driver_of(connection).execute(text, tuple(chain.from_iterable(rows)))


def _chunked(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))


def _row(values: int, dialect: Dialect) -> str:
    placeholder = "?" if dialect.paramstyle == "qmark" else "%s"
    return f"({', '.join([placeholder] * values)})"


def _names(table: Table) -> list[str]:
    automatic = table.autoincrement_column
    return [column.name for column in table.columns if column is not automatic]


@lru_cache(maxsize=TEXTS)
def _copy_text(table: Table, width: int, dialect: Dialect) -> tuple[str, list[str] | None]:
    names = _names(table)[:width]
    types = [_BINARY.get(table.columns[name].type.compile(dialect=dialect)) for name in names]
    text = f"COPY {table.name} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
    return text, [one for one in types if one is not None] if None not in types else None


@lru_cache(maxsize=TEXTS)
def _insert_text(table: Table, width: int, rows: int, dialect: Dialect) -> str:
    names = _names(table)[:width]
    row = _row(len(names), dialect)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"  # noqa: S608  # names of our own tables


@lru_cache(maxsize=TEXTS)
def _arrays_text(
    table: Table, keys: tuple[str, ...], columns: tuple[str, ...], dialect: Dialect
) -> tuple[str, list[bool]]:
    """Return the statement, and which of its arrays are of text."""
    names = (*columns, *keys)
    types = [table.columns[name].type.compile(dialect=dialect) for name in names]
    arrays = ", ".join(f"%b::{one}[]" for one in types)
    given = ", ".join(f"{name}_" for name in names)
    sets = ", ".join(f"{name} = given.{name}_" for name in columns)
    same = " AND ".join(f"{table.name}.{key} = given.{key}_" for key in keys)
    text = f"UPDATE {table.name} SET {sets} FROM unnest({arrays}) AS given({given}) WHERE {same}"  # noqa: S608
    return text, [one in ("VARCHAR", "TEXT") for one in types]


@lru_cache(maxsize=TEXTS)
def _update_text(
    table: Table, keys: tuple[str, ...], columns: tuple[str, ...], rows: int, dialect: Dialect
) -> str:
    names = (*columns, *keys)
    row = _row(len(names), dialect)
    given = ", ".join(f"{name}_" for name in names)
    sets = ", ".join(f"{name} = given.{name}_" for name in columns)
    same = " AND ".join(f"{table.name}.{key} = given.{key}_" for key in keys)
    return (
        f"WITH given({given}) AS (VALUES {', '.join([row] * rows)}) "  # noqa: S608
        f"UPDATE {table.name} SET {sets} FROM given WHERE {same}"
    )


@lru_cache(maxsize=TEXTS)
def _look_up_text(
    table: Table, columns: tuple[str, ...], keys: int, rows: int, dialect: Dialect
) -> str:
    if keys == 1:
        values = _row(rows, dialect)
        return f"SELECT {', '.join(columns)} FROM {table.name} WHERE {columns[0]} IN {values}"  # noqa: S608
    # The order of a CROSS JOIN is kept by SQLite; without it, it reads the whole table.
    given = ", ".join(f"{name}_" for name in columns[:keys])
    same = " AND ".join(f"{name} = {name}_" for name in columns[:keys])
    return (
        f"WITH given({given}) AS (VALUES {', '.join([_row(keys, dialect)] * rows)}) "  # noqa: S608
        f"SELECT {', '.join(columns)} FROM given CROSS JOIN {table.name} WHERE {same}"
    )
