"""One commit: begun, filled, and its fate told when the connection breaks on the way.

A server numbers each transaction. Whoever asks for that number before the commit can ask after it,
over another connection, what became of it: so a commit that was cut off is neither acknowledged
wrongly nor done twice. A file needs no such thing, its commit says what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from sqlalchemy import Connection, Dialect, select, text
from sqlalchemy.exc import SQLAlchemyError

from hubbub.ports import Claim
from hubbub.store.batch import Batch
from hubbub.store.entries import Entry
from hubbub.store.outages import is_conflict, is_outage
from hubbub.store.statements import driver_of
from hubbub.store.tables import OWN, table_of

__all__ = ["CutOffError", "commit", "held", "probe", "see_tables"]

_BEGIN = "BEGIN IMMEDIATE"
_NUMBERED = b"BEGIN; SELECT txid_current()"
_FATE = text("SELECT txid_status(:ticket)")
_PROBE = text(
    "INSERT INTO meta (name, value) VALUES ('probe', '1') "
    "ON CONFLICT (name) DO UPDATE SET value = CASE meta.value WHEN '1' THEN '2' ELSE '1' END"
)
_AS_LONG_AS_IT_TAKES = "SET LOCAL statement_timeout = 0"


class CutOffError(Exception):
    """The connection broke while a commit was under way.

    Attributes:
        ticket: Number of the transaction, to ask for its fate.
        cause: What the driver said.
    """

    def __init__(self, ticket: int, cause: Exception) -> None:
        self.ticket = ticket
        self.cause = cause
        super().__init__(str(cause))


def commit(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries in one transaction, and give each its answer.

    That a new task is new is believed at first: the database refuses it if it is not, and then
    everything is decided once more, with a look at which tasks there are.

    Raises:
        CutOffError: nobody knows whether they are written.
        Exception: they are not.
    """
    if all(entry.empty for entry in entries):
        return
    try:
        _write(connection, entries, doubting=False)
    except Exception as error:
        if not is_conflict(error):
            raise
        _write(connection, entries, doubting=True)


def _write(connection: Connection, entries: Sequence[Entry], *, doubting: bool) -> None:
    connection.begin()
    try:
        ticket = _begin(connection)
        if ticket is not None and any(entry.patient for entry in entries):
            driver_of(connection).execute(_AS_LONG_AS_IT_TAKES)
        _fill(connection, entries, doubting=doubting)
    except BaseException:
        with suppress(SQLAlchemyError):
            connection.rollback()
        raise
    try:
        connection.commit()
    except Exception as error:
        with suppress(SQLAlchemyError):
            connection.rollback()
        if ticket is not None and is_outage(error):
            raise CutOffError(ticket, error) from error
        raise


def held(connection: Connection, ticket: int) -> bool:
    """Tell whether the commit of a ticket holds.

    The connection must own the database: then the one that was cut off has ended.
    """
    try:
        fate: str | None = connection.scalar(_FATE, {"ticket": ticket})
        return fate == "committed"
    finally:
        connection.rollback()


def see_tables(connection: Connection) -> None:
    """Name all columns of the hub's own tables; raises when one is not there."""
    driver_of(connection).execute(_all_columns(connection.dialect)).fetchall()


@lru_cache(maxsize=2)
def _all_columns(dialect: Dialect) -> str:
    return str(select(*map(table_of, OWN)).where(text("1 = 0")).compile(dialect=dialect))


def probe(connection: Connection) -> None:
    """Write a little; raises when the database cannot be written, or lacks a table."""
    see_tables(connection)
    with connection.begin():
        _begin(connection)
        connection.execute(_PROBE)


def _begin(connection: Connection) -> int | None:
    """Begin a transaction that writes; a server tells its number in the same round trip."""
    if connection.dialect.name == "sqlite":
        driver_of(connection).execute(_BEGIN)
        return None
    cursor = driver_of(connection).execute(_NUMBERED)
    cursor.nextset()
    ticket: int = cursor.fetchone()[0]
    return ticket


def _fill(connection: Connection, entries: Sequence[Entry], *, doubting: bool) -> None:
    batch = Batch(connection)
    claims: list[Claim] = []
    task_ids: list[str] = []
    delivery_ids: list[int] = []
    for entry in entries:
        record = entry.record
        if record is not None:
            claims += record.claims
            task_ids += [task.id for task in record.reruns]
            if doubting:
                task_ids += [task.id for task in record.tasks]
        delivery_ids += [change.delivery.id for change in entry.changes]
    batch.look_up(claims=claims, task_ids=task_ids, delivery_ids=delivery_ids)
    for entry in entries:
        if entry.record is not None:
            entry.answer = batch.keep(entry.record)
        if entry.changes:
            entry.answer = [
                batch.change(change, snapshot)
                for change, snapshot in zip(entry.changes, entry.snapshots, strict=True)
            ]
    batch.write()
    for entry in entries:
        for statement, rows in entry.statements:
            connection.execute(statement, rows or None)
