"""Frames and values: `{"type": ..., "data": {...}}`, one JSON object per frame. Pure.

Family W sends a frame as text; family S sends `type` as the name of an event and `data` as its one
argument. `decode` and `read_event` lead to the same values, `encode` and `event_of` start from
the same `Frame`.

Source: the seed README for register, heartbeat and message; protocols page, section 3.
"""

from __future__ import annotations

from hubbub_kenko.wire.inbound import decode, read_event
from hubbub_kenko.wire.outbound import (
    BARE_PONG,
    HEARTBEAT,
    PONG,
    START,
    Frame,
    Written,
    auth_reply,
    encode,
    error,
    event_of,
    pause,
    refused,
    registered,
)
from hubbub_kenko.wire.registration import read_auth, read_register
from hubbub_kenko.wire.values import (
    ABSENT,
    CAPABILITIES,
    MAX_CONCURRENCY,
    MAX_LINE,
    MAX_LINES,
    MAX_NAME,
    MAX_SUBSCRIPTIONS,
    MAX_TEXT,
    Ack,
    Auth,
    BadRegister,
    FrameError,
    Heartbeat,
    Inbound,
    Message,
    OutputLine,
    Ping,
    Refusal,
    Register,
    RunnerOutput,
    RunnerResult,
    Target,
    Unknown,
)

__all__ = [
    "ABSENT",
    "BARE_PONG",
    "CAPABILITIES",
    "HEARTBEAT",
    "MAX_CONCURRENCY",
    "MAX_LINE",
    "MAX_LINES",
    "MAX_NAME",
    "MAX_SUBSCRIPTIONS",
    "MAX_TEXT",
    "PONG",
    "START",
    "Ack",
    "Auth",
    "BadRegister",
    "Frame",
    "FrameError",
    "Heartbeat",
    "Inbound",
    "Message",
    "OutputLine",
    "Ping",
    "Refusal",
    "Register",
    "RunnerOutput",
    "RunnerResult",
    "Target",
    "Unknown",
    "Written",
    "auth_reply",
    "decode",
    "encode",
    "error",
    "event_of",
    "pause",
    "read_auth",
    "read_event",
    "read_register",
    "refused",
    "registered",
]
