"""Deadlines of what threads ask a database: when one has passed, its connection is cut off.

A server that is stopped keeps its connections: the kernel acknowledges what is sent, and no
timeout of TCP ever passes. So the waiting side needs a clock of its own. One thread watches what is
under way; a thread that waits for an answer then gets an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, Self

__all__ = ["Deadlines", "Limit"]

STEP_S: Final = 0.1
"""How late a deadline is noticed at most."""


class Limit:
    """One thing under way; used as a context.

    Attributes:
        until: When it has to be done, in monotonic seconds; None is never.
        abort: Ends it, called on another thread; None as long as nothing can.
        expired: It was ended because it took too long.
    """

    __slots__ = ("_deadlines", "_outer", "abort", "expired", "until")

    def __init__(
        self, deadlines: Deadlines, until: float | None, abort: Callable[[], None] | None
    ) -> None:
        self._deadlines = deadlines
        self._outer: Limit | None = None
        self.until = until
        self.abort = abort
        self.expired = False

    def __enter__(self) -> Self:
        self._outer = self._deadlines.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deadlines.leave(self, self._outer)


class Deadlines:
    """Watches what is under way on all threads."""

    def __init__(self) -> None:
        self._under_way: set[Limit] = set()
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._here = threading.local()

    @property
    def current(self) -> Limit | None:
        """What is under way on this thread."""
        limit: Limit | None = getattr(self._here, "limit", None)
        return limit

    def hold(self, abort: Callable[[], None]) -> None:
        """What is under way on this thread uses a connection, which this cuts off."""
        limit = self.current
        if limit is not None:
            limit.abort = abort

    def release(self) -> None:
        """What is under way on this thread has given its connection back."""
        limit = self.current
        if limit is not None:
            with self._lock:
                limit.abort = None

    def limit(self, seconds: float | None, abort: Callable[[], None] | None = None) -> Limit:
        """Return a limit, which begins now; with None it only ends when all is closed."""
        return Limit(self, None if seconds is None else monotonic() + seconds, abort)

    def enter(self, limit: Limit) -> Limit | None:
        """Watch a limit; returns the one around it on this thread."""
        outer = self.current
        self._here.limit = limit
        with self._lock:
            self._under_way.add(limit)
        if not self._busy.is_set():
            self._wake()
        return outer

    def leave(self, limit: Limit, outer: Limit | None) -> None:
        """Watch it no longer."""
        self._here.limit = outer
        with self._lock:
            self._under_way.discard(limit)

    def close(self) -> None:
        """Cut off all that is under way, also what has no deadline, and end."""
        self._closed.set()
        self._busy.set()
        with self._lock:
            for limit in self._under_way:
                self._expire(limit)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="hubbub-deadlines", daemon=True
                )
                self._thread.start()
            self._busy.set()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            if self._closed.wait(STEP_S):
                return
            now = monotonic()
            with self._lock:
                if not self._under_way:
                    self._busy.clear()
                for limit in self._under_way:
                    if limit.until is not None and now > limit.until:
                        self._expire(limit)

    def _expire(self, limit: Limit) -> None:
        """End it; again in each step, as long as it goes on with another connection."""
        limit.expired = True
        if limit.abort is not None:
            limit.abort()
