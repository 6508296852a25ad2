"""Bytes of pages, without pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hubbub import Reject, Retry
from hubbub.errors import MAX_REASON
from hubbub.portions import until_full, until_past


@pytest.mark.parametrize(("limit", "full", "past"), [(6, 3, 3), (5, 2, 3), (2, 1, 2), (0, 1, 1)])
def test_rows_end_at_their_bytes(limit: int, full: int, past: int) -> None:
    """One row is there in any case, and none is read behind the one that is too much."""
    read: list[bytes] = []

    def rows() -> Iterator[bytes]:
        for row in [b"12"] * 3:
            read.append(row)
            yield row

    assert len(until_full(rows(), len, limit)) == full
    assert len(read) == min(3, full + 1)
    assert len(until_past(rows(), len, limit)) == past


def test_reasons_of_endpoints_are_cut_off() -> None:
    """What an endpoint says stands in lists and traces; it may say a thousand characters."""
    for length, shown in ((MAX_REASON, MAX_REASON), (MAX_REASON + 1, MAX_REASON)):
        assert len(Reject("x" * length).reason) == shown
        assert len(Retry(reason="x" * length).reason) == shown
