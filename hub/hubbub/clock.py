"""Time and ids of a running hub. Both are injected, so that no test waits for real time."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from typing import Final

from hubbub.ports import Clock, Timer

__all__ = ["Ids", "SystemClock", "seq_of_time", "time_of_seq"]


# Of Linux; on macOS CLOCK_MONOTONIC goes on while the machine sleeps. Windows has neither.
_BOOTTIME: Final[int | None] = getattr(
    time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None)
)


class SystemClock:
    """Wall time that never steps back: the monotonic clock, moved on when the wall is ahead."""

    __slots__ = ("_base_us", "_compared_us")

    COMPARE_US: Final = 1_000_000
    """How often the wall clock is looked at (a suspended machine, a stepped clock)."""

    def __init__(self) -> None:
        self._compared_us = time.monotonic_ns() // 1000
        self._base_us = time.time_ns() // 1000 - self._compared_us

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        steady_us = time.monotonic_ns() // 1000
        if steady_us - self._compared_us >= self.COMPARE_US:
            self._compared_us = steady_us
            self._base_us = max(self._base_us, time.time_ns() // 1000 - steady_us)
        return self._base_us + steady_us

    def wall_us(self) -> int:
        """Return what the machine's clock says; it may be set, also back."""
        return time.time_ns() // 1000

    def boot_us(self) -> int:
        """Return microseconds that have passed, those of a suspended machine too; never set."""
        if _BOOTTIME is None:
            return time.monotonic_ns() // 1000
        return time.clock_gettime_ns(_BOOTTIME) // 1000

    def call_at(self, time_us: int, callback: Callable[[], None]) -> Timer:
        """Call back on the running loop at a time of `now_us`."""
        delay_s = max(0.0, (time_us - self.now_us()) / 1e6)
        return asyncio.get_running_loop().call_later(delay_s, callback)


# A sequence number is 44 bits of milliseconds and 19 bits of counter: time-ordered, 63 bits,
# 524,288 ids a millisecond, so that a range of numbers is a range of time.
_COUNTER_BITS: Final = 19
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_PAIR: Final = len(_PAIRS)
_RANDOM_BITS: Final = 80


def time_of_seq(seq: int) -> int:
    """Return the microseconds since the epoch at which a sequence number was made."""
    return (seq >> _COUNTER_BITS) * 1000


def seq_of_time(time_us: int) -> int:
    """Return the lowest sequence number of that time."""
    return (time_us // 1000) << _COUNTER_BITS


def _base32(number: int, digits: int) -> str:
    """Return an even number of digits."""
    return "".join(
        [_PAIRS[number >> shift & _PAIR - 1] for shift in range(5 * digits - 10, -1, -10)]
    )


class Ids:
    """Makes sequence numbers, envelope ids and trace ids; each kind in order of time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seq = 0
        self._ulid_ms = -1
        self._ulid_time = ""
        self._ulid_tail = ""
        self._ulid_low = 0
        # Ids are to be unique, not to be unguessable: one seed, no system call for each.
        self._random = random.Random(secrets.randbits(128)).getrandbits  # noqa: S311
        self._ulid_high = self._random(_RANDOM_BITS - 11)

    def continue_after(self, seq: int) -> None:
        """Give numbers above one that was given before a restart, whatever the clock says."""
        self._seq = max(self._seq, seq)

    def seq(self, now_us: int | None = None) -> int:
        """Return the next number: greater than all before, also over a restart.

        Args:
            now_us: The time, where it was read just now.
        """
        if now_us is None:
            now_us = self._clock.now_us()
        floor = (now_us // 1000) << _COUNTER_BITS
        self._seq = self._seq + 1 if self._seq >= floor else floor
        return self._seq

    def ulid(self, now_us: int | None = None) -> str:
        """Return 26 characters of Crockford's base 32 (ULID), increasing within this process.

        Args:
            now_us: The time, where it was read just now.
        """
        now_ms = (self._clock.now_us() if now_us is None else now_us) // 1000
        low = self._ulid_low = (self._ulid_low + 1) % _PAIR
        if not low or not self._ulid_tail:
            self._ulid_high += 1
            self._ulid_tail = _base32(self._ulid_high, 14)
        if now_ms > self._ulid_ms:
            # Of the random part only the start is drawn: it goes on by one, whatever the time.
            self._ulid_ms = now_ms
            high, last = divmod(now_ms, _PAIR)
            self._ulid_time = _base32(high, 8) + _PAIRS[last]
        return self._ulid_time + self._ulid_tail + _PAIRS[low]

    def trace(self) -> str:
        """Return a trace id: time first, so that an index over traces only grows at its end."""
        return f"{self._clock.now_us():016x}{self._random(64):016x}"

    def span(self) -> str:
        """Return a span id: 16 hex digits, never all zero."""
        return f"{self._random(64) or 1:016x}"
