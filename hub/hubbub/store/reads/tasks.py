"""Reads of tasks and their attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import func, literal_column, null
from sqlalchemy import select as sql_select
from sqlmodel import Session, col, select

from hubbub.portions import PAGE_BYTES, until_full
from hubbub.store.rows import task_of
from hubbub.store.tables import DeliveryRow, TaskAttemptRow, TaskRow, table_of
from hubbub.values import Task, TaskState

__all__ = ["attempts", "attempts_of", "counts", "listed", "one", "some", "without_results"]

_task = table_of(TaskRow)


def one(session: Session, task_id: str) -> Task | None:
    """Return one task."""
    row = session.get(TaskRow, task_id)
    return None if row is None else task_of(row)


def attempts(session: Session, task_id: str) -> list[TaskAttemptRow]:
    """Return the history of a task's hand-overs, in order."""
    query = select(TaskAttemptRow).where(TaskAttemptRow.task_id == task_id)
    return list(session.exec(query.order_by(col(TaskAttemptRow.started_us))).all())


def counts(session: Session) -> dict[str, int]:
    """Return how many tasks are not final, by state.

    A task is what its delivery is, and of that the indexes alone tell, however many wait; only
    tasks are in flight in the store.
    """
    number = select(func.count()).select_from(DeliveryRow)
    not_done = DeliveryRow.state != literal_column("'done'")
    unfinished = number.where(not_done, col(DeliveryRow.leased)).scalar_subquery()
    in_flight = number.where(DeliveryRow.state == literal_column("'in_flight'")).scalar_subquery()
    not_final, dispatched = session.exec(select(unfinished, in_flight)).one()
    found = {TaskState.QUEUED: not_final - dispatched, TaskState.DISPATCHED: dispatched}
    return {state.value: count for state, count in found.items() if count}


def some(session: Session, task_ids: Sequence[str]) -> list[Task]:
    """Return the tasks of these ids that are there."""
    query = select(TaskRow).where(col(TaskRow.id).in_(task_ids))
    return [task_of(row) for row in session.exec(query.order_by(col(TaskRow.seq))).all()]


def without_results(session: Session, task_ids: Sequence[str]) -> list[Task]:
    """Return the tasks of these ids that are there, without their results."""
    columns: list[Any] = [each for each in _task.c if each is not _task.c.result]
    columns.append(null().label("result"))
    query = sql_select(*columns).where(_task.c.id.in_(task_ids)).order_by(_task.c.seq)
    rows = cast("Iterable[Any]", session.connection().execute(query))
    return [task_of(row) for row in rows]


def attempts_of(session: Session, task_ids: Sequence[str]) -> list[TaskAttemptRow]:
    """Return the hand-overs of these tasks, in order."""
    query = select(TaskAttemptRow).where(col(TaskAttemptRow.task_id).in_(task_ids))
    return list(session.exec(query.order_by(col(TaskAttemptRow.started_us))).all())


def listed(
    session: Session,
    *,
    state: str | None,
    task_types: frozenset[str] | None,
    before: int | None,
    limit: int,
    endpoint: str | None = None,
    limit_bytes: int = PAGE_BYTES,
) -> tuple[list[Task], int | None]:
    """Return tasks, newest first, and where to go on; None when that was all.

    Args:
        task_types: Only of these types; None for all.
        endpoint: Only those that this worker has, or had last.
    """
    of_result, of_error = func.length(col(TaskRow.result)), func.length(col(TaskRow.error))
    size = func.coalesce(of_result, 0) + func.coalesce(of_error, 0)
    query = select(TaskRow.id, TaskRow.seq, size).order_by(col(TaskRow.seq).desc()).limit(limit + 1)
    if state is not None:
        query = query.where(TaskRow.state == state)
    if task_types is not None:
        query = query.where(col(TaskRow.task_type).in_(task_types))
    if endpoint is not None:
        query = query.where(TaskRow.endpoint == endpoint)
    if before is not None:
        query = query.where(TaskRow.seq < before)
    there = session.exec(query).all()
    shown = until_full(there[:limit], itemgetter(2), limit_bytes)
    after = shown[-1][1] if len(shown) < len(there) else None
    return some(session, [task_id for task_id, _, _ in shown])[::-1], after
