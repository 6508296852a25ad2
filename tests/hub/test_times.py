"""Times as callers write them."""

from __future__ import annotations

import pytest

from hubbub.errors import InvalidError
from hubbub.times import parse_deadline

NOW_US = 1_795_000_000_000_000


@pytest.mark.parametrize(
    ("given", "due_us"),
    [
        ("30s", NOW_US + 30_000_000),
        (30, NOW_US + 30_000_000),
        (0.5, NOW_US + 500_000),
        (315_360_000, NOW_US + 315_360_000_000_000),
        (1_795_000_060, NOW_US + 60_000_000),
        (1_795_000_000.25, NOW_US + 250_000),
        ("2026-11-18T10:26:40Z", 1_794_997_600_000_000),
    ],
)
def test_a_deadline_is_a_time_or_a_duration(given: str | float, due_us: int) -> None:
    """A number that nobody would wait for is a time."""
    assert parse_deadline(given, what="not_before", now_us=NOW_US) == due_us


@pytest.mark.parametrize("given", ["soon", -1, 1e30, float("nan"), "2026-13-01T00:00:00Z"])
def test_what_is_neither_is_refused(given: str | float) -> None:
    """With the name of the member."""
    with pytest.raises(InvalidError, match="not_before"):
        parse_deadline(given, what="not_before", now_us=NOW_US)
