"""One commit of the journal: what is kept and refused, and rows that come back as they went."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hubbub.envelope import Envelope
from hubbub.ports import Change, Kept, Record, Stored
from hubbub.store.commits import commit
from hubbub.store.database import Database
from hubbub.store.entries import Entry
from hubbub.store.reads import deliveries, envelopes, tasks
from hubbub.store.rows import changed_values
from hubbub.values import Delivery, DeliveryState, Outcome, Task, TaskState

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def database(tmp_path: Path, store_url: Callable[[Path], str]) -> Iterator[Database]:
    """A database of its own, open."""
    database = Database(store_url(tmp_path))
    database.open()
    yield database
    database.close()


@pytest.fixture
def writer(database: Database) -> Iterator[Connection]:
    """The connection that writes."""
    with database.writer() as connection:
        yield connection


def envelope(number: int, **more: object) -> Envelope:
    plain = Envelope(
        id=f"e{number}", source="test", subject="orders.eu", time_us=number, data=b"{}",
        traceparent=TRACE, durable=True,
    )  # fmt: skip
    return plain.replace(**more)


def delivery(number: int, of: Envelope, **more: object) -> Delivery:
    made = Delivery(id=number, envelope=of, seq=number, mailbox="stream.later", route="kept")
    for name, value in more.items():
        setattr(made, name, value)
    return made


def task(number: int, name: str) -> Task:
    return Task(
        id=name, seq=number, envelope_seq=number, envelope_id=f"e{number}", task_type="echo",
        asker="test", delivery_id=number,
    )  # fmt: skip


def request(number: int, name: str) -> Entry:
    """Return the entry of a task that somebody asks for."""
    asked = envelope(number)
    given = delivery(number, asked, leased=True, task_id=name, task_type="echo")
    return Entry(record=Record([Stored(asked, number)], [given], [task(number, name)]))


def test_a_task_that_is_there_already_is_refused_alone(
    database: Database, writer: Connection
) -> None:
    """Others of its batch are kept, also when two of them are the same new one."""
    commit(writer, [request(1, "t1")])
    batch = [request(2, "t2"), request(3, "t1"), request(4, "t3"), request(5, "t3")]
    commit(writer, batch)
    exists, kept = Kept("exists"), Kept("kept")
    assert [entry.answer for entry in batch] == [kept, exists, kept, exists]
    found = database.read_now(lambda s: tasks.some(s, ["t1", "t2", "t3"]))
    assert [(one.id, one.seq) for one in found] == [("t1", 1), ("t2", 2), ("t3", 4)]
    assert database.read_now(lambda s: envelopes.one(s, "e3")) is None


def test_a_refused_task_undoes_no_change_of_its_batch(
    database: Database, writer: Connection
) -> None:
    """The batch is decided once more, as a whole: an outcome counts, and counts once."""
    commit(writer, [request(1, "t1")])
    ended = delivery(1, envelope(1), state=DeliveryState.DONE, outcome=Outcome.EXPIRED)
    after = task(1, "t1")
    change = Change(ended, task=after)
    batch = [
        Entry(changes=[change], snapshots=[changed_values(ended)]),
        Entry(changes=[change], snapshots=[changed_values(ended)]),
        request(2, "t1"),
    ]
    commit(writer, batch)
    assert [entry.answer for entry in batch] == [[True], [False], Kept("exists")]
    found = database.read_now(lambda s: deliveries.one(s, 1))
    assert found is not None
    assert (found.state, found.outcome) == (DeliveryState.DONE, Outcome.EXPIRED)


def test_full_and_bare_rows_of_one_batch_come_back_as_they_went(
    database: Database, writer: Connection
) -> None:
    """Rows that leave much empty stand beside rows that leave nothing empty."""
    full = envelope(
        1, key="k", priority=9, reply_to="a.b", in_reply_to="e0", to=("c.d",), expires_us=7, hops=3
    )
    bare = envelope(2)
    dead = delivery(
        1, full, state=DeliveryState.DONE, outcome=Outcome.DEAD, reason="loop", endpoint="c.d",
        lane="k", due_us=5, deadline_us=6, lease_until_us=8, pulled_by="w", last_error="late",
    )  # fmt: skip
    waits = delivery(2, bare)
    orphan = Task(
        id="t9", seq=9, envelope_seq=None, envelope_id=None, task_type="echo", asker="test",
        state=TaskState.FAILED, endpoint="c.d", result=b"[]", error="no", orphan=True,
        finished_us=4,
    )  # fmt: skip
    record = Record(
        [Stored(full, 1, "no_route"), Stored(bare, 2)], [dead, waits], [task(1, "t1"), orphan]
    )
    commit(writer, [Entry(record=record)])
    for stored in record.envelopes:
        assert database.read_now(partial(envelopes.one, envelope_id=stored.envelope.id)) == stored
    for given in record.deliveries:
        found = database.read_now(partial(deliveries.one, delivery_id=given.id))
        assert found is not None
        assert changed_values(found) == changed_values(given)
        assert found.lane == given.lane
    assert database.read_now(lambda s: tasks.some(s, ["t1", "t9"])) == record.tasks
