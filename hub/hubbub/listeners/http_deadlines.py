"""Deadlines of one HTTP or WebSocket connection, in each of its phases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hubbub.listeners.limits import Gate, Watch
from hubbub.ports import Clock

__all__ = ["HEADERS_S", "KEEP_ALIVE_S", "LINGER_S", "SWEEP_S", "UPGRADE_S", "Guest"]

HEADERS_S: Final = 10.0
"""How long a client may take from its first byte, or from connecting, to the end of its headers."""

LINGER_S: Final = 1.0
"""How long a client that was refused may take to hear it and leave."""

KEEP_ALIVE_S: Final = 5
"""How long a connection without a request stays open, and how long a body is read that came too
late for its answer."""

UPGRADE_S: Final = 30.0
"""How long the application may take to accept or refuse a WebSocket; then it is 503."""

SWEEP_S: Final = 5.0
"""How often those are looked for that are closed and do not read what was written before."""

OWED: Final = ("headers", "idle")
"""What a peer cannot send while nothing is read."""


class Guest:
    """One connection inside: its place, its deadlines."""

    __slots__ = ("_gate", "_is_closing", "_source", "is_paused", "transport", "unanswered", "watch")

    def __init__(self, gate: Gate, clock: Clock, transport: asyncio.Transport, source: str) -> None:
        self._gate = gate
        self._source = source
        self.transport = transport
        self._is_closing = False
        self.is_paused: Callable[[], bool] = bool
        self.unanswered: Callable[[], None] = transport.abort
        self.watch: Final = Watch(clock, self.overdue)

    def overdue(self, reason: str) -> None:
        """End a connection whose peer is late with what it owes."""
        if reason in OWED and self.is_paused():  # the application is slow, not the client
            self.watch.read_within(
                self._gate.limits.idle if reason == "idle" else HEADERS_S, reason
            )
            return
        self._gate.refuse(reason)
        if reason == "handshake":
            self.unanswered()
        else:
            self.transport.abort()

    def unread(self, waits: bool) -> None:
        """Note whether the peer leaves so much unread that the application waits."""
        self.watch.write_within(self._gate.limits.idle if waits else 0)

    def sweep(self) -> None:
        """Set a limit to a close that waits for the peer to read; the transport has none."""
        if not self._is_closing and self.transport.is_closing():
            self._is_closing = True
            self.watch.write_within(self._gate.limits.idle)

    def leave(self) -> None:
        """Give the place at the gate free."""
        self.watch.close()
        self._gate.leave(self._source)
