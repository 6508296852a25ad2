"""Subjects: dot-separated tokens, patterns over them, and tokens made from foreign text.

A subject is `orders.eu.created`. In a pattern `*` stands for one token and a final `>` for one or
more. Addresses of endpoints are subjects too. Text from outside becomes a token by `escape`, so
that no client can forge a token boundary or a wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Generic, TypeVar
from urllib.parse import unquote

from hubbub.errors import SubjectError

__all__ = [
    "MAX_SUBJECT",
    "MAX_TOKENS",
    "SubjectTrie",
    "check_pattern",
    "check_subject",
    "escape",
    "is_pattern",
    "matches",
    "unescape",
]

MAX_SUBJECT: Final = 512
"""Characters of a subject or pattern."""

MAX_TOKENS: Final = 32
"""Tokens of a subject or pattern."""

MAX_TOKEN: Final = 12 * MAX_SUBJECT
"""Characters of the longest token that `escape` makes: up to four bytes for each, `%XX`."""

EMPTY_TOKEN: Final = "%"
"""What `escape` makes of the empty text; no other text is escaped to it."""

# Whitespace, C0/C1 controls, surrogates and the line separators: never legible in a log line.
_FORBIDDEN: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")
_TO_ESCAPE: Final = re.compile(r"[.*>%{}\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")

T = TypeVar("T")


@lru_cache(maxsize=8192)
def escape(text: str) -> str:
    """Make one token of foreign text; reversible by `unescape`.

    Dots, wildcards, braces, white space and control characters become `%XX` of their UTF-8 bytes.

    Raises:
        SubjectError: the text is longer than any subject may be.
    """
    if not text:
        return EMPTY_TOKEN
    if len(text) > MAX_SUBJECT:
        raise SubjectError(
            f"a name has {len(text)} characters, a subject may have {MAX_SUBJECT}: {text[:64]!r}"
        )
    return _TO_ESCAPE.sub(
        lambda found: "".join(
            f"%{byte:02X}" for byte in found[0].encode("utf-8", errors="surrogatepass")
        ),
        text,
    )


def unescape(token: str) -> str:
    """Return the text that `escape` made a token of; a token that it never makes stays as it is."""
    if "%" not in token or len(token) > MAX_TOKEN:
        return token
    if token == EMPTY_TOKEN:
        return ""
    try:
        text = unquote(token, errors="surrogatepass")
    except UnicodeDecodeError:
        return token
    return text if len(text) <= MAX_SUBJECT and escape(text) == token else token


@lru_cache(maxsize=8192)
def check_subject(subject: str) -> str:
    """Return a subject that names one place.

    Raises:
        SubjectError: empty, too long, an empty token, a wildcard, white space or a control
            character.
    """
    _check_tokens(subject, what="subject")
    if is_pattern(subject):
        raise SubjectError(
            f"subject {subject!r} has a wildcard; '*' and '>' are for patterns, "
            "publish to a subject without them"
        )
    return subject


@lru_cache(maxsize=8192)
def check_pattern(pattern: str) -> str:
    """Return a pattern whose wildcards stand where they may.

    Raises:
        SubjectError: as `check_subject`, or `>` before the end, or a wildcard inside a token.
    """
    tokens = _check_tokens(pattern, what="pattern")
    if not is_pattern(pattern):
        return pattern
    for place, token in enumerate(tokens):
        if token == ">" and place != len(tokens) - 1:
            raise SubjectError(f"pattern {pattern!r} has '>' before its end; use '*' there")
        if len(token) > 1 and ("*" in token or ">" in token):
            raise SubjectError(
                f"pattern {pattern!r} has a wildcard inside the token {token!r}; "
                "a wildcard is a whole token"
            )
    return pattern


def _check_tokens(text: str, *, what: str) -> list[str]:
    if not text or len(text) > MAX_SUBJECT:
        raise SubjectError(
            f"a {what} has {len(text)} characters, it needs 1 to {MAX_SUBJECT}: {text[:64]!r}"
        )
    tokens = text.split(".")
    if len(tokens) > MAX_TOKENS:
        raise SubjectError(f"{what} {text!r} has {len(tokens)} tokens, the limit is {MAX_TOKENS}")
    if "" in tokens:
        raise SubjectError(f"{what} {text!r} has an empty token; take the extra dot out")
    if _FORBIDDEN.search(text):
        raise SubjectError(
            f"{what} {text!r} has white space or a control character; escape it as %XX"
        )
    return tokens


def is_pattern(text: str) -> bool:
    """Tell whether the text has a wildcard."""
    return "*" in text or ">" in text


def matches(pattern: str, subject: str) -> bool:
    """Tell whether one pattern covers one subject; for many patterns use `SubjectTrie`."""
    wanted = pattern.split(".")
    tokens = subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)


class _Node(Generic[T]):
    __slots__ = ("children", "rest", "values")

    def __init__(self) -> None:  # most nodes have one of the three
        self.children: dict[str, _Node[T]] | None = None
        self.values: list[T] | None = None
        self.rest: list[T] | None = None

    @property
    def empty(self) -> bool:
        return not (self.children or self.values or self.rest)


class SubjectTrie(Generic[T]):
    """Patterns and what stands under them; a look-up costs tokens, not patterns."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: T) -> None:
        """Put a value under a pattern; the same pair may be put there twice."""
        tokens = pattern.split(".")
        to_the_rest = tokens[-1] == ">"
        if to_the_rest:
            tokens.pop()
        node = self._root
        for token in tokens:
            if node.children is None:
                node.children = {}
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = _Node()
            node = child
        there = node.rest if to_the_rest else node.values
        if there is not None:
            there.append(value)
        elif to_the_rest:
            node.rest = [value]
        else:
            node.values = [value]
        self._size += 1

    def remove(self, pattern: str, value: T) -> None:
        """Take a value away from a pattern, and branches that nothing hangs on any more.

        Raises:
            KeyError: the value is not under that pattern.
        """
        tokens = pattern.split(".")
        path: list[tuple[dict[str, _Node[T]], str]] = []
        node = self._root
        for token in tokens if tokens[-1] != ">" else tokens[:-1]:
            children = node.children or {}
            path.append((children, token))
            node = children[token]
        values = node.rest if tokens[-1] == ">" else node.values
        if values is None or value not in values:
            raise KeyError(pattern)
        values.remove(value)
        self._size -= 1
        for children, token in reversed(path):
            if not children[token].empty:
                break
            del children[token]

    def find(self, subject: str) -> list[T]:
        """Return all values whose pattern covers the subject, in no particular order."""
        found: list[T] = []
        tokens = subject.split(".")
        last = len(tokens)
        walk: list[tuple[_Node[T], int]] = [(self._root, 0)]
        while walk:
            node, place = walk.pop()
            if place == last:
                if node.values:
                    found += node.values
                continue
            if node.rest:
                found += node.rest
            children = node.children
            if children:
                child = children.get(tokens[place])
                if child is not None:
                    walk.append((child, place + 1))
                child = children.get("*")
                if child is not None:
                    walk.append((child, place + 1))
        return found

    def __iter__(self) -> Iterator[T]:
        walk = [self._root]
        while walk:
            node = walk.pop()
            yield from node.values or ()
            yield from node.rest or ()
            walk += (node.children or {}).values()
