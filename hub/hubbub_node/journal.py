"""The results that the hub has not acknowledged, in a SQLite file beside the node.

One commit a result, without waiting for the disk: it survives the end of the process, however
sudden; of a power cut the last ones may be lost, and the hub gives those tasks to somebody again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Journal", "JournalError"]

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS node (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS result (task_id TEXT PRIMARY KEY, frame TEXT NOT NULL) WITHOUT ROWID;
"""


class JournalError(Exception):
    """The file cannot be used."""


def _make_private(path: Path) -> None:
    """Make the file, for the node's own user alone; SQLite gives what is beside it that mode too.

    One that is there is not opened, since closing it would drop locks; others lose their rights.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return
    status = path.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o007:
        path.chmod(stat.S_IMODE(status.st_mode) & ~0o007)


class Journal:
    """Kept results, by task."""

    def __init__(self, path: Path) -> None:
        """Open the file, made when it is not there.

        Raises:
            JournalError: it cannot be opened, or another node has it open.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_private(path)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "synchronous = NORMAL",
            ):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"the journal {path} cannot be used: {error}; another node may have it open, each "
                "needs a file of its own"
            ) from error

    def node_id(self, given: str | None) -> str:
        """Return the id of this node: the given one, else the one it had, else a new one."""
        row = self._database.execute("SELECT id FROM node").fetchone()
        if row is not None and given in (None, row[0]):
            return str(row[0])
        chosen = given or f"node_{secrets.token_hex(8)}"
        self._database.execute("DELETE FROM node")
        self._database.execute("INSERT INTO node VALUES (?)", (chosen,))
        return chosen

    def keep(self, task_id: str, frame: str) -> None:
        """Keep a result; another one of the same task goes."""
        self._database.execute("INSERT OR REPLACE INTO result VALUES (?, ?)", (task_id, frame))

    def find(self, task_id: str) -> str | None:
        """Return the kept result of a task."""
        row = self._database.execute(
            "SELECT frame FROM result WHERE task_id = ?", (task_id,)
        ).fetchone()
        return None if row is None else str(row[0])

    def forget(self, task_id: str) -> None:
        """The hub has it."""
        self._database.execute("DELETE FROM result WHERE task_id = ?", (task_id,))

    def all(self) -> list[tuple[str, str]]:
        """Return tasks and frames of all that is kept."""
        rows = self._database.execute("SELECT task_id, frame FROM result").fetchall()
        return [(str(task_id), str(frame)) for task_id, frame in rows]

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT count(*) FROM result").fetchone()[0]
        return count

    def close(self) -> None:
        """Give the file free."""
        self._database.close()
