"""What workers and askers do with tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from hubbub.envelope import Envelope
from hubbub.ports.records import Row
from hubbub.values import Receipt, Task, TaskResult

__all__ = ["Finished", "Leased", "Work"]


class Leased(msgspec.Struct, frozen=True):
    """A task request that a pull worker took, and until when it is its own."""

    envelope: Envelope
    task_id: str
    attempt: int
    lease_until_us: int


class Finished(msgspec.Struct, frozen=True):
    """What became of a result.

    Attributes:
        verdict: `done`: it is the result. `late`: another one was first. `again`: the worker
            failed and the task waits for its next attempt. `unknown`: nobody asked for it.
            `stranger`: it comes from an endpoint that was never given the task, or not this run.
        task: The task as it was written; None when it is unknown.
        published: The result's envelope, when it is the result.
        earlier: Of a stranger: it was given an earlier run.
    """

    verdict: Literal["done", "late", "again", "unknown", "stranger"]
    task: Task | None
    published: Receipt | None = None
    earlier: bool = False


class Work(Protocol):
    """What workers and askers do with tasks."""

    async def lease(
        self,
        patterns: Sequence[str],
        *,
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None = None,
        wait_us: int = 0,
        credential: str = "",
    ) -> list[Leased]:
        """Take up to `limit` tasks that wait for pull endpoints, lowest rank first.

        Fewer where they are large: at least one, and others up to `PAGE_BYTES`.

        Args:
            credential: What the worker came with (`ports.Credentials`): when it ends the tasks
                wait again, and the attempts do not count. So with the next two.
        """
        ...

    async def renew(
        self, task_id: str, *, worker: str | None, lease_us: int, credential: str = ""
    ) -> int:
        """Move the end of a lease; returns it, microseconds since the epoch."""
        ...

    async def begin(
        self, task_id: str, *, worker: str, lease_us: int, credential: str = ""
    ) -> bool:
        """Note that a worker does a task that waits, and that it has not taken; False if not."""
        ...

    async def finish(
        self,
        result: TaskResult,
        *,
        by: str,
        anyone: bool = False,
        rows: Sequence[Row] = (),
        late_rows: Sequence[Row] = (),
    ) -> Finished:
        """Take a result. The first final one counts; whoever comes later is told so."""
        ...

    async def cancel(self, task_id: str) -> Task:
        """Take a task back."""
        ...

    async def rerun(self, task_id: str, *, attempts: int | None = 1) -> Task:
        """Let a task that has ended run once more.

        Args:
            attempts: How many; None for as many as at first.
        """
        ...

    async def find(self, task_id: str) -> Task | None:
        """Return a task as the last commit left it: what is shown of it is never taken back."""
        ...

    async def current(self, task_id: str) -> Task | None:
        """Return a task to act on it, from memory where it is there.

        Its state may not be written yet, and a kill would take it back: show it to nobody.
        """
        ...
