"""The relay's own tables, and how they are read.

`relay_event` is the log: one row for each record, written in the commit of what it tells of. Ids
grow with each commit, so whoever follows the log needs only the last id it has seen. Clearing
marks rows; all up to the newest marked one are hidden.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Executable,
    Index,
    Select,
    delete,
    func,
    select,
    text,
    update,
)
from sqlmodel import Field, Session, SQLModel

from hubbub.envelope import encode_json
from hubbub.portions import PAGE_BYTES, READ_AHEAD, until_full
from hubbub.ports import Row
from hubbub.store.tables import ROW_NUMBER, DeliveryRow, TaskRow, table_of
from hubbub_relay.wire import LogsQuery

__all__ = [
    "Event",
    "RelayCallbackRow",
    "RelayEventRow",
    "Waiting",
    "after",
    "bounds",
    "callback_row",
    "callbacks_done",
    "chosen",
    "clear_step",
    "ended",
    "ended_ids",
    "event_row",
    "forget_orphan",
    "known",
    "newest",
    "open_callbacks",
    "outdated",
    "purge",
    "seen",
    "some",
    "waiting",
    "was_sent",
]

STEP: Final = 1000
"""Rows one step reads or removes."""

_CLEARED: Final = text("cleared_at IS NOT NULL")
_OPEN: Final = text("done_at IS NULL")


class RelayEventRow(SQLModel, table=True):
    """One log record.

    Attributes:
        body: The members as they were sent, a JSON object.
        final: It tells the end of its task.
        mirrored: Workers that read the mirror file shall see it.
        cleared_at: When somebody cleared the log, milliseconds since the epoch.
    """

    __tablename__ = "relay_event"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_relay_event_task", "task_id"),
        Index("ix_relay_event_to", "to_", "id"),
        Index(
            "ix_relay_event_cleared", "id",
            sqlite_where=_CLEARED, postgresql_where=_CLEARED,
        ),
    )  # fmt: skip

    id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    event: str
    from_: str | None = None
    to_: str | None = None
    type: str | None = None
    task_id: str | None = None
    body: str
    ts_ms: int = Field(sa_type=BigInteger)
    trace_id: str
    final: bool = Field(sa_type=Boolean)
    mirrored: bool = Field(sa_type=Boolean)
    cleared_at: int | None = Field(default=None, sa_type=BigInteger)


class RelayCallbackRow(SQLModel, table=True):
    """A task whose final record is to be posted.

    Attributes:
        key: Name of the API key that sent the task; its secret signs.
        done_at: When the post was handed to the hub, milliseconds since the epoch.
    """

    __tablename__ = "relay_callback"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_relay_callback_open", "task_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    task_id: str = Field(primary_key=True)
    url: str
    key: str
    created_at: int = Field(sa_type=BigInteger)
    done_at: int | None = Field(default=None, sa_type=BigInteger)


_event = table_of(RelayEventRow)
_callback = table_of(RelayCallbackRow)
_delivery = table_of(DeliveryRow)
_task = table_of(TaskRow)


@dataclass(frozen=True, slots=True)
class Event:
    """A log record as it is read."""

    id: int
    event: str
    body: str
    ts_ms: int
    task_id: str | None
    mirrored: bool


_COLUMNS = (
    _event.c.id, _event.c.event, _event.c.body, _event.c.ts_ms,
    _event.c.task_id, _event.c.mirrored,
)  # fmt: skip


def event_row(
    event: str,
    members: dict[str, object],
    *,
    ts_ms: int,
    task_id: str | None = None,
    trace_id: str = "",
    final: bool = False,
    mirrored: bool = True,
) -> Row:
    """Return the row of a record. Names and type are columns only where they are texts."""
    sender = members.get("from", members.get("child_id", members.get("ack_by")))
    kind = members.get("type")
    values = (
        event,
        _name(sender),
        _name(members.get("to")),
        kind if isinstance(kind, str) else None,
        task_id, encode_json(members).decode(), ts_ms, trace_id, final, mirrored, None,
    )  # fmt: skip
    return (_event, values)


def _name(value: object) -> str | None:
    """Return a name as it is addressed; a number is one, too."""
    named = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return str(value) if named else None


def callback_row(task_id: str, *, url: str, key: str, now_ms: int) -> Row:
    """Return the row that remembers a `callback_url`."""
    return _callback, (task_id, url, key, now_ms, None)


# Reads


def _newest_cleared() -> Select[int]:
    return select(func.coalesce(func.max(_event.c.id), 0)).where(_event.c.cleared_at.is_not(None))


def _shown() -> ColumnElement[bool]:
    """Return the condition that a record is not cleared: one index look-up, whatever is stored."""
    shown: ColumnElement[bool] = _event.c.id > _newest_cleared().scalar_subquery()
    return shown


def _rows(session: Session, query: Executable) -> Iterator[tuple[Any, ...]]:
    for row in session.connection().execute(query):
        yield tuple(row)


def _until_full(
    session: Session, query: Executable, *, limit_bytes: int = PAGE_BYTES
) -> list[Event]:
    """Return records so far as they fit into a number of bytes, and at least one."""
    rows = session.connection().execute(query, execution_options={"yield_per": READ_AHEAD})
    with closing(rows):
        return until_full((Event(*row) for row in rows), lambda one: len(one.body), limit_bytes)


def chosen(
    session: Session, query: LogsQuery, *, only: ColumnElement[bool] | None = None
) -> list[int]:
    """Return ids of records that are not cleared, oldest first: the newest, or those after one.

    Args:
        only: What the reader may see; None for everything.
    """
    wanted = select(_event.c.id).where(_shown()).limit(query.limit)
    if only is not None:
        wanted = wanted.where(only)
    if query.task_id is not None:
        wanted = wanted.where(_event.c.task_id == query.task_id)
    if query.to is not None:
        wanted = wanted.where(_event.c.to_ == query.to)
    if query.event is not None:
        wanted = wanted.where(_event.c.event == query.event)
    if query.after_id is not None:
        wanted = wanted.where(_event.c.id > query.after_id)
        return list(session.scalars(wanted.order_by(_event.c.id)))
    return list(session.scalars(wanted.order_by(_event.c.id.desc())))[::-1]


def some(session: Session, ids: Sequence[int], *, limit_bytes: int) -> tuple[list[Event], int]:
    """Return records of these ids so far as they fit into a number of bytes, and at least one.

    The second is how many of the ids were looked at: one that is gone has no record.
    """
    wanted = select(*_COLUMNS).where(_event.c.id.in_(ids), _shown()).order_by(_event.c.id)
    found = _until_full(session, wanted, limit_bytes=limit_bytes)
    is_all = not found or found[-1].id == ids[-1]
    return found, len(ids) if is_all else bisect_right(ids, found[-1].id)


def after(session: Session, number: int, *, limit: int = STEP) -> tuple[list[Event], int]:
    """Return records after an id that are not cleared, and the newest id there is."""
    wanted = (
        select(*_COLUMNS).where(_event.c.id > number, _shown()).order_by(_event.c.id).limit(limit)
    )
    return _until_full(session, wanted), newest(session)


def newest(session: Session) -> int:
    """Return the highest id; 0 when there is none."""
    return session.scalar(select(func.max(_event.c.id))) or 0


def bounds(session: Session) -> tuple[int, int]:
    """Return the newest id that is cleared, and the newest id there is."""
    return session.scalar(_newest_cleared()) or 0, newest(session)


def known(session: Session, task_id: str) -> tuple[bool, bool]:
    """Tell whether a task has records, and whether one of them is not cleared."""
    first = select(_event.c.id).where(_event.c.task_id == task_id).limit(1)
    shown = first.where(_shown())
    return session.scalar(first) is not None, session.scalar(shown) is not None


def was_sent(session: Session, task_id: str) -> bool:
    """Tell whether a task was sent over the relay, or to one of its names.

    What anybody may say of an id (an acknowledgement, a message, a callback) does not tell that.
    """
    query = select(_event.c.id).where(
        _event.c.task_id == task_id, _event.c.event == "send", _event.c.type == "task"
    )
    return session.scalar(query.limit(1)) is not None


def ended_ids(session: Session, task_ids: Sequence[str]) -> set[str]:
    """Return which of these tasks have a final record."""
    query = select(_event.c.task_id).where(_event.c.task_id.in_(task_ids), _event.c.final.is_(True))
    return set(session.scalars(query))


def ended(
    session: Session, task_ids: Sequence[str], *, limit_bytes: int = PAGE_BYTES
) -> tuple[dict[str, Event], bool]:
    """Return the latest final record of each of these tasks that has one, by task.

    The second is False where there are more of them than so many bytes.
    """
    latest = (
        select(func.max(_event.c.id))
        .where(_event.c.task_id.in_(task_ids), _event.c.final.is_(True))
        .group_by(_event.c.task_id)
    )
    ids = list(session.scalars(latest))
    query = select(*_COLUMNS).where(_event.c.id.in_(ids)).order_by(_event.c.id)
    found = _until_full(session, query, limit_bytes=limit_bytes)
    return {event.task_id: event for event in found if event.task_id}, len(found) == len(ids)


def seen(session: Session, task_ids: Sequence[str], marks: Sequence[str]) -> set[str]:
    """Return which of these imported records, named by their marks, are there already."""
    of_tasks = select(_event.c.trace_id).where(
        _event.c.task_id.in_(task_ids), _event.c.trace_id.in_(marks)
    )
    of_none = select(_event.c.trace_id).where(
        _event.c.task_id.is_(None), _event.c.trace_id.in_(marks)
    )
    return {str(mark) for query in (of_tasks, of_none) for mark in session.scalars(query)}


def open_callbacks(session: Session) -> list[tuple[str, str, str]]:
    """Return `(task id, url, key name)` of all posts that are still to be made."""
    query = select(_callback.c.task_id, _callback.c.url, _callback.c.key).where(
        _callback.c.done_at.is_(None)
    )
    return [(row[0], row[1], row[2]) for row in _rows(session, query)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many tasks of relay names are unfinished, for the metrics."""

    by_state: dict[str, int]
    oldest_us: int | None
    stale: int


def waiting(session: Session, *, stale_before_us: int) -> Waiting:
    """Count what waits for relay names, or is with one of their workers."""
    mine = (
        _delivery.c.mailbox >= "relay.",
        _delivery.c.mailbox < "relay/",  # the sign after the dot
        _delivery.c.state != "done",
    )
    counts = select(_delivery.c.state, func.count(), func.min(_delivery.c.created_us)).where(*mine)
    by_state: dict[str, int] = {}
    oldest: int | None = None
    for state, count, created_us in _rows(session, counts.group_by(_delivery.c.state)):
        by_state[state] = count
        if state == "pending":
            oldest = created_us
    stale = select(func.count()).where(
        *mine, _delivery.c.state == "pending", _delivery.c.created_us < stale_before_us
    )
    return Waiting(by_state, oldest, session.scalar(stale) or 0)


# Changes

Statement = tuple[Executable, list[dict[str, object]]]


def clear_step(after_id: int, up_to: int, *, now_ms: int) -> Statement:
    """Return the statement that marks one step of rows as cleared."""
    statement = (
        update(_event)
        .where(
            _event.c.id > after_id,
            _event.c.id <= up_to,
            _event.c.cleared_at.is_(None),
        )
        .values(cleared_at=now_ms)
    )
    return statement, []


def callbacks_done(task_ids: Sequence[str], *, now_ms: int | None) -> Statement:
    """Return the statement that marks posts as handed over, or as still to be made (None)."""
    statement = update(_callback).where(_callback.c.task_id.in_(task_ids)).values(done_at=now_ms)
    return statement, []


def outdated(
    session: Session, *, before_ms: int, cleared_before_ms: int, limit: int = STEP
) -> list[Event]:
    """Return the oldest records as far as none of them is to be kept; never the newest one."""
    query = (
        select(*_COLUMNS, _event.c.cleared_at)
        .where(_event.c.id < newest(session))
        .order_by(_event.c.id)
        .limit(limit)
    )

    def old(rows: Iterable[Sequence[Any]]) -> Iterator[Event]:
        for *values, cleared_at in rows:
            event = Event(*values)
            if event.ts_ms >= before_ms and (cleared_at is None or cleared_at >= cleared_before_ms):
                return
            yield event

    rows = session.connection().execute(query.execution_options(yield_per=READ_AHEAD))
    with closing(rows):
        return until_full(old(rows), lambda one: len(one.body), PAGE_BYTES)


def forget_orphan(task_id: str, asker: str) -> Statement:
    """Return the statement that makes way for a task where only a callback was."""
    statement = delete(_task).where(
        _task.c.id == task_id, _task.c.orphan.is_(True), _task.c.asker == asker
    )
    return statement, []


def purge(up_to: int, *, callbacks_before_ms: int) -> tuple[Statement, Statement]:
    """Return the statements that remove records up to an id, and posts made long ago."""
    posts = delete(_callback).where(
        _callback.c.done_at.is_not(None),
        _callback.c.done_at < callbacks_before_ms,
    )
    return (delete(_event).where(_event.c.id <= up_to), []), (posts, [])
