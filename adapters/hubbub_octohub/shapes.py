"""Bodies and answers below `/api/octohub`, as the description of the API shows them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hubbub.intake import MAX_TEXT
from hubbub.values import TaskState

__all__ = [
    "NodeKicked",
    "NodeList",
    "NodeRuleIn",
    "NodeRuleView",
    "OctohubTask",
    "OctohubTaskDetail",
    "OctohubTaskIn",
    "OctohubTaskList",
    "OctohubTaskSubmitted",
    "UserIn",
    "UserList",
    "UserView",
]

Time = Annotated[str, Meta(description="RFC 3339, UTC, microseconds")]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Span = Annotated[float | str, Meta(description="such as `30s`; a number is seconds")]
When = Annotated[
    float | str,
    Meta(description="RFC 3339 or a duration from now; a number is seconds since 1970"),
]


class OctohubTaskIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A task that somebody wants done."""

    task_type: Text
    data: Any = {}
    node: str | None = None
    labels: dict[str, str] | None = None
    priority: Annotated[int, Meta(ge=0, le=9, description="9 first")] = 5
    timeout: Span | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    idempotency_key: Text | None = None
    not_before: When | None = None
    callback_url: str | None = None
    retry_on_failure: bool = False


class OctohubTaskSubmitted(msgspec.Struct, forbid_unknown_fields=True):
    """What came of a task."""

    task_id: str
    state: TaskState
    trace_id: str


class OctohubTask(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A task."""

    task_id: str
    task_type: str
    state: TaskState
    node: str | None
    endpoint: str | None
    run: int
    attempt: int
    result: Any
    error: str | None
    trace_id: str
    created_at: Time
    updated_at: Time
    finished_at: Time | None


class OctohubAttempt(msgspec.Struct, forbid_unknown_fields=True):
    """One hand-over of a task to a node."""

    n: int
    run: int
    pc_id: str | None
    endpoint: str | None
    sent_at: Time
    ended_at: Time | None
    outcome: str | None
    error: str | None


class OctohubTaskDetail(OctohubTask, kw_only=True, forbid_unknown_fields=True):
    """A task with its attempts."""

    attempts: list[OctohubAttempt]


class OctohubTaskList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of tasks, the newest first."""

    items: list[OctohubTask]
    next: str | None


class NodeView(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node that is connected, with all members, or what was said of another."""

    pc_id: str
    connected: bool
    enabled: bool
    task_types: list[str] | None
    labels: dict[str, str]
    max_concurrency: int | None
    ready: bool = False
    in_hand: int = 0
    version: str | None = None
    peer: str = ""
    connected_at: Time = ""
    last_active: Time = ""


class NodeList(msgspec.Struct, forbid_unknown_fields=True):
    """All nodes."""

    items: list[NodeView]
    next: None


class NodeRuleIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for a node; null for what it says itself."""

    labels: dict[str, str] = {}
    task_types: list[str] | None = None
    max_concurrency: int | None = None
    enabled: bool = True


class NodeRuleView(msgspec.Struct, forbid_unknown_fields=True):
    """What holds for a node from now on."""

    pc_id: str
    labels: dict[str, str]
    task_types: list[str] | None
    max_concurrency: int | None
    enabled: bool


class NodeKicked(msgspec.Struct, forbid_unknown_fields=True):
    """A node whose connection was closed."""

    pc_id: str
    kicked: bool


class UserIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user to add."""

    email: str
    password: str


class UserView(msgspec.Struct, forbid_unknown_fields=True):
    """A user."""

    id: int
    email: str
    created_at: Time


class UserList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of users, in the order of their ids."""

    items: list[UserView]
    next: str | None
