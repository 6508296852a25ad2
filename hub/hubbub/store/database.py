"""The database: opened, owned by one hub, migrated, read on threads of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlmodel import Session, SQLModel

from hubbub.errors import NotFoundError, StoreUnavailableError
from hubbub.file_modes import make_folder
from hubbub.store.connections import (
    LOG_BYTES,
    READ_THREADS,
    Bounds,
    abort_of,
    is_file,
    reading_engine,
    writing_engine,
)
from hubbub.store.deadlines import Deadlines, Limit
from hubbub.store.entries import Statement
from hubbub.store.files import DatabaseFiles
from hubbub.store.integrity import damage_in
from hubbub.store.migrate import upgrade
from hubbub.store.outages import StoreDamagedError, is_damage, is_outage, reason_of
from hubbub.store.ownership import FileOwnership, ServerOwnership, StoreOwnedError
from hubbub.store.statements import driver_of
from hubbub.store.tables import table_of
from hubbub.store.upkeep import shorten_log

__all__ = ["Database", "StoreOwnedError"]

T = TypeVar("T")

TIMEOUT_S: Final = 3.0
"""How long the store may take to answer where no setting says."""

SLOW_CHECK_S: Final = 1.0
"""A look at all pages that takes longer is told in the log."""

LATE_S: Final = 0.25
"""So much later than the server itself a statement is given up here: it may say why it is late."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Database:
    """Connections to the store. Reads run on threads, so that they never hold up a message.

    Attributes:
        timeout_s: How long a statement of the journal or of a request may take.
    """

    def __init__(
        self,
        url: str,
        *,
        sync: str = "full",
        owner: str = "hub-1",
        timeout_s: float = TIMEOUT_S,
        check: bool = True,
    ) -> None:
        """Open nothing yet.

        Args:
            check: Look at all pages of a file when it is opened.
        """
        self._url: URL = make_url(url)
        self.timeout_s: Final = timeout_s
        self._check = check
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="hubbub-read")
        self._file = None if self.path is None else FileOwnership(self.path, owner)
        self._files = (
            None if self.path is None or self._file is None
            else DatabaseFiles(self.path, self._file.lock_path)
        )  # fmt: skip
        self._server = None if is_file(self._url) else ServerOwnership(self.place, owner)
        self._deadlines = Deadlines()
        self._writer: Connection | None = None
        self._anchor: Connection | None = None
        bounds = Bounds(sync, timeout_s, self._deadlines, self.check_files)
        self.engine: Final[Engine] = reading_engine(self._url, bounds)
        self._writing = writing_engine(
            self._url, bounds, name=self._server.name if self._server else ""
        )

    @property
    def path(self) -> Path | None:
        """The file, for SQLite; None for a server."""
        if not is_file(self._url) or not self._url.database:
            return None
        return Path(self._url.database)

    @property
    def log_bytes(self) -> int:
        """What the log of SQLite takes on disk; 0 for a server."""
        path = self.path
        if path is None:
            return 0
        with suppress(OSError):
            return path.with_name(path.name + "-wal").stat().st_size
        return 0

    async def shorten_log(self) -> None:
        """Cut the log short where it is too long, and nobody reads an old state any more."""
        if self.log_bytes > LOG_BYTES:
            await self.read(lambda session: shorten_log(session.get_bind().engine), patient=True)

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return str(self.path or self._url.render_as_string(hide_password=True))

    def open(self) -> None:
        """Own the database, and bring its tables up to date.

        Raises:
            StoreOwnedError: another hub runs on it.
            StoreDamagedError: the file is no database, or some of its pages are damaged.
            StoreUnavailableError: it cannot be reached or written.
        """
        try:
            self.own()
            with self._told():
                self._bind()
                with self._deadlines.limit(2 * self.timeout_s):
                    self.engine.connect().close()
                upgrade(self.engine)
                if self._server is not None and self._writer is not None:
                    self._server.remember(self._writer)
                    self._writer.commit()
        except BaseException:
            self.close()
            raise

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
        with self._deadlines.limit(2 * self.timeout_s):
            connection = self._writing.connect()
        try:
            if self._server is not None:
                self._server.take(connection, partial(self.limited, connection))
                connection.commit()
        except BaseException:
            with suppress(SQLAlchemyError):
                connection.close()
            raise
        return connection

    def limited(self, connection: Connection, *, patient: bool = False) -> Limit:
        """Return the limit of what is done on the connection that writes, as a context.

        The write to a file is never ended: it would be tried again, and take as long.

        Args:
            patient: It may take as long as it takes.
        """
        if self._server is None:
            return self._deadlines.limit(None)
        limit_s = None if patient else self.timeout_s + LATE_S
        return self._deadlines.limit(limit_s, abort_of(connection))

    def check_files(self, *, within_s: float = 0.0) -> None:
        """See that the files of the database are those at their paths; a server has none.

        Args:
            within_s: A look that is not older is enough.

        Raises:
            StoreMovedError: they are not.
            StoreDamagedError: they were overwritten.
        """
        if self._files is not None:
            self._files.check(within_s=within_s)

    def complete_file(self, connection: Connection) -> None:
        """Bring what is in the log alone into the main file, wherever that lies now."""
        with suppress(sqlite3.Error):
            driver_of(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def verify(self) -> None:
        """Look at all pages of a file; a server does so itself.

        Raises:
            StoreDamagedError: some are damaged.
        """
        path = self.path
        if path is None or not path.exists() or not path.stat().st_size:
            return
        began = monotonic()
        try:
            damage = damage_in(path)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if damage is not None:
            raise StoreDamagedError.at(self.place, damage)
        took_s = monotonic() - began
        if took_s > SLOW_CHECK_S:
            log.info("store.checked", path=str(path), took_s=round(took_s, 3))

    def _bind(self) -> None:
        """Open a file for good, and remember which one it is.

        One connection stays open as long as the hub runs: the last one that is closed takes the
        log away.
        """
        files = self._files
        if files is None:
            return
        self.engine.dispose()  # what was read before the file was ours
        files.open()
        if self._check:
            files.read_ahead()
            self.verify()
        self._anchor = self._writing.connect()
        driver = driver_of(self._anchor)
        driver.execute(f"PRAGMA user_version = {files.mark}")
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        driver.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        files.bind()
        files.check()

    def create(self, models: Sequence[type[SQLModel]]) -> None:
        """Create the tables a plugin brought, where they are missing."""
        with self._told():
            SQLModel.metadata.create_all(self.engine, tables=[table_of(model) for model in models])

    async def read(self, query: Callable[[Session], T], *, patient: bool = False) -> T:
        """Run a query on a reading thread.

        Args:
            patient: It may take longer than `store.timeout`: nobody waits for it.

        Raises:
            StoreUnavailableError: the database cannot be read, or not in time.
        """
        limit_s = None if patient else self.timeout_s
        reading = asyncio.get_running_loop().run_in_executor(
            self._readers, self.read_now, query, limit_s
        )
        try:
            async with asyncio.timeout(None if limit_s is None else limit_s + 2 * LATE_S):
                return await reading
        except TimeoutError:
            raise self.late() from None

    def read_now(self, query: Callable[[Session], T], limit_s: float | None = None) -> T:
        """Run a query on this thread.

        Args:
            limit_s: How long it may take; None is as long as it takes.

        Raises:
            StoreUnavailableError: the database cannot be read, or not in time.
        """
        late_s = None if limit_s is None else limit_s + LATE_S
        with self._told(), self._deadlines.limit(late_s) as limit:
            try:
                with Session(self.engine, expire_on_commit=False) as session:
                    return query(session)
            except SQLAlchemyError as error:
                if limit.expired:
                    raise self.late() from error
                raise

    def write_now(self, statements: Sequence[Statement]) -> None:
        """Run statements on this thread, beside the journal, which may not come to it any more.

        Raises:
            StoreUnavailableError: the database cannot be written, or not in time.
        """
        self.check_files()
        with (
            self._told(),
            self._deadlines.limit(self.timeout_s + LATE_S),
            self.engine.begin() as connection,
        ):
            for statement, rows in statements:
                connection.execute(statement, rows or None)

    def close(self) -> None:
        """Close all connections and give the database free."""
        self._deadlines.close()
        self._readers.shutdown()
        for connection in (self._writer, self._anchor):
            if connection is not None:
                connection.close()
        self._writer = self._anchor = None
        self.engine.dispose()
        self._writing.dispose()
        if self._files is not None:
            self._files.close()
        if self._file is not None:
            self._file.release()

    def late(self) -> StoreUnavailableError:
        """Return the error of what took longer than it may."""
        return StoreUnavailableError(
            f"{self.place} gave no answer within {self.timeout_s:g} s (store.timeout)"
        )

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
            raise self._unusable(error) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StoreUnavailableError:
        reason = reason_of(error)
        if is_damage(error):
            return StoreDamagedError.at(self.place, reason)
        return StoreUnavailableError(f"{self.place} cannot be used: {reason}")


def _asks_for_nul(error: SQLAlchemyError) -> bool:
    """Tell whether a read asked PostgreSQL for what it cannot hold; SQLite just finds nothing."""
    return isinstance(error, DataError) and "NUL" in str(error.orig)
