"""One batch of the journal inside its transaction: what holds, and the statements that write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table

from hubbub.ports import Change, Claim, Kept, Record
from hubbub.store.rows import (
    ATTEMPTS,
    CHANGING,
    STATE,
    TASK_CHANGING,
    UPDATED,
    Changed,
    attempt_values,
    changed_task_values,
    claim_values,
    delivery_values,
    envelope_values,
    task_values,
)
from hubbub.store.statements import insert_rows, rows_with, update_rows
from hubbub.store.tables import (
    ClaimRow,
    DeliveryRow,
    EnvelopeRow,
    TaskAttemptRow,
    TaskRow,
    table_of,
)
from hubbub.values import Attempt, DeliveryState, Task

__all__ = ["Batch"]

_envelope = table_of(EnvelopeRow)
_delivery = table_of(DeliveryRow)
_task = table_of(TaskRow)
_attempt = table_of(TaskAttemptRow)
_claim = table_of(ClaimRow)

_ATTEMPT_KEY = ("task_id", "run", "attempt")
_ATTEMPT_END = ("ended_us", "outcome", "error")
_CLAIM_COLUMNS = tuple(column.name for column in _claim.columns)

_KEPT = Kept("kept")
_EXISTS = Kept("exists")

_AttemptKey = tuple[str, int, int]


class Batch:
    """Decides, in order of arrival, what counts; then writes it all with one statement a table."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claims: dict[tuple[str, str, str], Claim] = {}
        self._runs: dict[str, int] = {}
        self._orphans: dict[str, str] = {}
        self._replaced: list[str] = []
        self._deliveries: dict[int, tuple[str, int]] = {}
        self._inserts: dict[Table, list[tuple[object, ...]]] = {}
        self._changed: dict[int, Changed] = {}
        self._tasks: dict[str, tuple[object, ...]] = {}
        self._begun: dict[_AttemptKey, tuple[object, ...]] = {}
        self._attempts: dict[_AttemptKey, tuple[object, str, str | None]] = {}
        self._uncounted: list[_AttemptKey] = []

    def look_up(
        self, *, claims: Sequence[Claim], task_ids: Sequence[str], delivery_ids: Sequence[int]
    ) -> None:
        """Read the rows that this batch's conditions are about, and lock them."""
        connection = self._connection
        names = [(claim.principal, claim.kind, claim.name) for claim in claims]
        for row in rows_with(connection, _claim, _CLAIM_COLUMNS, names):
            found = Claim(*row)
            self._claims[found.principal, found.kind, found.name] = found
        known = ("id", "run", "orphan", "asker")
        for task_id, run, orphan, asker in rows_with(connection, _task, known, _keys(task_ids)):
            self._runs[task_id] = run
            if orphan:
                self._orphans[task_id] = asker
        states = ("id", "state", "attempts")
        for row in rows_with(connection, _delivery, states, _keys(delivery_ids), lock=True):
            self._deliveries[row[0]] = (row[1], row[2])

    def keep(self, record: Record) -> Kept:
        """Keep a record, unless it was claimed before or one of its tasks exists.

        A result that nobody asked for ends no task that somebody asks for by another adapter, who
        would take as acknowledged what is not there: it makes way.
        """
        refused = self._refusal(record)
        if refused is not None:
            return refused
        for claim in record.claims:
            self._claims[claim.principal, claim.kind, claim.name] = claim
            self._insert(_claim, claim_values(claim))
        for task in record.tasks:
            if self._orphans.pop(task.id, None) is not None:
                self._replace(task.id)
            if task.orphan:
                self._orphans[task.id] = task.asker
            self._runs[task.id] = task.run
            self._insert(_task, task_values(task))
        for task in record.reruns:
            self._runs[task.id] = task.run
            self._tasks[task.id] = changed_task_values(task)
        if record.envelopes:
            self._insert_all(_envelope, map(envelope_values, record.envelopes))
        if record.attempts:
            for attempt in record.attempts:
                self._begin(attempt)
        if record.deliveries:
            self._insert_all(_delivery, map(delivery_values, record.deliveries))
        for table, values in record.rows:
            self._insert(table, values)
        return _KEPT

    def _refusal(self, record: Record) -> Kept | None:
        for claim in record.claims:
            found = self._claims.get((claim.principal, claim.kind, claim.name))
            if found is not None:
                return Kept("known", found)
        for task in record.tasks:
            if task.id in self._runs and not self._makes_way(task):
                return _EXISTS
        for task in record.reruns:
            if self._runs.get(task.id) != task.run - 1:
                return _EXISTS
        return None

    def _makes_way(self, task: Task) -> bool:
        """Tell whether what is there is only a result, which another adapter brought."""
        asker = self._orphans.get(task.id)
        return not (asker is None or task.orphan or _adapter(asker) == _adapter(task.asker))

    def _replace(self, task_id: str) -> None:
        """Take an orphan away, which this batch may have brought itself."""
        self._replaced.append(task_id)
        inserts = self._inserts.get(_task, [])
        self._inserts[_task] = [values for values in inserts if values[0] != task_id]

    def change(self, change: Change, snapshot: Changed) -> bool:
        """Apply a change, if its delivery is not done and the attempt is the one it speaks of."""
        delivery = change.delivery
        state, attempts = self._deliveries.get(delivery.id, (DeliveryState.DONE, 0))
        if state == DeliveryState.DONE or (
            change.attempt_is is not None and change.attempt_is != attempts
        ):
            if change.otherwise is not None:
                self.keep(change.otherwise)
            return False
        self._changed[delivery.id] = snapshot
        attempts_now = snapshot[ATTEMPTS]
        self._deliveries[delivery.id] = (snapshot[STATE], attempts_now)
        if change.task is not None:
            self._tasks[change.task.id] = changed_task_values(change.task)
            if change.ended is not None and state == DeliveryState.IN_FLIGHT:
                key = (change.task.id, change.task.run, attempts)
                if attempts_now < attempts:  # given back: its number is used again
                    if self._begun.pop(key, None) is None:
                        self._uncounted.append(key)
                else:
                    self._attempts[key] = (snapshot[UPDATED], change.ended, change.error)
        if change.attempt is not None:
            if state == DeliveryState.IN_FLIGHT and attempts_now == attempts:
                # Whoever asked for the same one before was told that it was not written.
                key = (change.attempt.task_id, change.attempt.run, attempts)
                self._uncounted.append(key)
            self._begin(change.attempt)
        if change.follows is not None:
            self.keep(change.follows)
        return True

    def write(self) -> None:
        """Write all that held."""
        connection = self._connection
        if self._changed:
            changed = list(self._changed.values())
            update_rows(connection, _delivery, ("id",), CHANGING, changed)
        if self._replaced:
            connection.execute(_task.delete().where(_task.c.id.in_(self._replaced)))
        for table, rows in self._inserts.items():
            insert_rows(connection, table, rows)
        if self._tasks:
            tasks = list(self._tasks.values())
            update_rows(connection, _task, ("id",), TASK_CHANGING, tasks)
        self._write_attempts()

    def _write_attempts(self) -> None:
        """Write the history of tasks: what never was, what began, what ended; in this order."""
        connection = self._connection
        for key in self._uncounted:
            of_attempt = [
                _attempt.c[name] == part for name, part in zip(_ATTEMPT_KEY, key, strict=True)
            ]
            connection.execute(_attempt.delete().where(*of_attempt))
        if self._begun:
            insert_rows(connection, _attempt, list(self._begun.values()))
        if self._attempts:
            attempts = [(*how, *key) for key, how in self._attempts.items()]
            update_rows(connection, _attempt, _ATTEMPT_KEY, _ATTEMPT_END, attempts)

    def _begin(self, attempt: Attempt) -> None:
        self._begun[attempt.task_id, attempt.run, attempt.attempt] = attempt_values(attempt)

    def _insert(self, table: Table, values: tuple[object, ...]) -> None:
        rows = self._inserts.get(table)
        if rows is None:
            rows = self._inserts[table] = []
        rows.append(values)

    def _insert_all(self, table: Table, values: Iterable[tuple[object, ...]]) -> None:
        self._inserts.setdefault(table, []).extend(values)


def _adapter(address: str) -> str:
    return address.split(".", 1)[0]


def _keys(ids: Iterable[object]) -> list[tuple[object, ...]]:
    return [(one,) for one in dict.fromkeys(ids)]
