"""Bodies of answers, and records of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from hubbub.envelope import encode_json
from hubbub.values import Task
from hubbub_relay.wire.values import Members

__all__ = [
    "FORBIDDEN",
    "INVALID_JSON",
    "LOGS",
    "OK",
    "UNAUTHORIZED",
    "error",
    "local_time",
    "log_parts",
    "log_record",
    "sent",
    "task_details",
    "utc_time",
]

OK: Final = b'{"status":"ok"}'
LOGS: Final = b'{"status":"ok","logs":['
"""How the answer to `logs` begins."""

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


def log_parts(records: Iterable[bytes], opening: bytes) -> Iterator[bytes]:
    """Yield records of an answer to `logs`, with what stands before each.

    Args:
        opening: What stands before the first one.
    """
    for record in records:
        yield opening
        yield record
        opening = b","


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
