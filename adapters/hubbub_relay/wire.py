"""Bytes of the relay's requests, answers and log records, and typed values. Pure.

A request is a JSON object whatever its content type says. Members that nobody asked for are kept
and come back unchanged; `RESERVED` ones are the server's and are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, cast
from urllib.parse import parse_qsl

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import HubError, InvalidError
from hubbub.subjects import unescape
from hubbub.times import parse_time
from hubbub.values import Submission, Task

__all__ = [
    "FORBIDDEN",
    "INVALID_JSON",
    "MAX_NAME",
    "OK",
    "RESERVED",
    "UNAUTHORIZED",
    "AckRequest",
    "CallbackRequest",
    "CallbackStatus",
    "LogsQuery",
    "RelayError",
    "RenewRequest",
    "SendRequest",
    "TasksQuery",
    "chat_data",
    "error",
    "leased_task",
    "local_time",
    "log_record",
    "logs",
    "read_ack",
    "read_callback",
    "read_logs_query",
    "read_query",
    "read_renew",
    "read_send",
    "read_tasks_query",
    "sent",
    "task_details",
    "task_id_of",
    "task_of",
    "utc_time",
]

RESERVED: Final = frozenset({"event", "ts", "ts_ms", "id", "trace_id"})
"""Members of a log record that a client must not say."""

MAX_NAME: Final = 128
"""Characters of a name in `from`, `to` or `child_id`, and of a command."""

MAX_KEY: Final = 128
"""Characters of an idempotency key."""

MAX_WAIT_S: Final = 30.0
MAX_LEASE_S: Final = 86_400.0
MAX_TASKS: Final = 100
MAX_LOGS: Final = 1000
DEFAULT_LOGS: Final = 100
DEFAULT_TASKS: Final = 10
DEFAULT_PRIORITY: Final = 5
MAX_PRIORITY: Final = 9
MAX_ID: Final = 2**63 - 1
MAX_DIGITS: Final = 19

_TASK_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_CALLBACK_DONE: Final = frozenset({"done", "completed", "ok"})

CallbackStatus = Literal["completed", "failed", "processing"]
Members = dict[str, object]


class RelayError(HubError):
    """A request that the relay refuses; `str()` is the `msg` of its answer.

    Attributes:
        status: HTTP status of the answer.
    """

    code = "relay_request"

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsQuery:
    """`GET logs`; None for no filter."""

    limit: int = DEFAULT_LOGS
    task_id: str | None = None
    to: str | None = None
    event: str | None = None
    after_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksQuery:
    """`GET tasks`.

    Attributes:
        to: A name, or the beginning of names with `*` behind it.
    """

    to: str
    cmd: str | None = None
    limit: int = DEFAULT_TASKS
    wait_s: float = 0.0
    lease_s: float | None = None
    worker: str | None = None


# Requests


def read_send(body: bytes) -> SendRequest:
    """Read `{"from","to","type"?,"task_id"?,"cmd"?,"payload"?,"text"?, ...}`.

    Raises:
        RelayError: no JSON, no object, `from` or `to` missing, or a member of a wrong kind.

    Source: relay protocol page, 3.1.
    """
    missing = "missing from/to"
    members = _members(body, missing)
    sender, to = members.get("from"), members.get("to")
    if not (sender and to):
        raise RelayError(missing)
    cmd, parent = members.get("cmd"), members.get("parent_task_id")
    return SendRequest(
        sender=_name(sender, "from"),
        to=_name(to, "to"),
        is_task=members.get("type") == "task",
        task_id=_task_id(members.get("task_id")),
        cmd=_name(cmd, "cmd") if cmd else None,
        members=members,
        priority=_priority(members.get("priority")),
        idempotency_key=_short_text(members, "idempotency_key", MAX_KEY),
        callback_url=_short_text(members, "callback_url", 2048),
        parent_task_id=None if parent is None else _task_id(parent, "parent_task_id"),
        compensate_cmd=_short_text(members, "compensate_cmd", MAX_NAME),
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
        child_id=_name(child_id, "child_id") if child_id else None,
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
    members = _members(body, None) if body else {}
    worker, lease = members.get("worker"), members.get("lease")
    return RenewRequest(
        _name(worker, "worker") if worker else None,
        None if lease is None else _lease(lease),
    )


def _members(body: bytes, missing: str | None) -> Members:
    """Return the members of a body, without reserved ones.

    Args:
        missing: What an empty or null body lacks; None when nothing.
    """
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise RelayError("invalid JSON") from None
    if not decoded and missing is not None:
        raise RelayError(missing)
    if not isinstance(decoded, dict):
        raise RelayError("body must be an object")
    members = cast("Members", decoded)
    if b"\\u0000" in body and any("\0" in text for text in _texts(members)):
        raise RelayError("NUL character in a text")
    if not RESERVED.isdisjoint(members):
        members = {name: value for name, value in members.items() if name not in RESERVED}
    return members


def _texts(members: Members) -> Iterable[str]:
    """Yield all texts in decoded JSON, names of members too."""
    rest: list[object] = [members]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            inner = cast("Members", value)
            rest += inner.keys()
            rest += inner.values()
        elif isinstance(value, list):
            rest += cast("list[object]", value)


def _about_task(body: bytes) -> tuple[Members, str]:
    members = _members(body, "missing task_id")
    task_id = _task_id(members.get("task_id"))
    if task_id is None:
        raise RelayError("missing task_id")
    members["task_id"] = task_id
    return members, task_id


def _task_id(value: object, what: str = "task_id") -> str | None:
    """Return a task id as text; None when there is none."""
    if not value and not isinstance(value, bool):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _TASK_ID.fullmatch(value):
        raise RelayError(f"invalid {what}")
    return value


def task_id_of(text: str) -> str:
    """Return a task id that stands in a path.

    Raises:
        RelayError: there is no such task, because none can have that id.
    """
    if not _TASK_ID.fullmatch(text):
        raise RelayError("task not found", 404)
    return text


def _name(value: object, what: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or "\0" in value:
        raise RelayError(f"invalid {what}")
    return value


def _priority(value: object) -> int:
    if value is None:
        return DEFAULT_PRIORITY
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY:
        raise RelayError("invalid priority")
    return value


def _short_text(members: Members, name: str, limit: int) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
        raise RelayError(f"invalid {name}")
    return value


def _lease(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RelayError("invalid lease")
    if not 0 < value <= MAX_LEASE_S:
        raise RelayError("invalid lease")
    return float(value)


# Queries


def read_query(query: bytes) -> dict[str, str]:
    """Return the parameters of a query string; of one that is there twice, the first.

    Raises:
        RelayError: there are far too many.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise RelayError("invalid query") from None
    return dict(reversed(pairs))


def read_logs_query(given: Mapping[str, str]) -> LogsQuery:
    """Read the parameters of `GET logs`.

    Raises:
        RelayError: `limit` is not 1 to 1000, or `after_id` is no id.
    """
    after_id = given.get("after_id")
    return LogsQuery(
        limit=_count(given, "limit", DEFAULT_LOGS, MAX_LOGS),
        task_id=given.get("task_id") or None,
        to=given.get("to") or None,
        event=given.get("event") or None,
        after_id=None if after_id is None else _whole(after_id, "after_id", 0, MAX_ID),
    )


def read_tasks_query(given: Mapping[str, str]) -> TasksQuery:
    """Read the parameters of `GET tasks`.

    Raises:
        RelayError: `to` is missing, or a number is not one or out of its range.
    """
    if not given.get("to"):
        raise RelayError("missing to")
    lease = given.get("lease")
    return TasksQuery(
        to=_name(given["to"], "to"),
        cmd=_name(given["cmd"], "cmd") if given.get("cmd") else None,
        limit=_count(given, "limit", DEFAULT_TASKS, MAX_TASKS),
        wait_s=_seconds(given.get("wait", "0"), "wait", MAX_WAIT_S),
        lease_s=None if lease is None else _lease(_seconds(lease, "lease", MAX_LEASE_S)),
        worker=_name(given["worker"], "worker") if given.get("worker") else None,
    )


def _count(given: Mapping[str, str], name: str, default: int, limit: int) -> int:
    text = given.get(name)
    return default if text is None else _whole(text, name, 1, limit)


def _whole(text: str, name: str, low: int, high: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not digits or not low <= int(text) <= high:
        raise RelayError(f"invalid {name}")
    return int(text)


def _seconds(text: str, name: str, limit: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise RelayError(f"invalid {name}") from None
    if not 0 <= seconds <= limit:
        raise RelayError(f"invalid {name}")
    return seconds


# Data of envelopes


def task_of(request: SendRequest, task_id: str, *, source: str, subject: str) -> Submission:
    """Return the task that was sent; what is the relay's own lies under `relay`.

    Raises:
        RelayError: `not_before` is no time.
    """
    own = dict(request.members)
    for name in ("task_id", "cmd", "payload"):
        own.pop(name, None)
    if request.cmd is None or request.members.get("cmd") != request.cmd:
        own["cmd"] = request.members.get("cmd")
    payload = request.members.get("payload")
    text = own.pop("text") if isinstance(own.get("text"), str) else None
    given = own.get("not_before")
    not_before = None if given is None else _not_before(own.pop("not_before"))
    return Submission(
        task_type=request.cmd or "task",
        source=source,
        subject=subject,
        task_id=task_id,
        params={} if payload is None else payload,
        text=cast("str | None", text),
        not_before=not_before,
        priority=request.priority,
        reply_to=source,
        more={"relay": own},
    )


def _not_before(value: object) -> str | float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise InvalidError("no time")
        parse_time(value, what="not_before")
    except (HubError, ValueError, OverflowError):
        raise RelayError("invalid not_before") from None
    return value


def chat_data(request: SendRequest) -> bytes:
    """Return the data of a `hubbub.chat.message.v1`; what is the relay's own lies under `relay`."""
    own = dict(request.members)
    del own["from"], own["to"]
    text = own.get("text")
    if isinstance(text, str):
        del own["text"]
    else:
        text = "" if text is None else encode_json(text).decode()
    return encode_json(
        {
            "text": text,
            "sender": {"id": request.sender},
            "conversation": {"id": request.to, "kind": "private"},
            "platform": "relay",
            "relay": own,
        }
    )


def leased_task(
    envelope: Envelope, *, task_id: str, to: str, attempt: int, lease_until_us: int
) -> Members:
    """Return a task as `GET tasks` shows it: the members as sent, and the lease."""
    data = _object(envelope.json())
    subject = envelope.subject.split(".")
    addressed = len(subject) > 1 and subject[0] == "relay"
    source = envelope.source
    task: Members = {
        "task_id": task_id,
        "from": unescape(source[len("relay.") :]) if source.startswith("relay.") else source,
        "to": unescape(subject[1]) if addressed else to,
        "type": "task",
        "cmd": data.get("task_type"),
        "payload": data.get("params", {}),
        "text": data.get("text"),
    }
    if "not_before" in data:
        task["not_before"] = data["not_before"]
    task.update(_object(data.get("relay")))
    task["attempt"] = attempt
    task["lease_until"] = utc_time(lease_until_us)
    task["trace_id"] = envelope.trace_id
    return task


def _object(value: object) -> Members:
    return cast("Members", value) if isinstance(value, dict) else {}


# Answers

OK: Final = b'{"status":"ok"}'
INVALID_JSON: Final = "invalid JSON"
UNAUTHORIZED: Final = "Unauthorized: Invalid or missing API key"
FORBIDDEN: Final = "forbidden"


def error(message: str) -> bytes:
    """Return the body of every refusal."""
    return encode_json({"status": "error", "msg": message})


def sent(task_id: str | None, *, duplicate: bool = False) -> bytes:
    """Return the answer to `send`; `task_id` has no sign that JSON escapes."""
    shown = b"null" if task_id is None else b'"%b"' % task_id.encode()
    return b'{"status":"ok","task_id":%b%b}' % (shown, b',"duplicate":true' if duplicate else b"")


def task_details(task: Task) -> Members:
    """Return what `task-status` tells a caller with a key beside the state."""
    return {
        "attempts": task.attempt,
        "updated_at": utc_time(task.updated_us),
        "trace_id": task.trace_id,
        "result": msgspec.Raw(task.result or b"null"),
    }


def logs(records: Iterable[bytes]) -> bytes:
    """Return the answer to `logs`."""
    return b'{"status":"ok","logs":[%b]}' % b",".join(records)


# Log records


def log_record(event: str, body: str, *, ts_ms: int, number: int) -> bytes:
    """Return one log record: `event`, the members as sent, `ts`, then `id` and `ts_ms`.

    Args:
        body: The members, as a JSON object.

    Source: relay protocol page, 4.
    """
    inner = body[1:-1]
    comma = "," if inner else ""
    return (
        f'{{"event":"{event}",{inner}{comma}"ts":"{local_time(ts_ms // 1000)}",'
        f'"id":{number},"ts_ms":{ts_ms}}}'
    ).encode()


@lru_cache(maxsize=1024)
def local_time(seconds: int) -> str:
    """Return `YYYY-MM-DD HH:MM:SS` in the zone of this machine."""
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def utc_time(time_us: int) -> str:
    """Return `YYYY-MM-DDTHH:MM:SSZ`."""
    return f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
