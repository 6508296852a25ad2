"""Answers about logs, the database and lists of traces, as types; see `shapes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hubbub.web.shapes import Count, Next, Time

__all__ = [
    "BackupList",
    "BackupView",
    "ConfirmIn",
    "Confirmed",
    "LevelIn",
    "Levels",
    "LogList",
    "MigrationList",
    "PruneIn",
    "Pruned",
    "TableList",
    "TraceList",
    "Vacuumed",
]

Level = Literal["debug", "info", "warning", "error", "critical"]
LoggerName = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$", description="or root")
]


class LogLine(msgspec.Struct, forbid_unknown_fields=True):
    """One log line."""

    number: Count
    at: Time
    level: str
    logger: str
    event: str
    detail: dict[str, Any]


class LogList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of log lines, newest first."""

    items: list[LogLine]
    next: Next


class LevelIn(msgspec.Struct, forbid_unknown_fields=True):
    """From which level on a logger, and all below it, logs."""

    level: Level
    logger: LoggerName = "root"


class Levels(msgspec.Struct, forbid_unknown_fields=True):
    """From which level on each logger logs that somebody chose one for."""

    levels: dict[str, str]


class TableView(msgspec.Struct, forbid_unknown_fields=True):
    """A table, its rows and bytes."""

    name: str
    rows: Count
    bytes: Count
    prunable: bool


class TableList(msgspec.Struct, forbid_unknown_fields=True):
    """All tables, and what the whole database takes."""

    items: list[TableView]
    next: Next
    bytes: Count


class PruneIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows to remove: of a table, those older than a time or a duration before now."""

    table: Annotated[str, Meta(min_length=1, max_length=128)]
    older_than: Annotated[str, Meta(min_length=1, max_length=64)]
    dry_run: bool = False


class Pruned(msgspec.Struct, forbid_unknown_fields=True):
    """How many rows were that old, and whether they are gone."""

    table: str
    older_than: Time
    matched: Count
    removed: Count
    dry_run: bool


class ConfirmIn(msgspec.Struct, forbid_unknown_fields=True):
    """What time it is, by another clock than the hub's; within an hour."""

    time: Annotated[str, Meta(min_length=1, max_length=64)]


class Confirmed(msgspec.Struct, forbid_unknown_fields=True):
    """The hub's time, and what had stopped retention."""

    time: Time
    held: str | None


class Vacuumed(msgspec.Struct, forbid_unknown_fields=True):
    """What the database took before and takes now."""

    bytes_before: Count
    bytes: Count


class BackupView(msgspec.Struct, forbid_unknown_fields=True):
    """A copy of the database."""

    name: str
    file: str
    bytes: Count
    created_at: Time


class BackupList(msgspec.Struct, forbid_unknown_fields=True):
    """All copies, newest first."""

    items: list[BackupView]
    next: Next


class MigrationView(msgspec.Struct, forbid_unknown_fields=True):
    """One step of the tables' history."""

    revision: str
    says: str
    applied: bool


class MigrationList(msgspec.Struct, forbid_unknown_fields=True):
    """All steps, newest first."""

    items: list[MigrationView]
    next: Next


class TraceView(msgspec.Struct, forbid_unknown_fields=True):
    """A trace: how it began, where it went, and how it stands."""

    trace_id: str
    at: Time
    source: str
    subject: str
    status: Literal["delivered", "failed", "dropped", "unrouted", "pending"]
    envelopes: Count
    endpoints: list[str]


class TraceList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of traces, newest first."""

    items: list[TraceView]
    next: Next
