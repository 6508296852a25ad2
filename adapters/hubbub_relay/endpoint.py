"""A relay name as an endpoint: what reaches it is a row of the log, tasks wait for its workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Final, Literal, cast

from hubbub.envelope import CHAT_MESSAGE, TASK_REQUEST, TASK_RESULT, Envelope
from hubbub.errors import HubError
from hubbub.ports import Row
from hubbub.subjects import escape
from hubbub.values import EVERYTHING, Endpoint
from hubbub_relay.config import RelaySettings
from hubbub_relay.events import event_row

__all__ = ["Logged", "RelayName", "address_of", "foreign_row"]

MAILBOX_LIMIT: Final = 10_000_000

Kind = Literal["send", "callback"]


@lru_cache(maxsize=8192)
def address_of(name: str) -> str:
    """Return the address of a relay name."""
    return f"relay.{escape(name)}"


class Logged:
    """Requests under way whose log record is written by the request itself.

    What they publish reaches relay names too, and must not be logged a second time there.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[Kind, str], int] = {}

    def begin(self, kind: Kind, name: str) -> tuple[Kind, str]:
        """Note a request: a `send` by its trace, a `callback` by its task; returns what ends it."""
        request = (kind, name)
        self._under_way[request] = self._under_way.get(request, 0) + 1
        return request

    def end(self, request: tuple[Kind, str]) -> None:
        """The request is over."""
        left = self._under_way.pop(request) - 1
        if left:
            self._under_way[request] = left

    def covers(self, envelope: Envelope) -> bool:
        """Tell whether an envelope is of such a request."""
        if not self._under_way or not envelope.source.startswith("relay."):
            return False
        if envelope.type == TASK_RESULT:
            return ("callback", str(_data(envelope).get("task_id"))) in self._under_way
        return ("send", envelope.trace_id) in self._under_way


class RelayName(Endpoint):
    """One name in `from` or `to`."""

    def __init__(
        self,
        name: str,
        settings: RelaySettings,
        *,
        logged: Logged,
        now_ms: Callable[[], int],
        keep: Callable[[Sequence[Row]], Awaitable[None]],
        ended: Callable[[str, str], None],
    ) -> None:
        super().__init__(
            address=address_of(name),
            accepts=(EVERYTHING, TASK_REQUEST),  # what was sent or routed to it, of any type
            pull=True,
            linger_s=None,
            queue_ttl_s=0,
            attempts=settings.max_attempts,
            timeout_s=settings.lease_seconds,
            mailbox_limit=MAILBOX_LIMIT,
        )
        self.name: Final = name
        self._logged = logged
        self._now_ms = now_ms
        self._keep = keep
        self._ended = ended

    def record(self, envelope: Envelope) -> Sequence[Row]:
        """Return the log record of what somebody else sent to this name; none of our own."""
        if self._logged.covers(envelope):
            return ()
        row, ended = foreign_row(self.name, envelope, now_ms=self._now_ms())
        if ended is not None:
            self._ended(*ended)
        return (row,)

    async def deliver(self, envelope: Envelope) -> None:
        """Log what waited for this name while the relay was off."""
        await self._keep(self.record(envelope))


def foreign_row(
    name: str, envelope: Envelope, *, now_ms: int
) -> tuple[Row, tuple[str, str] | None]:
    """Return the log record of an envelope that came to a name from another protocol.

    Returns:
        The row, and `(task id, state)` when it tells the end of a task.
    """
    data = _data(envelope)
    members: dict[str, object]
    if envelope.type == TASK_RESULT:
        task_id, state = str(data.get("task_id")), str(data.get("state"))
        done = state == "completed"
        members = {
            "task_id": task_id,
            "child_id": envelope.source,
            "status": "done" if done else "failed",
            "result": data.get("result"),
        }
        if not done:
            members["error"] = data.get("error") or state
        row = event_row(
            "callback",
            members,
            ts_ms=now_ms,
            task_id=task_id,
            trace_id=envelope.trace_id,
            final=True,
        )
        return row, (task_id, "completed" if done else "failed")
    members = {"from": envelope.source, "to": name}
    task_id_: str | None = None
    if envelope.type == TASK_REQUEST:
        task_id_ = str(data.get("task_id"))
        members |= {
            "type": "task",
            "cmd": data.get("task_type"),
            "payload": data.get("params", {}),
            "text": data.get("text"),
            "task_id": task_id_,
        }
    elif envelope.type == CHAT_MESSAGE:
        members |= {"type": "message", "text": data.get("text", "")}
    else:
        members |= {"type": "event", "cmd": envelope.type, "payload": _json(envelope)}
    row = event_row(
        "send", members, ts_ms=now_ms, task_id=task_id_, trace_id=envelope.trace_id
    )  # fmt: skip
    return row, None


def _json(envelope: Envelope) -> object:
    try:
        return envelope.json()
    except HubError:
        return None


def _data(envelope: Envelope) -> dict[str, object]:
    decoded = _json(envelope)
    return cast("dict[str, object]", decoded) if isinstance(decoded, dict) else {}
