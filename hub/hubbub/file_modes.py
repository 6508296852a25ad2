"""Modes of the hub's own files: 600, and 700 for folders, from the moment they are made.

What the hub keeps is messages, tokens and passwords, so only its own user reads it, whatever the
umask. What was made wider is narrowed: rights of *others* are taken away; those of the group stay
(750, 640), because that is how an operator lets a log shipper or a backup read.

SQLite gives `-wal` and `-shm` the mode of the database file, so that file is made first.
No file is opened to change its mode where that can be avoided: closing a second descriptor of a
database would drop the locks that this process has on it (POSIX).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal

__all__ = [
    "FILE_MODE",
    "FOLDER_MODE",
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "OTHERS",
    "Narrowing",
    "TooWide",
    "create_file",
    "is_open_to_all",
    "make_folder",
    "narrow",
    "narrow_tree",
    "open_binary",
    "owner_of",
    "too_wide",
    "write_text",
]

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

OTHERS: Final = 0o007
"""Rights of users that are neither the owner nor of the group."""

ENTER: Final = 0o001

MAX_ENTRIES: Final = 100_000
"""Entries of a folder that are looked at; what is further in is shut in by the folders above."""

MAX_DEPTH: Final = 32
"""Folders inside of each other that are looked into."""

MAX_FAILURES: Final = 10
"""Failures that are remembered of one walk."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_O_PATH: Final[int] = getattr(os, "O_PATH", 0)
_FLAGS: Final = {
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}


# Making


def make_folder(path: Path) -> None:
    """Make a folder and all that is missing above it; one that is there stays as it is.

    `Path.mkdir` gives its mode to the last folder alone; here all that are made have 700.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    missing: list[Path] = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    for folder in reversed(missing or [path]):
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            if not folder.is_dir():
                raise


def create_file(path: Path) -> bool:
    """Make an empty file; one that is there is not touched, nor opened.

    Returns:
        Whether it was made.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(path, _NEW, FILE_MODE))
    except FileExistsError:
        return False
    return True


def _opened(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file; a new one has 600, one that is there is narrowed."""
    opened = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
    try:
        status = os.fstat(opened)
        if _is_ours(status) and stat.S_ISREG(status.st_mode) and status.st_mode & OTHERS:
            with suppress(OSError):  # a file system without modes
                os.fchmod(opened, _without_others(status))
    except BaseException:
        os.close(opened)
        raise
    return opened


def open_binary(path: Path, mode: Literal["ab", "wb", "xb"]) -> BinaryIO:
    """Open a file to write; a new one has 600, one that is there is narrowed.

    Raises:
        OSError: it cannot be opened; for `xb` also where it is there.
    """
    return os.fdopen(_opened(path, _FLAGS[mode]), "wb" if mode == "xb" else mode)


def write_text(path: Path, text: str) -> None:
    """Write a whole file, in the place of what lies there: a link is replaced, never followed.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open_binary(part, "xb") as file:
            file.write(text.encode())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


# Narrowing


@dataclass(slots=True)
class Narrowing:
    """Result of a walk.

    Attributes:
        changed: Entries whose mode was changed.
        failures: What could not be changed or read, and why; the first ones.
        complete: Whether all entries were looked at.
    """

    changed: int = 0
    failures: list[str] = field(default_factory=list[str])
    complete: bool = True

    def fail(self, path: Path, error: OSError) -> None:
        """Remember a failure."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(f"{path}: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class TooWide:
    """A file or folder of ours that others may use; `mode` without its kind."""

    path: Path
    mode: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or folder of ours, by its name in an open folder."""

    folder: int
    name: str
    path: Path
    status: os.stat_result


def narrow_tree(root: Path, *, secrets: frozenset[str] = frozenset()) -> Narrowing:
    """Take the rights of others away from a folder, and from what is ours in it.

    Links are not followed, except one that is the root itself. What belongs to another user is not
    touched, and folders of others are not looked into.

    Args:
        secrets: Names of files directly in the root from which, where others have rights, those
            of the group go too.

    Returns:
        What was done; errors are told there and not raised.
    """
    done = Narrowing()
    try:
        folder = os.open(root, _FOLDER)
    except FileNotFoundError:
        return done
    except OSError as error:
        done.fail(root, error)
        return done
    try:
        status = os.fstat(folder)
        if _is_ours(status) and status.st_mode & OTHERS:
            os.fchmod(folder, _without_others(status))
            done.changed += 1
    except OSError as error:
        done.fail(root, error)
    try:
        for entry in _walk(folder, root, done):
            if entry.status.st_mode & OTHERS:
                secret = entry.name in secrets and entry.path.parent == root
                mode = FILE_MODE if secret else _without_others(entry.status)
                _change(entry, mode, done)
    except OSError as error:  # a folder that cannot be listed
        done.fail(root, error)
    finally:
        os.close(folder)
    return done


def narrow(path: Path) -> str | None:
    """Take the rights of others away from one file of ours, where a link leads to it or not.

    Returns:
        Why that failed; None where it did not, or where there is nothing to do.
    """
    done = Narrowing()
    try:
        real = path.resolve()
        status = real.lstat()
        if _is_ours(status) and stat.S_ISREG(status.st_mode) and status.st_mode & OTHERS:
            folder = os.open(real.parent, _FOLDER)
            try:
                entry = _Entry(folder, real.name, real, status)
                _change(entry, _without_others(status), done)
            finally:
                os.close(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        done.fail(path, error)
    return done.failures[0] if done.failures else None


def too_wide(root: Path) -> Iterator[TooWide]:
    """Yield what `narrow_tree` would change; nothing is changed.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = os.open(root, _FOLDER)
    try:
        status = os.fstat(folder)
        if _is_ours(status) and status.st_mode & OTHERS:
            yield TooWide(root, stat.S_IMODE(status.st_mode))
        for entry in _walk(folder, root, Narrowing()):
            if entry.status.st_mode & OTHERS:
                yield TooWide(entry.path, stat.S_IMODE(entry.status.st_mode))
    finally:
        os.close(folder)


def is_open_to_all(folder: Path) -> bool:
    """Tell whether every user of the machine may enter a folder; False where there is none."""
    try:
        return bool(folder.stat().st_mode & ENTER)
    except OSError:
        return False


def owner_of(path: Path) -> int | None:
    """Return the user id that a path belongs to; None where there is nothing."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _walk(root: int, shown: Path, done: Narrowing) -> Iterator[_Entry]:
    """Yield files and folders of ours below a folder, each folder before what is in it."""
    left = MAX_ENTRIES

    def inside(folder: int, path: Path, depth: int) -> Iterator[_Entry]:
        nonlocal left
        folders: list[str] = []
        with os.scandir(folder) as found:
            for one in found:
                left -= 1
                if left < 0:
                    done.complete = False
                    return
                with suppress(FileNotFoundError):  # it went meanwhile
                    status = one.stat(follow_symlinks=False)
                    if _is_ours(status) and _is_plain(status):
                        if stat.S_ISDIR(status.st_mode):
                            folders.append(one.name)
                        yield _Entry(folder, one.name, path / one.name, status)
        if folders and depth == MAX_DEPTH:
            done.complete = False
            return
        for name in folders:
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except OSError as error:
                done.fail(path / name, error)
                continue
            try:
                if _is_ours(os.fstat(inner)):
                    yield from inside(inner, path / name, depth + 1)
            finally:
                os.close(inner)

    yield from inside(root, shown, 1)


def _change(entry: _Entry, mode: int, done: Narrowing) -> None:
    """Change the mode of what was looked at, if it is still that."""
    try:
        if not _O_PATH:
            os.chmod(entry.name, mode, dir_fd=entry.folder, follow_symlinks=False)
        else:
            held = os.open(entry.name, _O_PATH | os.O_NOFOLLOW, dir_fd=entry.folder)
            try:
                if not os.path.samestat(os.fstat(held), entry.status):
                    return
                Path(f"/proc/self/fd/{held}").chmod(mode)
            finally:
                os.close(held)
    except FileNotFoundError:
        return
    except OSError as error:
        done.fail(entry.path, error)
    else:
        done.changed += 1


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


def _without_others(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & ~OTHERS
