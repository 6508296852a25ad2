"""What a CEL expression may cost: bounded before it runs, because nothing can stop it then.

The library is native, has no hook to count steps, and keeps the interpreter: an expression that
takes a minute holds up everything for a minute, the signal to stop included. What an expression
does is counted in steps before it runs, from its text (once, when the route is read) and from the
data of the message.

A macro looks at each item of its range, so macros in each other multiply. `map` and `filter` copy
what they have gathered for each item (measured: 4,000 items take a second), so each counts twice.
A list or a long text from outside, used inside a macro, is looked through again for each item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from hubbub.errors import RouteError

__all__ = ["MAX_NESTING", "MAX_STEPS", "Cost"]

MAX_NESTING: Final = 2
"""Macros in each other."""

MAX_STEPS: Final = 100_000
"""Items looked at by one evaluation; about a tenth of a second."""

CHARACTERS_PER_STEP: Final = 256
"""A text of so many characters is searched in the time of about one step."""

_WEIGHTS: Final = {"all": 1, "exists": 1, "exists_one": 1, "filter": 2, "map": 2}
_TOKEN: Final = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))"""
    r"|(?P<comment>//[^\n]*)|(?P<name>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<sign>\S)",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class _Use:
    """A value from outside that is used inside macros.

    Attributes:
        path: Where it is; names that follow `data`.
        weight: Of the macros around it.
    """

    path: tuple[str, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What an expression costs, as far as its text tells.

    Attributes:
        weight: Power of the number of items that it takes at most; 0 without macros.
        literals: Items of lists that stand in the expression itself.
        uses: Values of the data that are used inside macros.
    """

    weight: int
    literals: int
    uses: tuple[_Use, ...]

    @classmethod
    def of(cls, text: str) -> Cost:
        """Return what an expression costs.

        Raises:
            RouteError: its macros are nested deeper than `MAX_NESTING`.
        """
        tokens = [found for found in _TOKEN.finditer(text) if found.lastgroup != "comment"]
        words = [found[0] for found in tokens]
        kinds = [found.lastgroup or "" for found in tokens]
        around: list[int] = []
        weight = 0
        uses: list[_Use] = []
        for place, word in enumerate(words):
            if word in ("(", "[", "{") and kinds[place] == "sign":
                around.append(_macro_weight(words, place) if word == "(" else 0)
                if sum(1 for each in around if each) > MAX_NESTING:
                    raise RouteError(
                        f"where_cel {text[:64]!r} has macros nested deeper than {MAX_NESTING}; "
                        "split the route, or send the data in another shape"
                    )
                weight = max(weight, sum(around))
            elif word in (")", "]", "}") and kinds[place] == "sign":
                around = around[:-1]
            elif kinds[place] == "name" and any(around) and _is_variable(words, place):
                path = _path(words, kinds, place)
                if path is not None:
                    uses.append(_Use(path, sum(around)))
        return cls(weight, words.count(","), tuple(dict.fromkeys(uses)))

    def is_within(self, data: object, limit: int = MAX_STEPS) -> bool:
        """Tell whether an evaluation with this data takes at most `limit` steps."""
        if not self.weight:
            return True
        items = _size(data, limit, texts=False) + self.literals
        if items**self.weight > limit:
            return False
        return all(
            items**use.weight * _size(_at(data, use.path), limit, texts=True) <= limit
            for use in self.uses
        )


def _macro_weight(words: Sequence[str], place: int) -> int:
    """Return the weight of the macro whose arguments begin here; 0 for a function, or none."""
    if place < 2 or words[place - 2] != ".":  # noqa: PLR2004  # `.`, name, `(`
        return 0
    return _WEIGHTS.get(words[place - 1], 0)


def _is_variable(words: Sequence[str], place: int) -> bool:
    return words[place] == "data" and (not place or words[place - 1] != ".")


def _path(words: Sequence[str], kinds: Sequence[str], place: int) -> tuple[str, ...] | None:
    """Return the members named after `data`; None where it is the range of a macro in here."""
    path: list[str] = []
    place += 1
    while place + 1 < len(words):
        follows = words[place + 2] if place + 2 < len(words) else ""
        if words[place] == "." and kinds[place + 1] == "name":
            if follows == "(":
                return None if words[place + 1] in _WEIGHTS else tuple(path)
            path.append(words[place + 1])
            place += 2
        elif words[place] == "[" and kinds[place + 1] == "text" and follows == "]":
            path.append(words[place + 1].strip("\"'"))
            place += 3
        else:
            break
    return tuple(path)


def _at(data: object, path: Sequence[str]) -> object:
    for name in path:
        if not isinstance(data, dict):
            return None
        data = cast("dict[str, object]", data).get(name)
    return data


def _size(data: object, limit: int, *, texts: bool) -> int:
    """Return how many items data has; counted to the limit only.

    Args:
        texts: Long texts count as several.
    """
    found, rest = 0, [data]
    while rest and found <= limit:
        value = rest.pop()
        found += 1
        if isinstance(value, str):
            found += len(value) // CHARACTERS_PER_STEP if texts else 0
        else:
            rest += _parts(value)
    return found


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        yield from cast("list[object]", value)
