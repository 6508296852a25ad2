"""Paths from outside, `<root>/<relative>`, and the places they mean; pure but for reading links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubbub.errors import NotFoundError
from hubbub_files.errors import OutsideError

__all__ = ["MAX_PATH", "Place", "Roots", "parts_of"]

MAX_PATH: Final = 1024
"""Characters of a path."""

MAX_NAME: Final = 255
"""Bytes of one name in it."""

_ODD: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a root, and names below it, none of them a link or `..`.

    Attributes:
        shown: The path as it is shown.
    """

    root: Path
    names: tuple[str, ...]
    shown: str

    @property
    def path(self) -> Path:
        """The absolute path."""
        return self.root.joinpath(*self.names)


def parts_of(path: str) -> tuple[str, ...]:
    """Return the names of a path.

    Raises:
        OutsideError: absolute, with an empty name, `.`, `..`, a backslash, a drive, or a
            character that no name has.
    """
    names = tuple(path.removesuffix("/").split("/"))
    if len(path) > MAX_PATH:
        raise OutsideError(f"the path has {len(path)} characters, the limit is {MAX_PATH}")
    for name in names:
        if not name or name in (".", "..") or _ODD.search(name) or _size(name) > MAX_NAME:
            raise OutsideError(
                f"{path[:80]!r} is no path here; write <root>/<folder>/<file>, without '.', '..', "
                "backslashes and control characters"
            )
    return names


def _size(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


class Roots:
    """The folders that are shown, by name."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots: Final = {name: root.resolve() for name, root in roots.items()}

    def __iter__(self) -> Iterator[str]:
        """Yield their names."""
        return iter(self._roots)

    def all_below(self, path: Path) -> list[str]:
        """Return the roots that are a folder, or below it."""
        return [name for name, root in self._roots.items() if root.is_relative_to(path)]

    def find(self, path: str, *, follow: bool = True) -> Place:
        """Return where a path leads.

        Args:
            follow: Whether its last name may be a link that is followed; links before it are.

        Raises:
            NotFoundError: no such root.
            OutsideError: it leads out of its root, by a link or otherwise.
        """
        name, *below = parts_of(path)
        root = self._roots.get(name)
        if root is None:
            raise NotFoundError(f"there is no root {name!r}; there are {', '.join(self._roots)}")
        try:
            real = root.joinpath(*below[:-1]).resolve()
            if below:
                real = (real / below[-1]).resolve() if follow else real / below[-1]
        except (OSError, RuntimeError) as error:  # a loop of links
            raise OutsideError(f"{path[:80]!r} leads nowhere: {error}") from error
        if not real.is_relative_to(root):
            raise OutsideError(f"{path[:80]!r} leads out of its root by a link; it is not followed")
        return Place(root, real.relative_to(root).parts, path.removesuffix("/"))
