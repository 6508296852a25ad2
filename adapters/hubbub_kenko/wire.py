"""Frames and values: `{"type": ..., "data": {...}}`, one JSON object per frame. Pure.

Family W sends a frame as text; family S sends `type` as the name of an event and `data` as its one
argument. `decode` and `read_event` lead to the same values, `encode` and `event_of` start from
the same `Frame`.

Source: the seed README for register, heartbeat and message; protocols page, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, cast

import msgspec

from hubbub.errors import SubjectError
from hubbub.subjects import check_pattern

__all__ = [
    "ABSENT",
    "BARE_PONG",
    "CAPABILITIES",
    "HEARTBEAT",
    "MAX_CONCURRENCY",
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
    "Ping",
    "Register",
    "RunnerResult",
    "Target",
    "Unknown",
    "auth_reply",
    "decode",
    "encode",
    "error",
    "event_of",
    "pause",
    "read_auth",
    "read_event",
    "refused",
    "registered",
]

MAX_NAME: Final = 128
"""Characters of an application's name."""

MAX_TEXT: Final = 4096
"""Characters of each other text of a registration."""

MAX_SUBSCRIPTIONS: Final = 100
MAX_CONCURRENCY: Final = 1000
MAX_TASK_TYPES: Final = 100

CAPABILITIES: Final = frozenset({"ack", "runner", "segments", "task"})

NOTHING: Final = msgspec.Raw(b"null")
ABSENT: Final = msgspec.Raw(b"")
"""Parts of a rich message that it does not have."""

Code = Literal["bad_json", "bad_type", "bad_data"]
Refusal = Literal[
    "invalid_data", "invalid_name", "unauthorized", "too_many_apps", "shutting_down", "internal"
]


class FrameError(Exception):
    """A frame that cannot be used.

    Attributes:
        code: What the peer is told.
        ref: Message that the frame was about, where it says so.
    """

    def __init__(self, code: Code, message: str, ref: str | None = None) -> None:
        self.code: Final[Code] = code
        self.message: Final = message
        self.ref: Final = ref
        super().__init__(message)


# What a client says


class Register(msgspec.Struct, frozen=True, gc=False):
    """A registration that may be decided.

    Attributes:
        subscribe: Subject patterns; None when the application named none at all.
        task_types: What it works on, with the capability `task`; None for all.
    """

    kind: ClassVar[str] = "register"

    name: str
    version: str = ""
    description: str = ""
    author: str = ""
    lang: str = "zh-CN"
    capabilities: frozenset[str] = frozenset()
    task_types: tuple[str, ...] | None = None
    join_token: str = ""
    subscribe: tuple[str, ...] | None = None
    concurrency: int = 16


class BadRegister(msgspec.Struct, frozen=True, gc=False):
    """A registration that is refused, unless it is ignored as a second one."""

    kind: ClassVar[str] = "register"

    code: Refusal
    message: str


class Auth(msgspec.Struct, frozen=True, gc=False):
    """The Socket.IO event `auth`; `token` is its argument when that is a text."""

    kind: ClassVar[str] = "auth"

    register: Register | BadRegister
    token: str | None = None


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """`heartbeat`."""

    kind: ClassVar[str] = "heartbeat"


class Ping(msgspec.Struct, frozen=True, gc=False):
    """`ping`, as JSON or as the bare text."""

    kind: ClassVar[str] = "ping"

    bare: bool = False


class Target(msgspec.Struct, frozen=True, gc=False):
    """Where a message shall go.

    Attributes:
        address: An endpoint of the hub; stronger than the rest.
    """

    adapter: str | None = None
    platform: str | None = None
    group_id: str | None = None
    user_id: str | None = None
    address: str | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """What an application says; with `key` instead of `content`, the hub finds the words."""

    kind: ClassVar[str] = "message"

    content: str | None = None
    reply_to: str | None = None
    target: Target | None = None
    segments: msgspec.Raw = ABSENT
    key: str | None = None
    args: dict[str, Any] = {}
    lang: str | None = None


class Ack(msgspec.Struct, frozen=True, gc=False):
    """A message was taken, or (`ok` false) never will be."""

    kind: ClassVar[str] = "ack"

    id: str
    ok: bool = True
    error: str | None = None


class RunnerResult(msgspec.Struct, frozen=True, gc=False):
    """What a runner answers to `runner.exec`."""

    kind: ClassVar[str] = "runner.result"

    data: dict[str, Any]


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """A type of a newer protocol; ignored."""

    kind: str


Inbound = Register | BadRegister | Auth | Heartbeat | Ping | Message | Ack | RunnerResult | Unknown


class _Head(msgspec.Struct, gc=False):
    type: str
    data: msgspec.Raw = NOTHING


_read_head = msgspec.json.Decoder(_Head).decode
_read_any = msgspec.json.Decoder().decode
_read_message = msgspec.json.Decoder(Message).decode
_read_ack = msgspec.json.Decoder(Ack).decode
_read_object = msgspec.json.Decoder(dict[str, Any]).decode

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
        head = _read_head(frame)
    except msgspec.ValidationError as failed:
        raise _what_is_wrong(frame) from failed
    except _BROKEN as failed:
        raise FrameError("bad_json", f"the frame is not JSON: {failed}") from failed
    return read_event(head.type, head.data)


def _what_is_wrong(frame: str) -> FrameError:
    """Return why a frame has no head."""
    try:
        value = _read_any(frame)
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
        message = _read_message(data)
    except _BROKEN as failed:
        raise _bad_data("message", data, failed) from failed
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
        return RunnerResult(_read_object(data))
    except _BROKEN as failed:
        raise _bad_data("runner.result", data, failed) from failed


def _bad_data(kind: str, data: msgspec.Raw, failed: Exception) -> FrameError:
    if not isinstance(failed, msgspec.ValidationError):
        return FrameError("bad_json", f"the frame is not JSON: {failed}")
    try:
        value = _read_any(data)
    except _BROKEN as broken:
        return FrameError("bad_json", f"the frame is not JSON: {broken}")
    members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    ref = members.get("id" if kind == "ack" else "reply_to")
    known = ref if isinstance(ref, str) else None
    return FrameError("bad_data", f"data of {kind!r}: {failed}", known)


# Registration


class _Given(msgspec.Struct):
    """The members of a registration apart from its name, of the kinds they must have."""

    version: str = ""
    description: str = ""
    author: str = ""
    lang: str = "zh-CN"
    capabilities: list[str] = []
    task_types: list[str] | None = None
    join_token: str = ""
    subscribe: list[str] | None = None
    concurrency: int = 16


def _register(data: msgspec.Raw) -> Register | BadRegister:
    try:
        value = _read_any(data)
    except _BROKEN as failed:
        raise FrameError("bad_json", f"the frame is not JSON: {failed}") from failed
    return read_register(value)


def read_register(value: object) -> Register | BadRegister:
    """Read the data of a registration, decoded."""
    if not isinstance(value, dict):
        return BadRegister("invalid_data", "data must be an object with a text `name`")
    name = cast("dict[str, object]", value).get("name")
    if not (isinstance(name, str) and name.strip()):
        return BadRegister("invalid_name", "name must be a non-empty string")
    if len(name) > MAX_NAME:
        return BadRegister("invalid_name", f"name has over {MAX_NAME} characters")
    if not name.isprintable():
        return BadRegister("invalid_name", "name has a control character")
    try:
        given = msgspec.convert(value, _Given)
    except msgspec.ValidationError as failed:
        return BadRegister("invalid_data", str(failed))
    problem = _problem(given)
    if problem is not None:
        return BadRegister("invalid_data", problem)
    return Register(
        name=name,
        version=given.version,
        description=given.description,
        author=given.author,
        lang=given.lang or "zh-CN",
        capabilities=CAPABILITIES.intersection(given.capabilities),
        task_types=None if given.task_types is None else tuple(given.task_types),
        join_token=given.join_token,
        subscribe=None if given.subscribe is None else tuple(given.subscribe),
        concurrency=given.concurrency,
    )


def _problem(given: _Given) -> str | None:
    """Return what of a registration is over its limit, or cannot be kept."""
    for member in ("version", "description", "author", "lang", "join_token"):
        text = getattr(given, member)
        if len(text) > MAX_TEXT or "\x00" in text:
            return f"{member} has over {MAX_TEXT} characters, or a NUL"
    if not 1 <= given.concurrency <= MAX_CONCURRENCY:
        return f"concurrency is {given.concurrency}, it must be 1 to {MAX_CONCURRENCY}"
    if len(given.subscribe or ()) > MAX_SUBSCRIPTIONS:
        return f"subscribe has over {MAX_SUBSCRIPTIONS} patterns"
    if len(given.task_types or ()) > MAX_TASK_TYPES:
        return f"task_types has over {MAX_TASK_TYPES} types"
    try:
        for pattern in given.subscribe or ():
            check_pattern(pattern)
    except SubjectError as failed:
        return f"subscribe: {failed}"
    return None


def read_auth(argument: object, *, session_id: str) -> Auth:
    """Read the argument of the Socket.IO event `auth`, decoded: of any type, or None for none.

    An object with a `name` is a registration. Anything else is one without: the name is then made
    of the session's id, and a text is the access token.
    """
    if isinstance(argument, dict) and "name" in argument:
        return Auth(read_register(cast("object", argument)))
    token = argument if isinstance(argument, str) else None
    return Auth(Register(name=f"socketio-{session_id[:8]}"), token)


_READERS: Final[dict[str, Callable[[msgspec.Raw], Inbound]]] = {
    "message": _message,
    "ack": _ack,
    "heartbeat": lambda _: Heartbeat(),
    "ping": lambda _: Ping(),
    "register": _register,
    "runner.result": _runner_result,
}


# What the hub says


class Frame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One frame to a client; `data` is anything JSON can say."""

    type: str
    data: Any = msgspec.UNSET


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
    return b"pong" if frame is BARE_PONG else _encode(frame)


def event_of(frame: Frame) -> tuple[str, object]:
    """Return a frame as family S gets it: the event and its one argument, None for none."""
    if frame.data is msgspec.UNSET or frame is BARE_PONG:
        return frame.type, None
    return frame.type, _read_any(_encode(frame.data))
