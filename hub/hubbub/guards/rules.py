"""What hub.toml says about guards, as values: one shape for endpoints and for sources."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from hubbub.guards.breaker import BreakerRule
from hubbub.guards.bucket import TokenBucket
from hubbub.subjects import matches

__all__ = ["GuardRule", "rule_for"]


class GuardRule(msgspec.Struct, frozen=True, kw_only=True):
    """The guards of every address that a pattern covers, each address for itself.

    Attributes:
        match: Address pattern.
        rate_per_s: Envelopes per second in the long run; 0 is no limit.
        burst: Envelopes at once; 0 is one second's worth.
        concurrency: Envelopes under way at once; 0 is no limit.
        size_bytes: Largest data of an envelope; 0 is no limit.
        connections: Streams that are open at once, for sources; 0 is no limit.
        breaker: For endpoints; None for none.
    """

    match: str
    rate_per_s: float = 0.0
    burst: int = 0
    concurrency: int = 0
    size_bytes: int = 0
    connections: int = 0
    breaker: BreakerRule | None = None

    @property
    def burst_tokens(self) -> int:
        """Envelopes that may go at once, when there is a rate."""
        return self.burst or max(1, math.ceil(self.rate_per_s))

    def bucket(self) -> TokenBucket | None:
        """Return a full bucket of this rate; None without one."""
        return TokenBucket(self.rate_per_s, self.burst_tokens) if self.rate_per_s else None


def rule_for(rules: Iterable[GuardRule], address: str) -> GuardRule | None:
    """Return the first rule that covers an address."""
    return next((rule for rule in rules if matches(rule.match, address)), None)
