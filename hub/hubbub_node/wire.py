"""Frames and signatures of the OctoHub protocol, from the node's side. Pure."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

__all__ = [
    "FEATURES",
    "Ack",
    "Cancel",
    "Connected",
    "Notice",
    "Ping",
    "Task",
    "failed",
    "is_completed",
    "pong",
    "read_frame",
    "ready",
    "result",
    "signed_headers",
    "stopping",
]

FEATURES: Final = ("ack", "cancel", "stop")
"""What this node understands beside the original's frames."""

MAX_ERROR: Final = 2000
"""Characters of an error that are told."""


@dataclass(frozen=True, slots=True)
class Task:
    """Work that the hub gave this node.

    Attributes:
        data: What the asker said; an object always.
        trace_id: Trace of the request, 32 hex digits; empty when the hub does not say.
    """

    id: str
    type: str
    data: Mapping[str, Any]
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Connected:
    """The hub greets."""


@dataclass(frozen=True, slots=True)
class Ping:
    """The hub wants a `pong`."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The hub has a result; it need not be sent again."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants a task's result any more."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """The hub is about to close the connection."""

    reason: str


Frame = Connected | Ping | Ack | Cancel | Notice | Task


def signed_headers(
    path: str, params: Mapping[str, str], key: bytes, *, now_s: int, nonce: str
) -> dict[str, str]:
    """Return the headers of the request for an address.

    Args:
        path: As it is sent, without query.
        now_s: Unix time.

    Source: protocol page, 1.2.
    """
    said = "&".join(f"{name}={params[name]}" for name in sorted(params))
    text = f"GET&{path}&{said}&{now_s}&{nonce}"
    signature = b64encode(hmac.new(key, text.encode(), sha256).digest()).decode()
    return {"X-Timestamp": str(now_s), "X-Nonce": nonce, "X-Signature": signature}


def read_frame(text: str | bytes) -> Frame | None:
    """Read one frame of the hub; None for one that is not for a node, or cannot be read.

    Source: protocol page, 3.1, and docs/node.md for `task_result_ack` and `task_cancel`.
    """
    try:
        frame: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match frame:
        case {"type": "task", "task_id": str(task_id)}:
            return _task(task_id, cast("dict[str, Any]", frame))
        case {"type": "connected"}:
            return Connected()
        case {"type": "task_result_ack", "task_id": str(task_id)}:
            return Ack(task_id)
        case {"type": "task_cancel", "task_id": str(task_id)}:
            return Cancel(task_id)
        case {"type": "disconnect_notification"}:
            return Notice(str(cast("dict[str, Any]", frame).get("reason", "")))
        case {"type": "ping"}:
            return Ping()
        case _:
            return None


def _task(task_id: str, frame: Mapping[str, Any]) -> Task:
    data, kind, trace_id = frame.get("data"), frame.get("task_type"), frame.get("trace_id")
    return Task(
        task_id,
        kind if isinstance(kind, str) else "default",
        cast("dict[str, Any]", data) if isinstance(data, dict) else {},
        trace_id if isinstance(trace_id, str) else "",
    )


def ready(
    pc_id: str,
    *,
    task_types: Iterable[str],
    labels: Mapping[str, str],
    concurrency: int,
    version: str,
    now_s: int,
) -> str:
    """Return what this node says of itself."""
    return _json(
        {
            "type": "node_ready",
            "pc_id": pc_id,
            "timestamp": now_s,
            "task_types": sorted(task_types),
            "labels": dict(labels),
            "max_concurrency": concurrency,
            "version": version,
            "features": list(FEATURES),
        }
    )


def result(task_id: str, value: object, *, now_s: int, limit_bytes: int) -> str:
    """Return the frame of a task that is done; of a failure, where the value cannot be sent."""
    frame = {"type": "task_result", "task_id": task_id, "status": "completed"}
    try:
        text = _json({**frame, "result": value, "timestamp": now_s})
    except (TypeError, ValueError, RecursionError) as error:
        return failed(task_id, f"the result is no JSON: {error}", now_s=now_s)
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > limit_bytes:
        said = f"the result has {size_bytes} bytes, the limit of a frame is {limit_bytes}"
        return failed(task_id, said, now_s=now_s)
    return text


def failed(task_id: str, error: str, *, now_s: int) -> str:
    """Return the frame of a task that failed."""
    said = error.encode("utf-8", "replace").decode()[:MAX_ERROR] or "failed"
    return _json(
        {
            "type": "task_result",
            "task_id": task_id,
            "status": "failed",
            "error": said,
            "timestamp": now_s,
        }
    )


def is_completed(frame: str) -> bool:
    """Tell whether a kept result is one that a second run would only repeat."""
    return bool(json.loads(frame).get("status") == "completed")


def pong() -> str:
    """Return the answer to a ping."""
    return _json({"type": "pong"})


def stopping(pc_id: str) -> str:
    """Return the word that this node wants no more tasks, and will leave soon."""
    return _json({"type": "node_stopping", "pc_id": pc_id})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
