"""Rates."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.guards import TokenBucket

RATES = st.floats(0.01, 10_000)
BURSTS = st.integers(1, 50)
STEPS = st.lists(
    st.tuples(st.floats(0, 5) | st.just(0.0), st.integers(1, 5)), min_size=1, max_size=60
)


def test_burst_then_rate() -> None:
    """A burst goes through at once, then one token each interval."""
    bucket = TokenBucket(rate_per_s=2, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(100.25) == 0.25
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) == 0.5


def test_bucket_fills_up_to_the_burst_and_not_over() -> None:
    """An hour of silence saves up no more than one burst."""
    bucket = TokenBucket(rate_per_s=10, burst=2)
    bucket.take(0.0, 2)
    assert bucket.take(3600.0, 2) == 0.0
    assert bucket.take(3600.0) == pytest.approx(0.1)


def test_more_than_the_burst_never_goes_through() -> None:
    """The burst itself does; the refused one costs nothing."""
    bucket = TokenBucket(rate_per_s=1, burst=5)
    assert bucket.take(0.0, 6) == math.inf
    assert bucket.take(0.0, 5) == 0.0


def test_clock_that_goes_back_gives_nothing() -> None:
    """Time that was counted once is not counted again."""
    bucket = TokenBucket(rate_per_s=1, burst=1)
    assert bucket.take(10.0) == 0.0
    assert bucket.take(5.0) == 6.0
    assert bucket.take(11.0) == 0.0


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (1, 0)])
def test_bucket_that_lets_nothing_through_is_refused(rate: float, burst: int) -> None:
    """Such a limit is an error where it is made, not later."""
    with pytest.raises(ValueError, match="burst"):
        TokenBucket(rate, burst)


@given(RATES, BURSTS, STEPS, st.floats(0, 1e6))
def test_no_window_has_more_than_burst_and_rate(
    rate: float, burst: int, steps: list[tuple[float, int]], start: float
) -> None:
    """Between any two moments at most burst + rate * time tokens are taken."""
    bucket = TokenBucket(rate, burst)
    moments = list(accumulate((step for step, _ in steps), initial=start))[1:]
    taken = [
        (now, n)
        for now, (_, n) in zip(moments, steps, strict=True)
        if bucket.take(now, n) == 0.0
    ]  # fmt: skip
    for first in range(len(taken)):
        tokens = 0
        for now, n in taken[first:]:
            tokens += n
            allowed = burst + rate * (now - taken[first][0])
            assert tokens <= allowed + 1e-3 + allowed * 1e-9


@given(RATES, BURSTS, STEPS, st.floats(0, 1e6))
def test_waiting_as_long_as_told_is_enough(
    rate: float, burst: int, steps: list[tuple[float, int]], start: float
) -> None:
    """Whoever waits that long is let through, but for the rounding of the clock."""
    bucket = TokenBucket(rate, burst)
    now = start
    for step, n in steps:
        now += step
        wait_s = bucket.take(now, n)
        assert (wait_s == math.inf) is (n > burst)
        if 0.0 < wait_s < math.inf:
            assert wait_s <= n / rate + 1e-6
            now += wait_s
            assert bucket.take(now, n) < 1e-6
