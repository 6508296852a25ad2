"""Where time comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Timer"]


class Timer(Protocol):
    """A call that has been asked for."""

    def cancel(self) -> None:
        """Take it back."""
        ...


class Clock(Protocol):
    """Where the hub's time comes from."""

    def now_us(self) -> int:
        """Return microseconds since the epoch; never steps back."""
        ...

    def wall_us(self) -> int:
        """Return what the machine's clock says; it may be set, also back."""
        ...

    def boot_us(self) -> int:
        """Return microseconds that have passed, those of a suspended machine too; never set."""
        ...

    def call_at(self, time_us: int, callback: Callable[[], None]) -> Timer:
        """Call back once that time has come."""
        ...
