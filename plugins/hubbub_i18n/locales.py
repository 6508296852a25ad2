"""Names of languages (BCP 47), and in which order they are looked into for a text."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["canonical", "chain"]

_LOCALE: Final = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,3}", re.ASCII)
_REGION: Final = 2
_SCRIPT: Final = 4


def canonical(name: str) -> str:
    """Return a language as BCP 47 writes it: `zh_cn` is `zh-CN`, `ZH-hant` is `zh-Hant`.

    Raises:
        ValueError: no name of a language.
    """
    if not _LOCALE.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no language; write it as in BCP 47, such as zh-CN")
    first, *others = name.replace("_", "-").split("-")
    return "-".join((first.lower(), *map(_part, others)))


def _part(part: str) -> str:
    if part.isalpha() and len(part) == _REGION:
        return part.upper()
    return part.title() if part.isalpha() and len(part) == _SCRIPT else part.lower()


def chain(locale: str, default: str) -> tuple[str, ...]:
    """Return where to look: the language itself, without its region, and the default."""
    parts = locale.split("-")
    shorter = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
    return tuple(dict.fromkeys((*shorter, default)))
