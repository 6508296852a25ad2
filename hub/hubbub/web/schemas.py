"""The canonical types as JSON Schema; docs/types.md is the page for people."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from hubbub.envelope import CHAT_MESSAGE, PRESENCE, TASK_REQUEST, TASK_RESULT, TASK_UPDATE
from hubbub.values import PresenceState, TaskState

__all__ = ["CANONICAL", "Components", "canonical_schemas", "components"]

TaskId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:\-]+$")]


class ChatSender(msgspec.Struct, omit_defaults=True):
    """Who said it."""

    id: str
    name: str | None = None


class ChatConversation(msgspec.Struct, omit_defaults=True):
    """Where it was said."""

    id: str
    kind: Literal["private", "group", "channel", "room"]
    name: str | None = None


class ChatMessage(msgspec.Struct, omit_defaults=True):
    """`hubbub.chat.message.v1`: something that was said; not checked at publish."""

    text: str
    sender: ChatSender
    conversation: ChatConversation
    platform: str
    segments: list[dict[str, Any]] | None = None
    lang: str | None = None


class TaskRequestData(msgspec.Struct, omit_defaults=True):
    """`hubbub.task.request.v1`: work that somebody wants done; refused when it is malformed."""

    task_type: Annotated[str, Meta(min_length=1, max_length=256)]
    params: Any = None
    task_id: TaskId | None = None
    text: str | None = None
    labels: dict[str, str] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=2592000)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    not_before: str | float | None = None
    retry_on_failure: bool | None = None


class TaskUpdateData(msgspec.Struct, omit_defaults=True):
    """`hubbub.task.update.v1`: a task changed its state, or a worker says how far it is."""

    task_id: str
    state: TaskState
    attempt: int
    endpoint: str | None = None
    progress: Any = None


class TaskResultData(msgspec.Struct, omit_defaults=True):
    """`hubbub.task.result.v1`: how a task ended; refused when it is malformed."""

    task_id: str
    state: Literal["completed", "failed", "timeout", "cancelled"]
    result: Any = None
    error: str | None = None


class PresenceData(msgspec.Struct):
    """`hubbub.presence.v1`: an endpoint came, paused or went."""

    endpoint: str
    state: PresenceState
    labels: dict[str, str]


CANONICAL: Final[dict[str, type[msgspec.Struct]]] = {
    CHAT_MESSAGE: ChatMessage,
    TASK_REQUEST: TaskRequestData,
    TASK_UPDATE: TaskUpdateData,
    TASK_RESULT: TaskResultData,
    PRESENCE: PresenceData,
}
"""The data of each canonical type."""

Components = dict[str, dict[str, Any]]


def components(models: list[object], *, at: str) -> tuple[tuple[dict[str, Any], ...], Components]:
    """Return a schema for each model, and the schemas they refer to.

    Args:
        at: Where the latter stand, such as `#/components/schemas/`.
    """
    return msgspec.json.schema_components(models, ref_template=at + "{name}")


def canonical_schemas(*, at: str) -> Components:
    """Return the schemas of the canonical types by type, and those they refer to by name."""
    types = list(CANONICAL)
    refs, named = components([*CANONICAL.values()], at=at)
    return {**named, **dict(zip(types, refs, strict=True))}
