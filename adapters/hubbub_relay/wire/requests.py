"""Bodies of requests: JSON objects, whatever their content type says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from hubbub.envelope import encode_json
from hubbub_relay.wire.values import (
    DEFAULT_PRIORITY,
    MAX_NAME,
    Members,
    RelayError,
    members_of,
    read_lease,
    read_name,
    read_priority,
    read_short_text,
    read_task_id,
)

__all__ = [
    "AckRequest",
    "CallbackRequest",
    "CallbackStatus",
    "RenewRequest",
    "SendRequest",
    "read_ack",
    "read_callback",
    "read_renew",
    "read_send",
]

MAX_KEY: Final = 128
"""Characters of an idempotency key."""

MAX_URL: Final = 2048
"""Characters of a `callback_url`."""

_CALLBACK_DONE: Final = frozenset({"done", "completed", "ok"})

CallbackStatus = Literal["completed", "failed", "processing"]


class SendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST send`.

    Attributes:
        task_id: As the client gave it; None when it gave none.
        cmd: None when there is none.
        parent_task_id: The task this one is a part of.
        compensate_cmd: The command that makes up for this task when it, or a part of it, fails.
        members: All that was sent, without reserved members.
    """

    sender: str
    to: str
    is_task: bool
    task_id: str | None
    cmd: str | None
    members: Members
    priority: int = DEFAULT_PRIORITY
    idempotency_key: str | None = None
    callback_url: str | None = None
    parent_task_id: str | None = None
    compensate_cmd: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """`POST callback`."""

    task_id: str
    child_id: str | None
    status: CallbackStatus
    said: str
    members: Members

    @property
    def result(self) -> bytes:
        """The result as JSON."""
        return encode_json(self.members.get("result"))


@dataclass(frozen=True, slots=True)
class AckRequest:
    """`POST ack`."""

    task_id: str
    members: Members


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """`POST tasks/<id>/renew`; None for what was not said."""

    worker: str | None
    lease_s: float | None


def read_send(body: bytes) -> SendRequest:
    """Read `{"from","to","type"?,"task_id"?,"cmd"?,"payload"?,"text"?, ...}`.

    Raises:
        RelayError: no JSON, no object, `from` or `to` missing, or a member of a wrong kind.

    Source: relay protocol page, 3.1.
    """
    missing = "missing from/to"
    members = members_of(body, missing)
    sender, to = members.get("from"), members.get("to")
    if not (sender and to):
        raise RelayError(missing)
    cmd, parent = members.get("cmd"), members.get("parent_task_id")
    return SendRequest(
        sender=read_name(sender, "from"),
        to=read_name(to, "to"),
        is_task=members.get("type") == "task",
        task_id=read_task_id(members.get("task_id")),
        cmd=read_name(cmd, "cmd") if cmd else None,
        members=members,
        priority=read_priority(members.get("priority")),
        idempotency_key=read_short_text(members, "idempotency_key", MAX_KEY),
        callback_url=read_short_text(members, "callback_url", MAX_URL),
        parent_task_id=None if parent is None else read_task_id(parent, "parent_task_id"),
        compensate_cmd=read_short_text(members, "compensate_cmd", MAX_NAME),
    )


def read_callback(body: bytes) -> CallbackRequest:
    """Read `{"task_id","child_id"?,"status"?,"result"?}`.

    Raises:
        RelayError: no JSON, no object, no `task_id`, or one that is not valid.

    Source: relay protocol page, 3.2.
    """
    members, task_id = _about_task(body)
    members.pop("ignored", None)
    said = members.get("status", "done")
    status: CallbackStatus = "failed"
    if said == "processing":
        status = "processing"
    elif isinstance(said, str) and said in _CALLBACK_DONE:
        status = "completed"
    child_id = members.get("child_id")
    return CallbackRequest(
        task_id=task_id,
        child_id=read_name(child_id, "child_id") if child_id else None,
        status=status,
        said=said[:MAX_NAME] if isinstance(said, str) else "failed",
        members=members,
    )


def read_ack(body: bytes) -> AckRequest:
    """Read `{"task_id","ack_by"?}`.

    Raises:
        RelayError: no JSON, no object, no `task_id`, or one that is not valid.
    """
    members, task_id = _about_task(body)
    return AckRequest(task_id, members)


def read_renew(body: bytes) -> RenewRequest:
    """Read `{"worker"?,"lease"?}`; an empty body says neither.

    Raises:
        RelayError: no JSON, no object, or a member that is not valid.
    """
    members = members_of(body, None) if body else {}
    worker, lease = members.get("worker"), members.get("lease")
    return RenewRequest(
        read_name(worker, "worker") if worker else None,
        None if lease is None else read_lease(lease),
    )


def _about_task(body: bytes) -> tuple[Members, str]:
    members = members_of(body, "missing task_id")
    given = members.get("task_id")
    task_id = read_task_id(given) if given or isinstance(given, bool) else None
    if task_id is None:
        raise RelayError("missing task_id")
    members["task_id"] = task_id
    return members, task_id
