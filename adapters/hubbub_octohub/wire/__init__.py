"""Frames of `/ws/node`, both keys in one: what nodes send, and what the hub sends them. Pure.

The original's server speaks a dialect keyed `action`, the original's node one keyed `type` with
flat members. What goes out has both; what comes in may use either. `actions` is the other dialect.
"""

from __future__ import annotations

from hubbub_octohub.wire.inbound import read_ask, read_node_frame
from hubbub_octohub.wire.outbound import (
    connected,
    disconnected,
    result_taken,
    task_cancelled,
    task_frame,
)
from hubbub_octohub.wire.values import (
    DENIED,
    INTERNAL,
    INVALID,
    LIMITED,
    MAX_CONCURRENCY,
    UNKNOWN,
    Ask,
    FrameError,
    NodeFrame,
    NodeReady,
    Pong,
    Result,
    Stopping,
)

__all__ = [
    "DENIED",
    "INTERNAL",
    "INVALID",
    "LIMITED",
    "MAX_CONCURRENCY",
    "UNKNOWN",
    "Ask",
    "FrameError",
    "NodeFrame",
    "NodeReady",
    "Pong",
    "Result",
    "Stopping",
    "connected",
    "disconnected",
    "read_ask",
    "read_node_frame",
    "result_taken",
    "task_cancelled",
    "task_frame",
]
