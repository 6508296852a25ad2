"""Lines of keys in a TOML document; the parser of the standard library tells none.

Only looked at when there is something to complain about.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress
from typing import Final, cast

__all__ = ["Keys", "locate", "split_key"]

Keys = tuple[str | int, ...]
"""Where a value stands: names of tables and keys, numbers of array members."""

_BASIC: Final = r'"(?:\\.|[^"\\\n])*"'
_LITERAL: Final = r"'[^'\n]*'"
_PART: Final = rf"(?:[A-Za-z0-9_-]+|{_BASIC}|{_LITERAL})"
_DOTTED: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"

_KEY: Final = re.compile(_DOTTED)
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_HEADER: Final = re.compile(rf"\[(\[)?[ \t]*({_DOTTED})[ \t]*\]\]?")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_COMMA: Final = re.compile(",?")
_SCALAR: Final = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"{3,5}'
    r"|'''[\s\S]*?'{3,5}"
    rf"|{_BASIC}|{_LITERAL}"
    r"|\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*"  # a date and a time with a blank between them
    r"|[^\s,\]}#]+"
)


def locate(text: str) -> dict[Keys, int]:
    """Return the line of each table, key and array member; the first line is 1.

    The text should be one that `tomllib` reads; of any other, the part before the first surprise
    is located.
    """
    scanner = _Scanner(text)
    with suppress(_LostError, ValueError, RecursionError):  # TOMLDecodeError is a ValueError
        scanner.run()
    return scanner.lines


def split_key(dotted: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, quoted ones without their quotes.

    Raises:
        ValueError: not a key of TOML.
    """
    if not _KEY.fullmatch(dotted):
        raise ValueError("not a dotted key")
    if '"' not in dotted and "'" not in dotted:
        return tuple(part.strip() for part in dotted.split("."))
    parts: list[str] = []
    table: object = tomllib.loads(f"{dotted} = 0")
    while isinstance(table, dict):
        ((part, table),) = cast("dict[str, object]", table).items()
        parts.append(part)
    return tuple(parts)


class _LostError(Exception):
    """The text is not what the scanner expects; it goes no further."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Keys, int] = {}
        self._text = text
        self._at = 0
        self._starts = [found.end() for found in re.finditer("\n", text)]
        self._last_member: dict[Keys, int] = {}

    def run(self) -> None:
        table: Keys = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            start = self._at
            header = _HEADER.match(self._text, start)
            if header is None:
                self._pair(table)
            else:
                self._at = header.end()
                table = self._open(split_key(header[2]), is_member=bool(header[1]), start=start)
            self._take(_BLANK)

    def _open(self, parts: tuple[str, ...], *, is_member: bool, start: int) -> Keys:
        table: Keys = ()
        for place, part in enumerate(parts, start=1):
            table = (*table, part)
            self._mark(table, start)
            if is_member and place == len(parts):
                self._last_member[table] = self._last_member.get(table, -1) + 1
            if table in self._last_member:
                table = (*table, self._last_member[table])
                self._mark(table, start)
        return table

    def _pair(self, table: Keys) -> None:
        start = self._at
        keys = table
        for part in split_key(self._take(_KEY)):
            keys = (*keys, part)
            self._mark(keys, start)
        self._take(_EQUALS)
        self._value(keys)

    def _value(self, keys: Keys) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening not in ("[", "{"):
            self._take(_SCALAR)
            return
        self._at += 1
        self._take(_BLANK)
        index = 0
        while not self._text.startswith("]" if opening == "[" else "}", self._at):
            if opening == "{":
                self._pair(keys)
            else:
                self._mark((*keys, index), self._at)
                self._value((*keys, index))
            index += 1
            self._take(_BLANK)
            self._take(_COMMA)
            self._take(_BLANK)
        self._at += 1

    def _mark(self, keys: Keys, start: int) -> None:
        self.lines.setdefault(keys, bisect_right(self._starts, start) + 1)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found[0]
