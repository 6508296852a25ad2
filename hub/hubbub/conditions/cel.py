"""`where_cel`: a condition in the Common Expression Language.

The names are those that paths begin with; an attribute that is not set is null. Whatever goes
wrong in an evaluation (a key that is not there, types that do not fit) and whatever is not true
does not hold.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final

from hubbub.conditions.cel_cost import Cost
from hubbub.conditions.hints import near
from hubbub.conditions.paths import ATTRIBUTES, MISSING, Reader
from hubbub.envelope import Envelope
from hubbub.errors import RouteError

if TYPE_CHECKING:
    from cel import Program

__all__ = ["MAX_CEL", "MAX_OPERATORS", "compile_cel"]

MAX_CEL: Final = 4096
"""Characters of a CEL expression."""

MAX_OPERATORS: Final = 500
"""Operators, dots and brackets in it: each may be one level, and the levels stand on the stack."""

NAMES: Final[dict[str, Reader]] = {**ATTRIBUTES, "data": Envelope.json}

TYPES: Final = frozenset(
    ("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint")
)

FUNCTIONS: Final = frozenset(
    (
        "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth",
        "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes",
        "getMonth", "getSeconds", "int", "matches", "size", "startsWith", "string", "timestamp",
        "type", "uint",
    )
)  # fmt: skip
"""What the library has, beside operators and macros."""

SIZE: Final = "len_"
"""What `size` is called inside, of one length with it so that columns in errors stay right.

The library counts a text in bytes of UTF-8, the language says characters.
"""

_OPERATOR: Final = re.compile(r"&&|\|\||[<>=!]=|[.\[({!?+*/%<>-]")
_SIZE: Final = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|'(?:[^'\\]|\\.)*+(?:'|\\?\Z))"""
    r"""|\bsize(?=\s*\()""",
    re.DOTALL,
)
_BOUND: Final = re.compile(
    r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,", re.ASCII
)
_SYNTAX: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


def compile_cel(
    text: str, too_costly: Callable[[], None] | None = None
) -> Callable[[Envelope], bool]:
    """Compile an expression.

    Args:
        too_costly: Called each time the expression does not run, and so does not hold, because
            its data would make it take more than `cel_cost.MAX_STEPS`.

    Raises:
        RouteError: it cannot be read, uses a name that is not there, is too long or too deep, or
            the library is not installed.
    """
    if len(text) > MAX_CEL:
        raise RouteError(f"where_cel has {len(text)} characters, the limit is {MAX_CEL}")
    if sum(1 for _ in _OPERATOR.finditer(text)) > MAX_OPERATORS:
        raise RouteError(
            f"where_cel {text[:64]!r}... has more than {MAX_OPERATORS} operators; split the route"
        )
    cost = Cost.of(text)
    cel = _library()
    program = _program(cel, text)
    used = _names(text, program)
    readers = tuple((name, read) for name, read in NAMES.items() if name in used)
    context = cel.Context(None, {SIZE: _size})

    def holds(envelope: Envelope) -> bool:
        try:
            if cost.weight and not cost.is_within(envelope.json()):
                if too_costly is not None:
                    too_costly()
                return False
            values = ((name, read(envelope)) for name, read in readers)
            context.update({name: None if value is MISSING else value for name, value in values})
            return program.execute(context) is True
        except Exception:  # noqa: BLE001  # the library raises many kinds, all mean "cannot say"
            return False

    return holds


def _library() -> ModuleType:
    """Import the library: optional, and slow, because it brings its command line along."""
    try:
        import cel  # noqa: PLC0415
    except ImportError as error:
        raise RouteError(
            "where_cel needs a library that is not installed; run pip install 'hubbub[cel]'"
        ) from error
    # It warns whenever `size` meets a number: once an envelope, of a condition that then is false.
    logging.getLogger("cel").setLevel(logging.ERROR)
    return cel


def _program(cel: ModuleType, text: str) -> Program:
    try:
        program: Program = cel.compile(_SIZE.sub(lambda found: found["text"] or SIZE, text))
    except ValueError as error:
        raise RouteError(f"where_cel {text!r} cannot be read{_why(str(error))}") from error
    return program


def _why(said: str) -> str:
    """Return place and reason of a syntax error, of all that the parser says."""
    found = _SYNTAX.search(said)
    if found is None:
        return ""
    line, column, reason = found.groups()
    reason = reason.partition(" expecting {")[0].replace(SIZE, "size")
    return f" at line {line}, column {column}: {reason}"


def _names(text: str, program: Program) -> set[str]:
    """Return the names an expression uses.

    Raises:
        RouteError: a name or a function that is not there would make a route that silently never
            matches.
    """
    names = set(program.variables())
    for name in sorted(names - set(_bound(text)) - TYPES - NAMES.keys()):
        raise RouteError(f"where_cel {text!r} uses {name!r}{near(name, NAMES)}")
    for name in sorted(set(program.functions()) - FUNCTIONS - {SIZE}):
        if name.isidentifier() and not name.startswith("_"):
            raise RouteError(f"where_cel {text!r} calls {name!r}{near(name, FUNCTIONS)}")
    return names


def _bound(text: str) -> Iterator[str]:
    """Yield the names that macros bind (`it` in `list.all(it, it > 0)`)."""
    return (found[1] for found in _BOUND.finditer(text))


def _size(value: str | bytes | list[object] | dict[object, object]) -> int:
    return len(value)
