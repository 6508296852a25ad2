"""A database of an older hub comes up with all that is in it, and with today's indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, insert, inspect, text
from sqlmodel import SQLModel

from hubbub.store.database import Database
from hubbub.store.reads import deliveries, tasks
from hubbub.store.tables import DeliveryRow, EnvelopeRow, TaskRow, table_of

CORE = (EnvelopeRow, DeliveryRow, TaskRow)

STATES = {1: ("pending", "queued"), 2: ("in_flight", "dispatched"), 3: ("done", "completed")}
"""State of a delivery and its task, by number."""


def envelope(number: int) -> dict[str, Any]:
    return {
        "seq": number, "id": f"e{number}", "source": "test", "subject": "orders.eu", "type": "t",
        "time_us": 1, "data": b"{}", "priority": 5, "trace_id": "a" * 32, "span_id": "b" * 16,
        "hops": 0,
    }  # fmt: skip


def delivery(number: int, state: str, *, leased: bool = True) -> dict[str, Any]:
    return {
        "id": number, "envelope_seq": number, "mailbox": "relay.child", "route": "r",
        "leased": leased, "rank": number, "max_attempts": 1, "timeout_us": 0, "wait_us": 0,
        "hold": False, "created_us": 1, "task_id": f"t{number}" if leased else None,
        "state": state, "attempts": 0, "due_us": 0, "updated_us": 1,
    }  # fmt: skip


def task(number: int, state: str) -> dict[str, Any]:
    return {
        "id": f"t{number}", "seq": number, "envelope_seq": number, "envelope_id": f"e{number}",
        "task_type": "echo", "asker": "test", "state": state, "run": 1, "delivery_id": number,
        "attempt": 0, "orphan": False, "retry_on_failure": False, "trace_id": "a" * 32,
        "created_us": 1, "updated_us": 1, "finished_us": 1 if state == "completed" else None,
    }  # fmt: skip


def make_old(url: str, revision: str) -> None:
    """Make a database as an older hub left it."""
    config = Config()
    config.set_main_option("script_location", "hubbub.store:migrations")
    engine = create_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # it was made for today's hub
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for number, (of_delivery, of_task) in STATES.items():
            connection.execute(insert(table_of(EnvelopeRow)), envelope(number))
            connection.execute(insert(table_of(DeliveryRow)), delivery(number, of_delivery))
            connection.execute(insert(table_of(TaskRow)), task(number, of_task))
        connection.execute(insert(table_of(EnvelopeRow)), envelope(4))
        connection.execute(insert(table_of(DeliveryRow)), delivery(4, "pending", leased=False))
    engine.dispose()


def indexes(url: str, model: type[SQLModel]) -> dict[str | None, list[str | None]]:
    """Return the indexes that a database has for a table, with their columns."""
    engine = create_engine(url)
    found = inspect(engine).get_indexes(table_of(model).name)
    engine.dispose()
    return {one["name"]: one["column_names"] for one in found}


def test_a_database_of_0002_comes_up_with_its_tasks(
    tmp_path: Path, store_url: Callable[[Path], str]
) -> None:
    """What waits is handed out in order, and counted."""
    url = store_url(tmp_path)
    make_old(url, "0002")
    assert "ix_task_unfinished" in indexes(url, TaskRow)
    database = Database(url)
    database.open()
    assert database.read_now(tasks.counts) == {"queued": 1, "dispatched": 1}
    waiting, _ = database.read_now(
        lambda session: deliveries.waiting(session, "relay.child", limit=9, now_us=9)
    )
    assert [(one.id, one.task and one.task.id) for one in waiting] == [(1, "t1"), (4, None)]
    assert [one.id for one in database.read_now(deliveries.in_flight)] == [2]
    found = database.read_now(lambda session: tasks.some(session, ["t1", "t2", "t3"]))
    assert [one.state.value for one in found] == ["queued", "dispatched", "completed"]
    database.close()
    for model in CORE:
        of_model = {str(one.name): list(one.columns.keys()) for one in table_of(model).indexes}
        assert indexes(url, model) == of_model
