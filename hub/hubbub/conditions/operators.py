"""Operators: what must stand at a path, compiled into closures over its value."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import re2

from hubbub.conditions.hints import near
from hubbub.conditions.paths import MISSING
from hubbub.errors import RouteError

_re2 = cast("Any", re2)  # published without types

__all__ = ["MAX_OPERAND_DEPTH", "MAX_REGEX_WORK", "Test", "TooCostlyError", "compile_value"]

Test = Callable[[object], bool]
"""Tells whether the value at a path is what was asked for; gets `MISSING` where there is none."""

Compare = Callable[[object, object], bool]

MAX_OPERAND_DEPTH: Final = 32
"""Levels of lists and objects in a value that a path is compared with."""

MAX_REGEX_WORK: Final = 25_000_000
"""Bytes of a text times instructions of the expression that may be searched: about 50 ms at worst.

Where the automaton of an expression grows too large, the library walks through all its states for
each byte; then 1 MiB of text takes more than a second.
"""

MIN_REGEX_BYTES: Final = 16 * 1024
"""Bytes of a text that every expression searches."""


class TooCostlyError(Exception):
    """A test that did not run, because of the time it might take."""


def compile_value(path: str, wanted: object) -> Test:
    """Compile what stands beside a path: a value, a list of values or a table of operators."""
    if isinstance(wanted, Mapping):
        return _compile_table(path, cast("Mapping[object, object]", wanted))
    operand = _operand(path, wanted)
    if isinstance(operand, list):
        return _one_of(path, cast("list[object]", operand))
    return _equal_to(operand)


def _compile_table(path: str, table: Mapping[object, object]) -> Test:
    tests: list[Test] = []
    for name, wanted in table.items():
        compile_operator = _OPERATORS.get(name) if isinstance(name, str) else None
        if compile_operator is None:
            raise RouteError(
                f"where {path!r} has the operator {name!r}{near(str(name), _OPERATORS)}; "
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


def _equal_to(wanted: object) -> Test:
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


def _differs_from(_place: str, wanted: object) -> Test:
    equal = _equal_to(wanted)
    return lambda value: value is not MISSING and not equal(value)


def _ordered(compare: Compare) -> Callable[[str, object], Test]:
    def compile_bound(place: str, bound: object) -> Test:
        if isinstance(bound, str):
            return lambda value: isinstance(value, str) and compare(value, bound)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise _wrong_operand(place, "a number or a text", bound)
        return lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and compare(value, bound)
        )

    return compile_bound


def _one_of(place: str, wanted: object) -> Test:
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


def _contains(_place: str, wanted: object) -> Test:
    equal = _equal_to(wanted)

    def test(value: object) -> bool:
        if isinstance(value, list):
            return any(map(equal, cast("list[object]", value)))
        return isinstance(value, str | dict) and isinstance(wanted, str) and wanted in value

    return test


def _prefix(place: str, wanted: object) -> Test:
    text = _text(place, wanted)
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(place: str, wanted: object) -> Test:
    text = _text(place, wanted)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _regex(place: str, wanted: object) -> Test:
    options = _re2.Options()
    options.log_errors = False  # it would write to stderr
    options.never_capture = True
    text = _text(place, wanted)
    try:
        # Bytes on both sides are read as UTF-8 and spare the way back to offsets in text.
        compiled = _re2.compile(text.encode(), options)
    except UnicodeEncodeError as error:
        raise RouteError(f"where {place!r} has half a character in {text!r}") from error
    except _re2.error as error:
        said = cast("bytes", error.args[0]).decode(errors="replace")
        raise RouteError(
            f"where {place!r} has a bad regular expression {text!r}: {said}; "
            "look-around and back-references do not exist here"
        ) from error
    search: Callable[[bytes], object] = compiled.search
    most_bytes = max(MIN_REGEX_BYTES, MAX_REGEX_WORK // compiled.programsize)

    def test(value: object) -> bool:
        if not isinstance(value, str):
            return False
        encoded = value.encode()
        if len(encoded) > most_bytes:
            raise TooCostlyError
        return search(encoded) is not None

    return test


def _exists(place: str, wanted: object) -> Test:
    if not isinstance(wanted, bool):
        raise _wrong_operand(place, "true or false", wanted)
    return lambda value: (value is not MISSING) is wanted


_OPERATORS: Final[Mapping[str, Callable[[str, object], Test]]] = {
    "eq": lambda _place, wanted: _equal_to(wanted),
    "ne": _differs_from,
    "lt": _ordered(cast("Compare", operator.lt)),
    "le": _ordered(cast("Compare", operator.le)),
    "gt": _ordered(cast("Compare", operator.gt)),
    "ge": _ordered(cast("Compare", operator.ge)),
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
