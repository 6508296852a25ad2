"""Envelopes and messages: what an application gets of an envelope, what it says as one. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.envelope import TASK_REQUEST, Envelope, encode_json
from hubbub.errors import HubError, NotJsonError
from hubbub_kenko.wire import ABSENT, Message, Register, Target, Written

__all__ = [
    "PLATFORM",
    "Conversation",
    "Dispatch",
    "Source",
    "Speaker",
    "as_text",
    "dispatch_of",
    "task_result",
]

PLATFORM: Final = "kenko"

UNSET: Final = msgspec.UNSET


class Sender(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who says something."""

    id: str = ""
    name: str | None = None


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """Where something is said: `private`, `group`, `channel` or `room`."""

    id: str
    kind: str = "private"


class _Chat(msgspec.Struct, frozen=True, gc=False):
    """What is read of any data; `hubbub.chat.message.v1` has all but `content`."""

    text: str | None = None
    content: str | None = None
    segments: msgspec.Raw = ABSENT
    sender: Sender = Sender()
    conversation: Conversation | None = None
    platform: str | None = None
    lang: str | None = None


class _Request(msgspec.Struct, frozen=True, gc=False):
    task_id: str
    task_type: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    text: str | None = None


class Source(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a message came from; given back as `target`, a message goes there.

    Attributes:
        address: Endpoint that answers go to.
    """

    adapter: str
    address: str
    platform: str | None = None
    group_id: str | None = None
    user_id: str | None = None


class TaskData(msgspec.Struct, frozen=True, gc=False):
    """The task that a message asks for."""

    task_id: str
    task_type: str
    params: msgspec.Raw


class MessageData(msgspec.Struct, frozen=True, gc=False):
    """The `data` of a message to an application; a seed's client reads `id` and `content`.

    Attributes:
        content_type: Of content that was not JSON; what is no text either is in Base64.
    """

    id: str
    content: str
    source: Source
    lang: str
    trace_id: str
    time: int
    segments: msgspec.Raw | msgspec.UnsetType = UNSET
    task: TaskData | msgspec.UnsetType = UNSET
    content_type: str | msgspec.UnsetType = UNSET


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """A message on its way to an application, and what the hub remembers of it."""

    frame: Written
    source: Source
    conversation: Conversation | None
    lang: str
    task_id: str | None
    traceparent: str


_read_chat = msgspec.json.Decoder(_Chat).decode
_read_request = msgspec.json.Decoder(_Request).decode
_NO_CHAT: Final = _Chat()


def dispatch_of(envelope: Envelope, *, lang: str, segments: bool) -> Dispatch:
    """Return what an application gets of an envelope.

    Args:
        lang: Language of a message that says none.
        segments: Whether it wants the parts of rich messages too.
    """
    task: TaskData | msgspec.UnsetType = UNSET
    try:
        chat = _read_chat(envelope.json_bytes())
    except (NotJsonError, msgspec.DecodeError, UnicodeError, RecursionError):
        chat = _NO_CHAT
    content = chat.text if chat.text is not None else chat.content
    if envelope.type == TASK_REQUEST:
        request = _read_request(envelope.json_bytes())
        task = TaskData(request.task_id, request.task_type, request.params)
        content = request.text if request.text is not None else bytes(request.params).decode()
    if content is None:
        content = as_text(envelope)
    answers_to = envelope.reply_to or envelope.source
    conversation = chat.conversation
    in_private = conversation is None or conversation.kind == "private"
    source = Source(
        adapter=envelope.source.split(".", 1)[0],
        address=answers_to,
        platform=chat.platform,
        group_id=None if conversation is None or in_private else conversation.id,
        user_id=chat.sender.id or None,
    )
    data = MessageData(
        id=envelope.id,
        content=content,
        source=source,
        lang=chat.lang or lang,
        trace_id=envelope.trace_id,
        time=envelope.time_us // 1_000_000,
        segments=chat.segments if segments and chat.segments else UNSET,
        task=task,
        content_type=envelope.content_type or UNSET,
    )
    task_id = task.task_id if isinstance(task, TaskData) else None
    frame = Written("message", data, b'{"type":"message","data":%b}' % encode_json(data))
    return Dispatch(frame, source, conversation, data.lang, task_id, envelope.traceparent)


def as_text(envelope: Envelope) -> str:
    """Return data that is no chat as text: a text as it is, other JSON as JSON, bytes as Base64."""
    if envelope.content_type is not None:
        shown = envelope.data_members()
        return str(shown["data"] if "data" in shown else shown["data_base64"])
    try:
        value = envelope.json()
    except HubError:
        return ""
    return value if isinstance(value, str) else envelope.data.decode()


class ChatData(msgspec.Struct, frozen=True, gc=False):
    """What an application says, as data of `hubbub.chat.message.v1`."""

    text: str
    sender: Sender
    conversation: Conversation
    platform: str
    lang: str
    segments: msgspec.Raw | msgspec.UnsetType = UNSET
    target: Target | msgspec.UnsetType = UNSET


class Speaker:
    """What does not change of what one application says.

    Attributes:
        lang: Language of messages that say none.
    """

    def __init__(self, app_id: str, app: Register) -> None:
        self.lang: Final = app.lang
        self._sender = Sender(app_id, app.name)
        self._conversation = Conversation(app_id)

    def says(self, message: Message, text: str, conversation: Conversation | None) -> bytes:
        """Return what it says as data of `hubbub.chat.message.v1`, encoded.

        Args:
            conversation: Where it is said; None where only the application itself is known.
        """
        return encode_json(
            ChatData(
                text,
                self._sender,
                conversation or self._conversation,
                PLATFORM,
                message.lang or self.lang,
                message.segments or UNSET,
                message.target or UNSET,
            )
        )


def conversation_of(target: Target) -> Conversation | None:
    """Return the conversation a target names."""
    if target.group_id is not None:
        return Conversation(target.group_id, "group")
    return None if target.user_id is None else Conversation(target.user_id)


def task_result(text: str) -> msgspec.Raw:
    """Return an application's answer as the result of a task."""
    return msgspec.Raw(encode_json({"content": text}))
