"""What is never shown: by its name, by where it is, by which file it is, and by what is in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

__all__ = ["HIDDEN", "Privacy", "is_database"]

HIDDEN: Final = (
    "*.db", "*.db-*", "*.db.*", "*.db3", "*.sqlite", "*.sqlite-*", "*.sqlite3", "*.sqlite3-*",
    "*.token", "*.key", "*.pem", "*.p12", "*.pfx", "*.jks", "id_rsa*", "id_ed25519*", "id_ecdsa*",
    ".env", ".env.*", ".netrc", ".pgpass", ".git", ".ssh", "secret", "secrets",
)  # fmt: skip
"""Names of files and folders that are private wherever they are."""

_HEADERS: Final = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a database and its write-ahead log begin."""


def is_database(beginning: bytes) -> bool:
    """Tell whether a file is a database or its log, whatever it is called."""
    return beginning.startswith(_HEADERS)


class Privacy:
    """Says what is private."""

    def __init__(self, files: Iterable[Path], more: Sequence[str] = ()) -> None:
        """Keep some files private.

        Args:
            files: Absolute paths without links; what is beside one and begins with its name (a
                log, a lock, an older copy) is private too.
            more: More names.
        """
        self._files = tuple(files)
        self._names = (*HIDDEN, *(name.lower() for name in more))

    def covers(self, path: Path, names: Sequence[str], status: os.stat_result | None) -> bool:
        """Tell whether something is private.

        Args:
            path: Where it is, without links.
            names: The names in that path that are below its root.
            status: Which file it is, under whatever name it is linked there.
        """
        if any(fnmatchcase(name.lower(), hidden) for name in names for hidden in self._names):
            return True
        if any(path.parent == one.parent and path.name.startswith(one.name) for one in self._files):
            return True
        return status is not None and (status.st_dev, status.st_ino) in self._inodes()

    def _inodes(self) -> set[tuple[int, int]]:
        """Return which files they are now: a hard link has another name."""
        found: set[tuple[int, int]] = set()
        for file in self._files:
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    status = file.with_name(file.name + suffix).stat()
                    found.add((status.st_dev, status.st_ino))
        return found
