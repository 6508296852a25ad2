"""Answers of the API, narrowed: an object, or the objects in a list of it, whatever came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

__all__ = ["Json", "object_in", "objects_in", "text_in", "texts_in"]

Json: TypeAlias = dict[str, Any]


def object_in(answer: Mapping[str, Any], name: str) -> Json:
    """Return the object of that name; an empty one when there is none."""
    value: object = answer.get(name)
    return cast("Json", value) if isinstance(value, dict) else {}


def objects_in(answer: Mapping[str, Any], name: str) -> list[Json]:
    """Return the objects in the list of that name; none when there is no such list."""
    return [cast("Json", each) for each in _list_in(answer, name) if isinstance(each, dict)]


def texts_in(answer: Mapping[str, Any], name: str) -> list[str]:
    """Return the texts in the list of that name; none when there is no such list."""
    return [each for each in _list_in(answer, name) if isinstance(each, str)]


def text_in(answer: Mapping[str, Any], *names: str) -> str:
    """Return the first of these members that says something, as text; empty when none does."""
    return next((str(answer[name]) for name in names if answer.get(name) not in (None, "")), "")


def _list_in(answer: Mapping[str, Any], name: str) -> Iterator[object]:
    value: object = answer.get(name)
    if isinstance(value, list):
        yield from cast("list[object]", value)
