"""Checkpoints of SQLite, beside the writer: what is in the log is copied into the file.

SQLite would do it inside the commit that makes the log long, and every message of that commit
would wait for two more `fsync`. Here a thread copies; the writer goes on meanwhile. While it
writes all the time the log is never empty at the end of a copy and would grow without end, so
beyond `WAL_BYTES` the writer itself copies the little that is left.
"""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from typing import Any, Final, cast

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hubbub.store.connections import WAL_BYTES
from hubbub.store.database import Database

__all__ = ["ROWS", "Checkpoints"]

ROWS: Final = 2000
"""Rows written between two checkpoints."""

_COPY: Final = "PRAGMA wal_checkpoint(PASSIVE)"  # waits for nobody


class Checkpoints:
    """Copies the log of a file into it; does nothing for a server."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = threading.Event()
        self._stopping = False
        self._long = False
        self._rows = 0
        self._thread: threading.Thread | None = None

    def wrote(self, writer: Connection) -> None:
        """Tell that the writer has committed; called on its thread."""
        if self._database.path is None:
            return
        driver = cast("Any", writer.connection.driver_connection)
        rows: int = driver.total_changes
        if 0 <= rows - self._rows < ROWS:
            return
        self._rows = rows
        if self._long:
            self._long = False
            driver.execute(_COPY).fetchone()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hubbub-wal", daemon=True)
            self._thread.start()
        self._wanted.set()

    def stop(self) -> None:
        """End the thread; closing the last connection empties the log."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._stopping:
                return
            self._wanted.clear()
            with suppress(SQLAlchemyError, OSError):  # the writer finds out what is wrong
                self._copy()

    def _copy(self) -> None:
        with closing(self._database.engine.raw_connection()) as connection:
            cursor = cast("Any", connection.driver_connection).cursor()
            with suppress(Exception):  # as above: errors of the driver are not wrapped here
                _, pages, _ = cursor.execute(_COPY).fetchone()
                (page_bytes,) = cursor.execute("PRAGMA page_size").fetchone()
                self._long = pages * page_bytes > WAL_BYTES
