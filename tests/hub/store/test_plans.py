"""What a send, a lease and a look at a task read has an index, whatever is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlmodel import Session

from hubbub.store.database import Database
from hubbub.store.reads import claims, deliveries, envelopes, tasks
from hubbub.store.statements import rows_with
from hubbub.store.tables import ClaimRow, DeliveryRow, TaskRow, table_of

NAMES: list[claims.ClaimName] = [("p", "key", f"k{number}") for number in range(100)]
IDS = [(number,) for number in range(100)]

READS: dict[str, Callable[[Session], object]] = {
    "claims of a batch": lambda s: claims.known(s, NAMES),
    "one claim": lambda s: claims.known(s, NAMES[:1]),
    "claims of a commit": lambda s: list(
        rows_with(
            s.connection(), table_of(ClaimRow), ("principal", "kind", "name", "answer"), NAMES
        )
    ),
    "tasks of a commit": lambda s: list(
        rows_with(s.connection(), table_of(TaskRow), ("id", "run"), [("t1",)] * 100)
    ),
    "deliveries of a commit": lambda s: list(
        rows_with(s.connection(), table_of(DeliveryRow), ("id", "state"), IDS, lock=True)
    ),
    "what waits in a mailbox": lambda s: deliveries.waiting(
        s, "relay.child", limit=256, now_us=1, skip_keys=frozenset({"a"})
    ),
    "what waits there of a type": lambda s: deliveries.waiting_of(
        s,
        "relay.child",
        task_types=frozenset({"echo"}),
        limit=256,
        now_us=1,
        skip_keys=frozenset({"a"}),
    ),
    "what is overdue": lambda s: deliveries.overdue(s, now_us=1),
    "what is due": lambda s: deliveries.due_mailboxes(s, after_us=0, now_us=1),
    "a delivery": lambda s: deliveries.one(s, 1),
    "the delivery of a task": lambda s: deliveries.of_task(s, "t1"),
    "a task": lambda s: tasks.one(s, "t1"),
    "attempts of a task": lambda s: tasks.attempts(s, "t1"),
    "an envelope": lambda s: envelopes.one(s, "e1"),
    "a trace": lambda s: envelopes.of_trace(s, "t1"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_nothing_on_the_path_reads_a_whole_table(
    tmp_path: Path, read: Callable[[Session], object]
) -> None:
    """SQLite plans without statistics, as in a database that was just made."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    Database(url).migrate()
    engine = create_engine(url)
    asked: list[str] = []
    with Session(engine) as session:
        driver: Any = session.connection().connection.driver_connection
        driver.set_trace_callback(asked.append)
        read(session)
        driver.set_trace_callback(None)
    tables = {"claim", "delivery", "envelope", "task", "task_attempt", "span"}
    with engine.connect() as connection:
        for statement in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
            read_whole = [row[3] for row in plan if row[3].split()[:2][-1] in tables]
            assert not [step for step in read_whole if step.startswith("SCAN")], plan
    assert asked
    engine.dispose()


def test_waiting_tasks_are_counted_in_indexes(tmp_path: Path) -> None:
    """However many wait, rows that are done are not looked at."""
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    Database(url).migrate()
    engine = create_engine(url)
    asked: list[str] = []
    with Session(engine) as session:
        driver: Any = session.connection().connection.driver_connection
        driver.set_trace_callback(asked.append)
        assert tasks.counts(session) == {}
        driver.set_trace_callback(None)
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[-1]}").all()
    steps = {row[3] for row in plan if "delivery" in row[3]}
    assert steps == {
        "SCAN delivery USING INDEX ix_delivery_waiting",
        "SCAN delivery USING INDEX ix_delivery_in_flight",
    }
    engine.dispose()
