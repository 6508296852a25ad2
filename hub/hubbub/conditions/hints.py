"""What was probably meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["near"]


def near(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown word."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    if close:
        return f", which is unknown; did you mean {close[0]!r}?"
    return f", which is unknown; known are {', '.join(names)}"
