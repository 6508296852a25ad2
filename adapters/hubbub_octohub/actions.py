"""The `action` dialect, which users speak: `{"action","data"?,"timestamp","request_id"?}`. Pure.

`wire.read_ask` reads it; here is what the hub answers. What goes to a node has both keys.
"""

from __future__ import annotations

from typing import Final

from hubbub.envelope import encode_json
from hubbub_octohub.wire import DENIED, INTERNAL, INVALID, LIMITED, UNKNOWN, Ask, FrameError

__all__ = ["answer", "failed", "frame_refused", "pushed"]

MESSAGES: Final = {
    INVALID: "消息格式错误",
    UNKNOWN: "未知的消息动作",
    DENIED: "权限不足",
    INTERNAL: "服务器内部错误",
    LIMITED: "请求过于频繁",
}
"""What the original says with each code."""


def answer(ask: Ask, data: object, *, now_s: int, both: bool = False) -> str:
    """Return the reply to a frame: its action and its request id come back."""
    action = "pong" if ask.action == "ping" else ask.action
    return _frame(action, data, now_s=now_s, request_id=ask.request_id, both=both)


def failed(ask: Ask, number: int, details: str, *, now_s: int, both: bool = False) -> str:
    """Return the reply to a frame that could be read, and cannot be followed."""
    data = {"code": number, "message": MESSAGES[number], "details": details}
    return _frame("error", data, now_s=now_s, request_id=ask.request_id, both=both)


def frame_refused(error: FrameError, *, now_s: int, both: bool = False) -> str:
    """Return the answer to a frame that cannot be read."""
    number = error.number
    data = {"code": number, "message": MESSAGES[number], "details": error.details}
    return _frame("error", data, now_s=now_s, sender="system", both=both)


def pushed(action: str, data: object, *, now_s: int, sender: str | None = None) -> str:
    """Return a frame that nobody asked for: `notification`, `private`, `chat`."""
    return _frame(action, data, now_s=now_s, sender=sender)


def _frame(
    action: str,
    data: object,
    *,
    now_s: int,
    request_id: str | float | None = None,
    sender: str | None = None,
    both: bool = False,
) -> str:
    frame: dict[str, object] = {"type": action} if both else {}
    frame |= {"action": action, "data": data, "timestamp": now_s}
    if request_id is not None:
        frame["request_id"] = request_id
    if sender is not None:
        frame["from"] = sender
    return encode_json(frame).decode()
