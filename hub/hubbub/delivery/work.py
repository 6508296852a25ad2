"""Work: what workers and askers do with tasks, in one place (`ports.Work`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hubbub.delivery.askers import Askers
from hubbub.delivery.finals import Finals
from hubbub.delivery.ledger import Ledger
from hubbub.delivery.pulling import Pulling
from hubbub.delivery.results import Results, Said
from hubbub.delivery.room import DeliveryRoom
from hubbub.ports import Finished, Leased, Row
from hubbub.store.database import Database
from hubbub.values import Task, TaskResult

__all__ = ["WorkDesk"]


class WorkDesk:
    """The tasks of one hub, for those who do them and those who asked for them."""

    def __init__(self, room: DeliveryRoom, database: Database) -> None:
        self.ledger: Final = Ledger(room, database)
        finals = Finals(room)
        self.pulling: Final = Pulling(room, self.ledger)
        self._results = Results(room, self.ledger, finals)
        self._askers = Askers(room, self.ledger, finals)

    async def lease(
        self,
        patterns: Sequence[str],
        *,
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None = None,
        wait_us: int = 0,
    ) -> list[Leased]:
        """Take up to `limit` tasks that wait for pull endpoints (`Pulling.lease`)."""
        return await self.pulling.lease(
            patterns,
            worker=worker,
            limit=limit,
            lease_us=lease_us,
            task_types=task_types,
            wait_us=wait_us,
        )

    def close(self) -> None:
        """Answer all who wait, with nothing."""
        self.pulling.close()

    async def renew(self, task_id: str, *, worker: str | None, lease_us: int) -> int:
        """Move the end of a lease (`Pulling.renew`)."""
        return await self.pulling.renew(task_id, worker=worker, lease_us=lease_us)

    async def begin(self, task_id: str, *, worker: str, lease_us: int) -> bool:
        """Note that a worker does a task it has not taken (`Pulling.begin`)."""
        return await self.pulling.begin(task_id, worker=worker, lease_us=lease_us)

    async def finish(
        self,
        result: TaskResult,
        *,
        by: str,
        anyone: bool = False,
        rows: Sequence[Row] = (),
        late_rows: Sequence[Row] = (),
    ) -> Finished:
        """Take a result (`Results.take`)."""
        return await self._results.take(
            Said(result=result, by=by, anyone=anyone, rows=rows, late_rows=late_rows)
        )

    async def given(self, task: Task) -> frozenset[str]:
        """Return the endpoints that have a task, or had it in any attempt of any run."""
        runs = await self.ledger.runs_by_endpoint(task)
        return frozenset(runs) if task.endpoint is None else frozenset((task.endpoint, *runs))

    async def cancel(self, task_id: str) -> Task:
        """Take a task back (`Askers.cancel`)."""
        return await self._askers.cancel(task_id)

    async def rerun(self, task_id: str, *, attempts: int | None = 1) -> Task:
        """Let a task that has ended run once more (`Askers.rerun`)."""
        return await self._askers.rerun(task_id, attempts)

    async def find(self, task_id: str) -> Task | None:
        """Return a task as it is now."""
        return (await self.ledger.find(task_id))[0]
