"""The database: opened, owned by one hub, migrated, read on threads of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlmodel import Session, SQLModel

from hubbub.errors import HubError
from hubbub.store.migrate import upgrade
from hubbub.store.tables import table_of

__all__ = ["Database", "StoreOwnedError"]

READ_THREADS: Final = 4

T = TypeVar("T")


class StoreOwnedError(HubError):
    """Another hub runs on this database file."""

    code = "store_owned"

    def __init__(self, *, path: Path, owner: str) -> None:
        super().__init__(
            f"{path} belongs to {owner}, which is running; "
            "stop it, or give this hub another hub.data_dir"
        )


class Database:
    """Connections to the store. Reads run on threads, so that they never hold up a message."""

    def __init__(self, url: str, *, sync: str = "full", owner: str = "hub-1") -> None:
        self._url: URL = make_url(url)
        self._owner = owner
        self._lock: FileLock | None = None
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="hubbub-read")
        self.engine: Final[Engine] = _create(self._url, sync=sync)

    @property
    def path(self) -> Path | None:
        """The file, for SQLite; None for a server."""
        if self._url.get_backend_name() != "sqlite" or not self._url.database:
            return None
        return Path(self._url.database)

    def open(self) -> None:
        """Own the file, and bring its tables up to date.

        Raises:
            StoreOwnedError: another hub runs on it.
        """
        path = self.path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._own(path)
        upgrade(self.engine)

    def create(self, models: Sequence[type[SQLModel]]) -> None:
        """Create the tables a plugin brought, where they are missing."""
        SQLModel.metadata.create_all(self.engine, tables=[table_of(model) for model in models])

    async def read(self, query: Callable[[Session], T]) -> T:
        """Run a query on a reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    def read_now(self, query: Callable[[Session], T]) -> T:
        """Run a query on this thread."""
        with Session(self.engine, expire_on_commit=False) as session:
            return query(session)

    def close(self) -> None:
        """Close all connections and give the file free."""
        self._readers.shutdown()
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def _own(self, path: Path) -> None:
        """Hold a lock beside the file; its holder is named in a second file."""
        named = path.with_suffix(path.suffix + ".owner")
        lock = FileLock(path.with_suffix(path.suffix + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            owner = named.read_text(encoding="utf-8") if named.exists() else "another hub"
            raise StoreOwnedError(path=path, owner=owner) from None
        self._lock = lock
        named.write_text(
            f"{json.dumps(self._owner)} (process {os.getpid()} on {socket.gethostname()})",
            encoding="utf-8",
        )


def _create(url: URL, *, sync: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        # By position, so that the journal's tuples serve every driver.
        return create_engine(url, pool_pre_ping=True, paramstyle="format")
    # One connection a reading thread and one for the journal; each opens its own transaction.
    engine = create_engine(
        url,
        pool_size=READ_THREADS + 2,
        max_overflow=4,
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )

    def connected(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # pyright: ignore[reportAttributeAccessIssue]
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {sync}",
            "busy_timeout = 5000",
            "temp_store = MEMORY",
            "cache_size = -32768",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
