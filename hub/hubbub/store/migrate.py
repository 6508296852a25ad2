"""Alembic migrations, applied at start."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

__all__ = ["HEAD", "upgrade"]

HEAD: Final = "0004"
"""The newest migration; Alembic is imported only when the database is not there yet."""

_LOCK: Final = 0x48_55_42_42  # "HUBB": PostgreSQL advisory lock, so that one hub migrates


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date; does nothing when they are."""
    with engine.begin() as connection:
        if _revision(connection) == HEAD:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            if _revision(connection) == HEAD:
                return
        _run_alembic(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _run_alembic(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # 0.2 s that a normal start does not need
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "hubbub.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
