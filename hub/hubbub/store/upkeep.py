"""What an operator does with the database while the hub runs: make it small, see its history."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, inspect, text
from sqlmodel import Session

from hubbub.errors import StoreUnavailableError
from hubbub.store.outages import is_outage

__all__ = ["Migration", "migrations", "shorten_log", "vacuum"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the tables' history."""

    revision: str
    says: str
    applied: bool


def vacuum(engine: Engine) -> None:
    """Give back what removed rows leave. SQLite writes its whole file anew meanwhile.

    Nothing can be written then; publishers wait, and are refused when it takes over a second.

    Raises:
        StoreUnavailableError: the database is too busy, or the disk is full.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            if connection.dialect.name == "sqlite":
                driver = connection.connection.driver_connection
                assert driver is not None
                driver.execute("VACUUM")
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                driver.execute("PRAGMA optimize")
            else:
                connection.execute(text("VACUUM (ANALYZE)"))
        except Exception as error:
            if isinstance(error, connection.dialect.loaded_dbapi.Error) or is_outage(error):
                raise StoreUnavailableError(f"it cannot be made smaller now: {error}") from error
            raise


def shorten_log(engine: Engine) -> None:
    """Bring the log of SQLite into the file and cut it short, where nobody reads an old state.

    Commits do so themselves; this is for a log that grew while somebody read, and that no commit
    has come to since. It waits for nobody: what cannot be done now is done the next time.
    """
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        (wait_ms,) = driver.execute("PRAGMA busy_timeout").fetchone()
        driver.execute("PRAGMA busy_timeout = 0")
        try:
            # The first one copies, and lets others write; the second holds them up for a moment.
            for how in ("PASSIVE", "TRUNCATE"):
                driver.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
        except connection.dialect.loaded_dbapi.Error:
            return  # somebody writes, or has locked the file
        finally:
            driver.execute(f"PRAGMA busy_timeout = {wait_ms}")


def migrations(session: Session) -> list[Migration]:
    """Return all steps, the newest first."""
    from alembic.config import Config  # noqa: PLC0415  # 0.2 s that a normal start does not need
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "hubbub.store:migrations")
    scripts = ScriptDirectory.from_config(config)
    connection = session.connection()
    at: str | None = None
    if inspect(connection).has_table("alembic_version"):
        at = connection.scalar(text("SELECT version_num FROM alembic_version"))
    applied: set[str] = set()
    if at is not None:
        applied = {one.revision for one in scripts.iterate_revisions(at, "base")}
    return [
        Migration(one.revision, (one.doc or "").split("\n", 1)[0], one.revision in applied)
        for one in scripts.walk_revisions()
    ]
