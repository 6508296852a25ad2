"""Bytes of the relay's requests, answers and log records, and typed values. Pure.

A request is a JSON object whatever its content type says. Members that nobody asked for are kept
and come back unchanged; `RESERVED` ones are the server's and are ignored.
"""

from __future__ import annotations

from hubbub_relay.wire.answers import (
    FORBIDDEN,
    INVALID_JSON,
    LOGS,
    OK,
    UNAUTHORIZED,
    error,
    local_time,
    log_parts,
    log_record,
    sent,
    task_details,
    utc_time,
)
from hubbub_relay.wire.envelopes import chat_data, leased_task, task_of
from hubbub_relay.wire.queries import (
    LogsQuery,
    TasksQuery,
    read_logs_query,
    read_query,
    read_tasks_query,
)
from hubbub_relay.wire.requests import (
    AckRequest,
    CallbackRequest,
    CallbackStatus,
    RenewRequest,
    SendRequest,
    read_ack,
    read_callback,
    read_renew,
    read_send,
)
from hubbub_relay.wire.values import MAX_NAME, RESERVED, RelayError, task_id_of

__all__ = [
    "FORBIDDEN",
    "INVALID_JSON",
    "LOGS",
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
    "log_parts",
    "log_record",
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
