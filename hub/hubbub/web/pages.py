"""What lists have in common: limits, cursors, filters by time."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hubbub.clock import seq_of_time
from hubbub.errors import InvalidError
from hubbub.subjects import check_pattern
from hubbub.times import parse_duration, parse_time
from hubbub.web.calls import Call, Reply
from hubbub.web.encoding import Page

__all__ = [
    "MAX_LIMIT",
    "choice",
    "cursor_of",
    "limit_of",
    "number_after",
    "page",
    "pattern_of",
    "seq_at",
    "text_after",
    "time_in",
]

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
MAX_SEQ: Final = 2**63 - 1

_LOST_PLUS: Final = re.compile(r" (\d\d:?\d\d)$", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,20}", re.ASCII)


def page(
    items: Iterable[object], after: object | None, *, places: Sequence[object] | None = None
) -> Reply:
    """Return one page of a list, which ends early where its items are large.

    Args:
        items: Bytes are JSON already; an iterator may make them as they are encoded.
        after: Where the next page begins; None for the last one.
        places: Where a page begins that follows each of the items; without it all are shown.
    """
    following = None if after is None else cursor_of(after)
    if places is None:
        return Reply(200, Page(items, following))
    known = places
    return Reply(200, Page(items, following, cursor_at=lambda at: cursor_of(known[at])))


def limit_of(call: Call) -> int:
    """Return `?limit=`.

    Raises:
        InvalidError: not 1 to 1000.
    """
    text = call.argument("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidError(f"limit is {text[:20]!r}, it must be 1 to {MAX_LIMIT}")
    return int(text)


def cursor_of(place: object) -> str:
    """Return where a page begins, as text that callers hand back and need not read."""
    return base64.urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def text_after(call: Call) -> str | None:
    """Return what `?cursor=` stands for; None at the beginning.

    Raises:
        InvalidError: no cursor of ours.
    """
    text = call.argument("cursor")
    if text is None:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error):
        raise _foreign(text) from None


def number_after(call: Call) -> int | None:
    """Return the sequence number that `?cursor=` stands for; None at the beginning.

    Raises:
        InvalidError: no cursor of ours.
    """
    text = text_after(call)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SEQ:
        raise _foreign(call.argument("cursor") or "")
    return int(text)


def _foreign(text: str) -> InvalidError:
    return InvalidError(
        f"cursor {text[:40]!r} is none of ours; use the `next` of the page before, or none"
    )


def choice(call: Call, name: str, allowed: Sequence[str]) -> str | None:
    """Return a parameter that has a few possible values.

    Raises:
        InvalidError: another value.
    """
    text = call.argument(name)
    if text is not None and text not in allowed:
        raise InvalidError(f"{name} is {text[:40]!r}; it may be {', '.join(allowed)}")
    return text


def pattern_of(call: Call, name: str = "subject") -> str | None:
    """Return a subject pattern.

    Raises:
        SubjectError: not a pattern.
    """
    text = call.argument(name)
    return None if text is None else check_pattern(text)


def time_in(text: str | float, *, what: str, now_us: int) -> int:
    """Read a time of the past: RFC 3339, seconds since the epoch, or a duration before now.

    Raises:
        InvalidError: none of them.
    """
    if isinstance(text, str):
        text = _LOST_PLUS.sub(r"+\1", text)
        if re.fullmatch(r"[\d.]+\s*(ms|s|m|h|d)", text, re.ASCII):
            return max(0, now_us - int(parse_duration(text, what=what) * 1e6))
        if re.fullmatch(r"\d{9,12}(\.\d{1,6})?", text, re.ASCII):
            text = float(text)
    return parse_time(text, what=what)


def seq_at(call: Call, name: str) -> int | None:
    """Return the lowest sequence number of the time that a parameter says.

    Raises:
        InvalidError: not a time.
    """
    text: Any = call.argument(name)
    return None if text is None else seq_in(text, what=name, now_us=call.core.clock.now_us())


def seq_in(text: str | float, *, what: str, now_us: int) -> int:
    """Return the lowest sequence number of a time.

    Raises:
        InvalidError: not a time.
    """
    return min(MAX_SEQ, max(0, seq_of_time(time_in(text, what=what, now_us=now_us))))
