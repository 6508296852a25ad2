"""What workers say of tasks as envelopes: results, and signs of progress."""

from __future__ import annotations

from hubbub.delivery.work import WorkDesk
from hubbub.envelope import Envelope
from hubbub.errors import ConflictError, InvalidError, NotFoundError, NotGivenError
from hubbub.rights import may_work, task_types_of
from hubbub.store.database import Database
from hubbub.store.reads import envelopes
from hubbub.tasks import read_request, read_result, read_update
from hubbub.values import Principal, Receipt, Task, TaskState

__all__ = ["Workers"]


class Workers:
    """Takes what workers say, from those who were given the task."""

    def __init__(self, work: WorkDesk, database: Database) -> None:
        self._work = work
        self._database = database

    async def take_result(
        self, envelope: Envelope, *, by: str, principal: Principal | None = None
    ) -> Receipt:
        """Take the result of a task from the endpoint that was given it.

        Args:
            by: Address of that endpoint.
            principal: Who says so; None for an adapter.

        Returns:
            The receipt of the result that counts, which is another one's where this is late; of
            the request, where the task is tried again.

        Raises:
            NotFoundError: no such task.
            ForbiddenError: the principal may not end tasks of this type.
            NotGivenError: this endpoint never was given the task.
            ConflictError: it was given an earlier run of it only.
        """
        result = read_result(envelope)
        if principal is not None and task_types_of(principal) is not None:
            may_work(principal, (await self._find(result.task_id)).task_type)
        finished = await self._work.finish(result, by=by)
        task = finished.task
        if task is None:
            raise _unknown(result.task_id)
        if finished.verdict == "stranger" and finished.earlier:
            raise ConflictError(
                f"task {task.id!r} runs again, and this run was not given to {by!r}"
            )
        if finished.verdict == "stranger":
            raise NotGivenError(task_id=task.id, by=by)
        if finished.published is not None:
            return finished.published
        late = finished.verdict == "late"
        found = (
            await self._database.read(lambda session: envelopes.result_of(session, task))
            if late
            else None
        )
        return Receipt(
            id=found[0] if found is not None else task.envelope_id or task.id,
            trace_id=task.trace_id,
            outcome="accepted",
            deliveries=0 if found is None else found[1],
            duplicate=late,
            task_id=task.id,
        )

    async def check_update(self, envelope: Envelope, *, by: str, principal: Principal) -> None:
        """Check a sign of progress before it is published.

        Raises:
            InvalidError: it cannot be read, or says that the task has ended.
            NotFoundError: no such task.
            ForbiddenError: the principal has nothing to do with tasks of this type.
            NotGivenError: this endpoint never was given the task.
        """
        update = read_update(envelope)
        if update.state in (state.value for state in TaskState if state.final):
            raise InvalidError(
                f"an update cannot say that a task is {update.state!r}; "
                "publish a `hubbub.task.result.v1`"
            )
        task = await self._find(update.task_id)
        may_work(principal, task.task_type)
        if by not in await self._work.given(task):
            raise NotGivenError(task_id=task.id, by=by)

    async def given(self, request: Envelope) -> frozenset[str]:
        """Return the endpoints that ever were given the task of a request."""
        task_id = read_request(request).task_id
        task = None if task_id is None else await self._work.find(task_id)
        return frozenset() if task is None else await self._work.given(task)

    async def _find(self, task_id: str) -> Task:
        task = await self._work.find(task_id)
        if task is None:
            raise _unknown(task_id)
        return task


def _unknown(task_id: str) -> NotFoundError:
    return NotFoundError(f"no task {task_id[:100]!r}")
