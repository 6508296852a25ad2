"""What the journal's own thread pays for a message and for a task, without an event loop.

Commits of 32 entries in a row on a real file, in one thread: so the figure is the work itself, not
the handing over of the interpreter that comes on top of it in a hub.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter, thread_time_ns
from typing import Final

import msgspec
from sqlalchemy import Connection

from hubbub.clock import Ids, SystemClock
from hubbub.envelope import EVENT, TASK_REQUEST, TASK_RESULT, Envelope
from hubbub.ports import Change, Record, Stored
from hubbub.store.commits import commit
from hubbub.store.database import Database
from hubbub.store.entries import Entry
from hubbub.store.rows import changed_values
from hubbub.tasks import TaskRequest, after, new_task
from hubbub.values import Attempt, Delivery, DeliveryState, Outcome, TaskResult
from tests.bench.hubs import scratch
from tests.bench.plan import Plan, relay_task
from tests.bench.table import Line

__all__ = ["journal"]

BATCH: Final = 32
BATCHES: Final = 75
MINUTE_US: Final = 60_000_000

_clock = SystemClock()
_ids = Ids(_clock)


def journal(plan: Plan) -> list[Line]:
    """CPU time of a commit, for each entry of it: messages, tasks, and what becomes of them."""
    taken: dict[str, list[tuple[float, float]]] = {}
    for _ in range(plan.rounds):
        with _file(plan) as connection:
            for name, sample in _round(connection):
                taken.setdefault(name, []).append(sample)
    return [
        Line(
            bench="journal",
            name=name,
            unit="entries/s",
            hub=median(rate for rate, _ in samples),
            cpu_us=median(cpu_us for _, cpu_us in samples),
        )
        for name, samples in taken.items()
    ]


@contextmanager
def _file(plan: Plan) -> Generator[Connection]:
    """Give the connection of a new file that has a past, without the garbage collector."""
    with scratch(plan.where) as folder:
        database = Database(f"sqlite:///{folder / 'hub.db'}")
        database.open()
        gc.disable()
        with database.writer() as connection:
            for delivery in _deliveries(task=True)[: BATCH * BATCHES // 2]:
                commit(connection, [_asked(delivery)])
            yield connection
        gc.enable()
        database.close()


def _round(connection: Connection) -> Iterator[tuple[str, tuple[float, float]]]:
    def measured(
        deliveries: Sequence[Delivery], make: Callable[[Delivery], Entry]
    ) -> tuple[float, float]:
        return _commits(connection, [make(delivery) for delivery in deliveries])

    messages, tasks = _deliveries(task=False), _deliveries(task=True)
    yield "message: kept", measured(messages, _asked)
    yield "message: delivered", measured(messages, _delivered)
    yield "task: kept", measured(tasks, _asked)
    yield "task: leased", measured(tasks, _leased)
    yield "task: result", measured(tasks, _finished)


def _commits(connection: Connection, entries: Sequence[Entry]) -> tuple[float, float]:
    """Return entries a second, and CPU time of one: of the commit in the middle, by its length."""
    took: list[float] = []
    began = perf_counter()
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        before = thread_time_ns()
        commit(connection, batch)
        took.append((thread_time_ns() - before) / 1000 / len(batch))
    return len(entries) / (perf_counter() - began), median(took)


def _deliveries(*, task: bool) -> list[Delivery]:
    return [_delivery(task=task) for _ in range(BATCH * BATCHES)]


def _delivery(*, task: bool) -> Delivery:
    now_us = _clock.now_us()
    envelope = Envelope(
        id=_ids.ulid(now_us), source="api.bench", subject="bench.stored", time_us=now_us,
        type=TASK_REQUEST if task else EVENT, data=relay_task(), durable=True,
        traceparent=f"00-{_ids.trace()}-{_ids.span()}-01",
    )  # fmt: skip
    seq = _ids.seq(now_us)
    delivery = Delivery(
        id=_ids.seq(now_us), envelope=envelope, seq=seq, mailbox="stream.bench", route="bench",
        rank=now_us, max_attempts=3, created_us=now_us, updated_us=now_us, leased=task,
    )  # fmt: skip
    if task:
        delivery.task_id, delivery.task_type = envelope.id, "verify"
        delivery.deadline_us = now_us + 60 * MINUTE_US
        delivery.task = new_task(envelope, TaskRequest("verify"), delivery, seq=seq)
    return delivery


def _asked(delivery: Delivery) -> Entry:
    tasks = [] if delivery.task is None else [delivery.task]
    return Entry(record=Record([Stored(delivery.envelope, delivery.seq)], [delivery], tasks))


def _delivered(delivery: Delivery) -> Entry:
    delivery.attempts = 1
    return _changed(Change(_done(delivery)))


def _leased(delivery: Delivery) -> Entry:
    assert delivery.task is not None
    now_us = delivery.updated_us = _clock.now_us()
    delivery.state, delivery.endpoint, delivery.attempts = DeliveryState.IN_FLIGHT, "bench", 1
    delivery.lease_until_us = delivery.deadline_us = now_us + MINUTE_US
    delivery.pulled_by = "w1"
    task = delivery.task = after(delivery.task, delivery, now_us=now_us)
    attempt = Attempt(
        task_id=task.id, run=1, attempt=1, endpoint="bench", worker="w1", started_us=now_us
    )
    return _changed(Change(delivery, task=task, attempt=attempt))


def _finished(delivery: Delivery) -> Entry:
    assert delivery.task is not None
    delivery.lease_until_us = None
    result = TaskResult(delivery.task.id, result=msgspec.Raw(b'{"score":0.85}'))
    task = after(delivery.task, _done(delivery), now_us=delivery.updated_us, result=result)
    told = delivery.envelope.replace(
        id=_ids.ulid(), type=TASK_RESULT, subject="tasks.verify.completed"
    )
    follows = Record([Stored(told, _ids.seq())])
    return _changed(Change(delivery, task=task, ended="completed", follows=follows))


def _done(delivery: Delivery) -> Delivery:
    delivery.state, delivery.outcome = DeliveryState.DONE, Outcome.DELIVERED
    delivery.endpoint, delivery.updated_us = "bench", _clock.now_us()
    return delivery


def _changed(change: Change) -> Entry:
    return Entry(changes=(change,), snapshots=(changed_values(change.delivery),))
