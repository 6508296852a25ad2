"""Settings as rows of a table, for the manual and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from hubbub.config.settings import Settings
from hubbub.config.units import (
    Address,
    Secret,
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)

__all__ = ["Row", "describe"]

_NAMES: Final[Mapping[object, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    Path: "path",
    Secret: "secret",
    Address: "address",
    object: "any",
    Any: "any",
}
_MARKS: Final[Mapping[object, str]] = {tuple: "[]", list: "[]", dict: ".<name>"}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: dotted key, type with its range, default as TOML, meaning."""

    key: str
    type: str
    default: str
    meaning: str


def describe(model: type[Settings], prefix: str = "") -> list[Row]:
    """Return a row for each setting of a table and of the tables in it.

    Members of a list of tables are written `prefix.key[].name`, of a table of tables
    `prefix.key.<name>.key`.
    """
    return list(_rows(model, prefix))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        name = field.alias or name  # noqa: PLW2901  # `from` in hub.toml is `from_` here
        key = f"{prefix}.{name}" if prefix else name
        inner, mark = _inner(field.annotation)
        if inner is None or mark:
            kind = _type(field.annotation, field.metadata)
            yield Row(key, kind, _default(field), " ".join((field.description or "").split()))
        if inner is not None:
            yield from _rows(inner, key + mark)


def _inner(annotation: object) -> tuple[type[BaseModel] | None, str]:
    """Return the model in an annotation, and what a key of a member has more than its own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    mark = _MARKS.get(get_origin(annotation), "")
    for part in get_args(annotation):
        inner, more = _inner(part)
        if inner is not None:
            return inner, mark + more
    return None, ""


def _type(annotation: object, metadata: list[Any]) -> str:
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = [*metadata, *more]
    unit = _unit(annotation, metadata)
    return (unit or _plain_type(annotation)) + _range(metadata, unit)


def _unit(annotation: object, metadata: list[Any]) -> str:
    if get_origin(annotation) in (Union, UnionType):  # `Duration | None` holds its own metadata
        metadata = [mark for part in get_args(annotation) for mark in get_args(part)]
    parsers = [mark.func for mark in metadata if isinstance(mark, BeforeValidator)]
    if parse_duration in parsers:
        return "duration"
    return "size" if parse_size in parsers else ""


def _plain_type(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part, []) for part in arguments if part is not NoneType)
    if origin in (tuple, list, set, frozenset):
        return f"list of {_type(arguments[0], [])}"
    if origin is dict:
        return f"table of {_type(arguments[1], [])}"
    return _NAMES.get(annotation, "table")


def _range(metadata: list[Any], unit: str) -> str:
    """Write `ge`, `gt`, `le` and `lt`, in the unit of the setting."""
    limits = {
        name: _literal(value, unit)
        for mark in metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(mark, name, None)) is not None
    }
    match limits:
        case {"ge": low, "le": high}:
            return f", {low} to {high}"
        case _:
            words = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under"}
            return "".join(f", {words[name]} {value}" for name, value in limits.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None else _literal(value, _unit(field.annotation, field.metadata))


def _literal(value: object, unit: str = "") -> str:
    """Write a value as TOML."""
    match value:
        case int() | float() if unit == "duration":
            return json.dumps(duration_text(value))
        case int() if unit == "size" and value:
            return json.dumps(size_text(value))
        case float() if value.is_integer():
            return str(int(value))
        case Secret():
            return json.dumps(value.reveal())
        case tuple() | list():
            return f"[{', '.join(_literal(each) for each in cast('list[object]', value))}]"
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return f"{{{', '.join(f'{key} = {_literal(each)}' for key, each in pairs)}}}"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False)
