"""Requests as the hub's envelopes and tasks, and tasks as workers are shown them."""

from __future__ import annotations

from typing import cast

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import HubError, InvalidError
from hubbub.subjects import unescape
from hubbub.times import parse_time
from hubbub.values import Submission
from hubbub_relay.wire.answers import utc_time
from hubbub_relay.wire.requests import SendRequest
from hubbub_relay.wire.values import Members, RelayError

__all__ = ["chat_data", "leased_task", "task_of"]


def task_of(
    request: SendRequest,
    task_id: str,
    *,
    source: str,
    subject: str,
    idempotency_key: str | None = None,
    traceparent: str = "",
) -> Submission:
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
        idempotency_key=idempotency_key,
        traceparent=traceparent,
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
