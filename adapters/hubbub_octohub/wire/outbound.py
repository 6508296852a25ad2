"""Frames that the hub sends: with both keys, `type` and `action`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import InvalidError, NotJsonError

__all__ = ["connected", "disconnected", "result_taken", "task_cancelled", "task_frame"]


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
        asked = _read_asked(envelope.json_bytes())
    except (NotJsonError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
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
