"""The journal: one writer, group commit, no timer.

While the writer commits, entries gather; they are the next batch. One batch is one transaction, in
the order: claims, conditions, changes, inserts. What an entry asks for is decided here on the rows
as they stand inside the transaction, so that of two results for one delivery exactly one counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from hubbub.errors import ConflictError, HubError, StoreUnavailableError
from hubbub.observe.metrics import Metrics
from hubbub.ports import Change, Kept, Record
from hubbub.store.batch import Batch
from hubbub.store.rows import changed_values
from hubbub.values import DeliveryState

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_ENTRIES", "Journal", "Statement"]

MAX_BATCH_ENTRIES: Final = 512
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024

_DONE: Final = DeliveryState.DONE
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def _ended(snapshot: tuple[object, ...]) -> tuple[int, object]:
    """Return the id and the state of `changed_values`."""
    delivery_id = snapshot[-1]
    assert isinstance(delivery_id, int)
    return delivery_id, snapshot[1]


Statement = tuple[Executable, list[dict[str, Any]]]


@dataclass(slots=True, eq=False)
class Entry:
    """One thing to write, whole or not at all; `future` is there when somebody waits."""

    record: Record | None = None
    changes: Sequence[Change] = ()
    snapshots: Sequence[tuple[object, ...]] = ()
    statements: Sequence[Statement] = ()
    future: asyncio.Future[Any] | None = None
    then: Callable[[bool], None] | None = None
    kept: Callable[[Kept | None], None] | None = None
    size: int = 0
    answer: Kept | list[bool] | None = None


@dataclass(slots=True)
class _Health:
    problem: str | None = None
    pause_s: float = _FIRST_PAUSE_S


class Journal:
    """Writes everything, on a thread of its own. Call its methods on the event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        metrics: Metrics,
        settled: Callable[[Sequence[int]], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._settled = settled
        self._waiting: deque[Entry] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._health = _Health()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="hubbub-journal", daemon=True)
        self._stopped: asyncio.Event = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Why the store cannot be written just now; None while it can."""
        return self._health.problem

    def start(self) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Write what is queued and end."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            await self._stopped.wait()

    def keep(
        self, record: Record, then: Callable[[Kept | None], None] | None = None
    ) -> asyncio.Future[Kept]:
        """Keep a record whole or not at all; safe on return.

        Args:
            then: Called after the commit, also when nobody waits any more; with None when
                nothing was kept.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        size = 0
        for stored in record.envelopes:
            size += len(stored.envelope.data)
        return self._submit(Entry(record=record, size=size, kept=then))

    async def settle(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Write changes in one commit; True for each one that counted.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        snapshots = [changed_values(change.delivery) for change in changes]
        counted: Sequence[bool] = await self._submit(Entry(changes=changes, snapshots=snapshots))
        return counted

    def note(self, change: Change, then: Callable[[bool], None] | None = None) -> None:
        """Write a change with a next commit, kept until that succeeds; nobody waits for it."""
        snapshot = changed_values(change.delivery)
        self._push(Entry(changes=(change,), snapshots=(snapshot,), then=then))

    async def execute(self, *statements: Statement) -> None:
        """Run statements that are not on the path of a message (routes, tokens, audit).

        Args:
            statements: Each with the rows to run it for; none to run it once.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        await self._submit(Entry(statements=statements))

    async def flush(self) -> None:
        """Return when all that was handed over before is written."""
        await self._submit(Entry())

    def _submit(self, entry: Entry) -> asyncio.Future[Any]:
        entry.future = asyncio.get_running_loop().create_future()
        self._push(entry)
        return entry.future

    def _push(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if not self._wake.is_set():
            self._wake.set()

    def _gather(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        waiting = self._waiting
        while waiting and len(entries) < MAX_BATCH_ENTRIES and size < MAX_BATCH_BYTES:
            entry = waiting.popleft()
            size += entry.size
            entries.append(entry)
        return entries

    def _run(self) -> None:
        connection: Connection | None = None
        while True:
            self._wake.wait()
            entries = self._gather()
            if not entries:
                if self._stopping:
                    break
                self._wake.clear()
                if self._waiting:
                    self._wake.set()
                continue
            try:
                connection = connection or self._engine.connect()
                self._write(connection, entries)
            except (OperationalError, InterfaceError, OSError) as error:
                connection = self._lost(connection, entries, error)
            else:
                self._recovered()
                self._call(self._resolve, entries)
        if connection is not None:
            connection.close()
        self._call(self._stopped.set)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _write(self, connection: Connection, entries: list[Entry]) -> None:
        began = perf_counter()
        try:
            self._commit(connection, entries)
        except (OperationalError, InterfaceError):
            raise
        except DBAPIError as error:
            if len(entries) == 1:
                entries[0].answer = None
                self._refuse(entries[0], error)
            else:
                for entry in entries:
                    self._write(connection, [entry])
        self._metrics.journal_commit_seconds.observe(perf_counter() - began)
        self._metrics.journal_batch_size.observe(len(entries))

    def _commit(self, connection: Connection, entries: list[Entry]) -> None:
        with connection.begin():
            batch = Batch(connection)
            batch.look_up(
                claims=[c for e in entries if e.record for c in e.record.claims],
                task_ids=[
                    t.id for e in entries if e.record for t in (*e.record.tasks, *e.record.reruns)
                ],
                delivery_ids=[change.delivery.id for e in entries for change in e.changes],
            )
            for entry in entries:
                if entry.record is not None:
                    entry.answer = batch.keep(entry.record)
                if entry.changes:
                    entry.answer = [
                        batch.change(change, snapshot)
                        for change, snapshot in zip(entry.changes, entry.snapshots, strict=True)
                    ]
            batch.write()
            for entry in entries:
                for statement, rows in entry.statements:
                    connection.execute(statement, rows or None)

    def _refuse(self, entry: Entry, error: DBAPIError) -> None:
        kind = "conflicts with what is stored" if isinstance(error, IntegrityError) else "is bad"
        log.error("store.entry_refused", error=type(error.orig).__name__, detail=str(error.orig))
        refusal = ConflictError(f"the database refused this entry, it {kind}: {error.orig}")
        self._call(self._fail, [entry], refusal)

    def _lost(
        self, connection: Connection | None, entries: list[Entry], error: Exception
    ) -> Connection | None:
        """Answer those who wait, keep what nobody waits for, and pause before the next try."""
        cause = getattr(error, "orig", None) or error
        problem = f"the store cannot be written: {cause}"
        if self._health.problem is None:
            log.error("store.unavailable", error=str(cause))
        self._health.problem = problem
        if connection is not None:
            connection.invalidate()
            connection.close()
        self._call(self._fail, [e for e in entries if e.future], StoreUnavailableError(problem))
        self._waiting.extendleft(reversed([e for e in entries if e.future is None]))
        pause_s = self._health.pause_s
        self._health.pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
        if self._stopping:
            self._waiting.clear()
        else:
            threading.Event().wait(pause_s)
        return None

    def _recovered(self) -> None:
        if self._health.problem is not None:
            log.info("store.recovered")
            self._health.problem = None
            self._health.pause_s = _FIRST_PAUSE_S

    def _fail(self, entries: Sequence[Entry], error: HubError) -> None:
        for entry in entries:
            if entry.future is not None and not entry.future.done():
                entry.future.set_exception(error)
            if entry.kept is not None:
                entry.kept(None)

    def _resolve(self, entries: list[Entry]) -> None:
        """Answer all who wait, in order of arrival; only then does anything move on."""
        done: list[int] = []
        for entry in entries:
            # Only what ended: a retry is still in memory, and must not be read from the store.
            done += [id_ for id_, state in map(_ended, entry.snapshots) if state == _DONE]
            future = entry.future
            if future is not None and not future.done():
                future.set_result(entry.answer)
        if done:
            self._settled(done)
        for entry in entries:
            if entry.kept is not None and isinstance(entry.answer, Kept):
                entry.kept(entry.answer)
            elif entry.then is not None and isinstance(entry.answer, list):
                entry.then(entry.answer[0])
