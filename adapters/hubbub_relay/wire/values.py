"""Single values of requests: ids, names, numbers, each read or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from hubbub.envelope import decode_json
from hubbub.errors import HubError
from hubbub.intake import has_nul

__all__ = [
    "DEFAULT_PRIORITY",
    "MAX_LEASE_S",
    "MAX_NAME",
    "RESERVED",
    "Members",
    "RelayError",
    "members_of",
    "read_count",
    "read_lease",
    "read_name",
    "read_priority",
    "read_seconds",
    "read_short_text",
    "read_task_id",
    "read_whole",
    "task_id_of",
]

RESERVED: Final = frozenset({"event", "ts", "ts_ms", "id", "trace_id"})
"""Members of a log record that a client must not say."""

MAX_NAME: Final = 128
"""Characters of a name in `from`, `to` or `child_id`, and of a command."""

MAX_LEASE_S: Final = 86_400.0
DEFAULT_PRIORITY: Final = 5
MAX_PRIORITY: Final = 9
MAX_DIGITS: Final = 19

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TASK_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

Members = dict[str, object]


class RelayError(HubError):
    """A request that the relay refuses; `str()` is the `msg` of its answer.

    Attributes:
        status: HTTP status of the answer.
    """

    code = "relay_request"

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


def members_of(body: bytes, missing: str | None) -> Members:
    """Return the members of a body, without reserved ones.

    Args:
        missing: What an empty or null body lacks; None when nothing.
    """
    try:
        decoded = decode_json(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise RelayError("invalid JSON") from None
    if not decoded and missing is not None:
        raise RelayError(missing)
    if not isinstance(decoded, dict):
        raise RelayError("body must be an object")
    members = cast("Members", decoded)
    if has_nul(body):
        raise RelayError("NUL character in a text")
    if not RESERVED.isdisjoint(members):
        members = {name: value for name, value in members.items() if name not in RESERVED}
    return members


def read_task_id(value: object, what: str = "task_id") -> str | None:
    """Return a task id as text; None when there is none.

    Raises:
        RelayError: it is none; an object or a list is none even when it is empty.
    """
    if not value and not isinstance(value, bool | dict | list):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _TASK_ID.fullmatch(value):
        raise RelayError(f"invalid {what}")
    return value


def task_id_of(text: str) -> str:
    """Return a task id that stands in a path.

    Raises:
        RelayError: there is no such task, because none can have that id.
    """
    if not _TASK_ID.fullmatch(text):
        raise RelayError("task not found", 404)
    return text


def read_name(value: object, what: str) -> str:
    """Return a name or a command as text.

    Raises:
        RelayError: it is none.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or _CONTROL.search(value):
        raise RelayError(f"invalid {what}")
    return value


def read_priority(value: object) -> int:
    """Return a priority, 0 to 9; the default for none.

    Raises:
        RelayError: it is none.
    """
    if value is None:
        return DEFAULT_PRIORITY
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY:
        raise RelayError("invalid priority")
    return value


def read_short_text(members: Members, name: str, limit: int) -> str | None:
    """Return a member that is a printable text of at most `limit` characters; None without it.

    Raises:
        RelayError: it is something else.
    """
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
        raise RelayError(f"invalid {name}")
    return value


def read_lease(value: object) -> float:
    """Return the seconds of a lease.

    Raises:
        RelayError: no number, or not within a day.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RelayError("invalid lease")
    if not 0 < value <= MAX_LEASE_S:
        raise RelayError("invalid lease")
    return float(value)


def read_count(given: Mapping[str, str], name: str, default: int, limit: int) -> int:
    """Return a parameter that is 1 to `limit`; the default without it.

    Raises:
        RelayError: it is something else.
    """
    text = given.get(name)
    return default if text is None else read_whole(text, name, 1, limit)


def read_whole(text: str, name: str, low: int, high: int) -> int:
    """Return a whole number within a range.

    Raises:
        RelayError: it is something else.
    """
    digits = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not digits or not low <= int(text) <= high:
        raise RelayError(f"invalid {name}")
    return int(text)


def read_seconds(text: str, name: str, limit: float) -> float:
    """Return seconds, 0 to `limit`.

    Raises:
        RelayError: it is something else.
    """
    try:
        seconds = float(text)
    except ValueError:
        raise RelayError(f"invalid {name}") from None
    if not 0 <= seconds <= limit:
        raise RelayError(f"invalid {name}")
    return seconds
