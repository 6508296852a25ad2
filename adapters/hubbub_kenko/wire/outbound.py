"""Frames of the hub, for both families."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hubbub.envelope import decode_json
from hubbub_kenko.wire.values import Refusal

__all__ = [
    "BARE_PONG", "HEARTBEAT", "PONG", "START", "Frame", "Written", "auth_reply", "encode", "error",
    "event_of", "pause", "refused", "registered",
]  # fmt: skip


class Frame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One frame to a client; `data` is anything JSON can say."""

    type: str
    data: Any = msgspec.UNSET


class Written(Frame, frozen=True, gc=False):
    """A frame that is encoded already, as family W gets it."""

    text: bytes = b""


BARE_PONG: Final = Frame("pong", "bare")
"""The answer to the bare text `ping`: the bare text `pong`."""

PONG: Final = Frame("pong")
START: Final = Frame("start")
HEARTBEAT: Final = Frame("heartbeat")

_encode = msgspec.json.Encoder().encode


def registered(app_id: str) -> Frame:
    """The registration succeeded."""
    return Frame("register", {"success": True, "id": app_id})


def refused(code: Refusal, message: str) -> Frame:
    """The registration failed; another one is allowed."""
    return Frame("register", {"success": False, "code": code, "message": message})


def auth_reply(succeeded: bool) -> Frame:
    """What the event `auth` is answered with, on Socket.IO only."""
    return Frame("auth", succeeded)


def pause(reason: str) -> Frame:
    """No message until the next start; `admin`, `overload`, `shutdown` or `error`."""
    return Frame("pause", {"reason": reason})


def error(code: str, message: str, ref: str | None = None) -> Frame:
    """Something of the client's cannot be handled; `ref` is the message it was about."""
    return Frame("error", {"code": code, "message": message, "ref": ref})


def encode(frame: Frame) -> bytes:
    """Return a frame as family W gets it: UTF-8 of a text frame."""
    if isinstance(frame, Written):
        return frame.text
    return b"pong" if frame is BARE_PONG else _encode(frame)


def event_of(frame: Frame) -> tuple[str, object]:
    """Return a frame as family S gets it: the event and its one argument, None for none."""
    if frame.data is msgspec.UNSET or frame is BARE_PONG:
        return frame.type, None
    return frame.type, decode_json(_encode(frame.data))
