"""How long to wait before the next attempt to connect. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

__all__ = ["Pauses"]


@dataclass(frozen=True, slots=True)
class Pauses:
    """Doubling waits with a bound, and jitter so that nodes do not all come back at once.

    Attributes:
        failures: Connections in a row that were not good ones.
    """

    first_s: float
    longest_s: float
    stable_s: float
    failures: int = 0

    def after(self, lasted_s: float) -> Self:
        """Return the state after a connection that lasted so long; 0 for none at all."""
        return replace(self, failures=0 if lasted_s >= self.stable_s else self.failures + 1)

    def next_s(self, chance: float) -> float:
        """Return how long to wait now.

        Args:
            chance: From 0 to 1.
        """
        doubled_s = self.first_s * 2.0 ** min(max(self.failures - 1, 0), 30)
        return min(self.longest_s, doubled_s) * (0.5 + chance / 2)
