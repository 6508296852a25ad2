"""Everything a route asks for, as one condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hubbub.conditions.cel import compile_cel
from hubbub.conditions.operators import TooCostlyError, compile_value
from hubbub.conditions.paths import UNREADABLE, parse_path, reader_of
from hubbub.envelope import Envelope

__all__ = ["Condition", "compile_where"]

Condition = Callable[[Envelope], bool]
"""Tells whether an envelope is meant; never raises."""


def compile_where(
    where: Mapping[str, object],
    cel: str | None = None,
    *,
    too_costly: Callable[[], None] | None = None,
) -> Condition | None:
    """Compile the conditions of one route; all of them must hold.

    Args:
        where: Paths and what must stand there: a value is equality, a list is "one of", a table
            holds operators.
        cel: The same as a CEL expression that must be true.
        too_costly: Called each time a regular expression or the CEL expression does not run because
            of what it would cost.

    Returns:
        The condition, or None when there is nothing to check.

    Raises:
        RouteError: a path, an operator, a value, a regular expression or the CEL expression is
            not valid, or the CEL library is not installed.
    """
    if not where and cel is None:
        return None  # most routes, and there may be very many
    parsed = [(parse_path(path), path, wanted) for path, wanted in where.items()]
    parsed.sort(key=lambda entry: entry[0].head == "data")  # what needs no decoding goes first
    checks = tuple((reader_of(place), compile_value(path, it)) for place, path, it in parsed)
    by_cel = None if cel is None else compile_cel(cel, too_costly)
    if not checks:
        return by_cel

    def holds(envelope: Envelope) -> bool:
        try:
            for read, test in checks:
                if not test(read(envelope)):
                    return False
        except UNREADABLE:
            return False
        except TooCostlyError:
            if too_costly is not None:
                too_costly()
            return False
        return by_cel is None or by_cel(envelope)

    return holds
