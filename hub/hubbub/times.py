"""Times as callers write them: RFC 3339, seconds since the epoch, or a duration from now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from hubbub.config import units
from hubbub.errors import InvalidError

__all__ = ["parse_deadline", "parse_duration", "parse_time"]

LATEST_S: Final = 253_402_300_799
"""The last second of the year 9999, where RFC 3339 ends."""

LONGEST_WAIT_S: Final = 10 * 365 * 86_400


def parse_time(text: str | float, *, what: str) -> int:
    """Read a time as microseconds since the epoch.

    Args:
        text: `2026-01-02T03:04:05Z`, or seconds since the epoch.

    Raises:
        InvalidError: neither of them.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if not 0 <= text <= LATEST_S:
            raise InvalidError(f"{what} is {text}, which is no time in seconds since 1970")
        return int(text * 1_000_000)
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise InvalidError(f"{what} is {text!r}; write a time as 2026-01-02T03:04:05Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    if not 0 <= seconds < LATEST_S:
        raise InvalidError(f"{what} is {text!r}, which is not between 1970 and the year 9999")
    return int(seconds * 1_000_000)


def parse_duration(text: str | float, *, what: str) -> float:
    """Read a duration as seconds: `"30s"`, `"10m"`, or a number.

    Raises:
        InvalidError: neither, or negative.
    """
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise InvalidError(f"{what}: {error}") from None


def parse_deadline(text: str | float, *, what: str, now_us: int) -> int:
    """Read a time, or a duration from now, as microseconds since the epoch.

    Args:
        text: As for `parse_time` and `parse_duration`. A number is a duration up to ten years, and
            seconds since the epoch above: nobody waits longer, and nothing was due in 1980.

    Raises:
        InvalidError: neither of them.
    """
    if isinstance(text, (int, float)) and text > LONGEST_WAIT_S:
        return parse_time(text, what=what)
    if not isinstance(text, str) or "-" not in text.strip()[1:]:
        return now_us + int(parse_duration(text, what=what) * 1_000_000)
    return parse_time(text, what=what)
