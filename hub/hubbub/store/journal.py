"""The journal: one writer, group commit.

While the writer commits, entries gather; they are the next batch (`queue.py`). What nobody waits
for makes no batch of its own as long as another one comes soon: it goes along. One batch is one
transaction, in the order: claims, conditions, changes, inserts. What an entry asks for is decided
on the rows as they stand inside the transaction, so that of two results for one delivery exactly
one counts.

When the database cannot be used, the writer tries again until it can. Who waits is told after
`PATIENCE_S`, who comes later at once; what nobody waits for is kept and written afterwards. A
database that does not answer within `store.timeout` cannot be used; nor can a file that is not at
its path, and what was committed to it is acknowledged only when it is back there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, perf_counter, sleep
from typing import Any, Final

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hubbub.envelope import Envelope
from hubbub.errors import ConflictError, HubError, MemoryFullError, StoreUnavailableError
from hubbub.memory import MemoryBudget
from hubbub.observe.metrics import Metrics
from hubbub.ports import Change, Kept, Record
from hubbub.store.commits import CutOffError, commit, held, probe, see_tables
from hubbub.store.condition import Condition
from hubbub.store.database import Database
from hubbub.store.entries import Entry, Statement, done_in, unseen_in
from hubbub.store.files import StoreMovedError
from hubbub.store.outages import (
    cause_of,
    is_conflict,
    is_missing,
    is_outage,
)
from hubbub.store.queue import Queue
from hubbub.store.rows import changed_values
from hubbub.values import Delivery

__all__ = ["Journal", "Statement"]

JOURNAL_BYTES: Final = 64 * 1024 * 1024
"""Payload that waits to be written; what comes beyond that is refused, but for one record."""

LINGER_S: Final = 0.02
"""How long what nobody waits for may wait for a batch that takes it along, or that it makes. A kill
before that repeats a delivery, as a kill before any commit does."""

PATIENCE_S: Final = 1.0
"""A database that is back within this time is not noticed by those who wait."""

IDLE_S: Final = 1.0
"""Without work, the database is looked at this often: is it there, and still ours?"""

LOOKED_S: Final = 0.5
"""A look at the files of a database that is older is repeated before a commit is acknowledged."""

WATCH_S: Final = 0.25
"""How often the event loop sees whether the writer is late."""

STOPPED: Final = "the hub has stopped; ask again when it runs"
"""What those are told who come after the last batch."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Journal:
    """Writes everything, on a thread of its own. Call its methods on the event loop."""

    def __init__(
        self,
        database: Database,
        *,
        metrics: Metrics,
        memory: MemoryBudget | None = None,
        settled: Callable[[Sequence[int]], None] = lambda _: None,
        unseen: Callable[[Sequence[Delivery]], None] = lambda _: None,
    ) -> None:
        """Write nothing yet.

        Args:
            settled: Called with the deliveries of which an end was written.
            unseen: Called with new deliveries that were written after all, though those who asked
                for it were told otherwise: nobody has them in memory.
        """
        self._database = database
        self._metrics = metrics
        self._account: Final = (memory or MemoryBudget()).account(
            "journal", limit_bytes=JOURNAL_BYTES
        )
        self._settled = settled
        self._unseen = unseen
        self._queue: Final = Queue()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._writer: Connection | None = None
        self._is_file: Final = database.path is not None
        self._batch: list[Entry] = []
        self._began = 0.0
        self._patience_s = database.timeout_s
        self._condition: Final = Condition()
        self._detached = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lingers = False
        self._due = False
        self._thread = threading.Thread(target=self._run, name="hubbub-journal", daemon=True)
        self._stopped: asyncio.Event = asyncio.Event()
        self._watching: asyncio.TimerHandle | None = None

    @property
    def problem(self) -> str | None:
        """Why the store cannot be written just now; None while it can."""
        return self._condition.problem

    def start(self) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._watch()

    async def stop(self) -> None:
        """Write what is queued and end."""
        self._stop.set()
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
            MemoryFullError: so much waits to be written that this has no room.
        """
        size = 0
        for stored in record.envelopes:
            size += len(stored.envelope.data)
        entry = Entry(record=record, size=size, kept=then)
        if not self._account.room_for(size):
            entry.future = asyncio.get_running_loop().create_future()
            refusal = MemoryFullError(limit_bytes=JOURNAL_BYTES, setting=None)
            asyncio.get_running_loop().call_soon(self._fail, [entry], refusal)
            return entry.future
        for stored in record.envelopes:
            self._hold(entry, stored.envelope)
        return self._submit(entry)

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
        entry = Entry(changes=(change,), snapshots=(snapshot,), then=then)
        self._hold(entry, change.delivery.envelope)
        self._queue.add(entry)
        if not self._lingers:
            self._lingers = True
            asyncio.get_running_loop().call_later(LINGER_S, self._lingered)

    async def execute(self, *statements: Statement, patient: bool = False) -> None:
        """Run statements that are not on the path of a message (routes, tokens, audit).

        Args:
            statements: Each with the rows to run it for; none to run it once.
            patient: They may take longer than `store.timeout`.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        await self._submit(Entry(statements=statements, patient=patient))

    async def flush(self) -> None:
        """Return when all that was handed over before is written; at once where it never began."""
        if self._loop is not None:
            await self._submit(Entry())

    def _hold(self, entry: Entry, envelope: Envelope) -> None:
        """Count what an entry keeps in memory until it is answered."""
        self._account.add(envelope.data)
        entry.payloads.append(envelope.data)

    def _let_go(self, entries: Sequence[Entry]) -> None:
        """They are answered for good."""
        for entry in entries:
            for payload in entry.payloads:
                self._account.release(payload)
            entry.payloads.clear()

    def _submit(self, entry: Entry) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        entry.future = loop.create_future()
        problem = self._condition.problem
        if self._stopped.is_set():
            loop.call_soon(self._fail, [entry], StoreUnavailableError(STOPPED))
        elif problem is not None and self._condition.out_s > PATIENCE_S:
            loop.call_soon(self._fail, [entry], self._condition.refusal())
        else:
            self._push(entry)
        return entry.future

    def _push(self, entry: Entry) -> None:
        self._queue.add(entry)
        if not self._wake.is_set():
            self._wake.set()

    def _lingered(self) -> None:
        self._lingers = False
        if self._queue:
            self._due = True
            self._wake.set()

    def _gather(self) -> list[Entry]:
        """Take out the next batch."""
        due = self._due
        if due:  # only then: what is set meanwhile must not be lost
            self._due = False
        return self._queue.gather(due=due or self._stop.is_set())

    # On the journal's thread

    def _run(self) -> None:
        while True:
            woken = self._wake.wait(IDLE_S)
            self._wake.clear()
            entries = self._gather()
            if self._queue.waiting or self._stop.is_set():
                self._wake.set()
            if not entries:
                if self._stop.is_set():
                    break
                if woken:
                    continue
            self._batch = self._still_wanted(entries)
            self._patience_s = self._database.timeout_s
            self._began = monotonic()
            try:
                if self._batch:
                    self._write(self._connected(), self._batch)
                else:
                    self._look()
            except Exception as error:  # noqa: BLE001  # whatever it is, the writer must go on
                self._lost(self._batch, error)
                self._began = 0.0
            else:
                self._began = 0.0
                self._recovered()
                self._call(self._resolve, [entry for entry in self._batch if not entry.done])
            self._batch = []
        self._disconnect()
        self._call(self._ended)

    def _still_wanted(self, entries: list[Entry]) -> list[Entry]:
        """Return those that nobody was told of that they are not written; these are not."""
        told = [entry for entry in entries if entry.told]
        if not told:
            return entries
        self._call(self._fail, told, self._condition.refusal())
        return [entry for entry in entries if not entry.told]

    def _look(self) -> None:
        """See without work that the database can be used."""
        self._database.check_files()
        connection = self._connected()
        with self._in_time(connection):
            if self._is_file:
                see_tables(connection)
            else:
                probe(connection)

    def _connected(self) -> Connection:
        if self._writer is None:
            self._writer = self._database.writer()
        return self._writer

    def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(SQLAlchemyError, OSError):
                writer.invalidate()
                writer.close()

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _write(self, connection: Connection, entries: list[Entry]) -> None:
        """Commit entries; a bad one is refused alone."""
        began = perf_counter()
        try:
            if self._is_file:  # whose writes nothing ends
                commit(connection, entries)
            else:
                with self._in_time(connection, patient=any(entry.patient for entry in entries)):
                    commit(connection, entries)
        except Exception as error:
            if isinstance(error, CutOffError):
                raise
            if is_outage(error) and not self._is_foreign(connection, error):
                raise
            if len(entries) == 1:
                entries[0].answer = None
                self._refuse(entries[0], error)
            else:
                for entry in entries:
                    self._write_alone(connection, entry)
        else:
            self._see_that_it_is_there(entries)
        self._metrics.journal_commit_seconds.observe(perf_counter() - began)
        self._metrics.journal_batch_size.observe(len(entries))

    def _write_alone(self, connection: Connection, entry: Entry) -> None:
        """Commit one of a batch that was refused, and answer at once: the next may fail."""
        self._write(connection, [entry])
        if not entry.done:
            entry.done = True
            self._call(self._resolve, [entry])

    def _see_that_it_is_there(self, entries: list[Entry]) -> None:
        """Look at the files of the database, after a commit and before it is acknowledged."""
        try:
            self._database.check_files(within_s=LOOKED_S)
        except Exception:
            for entry in entries:
                entry.written = True
            raise

    @contextmanager
    def _in_time(self, connection: Connection, *, patient: bool = False) -> Generator[None]:
        """Do something on the connection that must be done within `store.timeout`."""
        with self._database.limited(connection, patient=patient) as limit:
            try:
                yield
            except Exception as error:
                if not limit.expired:
                    raise
                late = self._database.late()
                if isinstance(error, CutOffError):
                    raise CutOffError(error.ticket, late) from error
                raise late from error

    def _is_foreign(self, connection: Connection, error: Exception) -> bool:
        """Tell whether a statement lacks a table or column that is none of the hub's own."""
        if not is_missing(error):
            return False
        try:
            with self._in_time(connection):
                see_tables(connection)
        except Exception:  # noqa: BLE001  # whatever it is, it is no fault of the statement
            return False
        return True

    def _refuse(self, entry: Entry, error: Exception) -> None:
        cause = cause_of(error)
        why = "conflicts with what is stored" if is_conflict(error) else "is bad"
        log.error("store.entry_refused", error=type(cause).__name__, detail=str(cause))
        refusal = ConflictError(f"the database refused this entry, it {why}: {cause}")
        entry.done = True
        self._call(self._fail, [entry], refusal)

    # While the database is away

    def _lost(self, entries: list[Entry], error: Exception) -> None:
        """Try until the database can be used; then what was not written is written first."""
        ticket = error.ticket if isinstance(error, CutOffError) else None
        if ticket is None:  # else it may be known soon whether they are written
            self._patience_s = PATIENCE_S
        entries = [entry for entry in entries if not entry.done]
        pause_s = _FIRST_PAUSE_S
        while True:
            self._broken(error)
            out_s = self._condition.out_s
            if out_s > self._patience_s:
                entries = self._tell(entries, doubtful=ticket is not None)
            if out_s > PATIENCE_S:
                entries += self._tell(self._queue.take_all())
                if self._stop.is_set():
                    self._call(self._fail, entries, self._condition.refusal())
                    return
            sleep(_FIRST_PAUSE_S if self._stop.wait(pause_s) else 0)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            try:
                self._database.check_files()
                connection = self._connected()
                with self._in_time(connection):
                    if ticket is not None:
                        for entry in entries if held(connection, ticket) else ():
                            entry.written = True
                        ticket = None
                    if not entries or not all(entry.written for entry in entries):
                        probe(connection)
                break
            except Exception as again:  # noqa: BLE001  # as long as it takes
                error = again
        self._call(self._resolve, [entry for entry in entries if entry.written])
        self._once_more([entry for entry in entries if not entry.written])

    def _once_more(self, entries: list[Entry]) -> None:
        """Write first what was not written, but for those who were told so already."""
        self._queue.put_back(self._still_wanted(entries))
        if self._queue:
            self._due = True
            self._wake.set()
        else:
            self._recovered()

    def _tell(self, entries: list[Entry], *, doubtful: bool = False) -> list[Entry]:
        """Answer those who wait; returns the entries that are still to be written or decided."""
        lost: list[Entry] = []
        left: list[Entry] = []
        for entry in entries:
            if entry.future is None or doubtful or entry.written:
                left.append(entry)
                entry.told = entry.future is not None
            else:
                lost.append(entry)
        self._call(self._answer, [entry.future for entry in left], self._condition.refusal())
        self._call(self._fail, lost, self._condition.refusal())
        return left

    def _broken(self, error: Exception) -> None:
        """Say what is wrong, and let go of the connection."""
        error = self._condition.broken(error, since=self._began)
        if not isinstance(error, StoreMovedError):
            self._disconnect()
        elif self._writer is not None and not self._detached:
            # Nobody else may be using it yet; and nothing is written there from now on.
            self._detached = True
            self._database.complete_file(self._writer)

    def _recovered(self) -> None:
        self._detached = False
        self._condition.recovered()

    # On the event loop

    def _watch(self) -> None:
        """Answer those who wait, also while the writer itself waits and nothing can end that."""
        assert self._loop is not None
        self._watching = self._loop.call_later(WATCH_S, self._watch)
        began, condition, timeout_s = self._began, self._condition, self._database.timeout_s
        if condition.problem is None and began and monotonic() - began > timeout_s + WATCH_S:
            condition.broken(self._database.late(), since=began)
            if self._began != began:  # it was done just now
                condition.recovered()
        if condition.problem is None or condition.out_s <= PATIENCE_S:
            return
        waiting = self._queue.all_waiting()
        if condition.out_s > self._patience_s:
            waiting += [entry for entry in self._batch if not entry.patient]
        for entry in waiting:
            if entry.future is not None and not entry.future.done():
                entry.told = True
                entry.future.set_exception(condition.refusal())

    def _ended(self) -> None:
        """Nothing is written any more; who came too late is told so."""
        self._stopped.set()
        if self._watching is not None:
            self._watching.cancel()
        self._fail(self._queue.take_all(), StoreUnavailableError(STOPPED))

    def _answer(self, futures: Sequence[asyncio.Future[Any] | None], error: HubError) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(error)

    def _fail(self, entries: Sequence[Entry], error: HubError) -> None:
        self._let_go(entries)
        self._answer([entry.future for entry in entries], error)
        for entry in entries:
            if entry.kept is not None:
                entry.kept(None)

    def _resolve(self, entries: list[Entry]) -> None:
        """Answer all who wait, in order of arrival; only then does anything move on."""
        self._let_go(entries)
        for entry in entries:
            future = entry.future
            if future is not None and not future.done():
                future.set_result(entry.answer)
        done = done_in(entries)
        if done:
            self._settled(done)
        unseen = unseen_in(entries)
        if unseen:
            self._unseen(unseen)
        for entry in entries:
            if entry.kept is not None and isinstance(entry.answer, Kept):
                entry.kept(entry.answer)
            elif entry.then is not None and isinstance(entry.answer, list):
                entry.then(entry.answer[0])
