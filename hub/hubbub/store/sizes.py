"""What the database holds: rows and bytes of each table, and bytes of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import LargeBinary, Table, func, inspect, select, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, SQLModel

__all__ = ["TableSize", "database_bytes", "known_tables", "table_sizes"]


@dataclass(frozen=True, slots=True)
class TableSize:
    """One table.

    Attributes:
        bytes: With its indexes; where SQLite was built without page statistics, of its values.
    """

    name: str
    rows: int
    bytes: int


def known_tables(session: Session) -> dict[str, Table]:
    """Return the tables that are there and whose models are loaded, by name."""
    there = set(inspect(session.connection()).get_table_names())
    return {
        name: table
        for name, table in sorted(SQLModel.metadata.tables.items())
        if name in there
    }  # fmt: skip


def table_sizes(session: Session) -> list[TableSize]:
    """Return all tables of the hub and its plugins, by name. Counts rows: not for a hot path."""
    sizes = dict(_bytes(session))
    found: list[TableSize] = []
    for name, table in known_tables(session).items():
        rows = session.connection().scalar(select(func.count()).select_from(table)) or 0
        size = sizes.get(name)
        found.append(TableSize(name, rows, _of_values(session, table) if size is None else size))
    return found


def _of_values(session: Session, table: Table) -> int:
    """Return the bytes of all values of a table."""
    lengths = [func.coalesce(func.length(column.cast(LargeBinary)), 0) for column in table.columns]
    total = func.sum(sum(lengths[1:], start=lengths[0]))
    return int(session.connection().scalar(select(total)) or 0)


def database_bytes(session: Session) -> int:
    """Return what the database takes, without its write-ahead log."""
    if _is_sqlite(session):
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        query = "SELECT pg_database_size(current_database())"
    return int(session.connection().scalar(text(query)) or 0)


def _bytes(session: Session) -> Iterator[tuple[str, int]]:
    """Yield tables with their bytes; none where SQLite was built without its page statistics."""
    if _is_sqlite(session):
        query = (
            "SELECT m.tbl_name, sum(s.pgsize) FROM sqlite_schema AS m "
            "JOIN dbstat AS s ON s.name = m.name AND s.aggregate GROUP BY m.tbl_name"
        )
    else:
        query = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
    try:
        found = session.connection().execute(text(query)).all()
    except OperationalError:
        return
    for name, size in found:
        yield str(name), int(size)


def _is_sqlite(session: Session) -> bool:
    return session.connection().dialect.name == "sqlite"
