"""What the container, or the control group, lets this process take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["container_bytes"]

NO_LIMIT_BYTES: Final = 2**60
"""Version 1 writes a number beyond this where there is no limit."""

_LIMIT_FILES: Final = {True: "memory.max", False: "memory.limit_in_bytes"}


def container_bytes(root: Path = Path("/")) -> int | None:
    """Return the least memory that the control groups of this process allow; None without one.

    Version 2 has `memory.max`, version 1 `memory.limit_in_bytes`. A group above may allow less.

    Args:
        root: Where `proc` and `sys` are.
    """
    limits = [_read(file) for file in _files(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _files(root: Path) -> Iterator[Path]:
    """Yield the files that may have a limit, of this group and of those above."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        groups = []
    mounted = root / "sys/fs/cgroup"
    for group in groups:
        _, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top = mounted / "memory" if controllers else mounted
        name = _LIMIT_FILES[not controllers]
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder / name
            folder = folder.parent
        yield top / name


def _read(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return None
    if not text.isascii() or not text.isdigit() or int(text) >= NO_LIMIT_BYTES:
        return None  # "max" is none
    return int(text)
