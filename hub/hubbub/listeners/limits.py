"""Who may come in, how many, and for how long: the limits of one listener."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from hubbub.config import LimitSettings
from hubbub.config.settings import PER_SOURCE
from hubbub.guards import TokenBucket
from hubbub.listeners.buffers import Buffers
from hubbub.listeners.sockets import source_of
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock, Timer

__all__ = ["Gate", "SourceRates", "Watch"]

MAX_SOURCES: Final = 16_384
"""Sources whose rate is remembered; the one that was silent longest begins anew."""


class SourceRates:
    """A token bucket for each source; none at all without a rate."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1, math.ceil(rate_per_s))
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, source: str, *, now_us: int) -> bool:
        """Take a token of a source; False when it has none left."""
        if not self._rate_per_s:
            return True
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(self._rate_per_s, self._burst)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        return not bucket.take(now_us / 1e6)


class Gate:
    """The door of one listener: counts who is inside, and says why somebody may not come in.

    Attributes:
        limits: What it holds to.
        rates: How often each source has come of late.
        buffers: What is under way from those inside.
        open: Whether anybody may come in at all.
    """

    def __init__(
        self, name: str, limits: LimitSettings, *, clock: Clock, metrics: Metrics | None = None
    ) -> None:
        self.limits = limits
        self.open = True
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self.rates = SourceRates(limits.rate_per_source)
        self._inside: Counter[str] = Counter()
        self._number = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.buffers: Final = Buffers(
            lambda: self.limits.buffered,
            refuse=lambda: self.refuse("buffered"),
            grew=self._grew,
        )

    def _grew(self, size_bytes: int) -> None:
        if self._metrics is not None:
            self._metrics.buffered_bytes[self._name].inc(size_bytes)

    def __len__(self) -> int:
        """Return how many are inside."""
        return self._number

    def change(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on; who is inside stays, over a limit or not."""
        if limits.rate_per_source != self.limits.rate_per_source:
            self.rates = SourceRates(limits.rate_per_source)
        self.limits = limits

    def enter(self, host: str) -> str | None:
        """Let a connection in; returns its source for `leave`, or None when it is refused."""
        source, is_here = source_of(host)
        reason = self._against(source, is_here=is_here)
        if reason is not None:
            self.refuse(reason)
            return None
        self._inside[source] += 1
        self._number += 1
        self._empty.clear()
        if self._metrics is not None:
            self._metrics.connections[self._name].inc()
        return source

    def _against(self, source: str, *, is_here: bool) -> str | None:
        limits = self.limits
        if not self.open:
            return "draining"
        if self._number >= limits.connections:
            return "connections"
        most = limits.connections_per_source
        if most is None and not is_here:
            most = PER_SOURCE
        if most is not None and self._inside[source] >= most:
            return "source"
        return None if self.rates.take(source, now_us=self._clock.now_us()) else "rate"

    def leave(self, source: str) -> None:
        """Note that a connection has ended."""
        self._number -= 1
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]
        if not self._number:
            self._empty.set()
        if self._metrics is not None:
            self._metrics.connections[self._name].dec()

    def refuse(self, reason: str) -> None:
        """Count a connection that was not let in, or that was closed over a limit."""
        if self._metrics is not None:
            self._metrics.connections_refused[self._name, reason].inc()

    def refuse_frame(self, reason: str) -> None:
        """Count a frame that could not be used."""
        if self._metrics is not None:
            self._metrics.frames_refused[self._name, reason].inc()

    async def emptied(self) -> None:
        """Return once nobody is inside."""
        await self._empty.wait()


class Watch:
    """What one connection waits for, and until when.

    A deadline is a number that is written for each piece of data; the timer is moved only when it
    fires too early, so that a busy connection costs next to nothing.
    """

    __slots__ = ("_clock", "_fires_us", "_overdue", "_read", "_timer", "_write_us")

    def __init__(self, clock: Clock, overdue: Callable[[str], None]) -> None:
        self._clock = clock
        self._overdue = overdue
        self._read: tuple[int, str] = (0, "")
        self._write_us = 0
        self._timer: Timer | None = None
        self._fires_us = 0

    def read_within(self, seconds: float, reason: str = "idle") -> None:
        """Bytes of the peer are due within that time; 0 for whenever it likes."""
        self._read = (self._clock.now_us() + int(seconds * 1e6) if seconds else 0, reason)
        self._arm()

    def write_within(self, seconds: float) -> None:
        """The peer is to take what waits for it within that time; 0 when nothing waits."""
        self._write_us = self._clock.now_us() + int(seconds * 1e6) if seconds else 0
        self._arm()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._read, self._write_us = (0, ""), 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        read_us, write_us = self._read[0], self._write_us
        due_us = min(read_us, write_us) if read_us and write_us else read_us or write_us
        if not due_us or (self._timer is not None and self._fires_us <= due_us):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._fires_us = due_us
        self._timer = self._clock.call_at(due_us, self._fired)

    def _fired(self) -> None:
        self._timer = None
        now_us = self._clock.now_us()
        (read_us, reason), write_us = self._read, self._write_us
        if read_us and read_us <= now_us:
            self._read = (0, "")
            self._overdue(reason)
        elif write_us and write_us <= now_us:
            self._write_us = 0
            self._overdue("unread")
        else:
            self._arm()
