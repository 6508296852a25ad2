"""The circuit breaker: after failures in a row nothing is tried for a while, then one thing.

    closed --failures in a row, or too large a share of them--> open
    open --its time is over, an attempt begins--> half_open, that attempt is the probe
    half_open --the probe succeeds--> closed
    half_open --the probe fails--> open, twice as long
    half_open --the probe is taken back, nobody knows--> open, its time is over

Attempts that began before it opened end after it opened; what they say does not count any more.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Self, TypeVar

import msgspec

__all__ = ["Breaker", "BreakerRule", "BreakerState"]


class BreakerState(StrEnum):
    """Whether attempts go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """When to open, and for how long.

    Attributes:
        failures: In a row; 0 leaves it to the share.
        ratio: Share of failed attempts among those of one window; 0 leaves it to the row.
        calls: Attempts a window must have before its share counts.
        window_s: Seconds after which the share is counted anew.
        open_s: How long it is open the first time.
        open_max_s: How long it is open at most.
        probe_counts: A probe that fails is an attempt of its delivery.
    """

    failures: int = 5
    ratio: float = 0.0
    calls: int = 20
    window_s: float = 30.0
    open_s: float = 30.0
    open_max_s: float = 300.0
    probe_counts: bool = False


class Breaker(msgspec.Struct, frozen=True):
    """One breaker, as a value. Every change returns a new one; `now` is monotonic seconds.

    Attributes:
        failures: Those in a row, while it is closed.
        calls: Attempts of this window, kept only where the rule asks for a share.
        failed: How many of them failed.
        window_at: When this window began.
        opened: How often it opened without having been closed in between.
        open_until: Until when nothing is tried.
        probe: The attempt that decides, while it is half open.
    """

    rule: BreakerRule
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    calls: int = 0
    failed: int = 0
    window_at: float = -math.inf
    opened: int = 0
    open_until: float = 0.0
    probe: int | None = None

    def wait_s(self, now: float) -> float:
        """Return the seconds until an attempt may begin; infinite while a probe is under way."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.HALF_OPEN:
            return math.inf
        return max(0.0, self.open_until - now)

    def begin(self, attempt: int) -> Self:
        """Note that an attempt begins, for which `wait_s` was 0."""
        if self.state is BreakerState.CLOSED:
            return self
        return msgspec.structs.replace(self, state=BreakerState.HALF_OPEN, probe=attempt)

    def succeed(self, attempt: int, now: float) -> Self:
        """Note that the peer did what was asked, or said no by its own protocol."""
        if self.state is BreakerState.CLOSED:
            if not self.rule.ratio:
                return self if not self.failures else msgspec.structs.replace(self, failures=0)
            return msgspec.structs.replace(self._counted(now, failed=0), failures=0)
        return type(self)(self.rule) if self._decides(attempt) else self

    def fail(self, attempt: int, now: float) -> Self:
        """Note that the peer did not answer, or answered with an error."""
        if self.state is not BreakerState.CLOSED:
            return _opened(self, now) if self._decides(attempt) else self
        failures = self.failures + 1
        after = msgspec.structs.replace(self._counted(now, failed=1), failures=failures)
        return _opened(after, now) if _trips(after) else after

    def take_back(self, attempt: int) -> Self:
        """Note that an attempt ended without a word about the peer."""
        if not self._decides(attempt):
            return self
        return msgspec.structs.replace(self, state=BreakerState.OPEN, probe=None)

    def _decides(self, attempt: int) -> bool:
        return self.state is BreakerState.HALF_OPEN and attempt == self.probe

    def _counted(self, now: float, *, failed: int) -> Self:
        if not self.rule.ratio:
            return self
        if now - self.window_at >= self.rule.window_s:
            return msgspec.structs.replace(self, calls=1, failed=failed, window_at=now)
        return msgspec.structs.replace(self, calls=self.calls + 1, failed=self.failed + failed)


B = TypeVar("B", bound=Breaker)


def _trips(breaker: Breaker) -> bool:
    rule = breaker.rule
    if rule.failures and breaker.failures >= rule.failures:
        return True
    return (
        rule.ratio > 0
        and breaker.calls >= rule.calls
        and breaker.failed >= rule.ratio * breaker.calls
    )


def _opened(breaker: B, now: float) -> B:
    """Return the breaker opened, twice as long as the last time."""
    rule = breaker.rule
    open_s = min(rule.open_max_s, rule.open_s * 2.0 ** min(breaker.opened, 64))
    return type(breaker)(
        rule, state=BreakerState.OPEN, opened=breaker.opened + 1, open_until=now + open_s
    )
