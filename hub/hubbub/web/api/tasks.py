"""Tasks: submitted, listed, cancelled, run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from sqlmodel import Session

from hubbub.envelope import rfc3339
from hubbub.errors import InvalidError, NotFoundError
from hubbub.intake import check_text
from hubbub.rights import may_work, task_types_of, tasks_shown
from hubbub.store.reads import deliveries as delivery_reads
from hubbub.store.reads import tasks as reads
from hubbub.store.tables import DeliveryRow, TaskAttemptRow
from hubbub.times import parse_deadline, parse_duration
from hubbub.values import Principal, Submission, Task, TaskState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.inputs import (
    CURSOR,
    IDEMPOTENCY_KEY,
    LIMIT,
    TRACEPARENT,
    TaskIn,
    choice_of,
    text,
)
from hubbub.web.shapes import AttemptView, TaskDetail, TaskList, TaskSubmitted, TaskView
from hubbub.web.views import delivery_view, moment, task_view

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/tasks"
WORK: Final = ("tasks", "tasks:PATTERN")
LOOK: Final = (*WORK, "read")
MAY_SUBMIT: Final = frozenset({"publish:tasks.*.request"})
"""What comes with the scope for a task's type: to publish the request where the hub says."""


class SubmissionIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task that somebody wants done."""

    task_type: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    text: str | None = None
    labels: dict[str, str] = {}
    to: str | None = None
    priority: int = 5
    timeout: str | float | None = None
    max_attempts: int | None = None
    not_before: str | float | None = None
    retry_on_failure: bool = False
    task_id: str | None = None
    key: str | None = None
    reply_to: str | None = None
    expires: str | float | None = None


async def submit(call: Call) -> Reply:
    """Submit a task."""
    core, who = call.core, call.principal
    given = await call.json(SubmissionIn)
    work = _submission(
        given,
        who,
        now_us=core.clock.now_us(),
        idempotency_key=call.header(b"idempotency-key"),
        traceparent=call.traceparent,
    )
    principal = replace(who, scopes=who.scopes | MAY_SUBMIT)
    try:
        receipt = await core.submit(work, principal=principal)
    except InvalidError as error:
        error.index = None
        raise
    task_id = receipt.task_id or given.task_id or receipt.id
    task = await core.work.find(task_id)
    state = TaskState.QUEUED if task is None else task.state
    trace_id = receipt.trace_id if task is None else task.trace_id
    return Reply(202, TaskSubmitted(task_id, state, trace_id))


def _submission(
    given: SubmissionIn,
    who: Principal,
    *,
    now_us: int,
    idempotency_key: str | None,
    traceparent: str,
) -> Submission:
    """Return what was submitted, times being read.

    Raises:
        InvalidError: a member is not valid.
    """
    check_text("task_type", given.task_type)
    timeout, due, expires = given.timeout, given.not_before, given.expires
    due_us = None if due is None else parse_deadline(due, what="not_before", now_us=now_us)
    return Submission(
        task_type=given.task_type,
        source=who.source,
        params=given.params,
        task_id=given.task_id,
        text=given.text,
        to=() if given.to is None else (given.to,),
        labels=given.labels,
        priority=given.priority,
        timeout_s=None if timeout is None else parse_duration(timeout, what="timeout"),
        max_attempts=given.max_attempts,
        not_before=None if due_us is None else rfc3339(due_us),
        retry_on_failure=given.retry_on_failure,
        key=given.key,
        reply_to=given.reply_to,
        expires_us=(
            None if expires is None else parse_deadline(expires, what="expires", now_us=now_us)
        ),
        idempotency_key=idempotency_key,
        traceparent=traceparent,
    )


async def listed(call: Call) -> Reply:
    """List tasks, newest first."""
    state = pages.choice(call, "state", [state.value for state in TaskState])
    task_type = call.argument("task_type")
    types = tasks_shown(call.principal, task_type)
    limit, before = pages.limit_of(call), pages.number_after(call)
    found, after = await call.core.read(
        lambda session: reads.listed(
            session, state=state, task_types=types, before=before, limit=limit
        )
    )
    return pages.page(map(task_view, found), after, places=[task.seq for task in found])


async def show(call: Call) -> Reply:
    """Show one task, its hand-overs and its deliveries."""
    task_id = call.params["id"]

    def find(
        session: Session,
    ) -> tuple[Task, Sequence[TaskAttemptRow], Sequence[DeliveryRow], str] | None:
        task = reads.one(session, task_id)
        if task is None:
            return None
        rows = (
            []
            if task.envelope_seq is None
            else delivery_reads.of_envelope(session, task.envelope_seq)
        )
        subject = delivery_reads.subject_of(session, task.envelope_seq)
        return task, reads.attempts(session, task_id), rows, subject

    await call.settled()
    found = await call.core.read(find)
    if found is None:
        raise NotFoundError(f"no task {task_id[:100]!r}; `hubbub tasks ls` shows the latest")
    task, attempts, rows, subject = found
    tasks_shown(call.principal, task.task_type)
    held = call.core.room.held(row.id for row in rows if row.state == "pending")
    envelope_id = task.envelope_id or ""
    shown = TaskDetail(
        **msgspec.structs.asdict(task_view(task)),
        attempts=[_attempt(row) for row in attempts],
        deliveries=[delivery_view(row, envelope_id, subject, held) for row in rows],
    )
    return Reply(200, shown)


def _attempt(row: TaskAttemptRow) -> AttemptView:
    return AttemptView(
        run=row.run,
        attempt=row.attempt,
        endpoint=row.endpoint,
        worker=row.worker,
        started_at=rfc3339(row.started_us),
        ended_at=moment(row.ended_us),
        outcome=row.outcome,
        error=row.error,
    )


async def cancel(call: Call) -> Reply:
    """Take a task back."""
    await _check_type(call)
    task = await call.core.work.cancel(call.params["id"])
    await call.core.audit(call.principal.name, "task.cancel", task.id)
    return Reply(200, task_view(task))


async def _check_type(call: Call) -> None:
    """Check that the caller has to do with the type of the task that is named.

    Raises:
        ForbiddenError: it has not.
    """
    if task_types_of(call.principal) is not None:
        task = await call.core.work.find(call.params["id"])
        if task is not None:
            may_work(call.principal, task.task_type)


async def retry(call: Call) -> Reply:
    """Let a task that has ended run once more."""
    await _check_type(call)
    task = await call.core.work.rerun(call.params["id"])
    await call.core.audit(call.principal.name, "task.retry", task.id, f"run {task.run}")
    return Reply(202, task_view(task))


OPERATIONS: Final = (
    Operation(
        "POST",
        PATH,
        submit,
        "Submit a task",
        WORK,
        Spec(
            answers={202: TaskSubmitted},
            body=TaskIn,
            parameters=(IDEMPOTENCY_KEY, TRACEPARENT),
            problems=(409, 429),
        ),
    ),
    Operation(
        "GET",
        PATH,
        listed,
        "Tasks, newest first",
        LOOK,
        Spec(
            answers={200: TaskList},
            parameters=(
                choice_of("state", "A state.", [state.value for state in TaskState]),
                text("task_type", "A task type."),
                LIMIT,
                CURSOR,
            ),
        ),
    ),
    Operation(
        "POST",
        PATH + "/{id}/cancel",
        cancel,
        "Take a task back",
        WORK,
        Spec(answers={200: TaskView}, problems=(404, 409)),
    ),
    Operation(
        "POST",
        PATH + "/{id}/retry",
        retry,
        "Run a finished task again",
        WORK,
        Spec(answers={202: TaskView}, problems=(404, 409)),
    ),
    Operation(
        "GET",
        PATH + "/{id}",
        show,
        "One task and its history",
        LOOK,
        Spec(answers={200: TaskDetail}, problems=(404,)),
    ),
)
