"""Engines of SQLAlchemy: many connections that read, and one that writes.

They differ in more than their use: what writes waits a short time only for a file that another
process holds, and begins each transaction as a writer. Checkpoints of SQLite stay where SQLite has
them, in the commit that makes the log long: measured, a thread of its own for them made commits
slower, because a log that is reused need not grow.
"""

from __future__ import annotations

import math
import operator
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Dialect, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from hubbub.errors import HubError
from hubbub.store.deadlines import Deadlines
from hubbub.store.statements import TEXTS
from hubbub.values import DeliveryState, Outcome, TaskState

T = TypeVar("T")

__all__ = [
    "LOG_BYTES",
    "READ_THREADS",
    "Bounds",
    "DriverError",
    "abort_of",
    "is_file",
    "reading_engine",
    "writing_engine",
]

READ_THREADS: Final = 4

LOG_BYTES: Final = 64 * 1024 * 1024
"""What SQLite's log keeps of the disk. It grows over that only while somebody reads an old state,
this hub or another process; then it is cut short (`PRAGMA journal_size_limit`)."""

_WRITE_WAIT_S: Final = 1.0
"""How long a statement waits at most for a file that another process has locked."""

_LEAST_CONNECT_S: Final = 2
"""The driver waits at least this long for a connection. Source: libpq, `connect_timeout`."""

_FORGETS_AFTER: Final = 2
"""Times `store.timeout` after which a server ends a transaction in which nothing happens."""

_ABORT: Final = "hubbub_abort"
_FRESH: Final = "hubbub_fresh"

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for all connections.

    Attributes:
        sync: `store.sync`.
        timeout_s: `store.timeout`.
        check_files: Raises when a file may not be opened: it is not the one that was.
    """

    sync: str
    timeout_s: float
    deadlines: Deadlines
    check_files: Callable[[], None]


class DriverError(HubError):
    """The database of `store.url` needs a package that is not installed."""

    code = "store_driver"


def is_file(url: URL) -> bool:
    """Tell whether a database is a file of SQLite."""
    return url.get_backend_name() == "sqlite"


def reading_engine(url: URL, bounds: Bounds) -> Engine:
    """Return the engine of all that reads, and of what is rarely written.

    Raises:
        DriverError: its driver is not installed.
    """
    if not is_file(url):
        engine = _server(
            url,
            bounds,
            pool_size=READ_THREADS,
            max_overflow=4,
            isolation_level="REPEATABLE READ",  # all that one answer reads is of one moment
            connect_args=_alive(bounds.timeout_s),
        )
        event.listen(engine, "checkout", _Checkout(engine.dialect, bounds))
    else:
        engine = create_engine(
            url,
            pool_size=READ_THREADS + 2,
            max_overflow=4,
            connect_args={"check_same_thread": False, "timeout": bounds.timeout_s},
        )
        _file(engine, bounds, wait_s=bounds.timeout_s)
        event.listen(engine, "begin", _begin)

        def checked_out(_: object, record: ConnectionPoolEntry, __: object) -> None:
            bounds.deadlines.hold(record.info[_ABORT])

        event.listen(engine, "checkout", checked_out)
    event.listen(engine, "checkin", lambda *_: bounds.deadlines.release())
    return engine


def writing_engine(url: URL, bounds: Bounds, *, name: str) -> Engine:
    """Return the engine of the journal: one connection, made anew when it is lost.

    The journal says BEGIN itself, on the driver.

    Args:
        name: What the server is told that this is; seen by a hub that finds it there.

    Raises:
        DriverError: its driver is not installed.
    """
    if not is_file(url):
        return _server(
            url,
            bounds,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args=_alive(bounds.timeout_s)
            | {"application_name": name, "options": _options(bounds)},
        )
    if sys.version_info < (3, 12):
        _say_how_to_bind()
    wait_s = min(_WRITE_WAIT_S, bounds.timeout_s)
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={
            "check_same_thread": False,
            "timeout": wait_s,
            "cached_statements": TEXTS,
        },
    )
    _file(engine, bounds, wait_s=wait_s)
    return engine


def abort_of(connection: Connection) -> Callable[[], None]:
    """Return what ends the statement that runs on a connection, called on another thread.

    A file's is interrupted; a server's connection is cut off.
    """
    abort: Callable[[], None] = connection.info[_ABORT]
    return abort


# Servers


def _alive(timeout_s: float) -> Arguments:
    """Return settings by which a vanished server is noticed within twice `store.timeout`."""
    return {
        "connect_timeout": max(_LEAST_CONNECT_S, math.ceil(timeout_s)),
        "keepalives_idle": math.ceil(timeout_s),
        "keepalives_interval": math.ceil(timeout_s / 3),
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil(timeout_s * 1000),
    }


def _options(bounds: Bounds) -> str:
    """Return settings of the server for the journal: how safe, and how soon it forgets us."""
    commit = "on" if bounds.sync == "full" else "off"
    limit_ms = math.ceil(bounds.timeout_s * 1000)
    return (
        f"-c synchronous_commit={commit} -c tcp_keepalives_idle=10 "
        "-c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
        f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms} "
        f"-c idle_in_transaction_session_timeout={_FORGETS_AFTER * limit_ms}"
    )


def _server(url: URL, bounds: Bounds, **how: Any) -> Engine:  # noqa: ANN401  # as create_engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(url, **how)
    except ImportError as error:
        raise DriverError(
            f"store.url is {url.get_backend_name()}, and its driver is not installed; "
            "install it: pip install 'hubbub[postgres]'"
        ) from error
    event.listen(engine, "do_connect", _Connecting(bounds))
    event.listen(engine, "close", _closed)
    return engine


class _Cut:
    """Cuts a connection off, on any thread, whatever its owner does with it.

    It has a descriptor of its own: the number of the driver's may be another connection's by then.
    """

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  # psycopg is optional
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))

    def __call__(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    __del__ = close


class _Connecting:
    """Connects to a server; what SQLAlchemy asks it first is within the limit of the thread."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def __call__(
        self,
        dialect: Dialect,
        record: ConnectionPoolEntry,
        arguments: list[Any],
        named: Arguments,
    ) -> DBAPIConnection:
        connection = dialect.connect(*arguments, **named)
        cut = record.info[_ABORT] = _Cut(connection)
        record.info[_FRESH] = True
        self._bounds.deadlines.hold(cut)
        return connection


def _closed(_: object, record: ConnectionPoolEntry) -> None:
    cut: _Cut | None = record.info.pop(_ABORT, None)
    if cut is not None:
        cut.close()


class _Checkout:
    """Sees that a connection lives, and tells the server for how long a statement may run."""

    def __init__(self, dialect: Dialect, bounds: Bounds) -> None:
        self._error = cast("Any", dialect).loaded_dbapi.Error
        self._timeout_s = bounds.timeout_s
        self._deadlines = bounds.deadlines

    def __call__(self, connection: Any, record: ConnectionPoolEntry, _: object) -> None:  # noqa: ANN401  # psycopg is optional
        cut: _Cut = record.info[_ABORT]
        fresh = record.info.pop(_FRESH, False)
        limit = self._deadlines.current
        bounded = limit is not None and limit.until is not None
        limit_ms = math.ceil(self._timeout_s * 1000) if bounded else 0
        try:
            with self._deadlines.limit(self._timeout_s, cut):
                connection.autocommit = True
                connection.execute(f"SET statement_timeout = {limit_ms}")
                connection.autocommit = False
        except self._error as error:
            if fresh:  # another one would fare no better
                raise
            raise DisconnectionError(str(error)) from error
        self._deadlines.hold(cut)


# Files


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


def _file(engine: Engine, bounds: Bounds, *, wait_s: float) -> None:
    def connect(
        dialect: Dialect, record: ConnectionPoolEntry, arguments: list[Any], named: Arguments
    ) -> DBAPIConnection:
        """Open the file, never a new one, and see that it is still the right one."""
        bounds.check_files()
        if arguments[0] != ":memory:":
            arguments[0] = f"{Path(arguments[0]).as_uri()}?mode=rw"
            named["uri"] = True
        connection = dialect.connect(*arguments, **named)
        record.info[_ABORT] = connection.interrupt
        return connection

    def connected(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # pyright: ignore[reportAttributeAccessIssue]
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {math.ceil(wait_s * 1000)}",
            "journal_mode = WAL",
            f"synchronous = {bounds.sync}",
            "temp_store = MEMORY",
            "cache_size = -32768",
            f"journal_size_limit = {LOG_BYTES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        bounds.check_files()

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", connected)
