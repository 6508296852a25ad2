"""Sagas: when a task fails, what makes up for it and for its parents is queued; their rows.

A task may name a parent (`parent_task_id`) and a command that makes up for it (`compensate_cmd`).
The row `relay_saga` is written in the commit of the task. When a task that has such a row fails,
the command of its own is queued, then those of its parents, nearest first. Each is a task like any
other; its id is made of the id of what it makes up for, so that looking twice queues it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, Index, delete, select, text, update
from sqlmodel import Field, Session, SQLModel

from hubbub.envelope import encode_json
from hubbub.ports import Row
from hubbub.store.tables import table_of
from hubbub_relay.events import Statement
from hubbub_relay.wire import SendRequest

__all__ = ["RelaySagaRow", "bodies_for", "open_sagas", "purge_sagas", "saga_row", "sagas_done"]

MOST_PARENTS: Final = 100
"""Parents above one task that are made up for; also the end of a circle."""

_OPEN: Final = text("done_at IS NULL")


class RelaySagaRow(SQLModel, table=True):
    """A task with a parent, or with a command that makes up for it.

    Attributes:
        body: What is sent when it is to be made up for, a JSON object; None for nothing.
        done_at: When its end was seen, milliseconds since the epoch.
    """

    __tablename__ = "relay_saga"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_relay_saga_open", "task_id", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    task_id: str = Field(primary_key=True)
    parent_task_id: str | None = None
    body: str | None = None
    created_at: int = Field(sa_type=BigInteger)
    done_at: int | None = Field(default=None, sa_type=BigInteger)


_saga = table_of(RelaySagaRow)


def saga_row(request: SendRequest, task_id: str, *, now_ms: int) -> Row | None:
    """Return the row of a task that is part of a saga; None for any other."""
    if request.parent_task_id is None and request.compensate_cmd is None:
        return None
    body = None
    if request.compensate_cmd is not None:
        body = encode_json(
            {
                "from": request.sender,
                "to": request.to,
                "type": "task",
                "cmd": request.compensate_cmd,
                "payload": request.members.get("payload"),
                "parent_task_id": task_id,
            }
        ).decode()
    return _saga, (task_id, request.parent_task_id, body, now_ms, None)


def open_sagas(session: Session) -> list[str]:
    """Return the tasks of sagas whose end was not seen yet."""
    query = select(_saga.c.task_id).where(_saga.c.done_at.is_(None))
    return [str(row[0]) for row in session.connection().execute(query)]


def bodies_for(session: Session, task_id: str) -> list[tuple[str, str]]:
    """Return `(task, body)` for all that is to be made up for when a task failed."""
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    next_id: str | None = task_id
    while next_id is not None and next_id not in seen and len(seen) <= MOST_PARENTS:
        seen.add(next_id)
        query = select(_saga.c.parent_task_id, _saga.c.body).where(_saga.c.task_id == next_id)
        row = session.connection().execute(query).first()
        if row is None:
            break
        if row[1] is not None:
            found.append((next_id, str(row[1])))
        next_id = row[0]
    return found


def purge_sagas(before_ms: int) -> Statement:
    """Return the statement that forgets what ended long ago."""
    return delete(_saga).where(_saga.c.done_at < before_ms), []


def sagas_done(task_ids: Sequence[str], *, now_ms: int) -> Statement:
    """Return the statement that notes the end of tasks."""
    return update(_saga).where(_saga.c.task_id.in_(task_ids)).values(done_at=now_ms), []
