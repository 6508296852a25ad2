"""Frames that nodes send, in either dialect, as values."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from hubbub.envelope import decode_json, decode_undisturbed, encode_json, finite_float
from hubbub.errors import HubError, InvalidError
from hubbub.intake import check_depth, check_text
from hubbub_octohub.wire.values import (
    MAX_CONCURRENCY,
    MAX_ERROR,
    MAX_FEATURES,
    MAX_LABELS,
    MAX_TASK_ID,
    MAX_TYPES,
    RESULT_DEPTH,
    UNKNOWN,
    Ask,
    FrameError,
    NodeFrame,
    NodeReady,
    Pong,
    Result,
    Stopping,
)

__all__ = ["read_ask", "read_node_frame"]


class _Frame(msgspec.Struct):
    """Members of all frames that nodes send, each of whatever kind it came."""

    type: Any = None
    action: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    task_id: Any = None
    status: Any = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    task_types: Any = None
    labels: Any = None
    max_concurrency: Any = None
    version: Any = None
    features: Any = None
    request_id: Any = None
    to: Any = None
    traceparent: Any = None


_decode = msgspec.json.Decoder(_Frame, float_hook=finite_float).decode


def read_node_frame(text: str | bytes) -> NodeFrame:
    """Read one frame of a node.

    Shape: `{"type": "task_result", "task_id": str, "status": "completed" | "failed", "result"?,
    "error"?}`, `{"type": "node_ready", ...}`, `{"type": "pong"}`, or `{"action": str, "data"?}`
    (of which `ping`, `echo` and `status` may be the `type`); members may also stand in `data`.
    Unknown members are ignored.

    Raises:
        FrameError: not JSON, no object, of no known type, or with a member of a wrong kind.

    Source: protocol page, 3.2 and 3.3.
    """
    frame = _read(text)
    kind = frame.type if isinstance(frame.type, str) else frame.action
    match kind:
        case "task_result":
            return _result(_flat(frame))
        case "node_ready":
            return _ready(_flat(frame))
        case "pong":
            return Pong()
        case "node_stopping":
            return Stopping()
        case str() if isinstance(frame.action, str):
            return _ask(frame)
        case "ping" | "echo" | "status":
            frame.action = kind
            return _ask(frame)
        case str():
            raise FrameError(f"frames of type {kind[:64]!r} are not known", UNKNOWN)
        case _:
            raise FrameError("the frame has no `type` and no `action`")


def read_ask(text: str | bytes) -> Ask:
    """Read one frame of a user: `{"action": str, "data"?, "request_id"?, "to"?}`.

    Raises:
        FrameError: not JSON, no object, or without an action.
    """
    frame = _read(text)
    if not isinstance(frame.action, str):
        raise FrameError("the frame has no `action`")
    return _ask(frame)


def _read(text: str | bytes) -> _Frame:
    try:
        return decode_undisturbed(_decode, text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FrameError(f"the frame is no JSON object: {error}"[:300]) from None


def _flat(frame: _Frame) -> _Frame:
    """Return the frame with its members in it, where they stand in `data` as the other server's."""
    if frame.task_id is not None or not bytes(frame.data).startswith(b"{"):
        return frame
    try:
        return _decode(frame.data)
    except (msgspec.MsgspecError, RecursionError):
        return frame


def _result(frame: _Frame) -> Result:
    task_id = frame.task_id
    if not isinstance(task_id, str) or not 1 <= len(task_id) <= MAX_TASK_ID:
        raise FrameError("a task_result needs the `task_id` that came with the task")
    if frame.status not in ("completed", "failed"):
        raise FrameError("the `status` of a task_result is completed or failed")
    if frame.status == "failed":
        return Result(task_id, "failed", b"null", _words(frame.error))
    try:
        check_depth(bytes(frame.result), RESULT_DEPTH)
    except HubError as error:
        return Result(task_id, "failed", b"null", f"the result cannot be used: {error}")
    return Result(task_id, "completed", bytes(frame.result), None)


def _words(error: object) -> str:
    """Return a node's own words as a text that every database takes."""
    said = error if isinstance(error, str) else encode_json(error).decode()
    said = said.encode("utf-8", "replace").decode().replace("\0", "�")
    return said[:MAX_ERROR] if error else "failed"


def _ready(frame: _Frame) -> NodeReady:
    types = frame.task_types
    concurrency = frame.max_concurrency
    if concurrency is None:
        concurrency = 1
    whole = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if not whole or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise FrameError(f"`max_concurrency` is a whole number from 1 to {MAX_CONCURRENCY}")
    return NodeReady(
        task_types=None if types is None else _texts("task_types", types, MAX_TYPES),
        labels=_labels(frame.labels),
        max_concurrency=concurrency,
        version=frame.version[:64] if isinstance(frame.version, str) else "",
        features=frozenset(_texts("features", frame.features or [], MAX_FEATURES)),
    )


def _texts(what: str, given: object, limit: int) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise FrameError(f"`{what}` is an array of texts")
    items = cast("list[object]", given)
    if len(items) > limit:
        raise FrameError(f"`{what}` has {len(items)} members, the limit is {limit}")
    return tuple(_text(what, item) for item in items)


def _labels(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FrameError("`labels` is an object of texts")
    items = cast("dict[str, object]", given)
    if len(items) > MAX_LABELS:
        raise FrameError(f"`labels` has {len(items)} members, the limit is {MAX_LABELS}")
    return {_text("labels", name): _text("labels", value) for name, value in items.items()}


def _text(what: str, given: object) -> str:
    if not isinstance(given, str):
        raise FrameError(f"`{what}` holds something that is no text")
    try:
        return check_text(what, given)
    except InvalidError as error:
        raise FrameError(str(error)) from None


def _ask(frame: _Frame) -> Ask:
    request_id = frame.request_id
    if isinstance(request_id, bool) or not isinstance(request_id, (str, int, float)):
        request_id = None
    try:
        data = decode_json(frame.data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FrameError(f"`data` is no JSON: {error}"[:300]) from None
    to = frame.to
    return Ask(
        action=frame.action,
        data=data,
        request_id=request_id[:128] if isinstance(request_id, str) else request_id,
        to=str(to) if isinstance(to, (str, int)) and not isinstance(to, bool) else None,
        traceparent=frame.traceparent if isinstance(frame.traceparent, str) else "",
    )
