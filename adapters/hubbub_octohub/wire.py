"""Frames of `/ws/node`, both keys in one: what nodes send, and what the hub sends them. Pure.

The original's server speaks a dialect keyed `action`, the original's node one keyed `type` with
flat members. What goes out has both; what comes in may use either. `actions` is the other dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import HubError, InvalidError
from hubbub.intake import check_depth, check_text

__all__ = [
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

INVALID: Final = 1001
UNKNOWN: Final = 1002
DENIED: Final = 1003
INTERNAL: Final = 1004
LIMITED: Final = 1005

MAX_TASK_ID: Final = 128
MAX_TYPES: Final = 1000
MAX_LABELS: Final = 64
MAX_CONCURRENCY: Final = 1000
MAX_FEATURES: Final = 32
MAX_ERROR: Final = 4000
"""Characters of a node's own words of why it failed; the rest is cut off."""

RESULT_DEPTH: Final = 60
"""How deeply a result may be nested; deeper ones are `failed`, or the task would never end."""

Status = Literal["completed", "failed"]


class FrameError(HubError):
    """A frame that cannot be used; the connection stays.

    Attributes:
        number: The code that OctoHub has for it.
        details: What was wrong with it.
    """

    code = "octohub_frame"

    def __init__(self, details: str, number: int = INVALID) -> None:
        self.number = number
        self.details = details
        super().__init__(details)


# From a node


@dataclass(frozen=True, slots=True)
class NodeReady:
    """`node_ready`: what a node says of itself; the original's say only their id.

    Attributes:
        task_types: What it does; None when it does not say.
        max_concurrency: Tasks it does at once.
        features: What it understands beside the original's frames: `ack`, `cancel`.
    """

    task_types: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    max_concurrency: int = 1
    version: str = ""
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Result:
    """`task_result`: how a task ended; `result` is JSON."""

    task_id: str
    status: Status
    result: bytes
    error: str | None


@dataclass(frozen=True, slots=True)
class Pong:
    """`pong`, in answer to a `ping`."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """`node_stopping`: the node finishes what it has, wants nothing more, and will leave."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A frame of the `action` dialect.

    Attributes:
        data: Decoded JSON.
        request_id: Comes back with the reply; a text, a number, or None.
    """

    action: str
    data: object = None
    request_id: str | float | None = None
    to: str | None = None
    traceparent: str = ""


NodeFrame = NodeReady | Result | Pong | Stopping | Ask


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


_decode = msgspec.json.Decoder(_Frame).decode


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
        return _decode(text)
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
        data: object = msgspec.json.decode(frame.data)
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


# To a node


def connected(
    kind: Literal["pc_id", "user_id"], identity: str, session_id: str, *, now_s: int
) -> str:
    """Return the first frame after a handshake.

    Source: protocol page, 3.1.
    """
    data = {kind: identity, "session_id": session_id, "server_time": now_s}
    return _json({"type": "connected", "action": "connected", "data": data, "timestamp": now_s})


def disconnected(reason: str, *, now_s: int, code: int = 1000) -> str:
    """Return the notice before the hub closes a connection.

    Source: protocol page, 2.3.
    """
    return _json(
        {
            "type": "disconnect_notification",
            "action": "disconnected",
            "reason": reason,
            "data": {"reason": reason, "code": code},
            "timestamp": now_s,
            "from": "system",
        }
    )


class _Asked(msgspec.Struct):
    """What a node is told of a task request."""

    task_id: str
    task_type: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    text: str | None = None


class _Task(msgspec.Struct, omit_defaults=True):
    """The frame of a task."""

    type: str
    action: str
    task_id: str
    task_type: str
    data: msgspec.Raw
    timestamp: int
    trace_id: str
    text: str | None = None


_read_asked = msgspec.json.Decoder(_Asked).decode
_NOTHING: Final = frozenset((b"null", b""))


def task_frame(envelope: Envelope, *, now_s: int) -> tuple[str, str, str]:
    """Return id, type and frame of a task request.

    `data` of the frame is an object always, or the original's handlers fail: nothing becomes
    `{}`, anything else that is no object becomes `{"value": it}`.

    Raises:
        InvalidError: it is no task request.

    Source: protocol page, 3.1.
    """
    try:
        asked = _read_asked(envelope.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidError(f"data is no task request: {error}") from error
    params = bytes(asked.params).strip()
    if params in _NOTHING:
        params = b"{}"
    elif not params.startswith(b"{"):
        params = b'{"value":%b}' % params
    frame = _Task(
        "task", "task", asked.task_id, asked.task_type, msgspec.Raw(params), now_s,
        envelope.trace_id, asked.text,
    )  # fmt: skip
    return asked.task_id, asked.task_type, encode_json(frame).decode()


def result_taken(task_id: str, verdict: str) -> str:
    """Return the acknowledgement of a result, for nodes with the feature `ack`.

    Args:
        verdict: `done`, `late`, `again`, `unknown` or `stranger`: whatever it is, the node need
            not send that result again.
    """
    kind = "task_result_ack"
    return _json({"type": kind, "action": kind, "task_id": task_id, "verdict": verdict})


def task_cancelled(task_id: str) -> str:
    """Return the word that nobody wants a task any more, for nodes with the feature `cancel`."""
    return _json({"type": "task_cancel", "action": "task_cancel", "task_id": task_id})


def _json(value: object) -> str:
    return encode_json(value).decode()
