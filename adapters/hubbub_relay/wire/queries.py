"""Queries of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hubbub.errors import InvalidError, MalformedError
from hubbub.web import parse_query
from hubbub_relay.wire.values import (
    MAX_LEASE_S,
    RelayError,
    read_count,
    read_lease,
    read_name,
    read_seconds,
    read_whole,
)

__all__ = ["LogsQuery", "TasksQuery", "read_logs_query", "read_query", "read_tasks_query"]

MAX_WAIT_S: Final = 30.0
MAX_TASKS: Final = 100
MAX_LOGS: Final = 1000
DEFAULT_LOGS: Final = 100
DEFAULT_TASKS: Final = 10
MAX_ID: Final = 2**63 - 1


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


def read_query(query: bytes) -> dict[str, str]:
    """Return the parameters of a query string.

    Raises:
        RelayError: there are far too many, one cannot be decoded, or is there with two values.
    """
    try:
        pairs = parse_query(query)
    except (InvalidError, MalformedError):
        raise RelayError("invalid query") from None
    found = dict(pairs)
    if len(found) < len(pairs) and len(set(pairs)) > len(found):
        raise RelayError("invalid query")
    return found


def read_logs_query(given: Mapping[str, str]) -> LogsQuery:
    """Read the parameters of `GET logs`.

    Raises:
        RelayError: `limit` is not 1 to 1000, or `after_id` is no id.
    """
    after_id = given.get("after_id")
    return LogsQuery(
        limit=read_count(given, "limit", DEFAULT_LOGS, MAX_LOGS),
        task_id=given.get("task_id") or None,
        to=given.get("to") or None,
        event=given.get("event") or None,
        after_id=None if after_id is None else read_whole(after_id, "after_id", 0, MAX_ID),
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
        to=read_name(given["to"], "to"),
        cmd=read_name(given["cmd"], "cmd") if given.get("cmd") else None,
        limit=read_count(given, "limit", DEFAULT_TASKS, MAX_TASKS),
        wait_s=read_seconds(given.get("wait", "0"), "wait", MAX_WAIT_S),
        lease_s=None if lease is None else read_lease(read_seconds(lease, "lease", MAX_LEASE_S)),
        worker=read_name(given["worker"], "worker") if given.get("worker") else None,
    )
