"""A look at all pages of a SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["damage_in"]


def damage_in(path: Path) -> str | None:
    """Return the first damage of a file in one line; None when it is whole. Changes nothing.

    All pages are read; that indexes agree with their tables is not looked at, it would take three
    times as long.

    Raises:
        sqlite3.Error: it is no database, or cannot be read.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        (verdict,) = file.execute("PRAGMA quick_check(1)").fetchone()
    return None if verdict == "ok" else " ".join(str(verdict).split())
