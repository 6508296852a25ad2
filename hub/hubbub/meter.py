"""How fast a counter grew lately, from samples that whoever looks leaves behind."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Meter"]

SPAN_US: Final = 60_000_000
"""Time a rate is about."""

MAX_SAMPLES: Final = 120
APART_US: Final = 1_000_000
"""Samples are at least this far apart."""


class Meter:
    """Samples of one counter over the last minute or so."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=MAX_SAMPLES)

    def note(self, now_us: int, total: int) -> None:
        """Remember what the counter says now."""
        if not self._samples or now_us - self._samples[-1][0] >= APART_US:
            self._samples.append((now_us, total))

    def per_second(self, now_us: int, total: int) -> float:
        """Return how much it grew per second, since the sample that is nearest to a minute old."""
        self.note(now_us, total)
        at_us, then = min(self._samples, key=lambda one: abs(now_us - SPAN_US - one[0]))
        passed_s = (now_us - at_us) / 1e6
        return round((total - then) / passed_s, 3) if passed_s > 0 else 0.0
