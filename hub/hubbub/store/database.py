"""The database: opened, owned by one hub, migrated, read on threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlmodel import Session, SQLModel

from hubbub.errors import NotFoundError, StoreUnavailableError
from hubbub.file_modes import make_folder
from hubbub.store.connections import READ_THREADS, is_file, reading_engine, writing_engine
from hubbub.store.migrate import upgrade
from hubbub.store.outages import StoreDamagedError, is_damage, is_outage, reason_of
from hubbub.store.ownership import FileOwnership, ServerOwnership, StoreOwnedError
from hubbub.store.tables import table_of

__all__ = ["Database", "StoreOwnedError"]

T = TypeVar("T")


class Database:
    """Connections to the store. Reads run on threads, so that they never hold up a message."""

    def __init__(self, url: str, *, sync: str = "full", owner: str = "hub-1") -> None:
        self._url: URL = make_url(url)
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="hubbub-read")
        self._file = None if self.path is None else FileOwnership(self.path, owner)
        self._server = None if is_file(self._url) else ServerOwnership(self.place, owner)
        self._writer: Connection | None = None
        self.engine: Final[Engine] = reading_engine(self._url, sync=sync)
        self._writing = writing_engine(
            self._url, sync=sync, name=self._server.name if self._server else ""
        )

    @property
    def path(self) -> Path | None:
        """The file, for SQLite; None for a server."""
        if not is_file(self._url) or not self._url.database:
            return None
        return Path(self._url.database)

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return str(self.path or self._url.render_as_string(hide_password=True))

    def open(self) -> None:
        """Own the database, and bring its tables up to date.

        Raises:
            StoreOwnedError: another hub runs on it.
            StoreDamagedError: the file is no database.
            StoreUnavailableError: it cannot be reached or written.
        """
        self.own()
        with self._told():
            upgrade(self.engine)
            if self._server is not None and self._writer is not None:
                self._server.remember(self._writer)
                self._writer.commit()

    def migrate(self) -> None:
        """Open, and close again."""
        try:
            self.open()
        finally:
            self.close()

    def own(self) -> None:
        """Own the database, whatever is in it.

        Raises:
            StoreOwnedError: another hub runs on it.
            StoreUnavailableError: it cannot be reached.
        """
        with self._told():
            if self._file is not None and self.path is not None:
                make_folder(self.path.parent)
                self._file.take()
            if self._server is not None:
                self._writer = self.writer()

    def writer(self) -> Connection:
        """Return the connection that writes: the one that owns the database."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            return writer
        connection = self._writing.connect()
        try:
            if self._server is not None:
                self._server.take(connection)
                connection.commit()
        except BaseException:
            with suppress(SQLAlchemyError):
                connection.close()
            raise
        return connection

    def create(self, models: Sequence[type[SQLModel]]) -> None:
        """Create the tables a plugin brought, where they are missing."""
        SQLModel.metadata.create_all(self.engine, tables=[table_of(model) for model in models])

    async def read(self, query: Callable[[Session], T]) -> T:
        """Run a query on a reading thread.

        Raises:
            StoreUnavailableError: the database cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    def read_now(self, query: Callable[[Session], T]) -> T:
        """Run a query on this thread.

        Raises:
            StoreUnavailableError: the database cannot be read.
        """
        with self._told(), Session(self.engine, expire_on_commit=False) as session:
            return query(session)

    def close(self) -> None:
        """Close all connections and give the database free."""
        self._readers.shutdown()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.engine.dispose()
        self._writing.dispose()
        if self._file is not None:
            self._file.release()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Tell an outage in words of the hub."""
        try:
            yield
        except SQLAlchemyError as error:
            if _asks_for_nul(error):
                raise NotFoundError("nothing is stored under a text with NUL") from error
            if not is_outage(error):
                raise
            reason = reason_of(error)
            if is_damage(error):
                raise StoreDamagedError(path=self.place, cause=reason) from error
            raise StoreUnavailableError(f"{self.place} cannot be used: {reason}") from error


def _asks_for_nul(error: SQLAlchemyError) -> bool:
    """Tell whether a read asked PostgreSQL for what it cannot hold; SQLite just finds nothing."""
    return isinstance(error, DataError) and "NUL" in str(error.orig)
