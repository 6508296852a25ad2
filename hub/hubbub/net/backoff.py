"""How long to wait before the next attempt to connect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["Backoff", "retry_after_s"]

MAX_FACTOR: Final = 10.0
"""The most by which a wait may grow at once."""

_EXPONENTS: Final = 64
"""Failures beyond which a wait grows no more, whatever the factor: no number gets too large."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow up to a cap, each shortened by chance so that links do not come in step.

    Attributes:
        first_s: Wait after the first failure.
        factor: By how much each further one is longer.
        cap_s: The longest.
        jitter: The share of a wait that chance may take away, 0 to 1.
        stable_s: How long a link must have been open for the next wait to be the first again.
    """

    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0
    jitter: float = 0.5
    stable_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what would be no backoff.

        Raises:
            ValueError: a storm, or a wait that is not a number.
        """
        if not 0 < self.first_s <= self.cap_s < float("inf"):
            raise ValueError("backoff: first_s is over 0 and cap_s not below it")
        if not 1 <= self.factor <= MAX_FACTOR:
            raise ValueError(f"backoff: factor is 1 to {MAX_FACTOR:g}")
        if not 0 <= self.jitter <= 1:
            raise ValueError("backoff: jitter is 0 to 1")
        if not 0 <= self.stable_s < float("inf"):
            raise ValueError("backoff: stable_s is 0 or more")

    def failures_after(self, failures: int, lasted_s: float | None) -> int:
        """Return the failures in a row after one link more has ended.

        Args:
            failures: Those before.
            lasted_s: How long it was open; None when it never was.
        """
        stable = lasted_s is not None and lasted_s >= self.stable_s
        return 1 if stable else failures + 1

    def wait_s(self, failures: int, chance: float, *, asked_s: float = 0.0) -> float:
        """Return how long to wait after so many failures in a row.

        Args:
            failures: At least 1.
            chance: From 0 to 1.
            asked_s: What the peer asked for; honoured up to the cap.
        """
        grown_s = self.first_s * self.factor ** min(failures - 1, _EXPONENTS)
        wait_s = min(self.cap_s, grown_s) * (1 - self.jitter * chance)
        return max(wait_s, min(asked_s, self.cap_s))


def retry_after_s(headers: Mapping[str, str], now_us: int) -> float:
    """Return what `Retry-After` asks for, in either form (RFC 9110, 10.2.3); 0 for nothing.

    Args:
        headers: Names in lower case.
        now_us: The time, in microseconds since the epoch.
    """
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:12])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now_us / 1e6)
    except (ValueError, OverflowError):
        return 0.0
