"""The relay's metrics; `hubbub_` is put before their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from hubbub.observe.metrics import Metrics
from hubbub_relay.events import Waiting

__all__ = ["RelayMetrics"]

REQUEST_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
)  # fmt: skip


class RelayMetrics:
    """Counters and gauges of the relay.

    Attributes:
        ended: Tasks that ended since the start, by the relay's state.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.requests = metrics.tally(
            "relay_requests", "Requests, by endpoint and HTTP status", ("endpoint", "code")
        )
        self.seconds = metrics.spread(
            "relay_request_seconds", "One request, a long poll's wait included",
            buckets=REQUEST_BUCKETS_S,
        )  # fmt: skip
        self.leases_expired = metrics.counter(
            "relay_leases_expired", "Leases that ended without a result"
        )
        self.duplicate_callbacks = metrics.counter(
            "relay_duplicate_callbacks", "Callbacks for tasks that had ended"
        )
        self._tasks = metrics.gauge(
            "relay_tasks", "Tasks: waiting, taken, and ended since the start", ("state",)
        )
        self._oldest = metrics.gauge(
            "relay_oldest_pending_seconds", "How long the oldest waiting task has waited"
        )
        self._stale = metrics.gauge(
            "relay_stale_tasks", "Waiting tasks that are older than stale_after"
        )
        self._lag = metrics.gauge(
            "relay_mirror_lag_records", "Log records that are not in the mirror file yet"
        )
        self.ended: Counter[str] = Counter(completed=0, failed=0)

    def show(self, waiting: Waiting, *, now_us: int, lag: Callable[[], int]) -> None:
        """Set the gauges."""
        self._tasks["pending"].set(waiting.by_state.get("pending", 0))
        self._tasks["processing"].set(waiting.by_state.get("in_flight", 0))
        for state, count in self.ended.items():
            self._tasks[state].set(count)
        oldest_us = waiting.oldest_us
        self._oldest.set(0 if oldest_us is None else max(0, now_us - oldest_us) / 1e6)
        self._stale.set(waiting.stale)
        self._lag.set(lag())
