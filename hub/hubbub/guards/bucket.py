"""The token bucket: a rate in the long run, and a burst at once."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["TokenBucket"]

ROUNDING_S: Final = 1e-6
"""Waits up to this are none: sums of intervals are off by less, as long as times are small."""


class TokenBucket:
    """At most `burst` at once, and `rate_per_s` in the long run.

    Kept as one moment: when the bucket would be full again. So nothing ticks, and nothing adds
    up rounding while nobody asks.
    """

    __slots__ = ("_burst", "_full_at", "_interval_s")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        """Begin full.

        Raises:
            ValueError: a rate or a burst that would never let anything through.
        """
        if not (rate_per_s > 0 and math.isfinite(rate_per_s)) or burst < 1:
            raise ValueError(
                f"a rate of {rate_per_s} per second with a burst of {burst} lets nothing through; "
                "give a rate over 0 and a burst of at least 1"
            )
        self._interval_s = 1.0 / rate_per_s
        self._burst = burst
        self._full_at = -math.inf

    def take(self, now: float, n: int = 1) -> float:
        """Take `n` tokens, or none.

        Args:
            now: Monotonic seconds; a step back gives no tokens.
            n: How many; at least 1.

        Returns:
            0.0 when they were taken, else the seconds after which to ask again; infinite for
            more than the burst, which can never be had at once.
        """
        wait_s = self.wait_s(now, n)
        if not wait_s:
            self._full_at = max(self._full_at, now) + n * self._interval_s
        return wait_s

    def wait_s(self, now: float, n: int = 1) -> float:
        """Return what `take` would, without taking anything."""
        if n > self._burst:
            return math.inf
        wait_s = self._full_at - (self._burst - n) * self._interval_s - now
        return wait_s if wait_s > ROUNDING_S else 0.0

    @property
    def full_at(self) -> float:
        """When it is full again, if nothing is taken; minus infinity for one that always was."""
        return self._full_at

    def give_back(self, n: int = 1) -> None:
        """Put back `n` tokens that were taken."""
        self._full_at -= n * self._interval_s

    def left(self, now: float) -> float:
        """Return how many tokens are there, from 0 to the burst."""
        return min(self._burst, max(0.0, self._burst - (self._full_at - now) / self._interval_s))
