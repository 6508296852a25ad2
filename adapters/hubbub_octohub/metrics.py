"""OctoHub's metrics; `hubbub_` is put before their names."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hubbub.observe.metrics import Metrics

__all__ = ["OctohubMetrics"]

BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
)  # fmt: skip


class OctohubMetrics:
    """Counters and gauges of nodes, users and what nodes do.

    Attributes:
        ended: Tasks whose result came from a node since the start, by state.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.nodes = metrics.gauge("octohub_nodes", "Nodes that are connected")
        self.users = metrics.gauge("octohub_users", "Connections of users")
        self.tasks = metrics.gauge(
            "octohub_tasks", "Tasks on nodes now, and ended by nodes since the start", ("state",)
        )
        self.dispatch_seconds = metrics.histogram(
            "octohub_dispatch_seconds", "From accepting a task to writing it to a node",
            buckets=BUCKETS_S,
        )  # fmt: skip
        self.task_seconds = metrics.histogram(
            "octohub_task_seconds", "From writing a task to a node to its result",
            ("task_type", "outcome"), buckets=BUCKETS_S,
        )  # fmt: skip
        self.auth_failures = metrics.counter(
            "octohub_auth_failures", "Signatures, logins and tokens that were not good", ("where",)
        )
        self.replacements = metrics.counter(
            "octohub_replacements", "Connections of a node that a newer one took the place of"
        )
        self.late_results = metrics.counter(
            "octohub_late_results", "Results that came after another one, or that nobody asked for"
        )
        self.frames_refused = metrics.frames_refused
        self.ended: Counter[str] = Counter(completed=0, failed=0)

    def refused(self, reason: str) -> None:
        """Count a frame that could not be used."""
        self.frames_refused["octohub", reason].inc()

    def show(self, *, nodes: int, users: int, in_hand: int) -> None:
        """Set the gauges."""
        self.nodes.set(nodes)
        self.users.set(users)
        self.tasks.fill({"dispatched": in_hand})
        for state, number in self.ended.items():
            self.tasks[state].set(number)
