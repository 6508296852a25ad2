"""Those who look at tasks: readers, observers of envelopes, plugins. What they see is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from hubbub.core import Core
from hubbub.envelope import TASK_RESULT, TASK_UPDATE, Envelope
from hubbub.errors import HubError
from hubbub.values import Delivery, Task
from tests.hub.invariants.rules import BrokenRuleError, TaskFacts

if TYPE_CHECKING:
    from tests.hub.invariants.checks import StoreChecks

__all__ = ["Onlookers"]


class Onlookers:
    """Looks at the tasks of a hub, over all its lives.

    Attributes:
        ends: Runs that were shown as ended: state and result, by the task's id and the run.
    """

    def __init__(
        self, store: StoreChecks, seed: int, *, broken: Callable[[BaseException], object]
    ) -> None:
        self._store = store
        self._chance = Random(seed + 2)  # of its own, so that it disturbs no run
        self._broken = broken
        self._reading: set[asyncio.Task[None]] = set()
        self.ends: dict[tuple[str, int], tuple[str, bytes | None]] = {}

    # What a hub shows by itself

    def envelope(self, envelope: Envelope) -> None:
        """See an envelope that was accepted."""
        if envelope.type == TASK_RESULT and envelope.id not in self._store.rows.envelopes:
            self._wrong(f"a result is shown, and not stored: {envelope.data!r}")
        if envelope.type == TASK_UPDATE:
            said: Any = envelope.json()
            if envelope.id in self._store.rows.envelopes:
                self._stored_update(said["task_id"], said["state"], said["attempt"])
            else:
                self._update(said["task_id"], said["state"], said["attempt"])

    def _stored_update(self, task_id: str, state: str, attempt: int) -> None:
        """Check an update that a route has stored: it is shown after a commit of its own.

        That a task waits may be followed by more in the commit that says so.
        """
        said = [one for one in self._store.history if one.id == task_id]
        if state == "dispatched":
            said = [one for one in said if (one.state, one.attempt) == (state, attempt)]
        if not said:
            self._wrong(f"told {state} by attempt {attempt}, and never stored for {task_id}")

    def _update(self, task_id: str, state: str, attempt: int) -> None:
        """Check an update; that a task waits again may be followed by more in the same commit."""
        row = self._store.rows.tasks.get(task_id)
        has_it = row is not None and (row.state, row.attempt) == ("dispatched", attempt)
        if row is None or has_it != (state == "dispatched"):
            self._wrong(f"told {state} by attempt {attempt}, stored {row}")

    def ended(self, delivery: Delivery) -> None:
        """See a delivery that has ended, as plugins and metrics do."""
        if not delivery.leased:
            return
        row = self._store.rows.deliveries.get(delivery.id)
        if row is None or (row.outcome, row.reason) != (delivery.outcome, delivery.reason):
            self._wrong(f"{delivery.id} is {delivery.outcome}: {delivery.reason}, stored {row}")

    # What it answers

    def look(self, core: Core, task_ids: list[str]) -> None:
        """Ask for some of the latest tasks."""
        for task_id in task_ids[-6:]:
            if self._chance.random() < 0.3:
                reading = asyncio.get_running_loop().create_task(self._read(core, task_id))
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)

    async def _read(self, core: Core, task_id: str) -> None:
        known = dict(self.ends)
        try:
            task = await core.work.find(task_id)
        except HubError:
            return
        if task is None:
            return
        facts = TaskFacts(**{name: getattr(task, name) for name in TaskFacts._fields})
        if facts not in self._store.history:
            self._wrong(f"shown, and never stored: {facts}")
        end = known.get((task.id, task.run), (task.state, task.result))
        if end != (task.state, task.result):
            self._wrong(f"{task.id} was {end} in run {task.run}, and is {facts}")
        self.told(task)

    def told(self, task: Task) -> None:
        """Check what somebody was told who acted on a task, or asked: an end is written."""
        if task.state.final:
            self.ends[task.id, task.run] = (task.state, task.result)
            if self._store.run_ends.get((task.id, task.run)) != task.state:
                self._wrong(f"told, and not stored: {task}")

    def leave(self) -> None:
        """Ask nothing more: who is asked is dead."""
        for reading in self._reading:
            reading.cancel()

    def _wrong(self, fact: str) -> None:
        self._broken(BrokenRuleError(15, fact))
