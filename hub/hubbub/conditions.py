r"""What a route's `where` says, compiled once into closures.

A path names an attribute of the envelope (`type`, `source`, `subject`, `key`, `priority`, `id`,
`replyto`, `hops`) or a place inside its data: `data.items.0.name`, `data."a.b"`. A number is an
index of a list or a key of an object; a quoted step is always a key, with `\"` and `\\` inside.

A condition never raises when it is asked, and decodes the data only if it looks inside.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, cast

import re2

from hubbub.envelope import Envelope
from hubbub.errors import MalformedError, RouteError

_re2 = cast("Any", re2)  # published without types

__all__ = ["MAX_CEL", "MAX_OPERAND_DEPTH", "MISSING", "Condition", "compile_path", "compile_where"]

Condition = Callable[[Envelope], bool]
"""Tells whether an envelope is meant; never raises."""

_Reader = Callable[[Envelope], object]
_Test = Callable[[object], bool]
_Compare = Callable[[object, object], bool]

MAX_CEL: Final = 4096
"""Characters of a CEL expression."""

MAX_OPERAND_DEPTH: Final = 32
"""Levels of lists and objects in a value that a path is compared with."""

_MAX_INDEX_DIGITS: Final = 9


class _Absent(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = _Absent.MISSING
"""What a path reads where there is nothing; JSON null is not nothing."""

_UNREADABLE: Final = (MalformedError, RecursionError, UnicodeError)
"""What reading data may raise when it is not JSON."""


def compile_where(where: Mapping[str, object], cel: str | None = None) -> Condition | None:
    """Compile the conditions of one route; all of them must hold.

    Args:
        where: Paths and what must stand there: a value is equality, a list is "one of", a table
            holds operators.
        cel: The same as a CEL expression that must be true.

    Returns:
        The condition, or None when there is nothing to check.

    Raises:
        RouteError: a path, an operator, a value, a regular expression or the CEL expression is
            not valid, or the CEL library is not installed.
    """
    parsed = [(_parse(path), path, wanted) for path, wanted in where.items()]
    parsed.sort(key=lambda entry: entry[0].head == "data")  # what needs no decoding goes first
    checks = tuple((_reader(place), _compile_value(path, it)) for place, path, it in parsed)
    by_cel = None if cel is None else _compile_cel(cel)
    if not checks:
        return by_cel

    def holds(envelope: Envelope) -> bool:
        try:
            for read, test in checks:
                if not test(read(envelope)):
                    return False
        except _UNREADABLE:
            return False
        return by_cel is None or by_cel(envelope)

    return holds


def compile_path(path: str) -> Callable[[Envelope], object]:
    """Compile one path into a function that gives what stands there.

    Returns:
        A function that never raises: it gives `MISSING` where there is nothing, and for a path
        into data that is not JSON.

    Raises:
        RouteError: the path is not valid.
    """
    place = _parse(path)
    read = _reader(place)
    if place.head != "data":
        return read

    def read_data(envelope: Envelope) -> object:
        try:
            return read(envelope)
        except _UNREADABLE:
            return MISSING

    return read_data


# --- paths ----------------------------------------------------------------------------------


class _Step(NamedTuple):
    key: str
    place: int | None


class _Place(NamedTuple):
    head: str
    steps: tuple[_Step, ...]


def _key(envelope: Envelope) -> object:
    return MISSING if envelope.key is None else envelope.key


def _reply_to(envelope: Envelope) -> object:
    return MISSING if envelope.reply_to is None else envelope.reply_to


_ATTRIBUTES: Final[Mapping[str, _Reader]] = {
    "hops": operator.attrgetter("hops"),
    "id": operator.attrgetter("id"),
    "key": _key,
    "priority": operator.attrgetter("priority"),
    "replyto": _reply_to,
    "source": operator.attrgetter("source"),
    "subject": operator.attrgetter("subject"),
    "type": operator.attrgetter("type"),
}

_HEADS: Final = ("data", *_ATTRIBUTES)


def _parse(path: str) -> _Place:
    steps: list[_Step] = []
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
        raise RouteError(f"path {path!r} begins with {head!r}{_near(head, _HEADS)}")
    if steps and head != "data":
        raise RouteError(f"path {path!r} looks inside {head!r}, but only data has an inside")
    return _Place(head, tuple(steps))


def _bare(path: str, start: int) -> tuple[_Step, int]:
    end = path.find(".", start)
    if end < 0:
        end = len(path)
    key = path[start:end]
    if not key or '"' in key:
        raise RouteError(
            f'path {path!r} has an empty step or a lone quote; write such a key as "a.b"'
        )
    return _Step(key, _index(key)), end


def _quoted(path: str, start: int) -> tuple[_Step, int]:
    key: list[str] = []
    rest = iter(range(start + 1, len(path)))
    for at in rest:
        if path[at] == '"':
            return _Step("".join(key), None), at + 1
        if path[at] == "\\":
            at = next(rest, at)  # noqa: PLW2901  # the character behind it stands for itself
        key.append(path[at])
    raise RouteError(f"path {path!r} has a quote that is not closed")


def _index(key: str) -> int | None:
    """Return the list index that a step may also be; `01` and `-1` are keys only."""
    if not (key.isascii() and key.isdigit()) or len(key) > _MAX_INDEX_DIGITS:
        return None
    return int(key) if key == "0" or key[0] != "0" else None


def _reader(place: _Place) -> _Reader:
    if place.head != "data":
        return _ATTRIBUTES[place.head]
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


# --- values and operators -------------------------------------------------------------------


def _compile_value(path: str, wanted: object) -> _Test:
    """Compile what stands beside a path: a value, a list of values or a table of operators."""
    if isinstance(wanted, Mapping):
        return _compile_table(path, cast("Mapping[object, object]", wanted))
    operand = _operand(path, wanted)
    if isinstance(operand, list):
        return _one_of(path, cast("list[object]", operand))
    return _equal_to(operand)


def _compile_table(path: str, table: Mapping[object, object]) -> _Test:
    tests: list[_Test] = []
    for name, wanted in table.items():
        compile_operator = _OPERATORS.get(name) if isinstance(name, str) else None
        if compile_operator is None:
            raise RouteError(
                f"where {path!r} has the operator {name!r}{_near(str(name), _OPERATORS)}; "
                f'for a deeper path write it in one piece, "{path}.{name}"'
            )
        tests.append(compile_operator(f"{path} {name}", _operand(path, wanted)))
    if not tests:
        raise RouteError(f"where {path!r} has no operator; write one of {', '.join(_OPERATORS)}")
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _operand(path: str, value: object, depth: int = 0) -> object:
    """Return a copy of a value to compare with, made of what JSON data is made of.

    Raises:
        RouteError: JSON cannot say it (a date, an infinite number), or it is nested too deep.
    """
    if depth > MAX_OPERAND_DEPTH:
        raise RouteError(f"where {path!r} is nested deeper than {MAX_OPERAND_DEPTH} levels")
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            items = cast("Sequence[object]", value)
            return [_operand(path, item, depth + 1) for item in items]
        case Mapping():
            members = cast("Mapping[object, object]", value)
            if all(isinstance(key, str) for key in members):
                return {key: _operand(path, item, depth + 1) for key, item in members.items()}
        case _:
            pass
    raise RouteError(
        f"where {path!r} compares with {value!r}, which JSON cannot say; "
        "write a text, a number, true, false or a list of them"
    )


def _equal_to(wanted: object) -> _Test:
    """JSON equality: true is not 1, and 1 is 1.0."""
    if wanted is None or isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: value == wanted
    return lambda value: _same(value, wanted)


def _same(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        ours, theirs = cast("dict[str, object]", left), cast("dict[str, object]", right)
        return ours.keys() == theirs.keys() and all(
            _same(value, theirs[key]) for key, value in ours.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        items, others = cast("list[object]", left), cast("list[object]", right)
        return len(items) == len(others) and all(map(_same, items, others))
    return left == right


def _differs_from(_place: str, wanted: object) -> _Test:
    equal = _equal_to(wanted)
    return lambda value: value is not MISSING and not equal(value)


def _ordered(compare: _Compare) -> Callable[[str, object], _Test]:
    def compile_bound(place: str, bound: object) -> _Test:
        if isinstance(bound, str):
            return lambda value: isinstance(value, str) and compare(value, bound)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise _wrong_operand(place, "a number or a text", bound)
        return lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and compare(value, bound)
        )

    return compile_bound


def _one_of(place: str, wanted: object) -> _Test:
    if not isinstance(wanted, list):
        raise _wrong_operand(place, "a list", wanted)
    items = cast("list[object]", wanted)
    texts = frozenset(item for item in items if isinstance(item, str))
    tests = tuple(_equal_to(item) for item in items if not isinstance(item, str))

    def test(value: object) -> bool:
        if isinstance(value, str):
            return value in texts
        return any(equal(value) for equal in tests)

    return test


def _contains(_place: str, wanted: object) -> _Test:
    equal = _equal_to(wanted)

    def test(value: object) -> bool:
        if isinstance(value, list):
            return any(map(equal, cast("list[object]", value)))
        return isinstance(value, str | dict) and isinstance(wanted, str) and wanted in value

    return test


def _prefix(place: str, wanted: object) -> _Test:
    text = _text(place, wanted)
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(place: str, wanted: object) -> _Test:
    text = _text(place, wanted)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _regex(place: str, wanted: object) -> _Test:
    options = _re2.Options()
    options.log_errors = False  # it would write to stderr
    options.never_capture = True
    text = _text(place, wanted)
    try:
        # Bytes on both sides are read as UTF-8 and spare the way back to offsets in text.
        search: Callable[[bytes], object] = _re2.compile(text.encode(), options).search
    except UnicodeEncodeError as error:
        raise RouteError(f"where {place!r} has half a character in {text!r}") from error
    except _re2.error as error:
        said = cast("bytes", error.args[0]).decode(errors="replace")
        raise RouteError(
            f"where {place!r} has a bad regular expression {text!r}: {said}; "
            "look-around and back-references do not exist here"
        ) from error
    return lambda value: isinstance(value, str) and search(value.encode()) is not None


def _exists(place: str, wanted: object) -> _Test:
    if not isinstance(wanted, bool):
        raise _wrong_operand(place, "true or false", wanted)
    return lambda value: (value is not MISSING) is wanted


_OPERATORS: Final[Mapping[str, Callable[[str, object], _Test]]] = {
    "eq": lambda _place, wanted: _equal_to(wanted),
    "ne": _differs_from,
    "lt": _ordered(cast("_Compare", operator.lt)),
    "le": _ordered(cast("_Compare", operator.le)),
    "gt": _ordered(cast("_Compare", operator.gt)),
    "ge": _ordered(cast("_Compare", operator.ge)),
    "in": _one_of,
    "contains": _contains,
    "prefix": _prefix,
    "suffix": _suffix,
    "regex": _regex,
    "exists": _exists,
}


def _text(place: str, wanted: object) -> str:
    if not isinstance(wanted, str):
        raise _wrong_operand(place, "a text", wanted)
    return wanted


def _wrong_operand(place: str, needed: str, given: object) -> RouteError:
    return RouteError(f"where {place!r} needs {needed}, not {given!r}")


def _near(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown word."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    if close:
        return f", which is unknown; did you mean {close[0]!r}?"
    return f", which is unknown; known are {', '.join(names)}"


# --- CEL ------------------------------------------------------------------------------------

_CEL_NAMES: Final[Mapping[str, _Reader]] = {**_ATTRIBUTES, "data": Envelope.json}

_CEL_TYPES: Final = frozenset(
    ("bool", "bytes", "double", "google", "int", "list", "map", "null_type", "string", "uint")
)

_CEL_MACROS: Final = frozenset(("all", "exists", "exists_one", "filter", "map", "min", "reduce"))


def _compile_cel(text: str) -> Condition:
    """Compile a CEL expression over the same names that paths begin with.

    An attribute that is not set is null. Whatever goes wrong in an evaluation (a key that is not
    there, types that do not fit) and whatever is not true does not hold.
    """
    if len(text) > MAX_CEL:
        raise RouteError(f"where_cel has {len(text)} characters, the limit is {MAX_CEL}")
    try:  # optional, and slow to import
        from celpy import Environment  # noqa: PLC0415
        from celpy.adapter import json_to_cel  # noqa: PLC0415
        from celpy.celparser import CELParseError  # noqa: PLC0415
        from celpy.celtypes import BoolType  # noqa: PLC0415
    except ImportError as error:
        raise RouteError(
            "where_cel needs a library that is not installed; run pip install 'hubbub[cel]'"
        ) from error
    environment = cast("_CelEnvironment", Environment())
    try:
        tree = environment.compile(text)
        program = environment.program(tree)
    except CELParseError as error:
        raise RouteError(
            f"where_cel {text!r} cannot be read at line {error.line}, column {error.column}"
        ) from error
    names = _cel_names(text, tree)
    if not _fits_the_stack(program, names):
        raise RouteError(f"where_cel {text[:64]!r}... is nested too deep; split it")
    readers = tuple((name, read) for name, read in _CEL_NAMES.items() if name in names)
    to_cel = cast("Callable[[object], object]", json_to_cel)

    def holds(envelope: Envelope) -> bool:
        try:
            values = ((name, read(envelope)) for name, read in readers)
            result = program.evaluate(
                {name: to_cel(None if value is MISSING else value) for name, value in values}
            )
        except Exception:  # noqa: BLE001  # the library raises many kinds, all mean "cannot say"
            return False
        return isinstance(result, BoolType) and bool(result)

    return holds


# What is used of the library, whose own types are not complete.


class _CelProgram(Protocol):
    def evaluate(self, activation: Mapping[str, object], /) -> object: ...


class _CelEnvironment(Protocol):
    def compile(self, text: str, /) -> _CelTree: ...

    def program(self, expr: _CelTree, /) -> _CelProgram: ...


class _CelTree(Protocol):
    children: list[object]

    def find_data(self, data: str, /) -> Iterable[_CelTree]: ...


def _fits_the_stack(program: _CelProgram, names: Iterable[str]) -> bool:
    """Evaluate once on nulls: what is nested too deep for that would never hold."""
    try:
        program.evaluate(dict.fromkeys(names))
    except RecursionError:
        return False
    except Exception:  # noqa: BLE001  # nulls are seldom what an expression wants
        return True
    return True


def _cel_names(text: str, tree: _CelTree) -> set[str]:
    """Return the names an expression uses.

    Raises:
        RouteError: a name that is not there would make a route that silently never matches.
    """
    bound = {
        name
        for call in tree.find_data("member_dot_arg")
        if str(call.children[1]) in _CEL_MACROS
        for name in _identifiers(_first_argument(call))
    }
    names = set(_identifiers(tree))
    for name in sorted(names - bound - _CEL_TYPES - _CEL_NAMES.keys()):
        raise RouteError(f"where_cel {text!r} uses {name!r}{_near(name, _CEL_NAMES)}")
    return names


def _identifiers(tree: _CelTree) -> list[str]:
    return [str(found.children[0]) for found in tree.find_data("ident")]


def _first_argument(call: _CelTree) -> _CelTree:
    arguments = cast("_CelTree", call.children[2])
    return cast("_CelTree", arguments.children[0])
