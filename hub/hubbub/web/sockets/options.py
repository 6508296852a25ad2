"""What a stream client asks for in the query of its address."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from hubbub.errors import InvalidError
from hubbub.intake import check_text
from hubbub.subjects import check_pattern
from hubbub.web.decoding import parse_query

__all__ = ["Options"]

MAX_CONCURRENCY: Final = 1000
MAX_OPTIONS: Final = 1000
"""Parameters in the query of a stream: its subscriptions may be many."""

ONCE: Final = frozenset({"name", "ack", "durable", "concurrency"})
_LABEL: Final = re.compile(r"([^:=]+)[:=](.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client asked for in the query."""

    name: str
    subjects: tuple[str, ...]
    labels: dict[str, str]
    accepts: tuple[str, ...]
    task_types: tuple[str, ...] | None
    concurrency: int
    manual: bool
    durable: bool

    @classmethod
    def read(cls, query: bytes) -> Options:
        """Read the query.

        Raises:
            MalformedError: a parameter that cannot be decoded.
            InvalidError: a parameter that is not known, or there twice, or does not fit.
        """
        given = parse_query(query, limit=MAX_OPTIONS)
        known = {"name", "subject", "label", "labels", "accepts", "task_types", "concurrency",
                 "ack", "durable"}  # fmt: skip
        for name, _ in given:
            if name not in known:
                raise InvalidError(f"?{name}= is not known; known are {', '.join(sorted(known))}")
            if name in ONCE and [each for each, _ in given].count(name) > 1:
                raise InvalidError(f"?{name}= is there twice; send it once")
        last = dict(given)
        name = last.get("name", "")
        if name:
            check_text("name", name)
        if last.get("ack", "auto") not in ("auto", "manual"):
            raise InvalidError("?ack= must be auto or manual")
        durable = last.get("durable", "0") in ("1", "true")
        if durable and not name:
            raise InvalidError("a durable stream needs a ?name= of its own to come back to")
        types = _several(given, "task_types")
        return cls(
            name=name or secrets.token_hex(8),
            subjects=tuple(check_pattern(value) for key, value in given if key == "subject"),
            labels=_labels(value for key, value in given if key in ("label", "labels")),
            accepts=tuple(_several(given, "accepts")),
            task_types=tuple(types) if types else None,
            concurrency=_whole(last.get("concurrency", "1"), "concurrency", MAX_CONCURRENCY),
            manual=last.get("ack") == "manual",
            durable=durable,
        )


def _several(given: Iterable[tuple[str, str]], *names: str) -> list[str]:
    """Return values that may be repeated or stand in one, with commas."""
    return [part for name, value in given if name in names for part in value.split(",") if part]


def _labels(given: Iterable[str]) -> dict[str, str]:
    """Read labels: `NAME:VALUE` or `NAME=VALUE`, with commas between several, or a JSON object."""
    labels: dict[str, str] = {}
    for text in given:
        pairs = _label_object(text) if text.startswith("{") else _label_pairs(text)
        labels |= {check_text("label", k): check_text("label", v) for k, v in pairs.items()}
    return labels


def _label_object(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidError(f"labels are no JSON object of texts: {error}") from error


def _label_pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        found = _LABEL.fullmatch(pair)
        if found is None:
            raise InvalidError(f"label {pair!r} is not NAME:VALUE or NAME=VALUE")
        pairs[found[1]] = found[2]
    return pairs


def _whole(text: str, name: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise InvalidError(f"?{name}={text[:20]!r} is no whole number from 1 to {most}")
    return int(text)
