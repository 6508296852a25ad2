"""Commits held back for real: another connection has locked what the journal writes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import make_url

__all__ = ["no_commits"]

WAIT_S = 60.0
"""Much more than a commit takes that is under way."""


@asynccontextmanager
async def no_commits(url: str) -> AsyncGenerator[None]:
    """Let nothing be committed: somebody else has locked what a commit needs; reads go on."""
    where = make_url(url)
    connection: Any  # of sqlite3 or psycopg, which are alike here
    if where.get_backend_name() == "sqlite":
        connection = sqlite3.connect(
            str(where.database), isolation_level=None, timeout=WAIT_S, check_same_thread=False
        )
        lock = "BEGIN IMMEDIATE"
    else:
        import psycopg

        plain = where.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(plain)
        lock = "LOCK TABLE delivery IN EXCLUSIVE MODE"
    try:
        await asyncio.to_thread(connection.execute, lock)
        yield
    finally:
        connection.rollback()
        connection.close()
