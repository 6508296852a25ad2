"""One hub owns a database; a second one is refused and told who has it.

A file is owned by a lock beside it, for as long as the process lives. A server's database is owned
by an advisory lock **of the connection that writes**: whoever commits has it, and when that
connection is lost the lock goes with it, after its last commit is decided. So a hub that took the
lock again knows that nothing of its own is still under way.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Self
from uuid import uuid4

from filelock import FileLock, Timeout
from sqlalchemy import Connection, text

from hubbub.errors import HubError, StoreUnavailableError

__all__ = ["FileOwnership", "ServerOwnership", "StoreOwnedError", "StoreTakenError", "who"]

_KEY: Final = 0x48_55_42_42_4F_57_4E  # "HUBBOWN"
_GHOST_S: Final = 5.0
"""How long the former connection of this hub may take to end."""

_HOLDER: Final = text(
    "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.classid::bigint = :high AND l.objid::bigint = :low"
)
_REMEMBER: Final = text(
    "INSERT INTO meta (name, value) VALUES ('owner', :owner) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


class StoreOwnedError(HubError):
    """Another hub runs on this database."""

    code = "store_owned"

    def __init__(self, *, path: Path | str, owner: str) -> None:
        super().__init__(
            f"{path} belongs to {owner}, which is running; "
            "stop it, or give this hub another hub.data_dir or store.url"
        )


class StoreTakenError(StoreUnavailableError):
    """Another hub had the database while this one's connection was lost."""

    code = "store_taken"

    @classmethod
    def by(cls, owner: str, path: str) -> Self:
        """Return the error of a database that has another owner now."""
        return cls(
            f"{path} was taken by {owner} while the connection was lost; start this hub again"
        )


def who(name: str) -> str:
    """Return what a hub calls itself to others that want its database."""
    return f"{json.dumps(name)} (process {os.getpid()} on {socket.gethostname()})"


class FileOwnership:
    """The lock beside a file; its holder is named in a second file.

    Attributes:
        lock_path: The file that is locked.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path = path
        self._owner = owner
        self.lock_path: Final = path.with_suffix(path.suffix + ".lock")
        self._lock = FileLock(self.lock_path)

    def take(self) -> None:
        """Own the file.

        Raises:
            StoreOwnedError: another process does.
        """
        named = self._path.with_suffix(self._path.suffix + ".owner")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = named.read_text(encoding="utf-8") if named.exists() else "another hub"
            raise StoreOwnedError(path=self._path, owner=owner) from None
        named.write_text(who(self._owner), encoding="utf-8")

    def release(self) -> None:
        """Give the file free."""
        self._lock.release()


class ServerOwnership:
    """The advisory lock of the connection that writes.

    Attributes:
        name: What this hub tells the server that it is; at most 63 bytes, as the server cuts it.
    """

    def __init__(self, place: str, owner: str) -> None:
        self._place = place
        self._life = uuid4().hex
        self._pid: int | None = None
        self._owned = False
        self.name: Final = ascii(f"hubbub {who(owner)}")[1:-1][:63]

    def take(
        self, connection: Connection, limited: Callable[[], AbstractContextManager[object]]
    ) -> None:
        """Own the database by this connection, also after a former one was lost.

        Args:
            limited: Bounds the time of what is asked within it.

        Raises:
            StoreOwnedError: another hub does.
            StoreTakenError: another hub did meanwhile, so what this one remembers is old.
        """
        until = monotonic() + _GHOST_S
        while True:
            with limited():
                if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY}):
                    break
                self._send_away(connection, patient=monotonic() < until)
            sleep(0.05)
        with limited():
            self._pid = connection.scalar(text("SELECT pg_backend_pid()"))
            if self._owned:
                self._check(connection)

    def _send_away(self, connection: Connection, *, patient: bool) -> None:
        """End our own connection of before, in which the server still believes."""
        holder = connection.execute(_HOLDER, {"high": _KEY >> 32, "low": _KEY & 0xFFFFFFFF})
        pid, name = holder.one_or_none() or (None, None)
        if pid is None:
            return
        if pid != self._pid or not patient:
            owner = str(name or "another hub").removeprefix("hubbub ")
            raise StoreOwnedError(path=self._place, owner=owner)
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    def remember(self, connection: Connection) -> None:
        """Write down who owns the database, once its tables are there."""
        connection.execute(_REMEMBER, {"owner": f"{self._life} {self.name}"})
        self._owned = True

    def _check(self, connection: Connection) -> None:
        found = connection.scalar(text("SELECT value FROM meta WHERE name = 'owner'"))
        life, _, owner = str(found or "").partition(" ")
        if life != self._life:
            owner = owner.removeprefix("hubbub ") or "another hub"
            raise StoreTakenError.by(owner, self._place)
