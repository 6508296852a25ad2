"""The circuit breaker as a value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub.guards import Breaker, BreakerRule, BreakerState

RULE = BreakerRule(failures=3, open_s=10.0, open_max_s=35.0)


def opened(breaker: Breaker, now: float) -> Breaker:
    """Fail until it opens."""
    while breaker.state is not BreakerState.OPEN:
        breaker = breaker.fail(0, now)
    return breaker


def test_opens_after_failures_in_a_row() -> None:
    """One less does not open it, and a success in between begins the row anew."""
    breaker = Breaker(RULE).fail(1, 0.0).fail(2, 0.0).succeed(3, 0.0).fail(4, 0.0).fail(5, 0.0)
    assert (breaker.state, breaker.wait_s(0.0)) == (BreakerState.CLOSED, 0.0)
    breaker = breaker.fail(6, 1.0)
    assert (breaker.state, breaker.wait_s(1.0), breaker.wait_s(11.0)) == (BreakerState.OPEN, 10, 0)


def test_one_probe_decides() -> None:
    """While it is under way nothing else goes; its success closes, and forgets."""
    breaker = opened(Breaker(RULE), 0.0).begin(7)
    assert (breaker.state, breaker.wait_s(10.0)) == (BreakerState.HALF_OPEN, math.inf)
    assert breaker.succeed(7, 10.5) == Breaker(RULE)


def test_a_failed_probe_opens_for_twice_as_long_up_to_the_most() -> None:
    """10, 20, then 35 seconds instead of 40, and not more."""
    breaker, now, waits = opened(Breaker(RULE), 0.0), 0.0, list[float]()
    for attempt in range(4):
        waits.append(breaker.wait_s(now))
        now += breaker.wait_s(now)
        breaker = breaker.begin(attempt).fail(attempt, now)
    assert waits == [10, 20, 35, 35]


def test_only_the_probe_is_listened_to() -> None:
    """What began before it opened says nothing about now."""
    is_open = opened(Breaker(RULE), 0.0)
    assert is_open.succeed(1, 5.0) == is_open.fail(2, 5.0) == is_open.take_back(3) == is_open
    probing = is_open.begin(7)
    assert probing.succeed(1, 11.0) == probing.fail(2, 11.0) == probing.take_back(3) == probing


def test_a_probe_that_is_taken_back_makes_way_for_another_one() -> None:
    """Nobody knows anything new, so the next attempt may be tried at once, as the probe."""
    breaker = opened(Breaker(RULE), 0.0).begin(7).take_back(7)
    assert (breaker.state, breaker.wait_s(10.0)) == (BreakerState.OPEN, 0.0)


def test_opens_at_a_share_of_failures_among_enough_attempts() -> None:
    """Half of four, never three in a row; three of them say nothing yet."""
    breaker = Breaker(BreakerRule(failures=0, ratio=0.5, calls=4, window_s=30.0))
    breaker = breaker.fail(1, 0.0).succeed(2, 1.0).fail(3, 2.0)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.fail(4, 3.0).state is BreakerState.OPEN
    assert breaker.fail(4, 30.0).state is BreakerState.CLOSED, "a new window"


@pytest.mark.parametrize("failures", [0, 3])
def test_success_without_a_share_costs_nothing(failures: int) -> None:
    """The same value, nothing is counted."""
    breaker = Breaker(BreakerRule(failures=failures))
    assert breaker.succeed(1, 5.0) is breaker


@given(st.integers(0, 2000))
def test_however_often_it_opens_the_time_is_bounded(times: int) -> None:
    """Doubling ends at the most, and no power of two overflows."""
    breaker = Breaker(RULE, state=BreakerState.HALF_OPEN, opened=times, probe=1).fail(1, 0.0)
    assert RULE.open_s <= breaker.wait_s(0.0) <= RULE.open_max_s


class AnyLife(RuleBasedStateMachine):
    """Attempts begin when they may, and end in any order and any way, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(BreakerRule(failures=2, ratio=0.6, calls=3, open_s=5, open_max_s=20))
        self.now = 1000.0
        self.number = 0
        self.under_way: set[int] = set()

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.breaker.wait_s(self.now))
    @rule()
    def begin(self) -> None:
        self.number += 1
        self.breaker = self.breaker.begin(self.number)
        self.under_way.add(self.number)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "take_back"]))
    def end(self, data: st.DataObject, end: str) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.under_way)))
        before = self.breaker
        self.under_way.discard(attempt)
        if end == "take_back":
            self.breaker = before.take_back(attempt)
        else:
            self.breaker = getattr(before, end)(attempt, self.now)
        if before.state is BreakerState.HALF_OPEN and attempt != before.probe:
            assert self.breaker == before

    @invariant()
    def it_never_waits_for_nothing(self) -> None:
        """Closed lets through; open ends by time; half open has a probe that is under way."""
        wait_s = self.breaker.wait_s(self.now)
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert self.breaker.probe in self.under_way
            assert wait_s == math.inf
        else:
            assert self.breaker.probe is None
            assert 0 <= wait_s <= 20
            assert self.breaker.state is BreakerState.OPEN or wait_s == 0

    @invariant()
    def nothing_is_learned_of_time_alone(self) -> None:
        assert self.breaker.state is not BreakerState.CLOSED or self.breaker.failures < 2


TestAnyLife = AnyLife.TestCase
