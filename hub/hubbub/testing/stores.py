"""Databases for tests: the SQLite file of a data directory, or one of a PostgreSQL server.

`HUBBUB_TEST_POSTGRES` is the URL of a server on which databases may be made and dropped; without
it one on this machine is tried. `HUBBUB_TEST_STORE=postgres` puts every hub of the test kit there,
so that any suite can be run on both.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final
from uuid import uuid4

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from hubbub.store.database import Database

__all__ = ["PostgresServer", "postgres_problem", "store_of"]

LOCAL: Final = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def _server_url() -> URL:
    return make_url(os.environ.get("HUBBUB_TEST_POSTGRES", LOCAL))


@lru_cache
def postgres_problem() -> str | None:
    """Return why there is no PostgreSQL for tests; None when there is one."""
    url = _server_url()
    try:
        engine = create_engine(url, connect_args={"connect_timeout": 2})
        with engine.connect():
            pass
        engine.dispose()
    except (ImportError, SQLAlchemyError) as error:
        shown = url.render_as_string(hide_password=True)
        return f"no PostgreSQL at {shown} (HUBBUB_TEST_POSTGRES): {str(error).splitlines()[0]}"
    return None


class PostgresServer:
    """Makes databases, copies of one that is brought up to date already, and drops them."""

    def __init__(self) -> None:
        self._engine = create_engine(_server_url(), isolation_level="AUTOCOMMIT")
        self._template = f"hubbub_test_{uuid4().hex[:12]}"
        self._made: dict[str, str] = {}

    def database(self, name: str | None = None) -> str:
        """Return the URL of a database: a new one, or that of this name."""
        if not self._made:
            Database(self._make(self._template, "template0"), owner="template").migrate()
        name = name or uuid4().hex[:16]
        full = f"{self._template}_{name}"
        return self._made.get(full) or self._make(full, self._template)

    def drop(self, url: str | None = None) -> None:
        """Drop the database of a URL, or all that were made."""
        with self._engine.connect() as connection:
            for name in [one for one, made in self._made.items() if url in (None, made)]:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
                del self._made[name]
        self._engine.dispose()

    def _make(self, name: str, template: str) -> str:
        with self._engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        url = _server_url().set(database=name).render_as_string(hide_password=False)
        self._made[name] = url
        return url


@lru_cache
def shared_server() -> PostgresServer:
    """Return the server of this process."""
    return PostgresServer()


def store_of(data_dir: Path) -> str | None:
    """Return the database of a data directory where `HUBBUB_TEST_STORE` asks for another one."""
    if os.environ.get("HUBBUB_TEST_STORE") != "postgres":
        return None
    return shared_server().database(blake2b(str(data_dir).encode(), digest_size=8).hexdigest())
