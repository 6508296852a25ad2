"""Frames of clients, read: the usual types in one step, the others by their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from hubbub.envelope import decode_json, decode_undisturbed, finite_float
from hubbub_kenko.wire.registration import read_register
from hubbub_kenko.wire.values import (
    HEARD,
    PINGED,
    Ack,
    BadRegister,
    FrameError,
    Inbound,
    Message,
    Ping,
    Register,
    RunnerOutput,
    RunnerResult,
    Unknown,
)

__all__ = ["decode", "read_event"]

NOTHING: Final = msgspec.Raw(b"null")


class _Message(msgspec.Struct, tag_field="type", tag="message", gc=False):
    data: Message


class _Ack(msgspec.Struct, tag_field="type", tag="ack", gc=False):
    data: Ack


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    pass


class _Ping(msgspec.Struct, tag_field="type", tag="ping", gc=False):
    pass


class _Head(msgspec.Struct, gc=False):
    type: str
    data: msgspec.Raw = NOTHING


_read_usual = msgspec.json.Decoder(
    _Message | _Ack | _Heartbeat | _Ping, float_hook=finite_float
).decode
_read_head = msgspec.json.Decoder(_Head).decode
_read_message = msgspec.json.Decoder(Message, float_hook=finite_float).decode
_read_ack = msgspec.json.Decoder(Ack).decode
_read_output = msgspec.json.Decoder(RunnerOutput).decode
_read_object = msgspec.json.Decoder(dict[str, Any], float_hook=finite_float).decode

_BROKEN = (msgspec.DecodeError, UnicodeError, RecursionError)


def decode(frame: str | bytes) -> Inbound:
    """Read one frame of family W: JSON text, the same as bytes, or the bare text `ping`.

    Raises:
        FrameError: `bad_json` no JSON object; `bad_type` no text `type`; `bad_data` a message or
            acknowledgement that does not fit. The connection stays open.
    """
    if isinstance(frame, bytes):
        try:
            frame = frame.decode()
        except UnicodeDecodeError as failed:
            raise FrameError("bad_json", "the frame is not UTF-8") from failed
    if frame == "ping":
        return Ping(bare=True)
    try:
        usual = decode_undisturbed(_read_usual, frame)
    except msgspec.ValidationError:  # another type, or something that does not fit
        return _read_slowly(frame)
    except _BROKEN as failed:
        raise FrameError("bad_json", f"the frame is not JSON: {failed}") from failed
    if isinstance(usual, _Message):
        return _checked(usual.data)
    if isinstance(usual, _Ack):
        return usual.data
    return HEARD if isinstance(usual, _Heartbeat) else PINGED


def _read_slowly(frame: str) -> Inbound:
    """Read a frame in two steps, its data once its type is known."""
    try:
        head = _read_head(frame)
    except msgspec.ValidationError as failed:
        raise _what_is_wrong(frame) from failed
    except _BROKEN as failed:
        raise FrameError("bad_json", f"the frame is not JSON: {failed}") from failed
    return read_event(head.type, head.data)


def _what_is_wrong(frame: str) -> FrameError:
    """Return why a frame has no head."""
    try:
        value = decode_json(frame)
    except _BROKEN as failed:
        return FrameError("bad_json", f"the frame is not JSON: {failed}")
    if not isinstance(value, dict):
        return FrameError("bad_json", "the frame is not a JSON object")
    return FrameError("bad_type", "the frame has no text `type`")


def read_event(kind: str, data: msgspec.Raw) -> Inbound:
    """Read the data of a frame, still encoded, by its type.

    Raises:
        FrameError: `bad_data`, or `bad_json` where it is broken inside.
    """
    read = _READERS.get(kind)
    return Unknown(kind) if read is None else read(data)


def _message(data: msgspec.Raw) -> Message:
    try:
        message = decode_undisturbed(_read_message, data)
    except _BROKEN as failed:
        raise _bad_data("message", data, failed) from failed
    return _checked(message)


def _checked(message: Message) -> Message:
    if message.content is None and message.key is None:
        raise FrameError("bad_data", "a message needs a text `content`", message.reply_to)
    return message


def _ack(data: msgspec.Raw) -> Ack:
    try:
        return _read_ack(data)
    except _BROKEN as failed:
        raise _bad_data("ack", data, failed) from failed


def _runner_result(data: msgspec.Raw) -> RunnerResult:
    try:
        return RunnerResult(decode_undisturbed(_read_object, data))
    except _BROKEN as failed:
        raise _bad_data("runner.result", data, failed) from failed


def _runner_output(data: msgspec.Raw) -> RunnerOutput:
    try:
        return _read_output(data)
    except _BROKEN as failed:
        raise _bad_data("runner.output", data, failed) from failed


def _bad_data(kind: str, data: msgspec.Raw, failed: Exception) -> FrameError:
    if not isinstance(failed, msgspec.ValidationError):
        return FrameError("bad_json", f"the frame is not JSON: {failed}")
    try:
        value = decode_json(data)
    except _BROKEN as broken:
        return FrameError("bad_json", f"the frame is not JSON: {broken}")
    members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    ref = members.get("id" if kind == "ack" else "reply_to")
    known = ref if isinstance(ref, str) else None
    return FrameError("bad_data", f"data of {kind!r}: {failed}", known)


def _register(data: msgspec.Raw) -> Register | BadRegister:
    try:
        value = decode_json(data)
    except _BROKEN as failed:
        raise FrameError("bad_json", f"the frame is not JSON: {failed}") from failed
    return read_register(value)


_READERS: Final[dict[str, Callable[[msgspec.Raw], Inbound]]] = {
    "message": _message,
    "ack": _ack,
    "heartbeat": lambda _: HEARD,
    "ping": lambda _: PINGED,
    "register": _register,
    "runner.result": _runner_result,
    "runner.output": _runner_output,
}
