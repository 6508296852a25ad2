"""The adapter's metrics; `hubbub_` is put before their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from hubbub.observe.metrics import Metrics

if TYPE_CHECKING:
    from hubbub_kenko.connection import Connection

__all__ = ["KenkoMetrics"]

KNOWN: Final = frozenset(
    {
        "register", "heartbeat", "ping", "pong", "message", "ack", "start", "pause", "error",
        "auth", "runner.exec", "runner.result",
    }
)  # fmt: skip


class KenkoMetrics:
    """Counters and gauges of the adapter."""

    def __init__(self, metrics: Metrics) -> None:
        self._clients = metrics.gauge(
            "kenko_clients", "Clients that are connected", ("state", "transport")
        )
        self.registers = metrics.counter(
            "kenko_registers", "Registrations, and what came of them", ("result",)
        )
        self.frames = metrics.counter("kenko_frames", "Frames", ("direction", "type"))
        self.heartbeat_timeouts = metrics.counter(
            "kenko_heartbeat_timeouts", "Applications disconnected for their silence"
        )
        self.dispatch_seconds = metrics.histogram(
            "kenko_dispatch_seconds",
            "From handing a message to an application's connection to having it written, or "
            "acknowledged",
        )
        self._depth = metrics.gauge(
            "kenko_queue_depth", "Messages that wait, or are under way, by application", ("app",)
        )
        self.dropped = metrics.counter(
            "kenko_dropped", "Messages of applications that went nowhere, and why", ("reason",)
        )

    def received(self, kind: str) -> None:
        """Count a frame of a client."""
        self.frames["in", kind if kind in KNOWN else "unknown"].inc()

    def sent(self, kind: str, number: int = 1) -> None:
        """Count frames to a client."""
        self.frames["out", kind if kind in KNOWN else "unknown"].inc(number)

    def show(self, connections: Iterable[Connection]) -> None:
        """Set the gauges."""
        clients: Counter[tuple[str, ...] | str] = Counter()
        depth: Counter[tuple[str, ...] | str] = Counter()
        for one in connections:
            clients[one.session.state.name.lower(), one.transport] += 1
            if one.app is not None:
                depth[one.app.name] += one.app.depth
        self._clients.fill(clients)
        self._depth.fill(depth)
