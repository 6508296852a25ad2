"""Engines of SQLAlchemy: many connections that read, and one that writes.

They differ in more than their use: what writes waits a short time only for a file that another
process holds, and begins each transaction as a writer. Checkpoints of SQLite stay where SQLite has
them, in the commit that makes the log long: measured, a thread of its own for them made commits
slower, because a log that is reused need not grow.
"""

from __future__ import annotations

import operator
import sqlite3
import sys
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection

from hubbub.errors import HubError
from hubbub.store.statements import TEXTS
from hubbub.values import DeliveryState, Outcome, TaskState

T = TypeVar("T")

__all__ = [
    "READ_THREADS",
    "DriverError",
    "is_file",
    "reading_engine",
    "writing_engine",
]

READ_THREADS: Final = 4

_READ_WAIT_MS: Final = 5000
_WRITE_WAIT_MS: Final = 1000
"""How long a statement waits for a file that another process has locked."""

_ALIVE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""A server that vanished is noticed within half a minute, not after two hours."""


class DriverError(HubError):
    """The database of `store.url` needs a package that is not installed."""

    code = "store_driver"


def is_file(url: URL) -> bool:
    """Tell whether a database is a file of SQLite."""
    return url.get_backend_name() == "sqlite"


def reading_engine(url: URL, *, sync: str) -> Engine:
    """Return the engine of all that reads, and of what is rarely written.

    Raises:
        DriverError: its driver is not installed.
    """
    if not is_file(url):
        return _server(
            url, pool_size=READ_THREADS, max_overflow=4, pool_pre_ping=True,
            isolation_level="REPEATABLE READ",  # all that one answer reads is of one moment
        )  # fmt: skip
    engine = create_engine(
        url,
        pool_size=READ_THREADS + 2,
        max_overflow=4,
        connect_args={"check_same_thread": False, "timeout": _READ_WAIT_MS / 1000},
    )
    _file(engine, sync=sync, wait_ms=_READ_WAIT_MS)
    event.listen(engine, "begin", _begin)
    return engine


def writing_engine(url: URL, *, sync: str, name: str) -> Engine:
    """Return the engine of the journal: one connection, made anew when it is lost.

    The journal says BEGIN itself, on the driver.

    Args:
        name: What the server is told that this is; seen by a hub that finds it there.

    Raises:
        DriverError: its driver is not installed.
    """
    if not is_file(url):
        return _server(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT",
            connect_args=_ALIVE | {"application_name": name, "options": _options(sync)},
        )  # fmt: skip
    if sys.version_info < (3, 12):
        _say_how_to_bind()
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={
            "check_same_thread": False,
            "timeout": _WRITE_WAIT_MS / 1000,
            "cached_statements": TEXTS,
        },
    )
    _file(engine, sync=sync, wait_ms=_WRITE_WAIT_MS)
    return engine


def _options(sync: str) -> str:
    """Return settings of the server for the journal: how safe, and how soon it forgets us."""
    commit = "on" if sync == "full" else "off"
    return (
        f"-c synchronous_commit={commit} -c tcp_keepalives_idle=10 "
        "-c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    )


def _server(url: URL, **how: Any) -> Engine:  # noqa: ANN401  # as create_engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    how.setdefault("connect_args", _ALIVE)
    try:
        return create_engine(url, **how)
    except ImportError as error:
        raise DriverError(
            f"store.url is {url.get_backend_name()}, and its driver is not installed; "
            "install it: pip install 'hubbub[postgres]'"
        ) from error


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _say_how_to_bind() -> None:
    """Name adapters for what `sqlite3` would look for one in three places, value by value.

    Before Python 3.12 it raises and forgets an error for each None, flag, text of an enum and
    bytes on the way: 0.2 to 0.3 us, of which a row has a dozen. None of these changes a value.
    """
    sqlite3.register_adapter(type(None), _itself)
    sqlite3.register_adapter(bytes, _itself)
    sqlite3.register_adapter(bool, operator.index)
    for texts in (DeliveryState, Outcome, TaskState):
        sqlite3.register_adapter(texts, str)


def _itself(value: T) -> T:
    return value


def _file(engine: Engine, *, sync: str, wait_ms: int) -> None:
    def connected(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # pyright: ignore[reportAttributeAccessIssue]
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {wait_ms}",
            "journal_mode = WAL",
            f"synchronous = {sync}",
            "temp_store = MEMORY",
            "cache_size = -32768",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", connected)
