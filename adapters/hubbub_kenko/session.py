"""The four states of a client, as values: a frame and the time in, a new session out."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["State"]


class State(IntEnum):
    """What a client is to the hub. Source: the seed README, with the original's numbers."""

    DISCONNECTED = 0
    CONNECTED = 1
    IDLE = 2
    RUNNING = 3
