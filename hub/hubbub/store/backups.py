"""Copies of the database: made while a hub runs, put back while none does."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.engine import URL

from hubbub.errors import HubError
from hubbub.store.connections import is_file
from hubbub.store.database import Database
from hubbub.store.integrity import damage_in
from hubbub.store.outages import reason_of

__all__ = ["Backup", "BackupError", "back_up", "back_up_into", "listed", "restore", "upgrade"]

OWNER: Final = "hubbub db"
_BESIDE: Final = ("-wal", "-shm")
_LONGEST_ERROR: Final = 500


class BackupError(HubError):
    """A copy of the database could not be made or put back; nothing was changed."""

    code = "backup"


def upgrade(url: str) -> None:
    """Bring the tables up to date.

    Raises:
        StoreOwnedError: a hub runs on the database; it did that when it started.
    """
    Database(url, owner=OWNER).migrate()


def back_up(url: str, target: Path) -> int:
    """Copy the database into a new file, also while a hub runs; returns its bytes.

    Raises:
        BackupError: it cannot be made.
    """
    if target.exists():
        raise BackupError(f"{target} is there already; name a new file, or move that one away")
    there = make_url(url)
    part = target.with_name(target.name + ".part")
    try:
        if is_file(there):
            _copy_file(Path(there.database or ""), part)
        else:
            _run("pg_dump", there, ["--format=custom", f"--file={part}"])
        part.replace(target)
    except OSError as error:
        raise BackupError(f"cannot write {target}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the database."""

    file: Path
    bytes: int
    made_us: int


def back_up_into(url: str, folder: Path) -> Backup:
    """Copy the database into a folder, under a name that says when.

    Raises:
        BackupError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 0
    while True:
        later = f"-{number}" if number else ""
        file = folder / f"hub-{_stamp()}{later}.db"
        if not file.exists():
            break
        number += 1
    back_up(url, file)
    file.chmod(0o600)
    return _backup(file)


def listed(folder: Path) -> list[Backup]:
    """Return the copies in a folder, newest first."""
    found = [_backup(file) for file in folder.glob("*.db") if file.is_file()]
    return sorted(found, key=lambda one: (one.made_us, one.file.name), reverse=True)


def _backup(file: Path) -> Backup:
    status = file.stat()
    return Backup(file, status.st_size, status.st_mtime_ns // 1000)


def restore(url: str, source: Path) -> Path | None:
    """Put a copy back; returns where what was there before is kept, if there was anything.

    Raises:
        StoreOwnedError: a hub runs on the database.
        BackupError: the copy cannot be used.
    """
    if not source.is_file():
        raise BackupError(f"there is no file {source}")
    there = make_url(url)
    if is_file(there):
        _check_file(source)
    database = Database(url, owner=OWNER)
    try:
        database.own()
        path = database.path
        kept = _swap(path, source) if path is not None else _reload(there, source)
    except OSError as error:
        raise BackupError(f"cannot restore {source}: {error}") from error
    finally:
        database.close()
    upgrade(url)
    return kept


def _copy_file(source: Path, target: Path) -> None:
    if not source.exists():
        raise BackupError(f"there is no database at {source} yet; nothing to back up")
    try:
        with (
            closing(sqlite3.connect(_existing(source), uri=True, timeout=5.0)) as there,
            closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
            here.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        damage = damage_in(target)
        if damage is not None:
            raise BackupError(f"{source} is damaged, and a copy of it would be: {damage}")
    except sqlite3.DatabaseError as error:
        raise BackupError(f"cannot copy {source}: {reason_of(error)}") from error


def _existing(path: Path) -> str:
    """Return a file as SQLite's address of it, by which it makes no new one."""
    return f"{path.absolute().as_uri()}?mode=rw"


def _check_file(source: Path) -> None:
    """See that a file is whole, and of a hub, before anything is touched."""
    try:
        damage = damage_in(source)
        if damage is not None:
            raise BackupError(f"{source} is damaged: {damage}; choose another backup")
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as copy:
            copy.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{source} is no database of a hub: {error}") from error


def _swap(path: Path, source: Path) -> Path | None:
    """Move the file aside with its log, and copy the other to its place."""
    part = path.with_name(path.name + ".part")
    shutil.copyfile(source, part)
    with part.open("rb+") as copied:
        os.fsync(copied.fileno())
    kept = path.with_name(f"{path.name}.before-{_stamp()}") if path.exists() else None
    for suffix in (*_BESIDE, ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.replace(f"{kept}{suffix}")
    part.replace(path)
    return kept


def _reload(there: URL, source: Path) -> Path:
    kept = source.with_name(f"{source.name}.before-{_stamp()}")
    _run("pg_dump", there, ["--format=custom", f"--file={kept}"])
    how = ["--clean", "--if-exists", "--no-owner", "--single-transaction", str(source)]
    _run("pg_restore", there, how)
    return kept


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _run(program: str, there: URL, arguments: Sequence[str]) -> None:
    """Run a program of PostgreSQL; the password is not in its arguments, which others can see."""
    found = shutil.which(program)
    if found is None:
        raise BackupError(
            f"{program} is not installed; it comes with the client of PostgreSQL "
            "(Debian: apt install postgresql-client)"
        )
    bare = there.set(drivername="postgresql", password=None)
    environ = dict(os.environ)
    if there.password is not None:
        environ["PGPASSWORD"] = str(there.password)
    command = [found, f"--dbname={bare.render_as_string()}", "--no-password", *arguments]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603  # no shell
    if ended.returncode:
        said = " ".join(ended.stderr.split())[:_LONGEST_ERROR]
        raise BackupError(f"{program} ended with {ended.returncode}: {said}")
