"""How many envelopes one principal may publish per second (`hub.publish_rate`)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from hubbub.errors import RateLimitedError
from hubbub.guards import TokenBucket

__all__ = ["Rates"]

MAX_BUCKETS: Final = 4096
"""Principals remembered; the one that was silent longest begins anew."""


class Rates:
    """A bucket for each principal; none at all without a rate."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1, math.ceil(rate_per_s))
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def change(self, rate_per_s: float) -> None:
        """Hold everybody to another rate; the buckets begin anew when it is another one."""
        if rate_per_s != self._rate_per_s:
            self._rate_per_s = rate_per_s
            self._burst = max(1, math.ceil(rate_per_s))
            self._buckets.clear()

    def take(self, name: str, number: int, *, now_s: float) -> None:
        """Count envelopes that somebody wants to publish.

        A batch over the burst takes all of it: it is refused only while the bucket is not full.

        Raises:
            RateLimitedError: too many.
        """
        if not self._rate_per_s:
            return
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._rate_per_s, self._burst)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        wait_s = bucket.take(now_s, min(number, self._burst))
        if wait_s:
            raise RateLimitedError(
                what=f"publishing by {name!r}", after_s=wait_s, setting="hub.publish_rate"
            )
