"""What pydantic found wrong, as lines that say what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from hubbub.config.lines import Keys

__all__ = ["Problem", "dotted", "explain", "has_field", "near_miss"]

MAX_LISTED: Final = 12
"""Known names that an error lists when none is near."""

_LISTS: Final = ("tuple_type", "list_type")
_PLAIN: Final = {
    "missing": "is missing; add it",
    "model_type": "should be a table",
    "dict_type": "should be a table",
    **dict.fromkeys(_LISTS, "should be a list, such as [...]"),
}
_PREFIXES: Final = ("Value error, ", "Input ")


class Problem(NamedTuple):
    """One thing that is wrong; `text` holds no value of a secret."""

    keys: Keys
    text: str
    wants_list: bool = False

    def below(self, prefix: Keys) -> Problem:
        """Return it with the place of its table in front."""
        return self._replace(keys=(*prefix, *self.keys))


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return where each problem is and what to do."""
    return [
        Problem(
            details["loc"],
            _text(model, details["loc"], details["type"], details["msg"]),
            wants_list=details["type"] in _LISTS,
        )
        for details in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _text(model: type[BaseModel], keys: Keys, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        table = _model_at(model, keys[:-1])
        return "unknown key" + near_miss(str(keys[-1]), table.model_fields if table else ())
    if kind in _PLAIN:
        return _PLAIN[kind]
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return message


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, else the known ones if few."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""


def dotted(keys: Iterable[str | int]) -> str:
    """Write a place as `--set` takes it: `routes.0.match`."""
    return ".".join(f'"{key}"' if isinstance(key, str) and "." in key else str(key) for key in keys)


def has_field(model: type[BaseModel], keys: tuple[str, ...]) -> bool:
    """Tell whether the model, or one inside it, has a field at that place."""
    table = _model_at(model, keys[:-1])
    return bool(keys) and table is not None and keys[-1] in table.model_fields


def _model_at(model: type[BaseModel], keys: Iterable[str | int]) -> type[BaseModel] | None:
    """Walk down to a table; numbers and names of members stay at the model of the members."""
    here: type[BaseModel] | None = model
    for key in keys:
        if here is not None and key in here.model_fields:
            here = _model_in(here.model_fields[str(key)].annotation)
    return here


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)
