"""The adapter's metrics; `hubbub_` is put before their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from hubbub.observe.metrics import Metrics

if TYPE_CHECKING:
    from hubbub_kenko.connection import Connection

__all__ = ["KenkoMetrics"]

DISPATCH_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip

KNOWN: Final = frozenset(
    {
        "register", "heartbeat", "ping", "pong", "message", "ack", "start", "pause", "error",
        "auth", "runner.exec", "runner.result", "runner.output",
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
        self.frames = metrics.tally("kenko_frames", "Frames", ("direction", "type"))
        self.heartbeat_timeouts = metrics.counter(
            "kenko_heartbeat_timeouts", "Applications disconnected for their silence"
        )
        self.dispatch_seconds = metrics.spread(
            "kenko_dispatch_seconds",
            "From handing a message to an application's connection to having it written, or "
            "acknowledged",
            buckets=DISPATCH_BUCKETS_S,
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

    def show(self, connections: Iterable[Connection], handshakes: int) -> None:
        """Set the gauges.

        Args:
            handshakes: Sessions of Socket.IO that are no clients yet.
        """
        clients: Counter[tuple[str, ...] | str] = Counter()
        if handshakes:
            clients["connected", "socketio"] = handshakes
        depth: Counter[tuple[str, ...] | str] = Counter()
        for one in connections:
            clients[one.session.state.name.lower(), one.transport] += 1
            if one.app is not None:
                depth[one.app.name] += one.app.depth
        self._clients.fill(clients)
        self._depth.fill(depth)
