"""What is done with files. Every name is opened from the folder above it, and no link is followed.

Paths were resolved before (`places`); should somebody put a link into the way meanwhile, opening it
fails instead of leading elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from hubbub.errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from hubbub.file_modes import FILE_MODE, FOLDER_MODE, make_folder
from hubbub_files.errors import OutsideError, PrivateError
from hubbub_files.places import Place, Roots
from hubbub_files.privacy import Privacy, is_database

__all__ = ["MAX_MOVED", "Entry", "Folders"]

MAX_MOVED: Final = 10_000
"""Entries of a folder that is moved, because each is looked at."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BEGINNING: Final = 16

_SAID: Final = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: NotFoundError,
    errno.ELOOP: OutsideError,
    errno.EEXIST: ConflictError,
    errno.ENOTEMPTY: ConflictError,
    errno.EISDIR: ConflictError,
    errno.EXDEV: ConflictError,
    errno.EACCES: ConflictError,
    errno.EPERM: ConflictError,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder.

    Attributes:
        kind: `file`, `folder`, `link`, or `other` (a socket, a pipe, a device).
        modified_us: Microseconds since the epoch.
    """

    name: str
    path: str
    kind: str
    size: int
    modified_us: int


class Folders:
    """Reads and changes what is below the roots. Blocks: call it on a thread."""

    def __init__(self, roots: Roots, privacy: Privacy, *, max_bytes: int) -> None:
        self.roots: Final = roots
        self._privacy = privacy
        self._max_bytes = max_bytes

    # Reading

    def listed(self, path: str) -> list[Entry]:
        """Return what is in a folder, folders first; private files are left out."""
        place = self.roots.find(path)
        self._check(place)
        entries: list[Entry] = []
        if not place.names and not place.root.exists():
            return entries
        with _told(path), _opened(place.root, place.names) as folder, os.scandir(folder) as found:
            for one in found:
                status = one.stat(follow_symlinks=False)
                names = (*place.names, one.name)
                if not self._privacy.covers(place.path / one.name, names, status):
                    entries.append(_entry(one.name, f"{place.shown}/{one.name}", status))
        return sorted(entries, key=lambda entry: (entry.kind != "folder", entry.name))

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return a file, or a part of it.

        Raises:
            TooLargeError: more than `max_bytes`.
        """
        place = self._file(path)
        with _told(path), _opened(place.root, place.names[:-1]) as folder:
            opened = os.open(place.names[-1], _FILE, dir_fd=folder)
            with os.fdopen(opened, "rb") as file:
                status = os.fstat(opened)
                if not stat.S_ISREG(status.st_mode):
                    raise ConflictError(f"{path[:80]!r} is no file")
                self._check(place, status)
                if is_database(file.read(_BEGINNING)):
                    raise PrivateError
                wanted = max(0, status.st_size - offset) if length is None else length
                self._check_size(wanted)
                file.seek(offset)
                return file.read(wanted)

    # Changing

    def write(self, path: str, content: bytes) -> tuple[Entry, bool]:
        """Write a whole file, which is there as it was or as it shall be; tells if it is new."""
        self._check_size(len(content))
        place = self._file(path)
        if is_database(content):
            raise PrivateError
        part = f".{token_hex(8)}.part"
        name = place.names[-1]
        make_folder(place.root)
        with _told(path), _opened(place.root, place.names[:-1]) as folder:
            before = _status(name, folder)
            if before is not None and not stat.S_ISREG(before.st_mode):
                raise ConflictError(f"{path[:80]!r} is no file; remove it first")
            self._check(place, before)
            try:
                with os.fdopen(os.open(part, _NEW, FILE_MODE, dir_fd=folder), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    if before is not None:
                        os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
            after = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return _entry(name, place.shown, after), before is None

    def make(self, path: str) -> Entry:
        """Make a folder; the one above it must be there."""
        place = self._file(path)
        self._check(place)
        make_folder(place.root)
        name = place.names[-1]
        with _told(path), _opened(place.root, place.names[:-1]) as folder:
            os.mkdir(name, FOLDER_MODE, dir_fd=folder)
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return _entry(name, place.shown, status)

    def move(self, source: str, target: str) -> Entry:
        """Move a file, a link or a folder to a path where nothing is."""
        there, here = self._file(source, follow=False), self._file(target, follow=False)
        self._check(here)
        self._check_tree(there)
        if here.path.is_relative_to(there.path):
            raise ConflictError("a folder cannot be moved into itself")
        with (
            _told(source),
            _opened(there.root, there.names[:-1]) as from_folder,
            _opened(here.root, here.names[:-1]) as to_folder,
        ):
            name = here.names[-1]
            if _status(name, to_folder) is not None:
                raise ConflictError(f"{target[:80]!r} is there already; remove it first")
            os.rename(there.names[-1], name, src_dir_fd=from_folder, dst_dir_fd=to_folder)
            status = os.stat(name, dir_fd=to_folder, follow_symlinks=False)
        return _entry(name, here.shown, status)

    def remove(self, path: str) -> None:
        """Remove a file, a link (not what it leads to) or an empty folder."""
        place = self._file(path, follow=False)
        if self.roots.all_below(place.path):
            raise ConflictError(f"{path[:80]!r} is a root, or holds one; it stays")
        with _told(path), _opened(place.root, place.names[:-1]) as folder:
            name = place.names[-1]
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self._check(place, status)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)

    # Inside

    def _file(self, path: str, *, follow: bool = True) -> Place:
        """Return a place that is not a root itself."""
        place = self.roots.find(path, follow=follow)
        if not place.names:
            raise ConflictError(f"{path[:80]!r} is a root; name something in it")
        return place

    def _check(self, place: Place, status: os.stat_result | None = None) -> None:
        if self._privacy.covers(place.path, place.names, status):
            raise PrivateError

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLargeError(
                what="the file",
                size_bytes=size,
                limit_bytes=self._max_bytes,
                setting="plugins.files.max_file",
            )

    def _check_tree(self, place: Place) -> None:
        """Refuse to move what is private, is a root, or holds one of either."""
        if self.roots.all_below(place.path):
            raise ConflictError(f"{place.shown[:80]!r} is a root, or holds one; it stays")
        with suppress(FileNotFoundError):
            self._check(place, place.path.lstat())
        for count, path in enumerate(_walk(place.path)):
            if count >= MAX_MOVED:
                raise ConflictError(f"the folder has over {MAX_MOVED} entries; move it by hand")
            names = path.relative_to(place.root).parts
            if self._privacy.covers(path, names, path.lstat()):
                raise PrivateError


def _walk(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder; links are not followed."""
    for path, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            yield Path(path, name)


def _entry(name: str, path: str, status: os.stat_result) -> Entry:
    mode = status.st_mode
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    kind = next((kind for is_kind, kind in kinds if is_kind(mode)), "other")
    size = status.st_size if kind == "file" else 0
    return Entry(name, path, kind, size, status.st_mtime_ns // 1000)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def _opened(root: Path, names: tuple[str, ...]) -> Generator[int]:
    """Open a folder, name by name from its root."""
    folder = os.open(root, _FOLDER)
    try:
        for name in names:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _told(path: str) -> Generator[None]:
    """Tell what the system says in words of the hub."""
    try:
        yield
    except OSError as error:
        said = _SAID.get(error.errno or 0, InvalidError)
        raise said(f"{path[:80]!r}: {error.strerror}") from error
