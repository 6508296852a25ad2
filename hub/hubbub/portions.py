"""Long answers in portions: how many bytes a page has, and how many are read or written at once.

Lists end by count and by bytes, whichever comes first; both say in the same way where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

__all__ = ["PAGE_BYTES", "PORTION_BYTES", "READ_AHEAD", "until_full", "until_past"]

T = TypeVar("T")

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the items of one page. It has at least one item, however large that is."""

PORTION_BYTES: Final = 256 * 1024
"""Bytes that are encoded, joined, or handed to a connection at once."""

READ_AHEAD: Final = 16
"""Rows that a driver hands over at once where each may have a whole message in it."""


def until_full(rows: Iterable[T], size_of: Callable[[T], int], limit_bytes: int) -> list[T]:
    """Return the first rows that fit together into a number of bytes, and at least one of any size.

    The rest is not read.
    """
    found: list[T] = []
    left_bytes = limit_bytes
    for row in rows:
        left_bytes -= size_of(row)
        if found and left_bytes < 0:
            break
        found.append(row)
    return found


def until_past(rows: Iterable[T], size_of: Callable[[T], int], limit_bytes: int) -> list[T]:
    """Return the first rows up to the one that goes over a number of bytes, with that one.

    As with a row more than a page may have: that it is there tells that another page follows.
    """
    found: list[T] = []
    left_bytes = limit_bytes
    for row in rows:
        found.append(row)
        left_bytes -= size_of(row)
        if left_bytes < 0:
            break
    return found
