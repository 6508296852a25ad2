r"""Paths: where in an envelope a condition looks.

A path names an attribute of the envelope (`type`, `source`, `subject`, `key`, `priority`, `id`,
`replyto`, `hops`) or a place inside its data: `data.items.0.name`, `data."a.b"`. A number is an
index of a list or a key of an object; a quoted step is always a key, with `\"` and `\\` inside.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple, cast

from hubbub.conditions.hints import near
from hubbub.envelope import Envelope
from hubbub.errors import MalformedError, RouteError

__all__ = [
    "ATTRIBUTES",
    "MISSING",
    "UNREADABLE",
    "Place",
    "Reader",
    "compile_path",
    "parse_path",
    "reader_of",
]

Reader = Callable[[Envelope], object]
"""Gives what stands at a path, or `MISSING`."""

_MAX_INDEX_DIGITS: Final = 9


class _Absent(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = _Absent.MISSING
"""What a path reads where there is nothing; JSON null is not nothing."""

UNREADABLE: Final = (MalformedError, RecursionError, UnicodeError)
"""What reading data may raise when it is not JSON."""


def compile_path(path: str) -> Callable[[Envelope], object]:
    """Compile one path into a function that gives what stands there.

    Returns:
        A function that never raises: it gives `MISSING` where there is nothing, and for a path
        into data that is not JSON.

    Raises:
        RouteError: the path is not valid.
    """
    place = parse_path(path)
    read = reader_of(place)
    if place.head != "data":
        return read

    def read_data(envelope: Envelope) -> object:
        try:
            return read(envelope)
        except UNREADABLE:
            return MISSING

    return read_data


class Step(NamedTuple):
    key: str
    place: int | None


class Place(NamedTuple):
    """A path that was read: its first word, and the way from there into the data."""

    head: str
    steps: tuple[Step, ...]


def _key(envelope: Envelope) -> object:
    return MISSING if envelope.key is None else envelope.key


def _reply_to(envelope: Envelope) -> object:
    return MISSING if envelope.reply_to is None else envelope.reply_to


ATTRIBUTES: Final[Mapping[str, Reader]] = {
    "hops": operator.attrgetter("hops"),
    "id": operator.attrgetter("id"),
    "key": _key,
    "priority": operator.attrgetter("priority"),
    "replyto": _reply_to,
    "source": operator.attrgetter("source"),
    "subject": operator.attrgetter("subject"),
    "type": operator.attrgetter("type"),
}

_HEADS: Final = ("data", *ATTRIBUTES)


def parse_path(path: str) -> Place:
    """Read a path.

    Raises:
        RouteError: it is none, or begins with a word that envelopes do not have.
    """
    steps: list[Step] = []
    at = 0
    while True:
        step, at = _quoted(path, at) if path.startswith('"', at) else _bare(path, at)
        steps.append(step)
        if at == len(path):
            break
        if path[at] != ".":
            raise RouteError(f"path {path!r} goes on after a closing quote; put a dot there")
        at += 1
    head = steps.pop(0).key
    if head not in _HEADS:
        raise RouteError(f"path {path!r} begins with {head!r}{near(head, _HEADS)}")
    if steps and head != "data":
        raise RouteError(f"path {path!r} looks inside {head!r}, but only data has an inside")
    return Place(head, tuple(steps))


def _bare(path: str, start: int) -> tuple[Step, int]:
    end = path.find(".", start)
    if end < 0:
        end = len(path)
    key = path[start:end]
    if not key or '"' in key:
        raise RouteError(
            f'path {path!r} has an empty step or a lone quote; write such a key as "a.b"'
        )
    return Step(key, _index(key)), end


def _quoted(path: str, start: int) -> tuple[Step, int]:
    key: list[str] = []
    rest = iter(range(start + 1, len(path)))
    for at in rest:
        if path[at] == '"':
            return Step("".join(key), None), at + 1
        if path[at] == "\\":
            at = next(rest, at)  # noqa: PLW2901  # the character behind it stands for itself
        key.append(path[at])
    raise RouteError(f"path {path!r} has a quote that is not closed")


def _index(key: str) -> int | None:
    """Return the list index that a step may also be; `01` and `-1` are keys only."""
    if not (key.isascii() and key.isdigit()) or len(key) > _MAX_INDEX_DIGITS:
        return None
    return int(key) if key == "0" or key[0] != "0" else None


def reader_of(place: Place) -> Reader:
    """Return what reads a place; it raises one of `UNREADABLE` for data that is not JSON."""
    if place.head != "data":
        return ATTRIBUTES[place.head]
    steps = place.steps
    if not steps:
        return Envelope.json

    def read(envelope: Envelope) -> object:
        value = envelope.json()
        for key, index in steps:
            if isinstance(value, dict):
                value = cast("dict[str, object]", value).get(key, MISSING)
                if value is MISSING:
                    return MISSING
            elif isinstance(value, list) and index is not None:
                items = cast("list[object]", value)
                if index >= len(items):
                    return MISSING
                value = items[index]
            else:
                return MISSING
        return value

    return read
