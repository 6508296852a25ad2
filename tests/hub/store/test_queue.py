"""The journal's queue: what makes a batch, what stands aside, and in which order it is written."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hubbub.envelope import Envelope
from hubbub.ports import Change, Record
from hubbub.store import queue
from hubbub.store.entries import Entry
from hubbub.store.queue import Queue
from hubbub.store.rows import changed_values
from hubbub.values import Delivery, DeliveryState, Outcome

ENVELOPE = Envelope(source="plugin.test", subject="a.b")


def fresh() -> Entry:
    """Return new rows."""
    return Entry(record=Record())


def change(state: DeliveryState = DeliveryState.DONE, *, follows: Record | None = None) -> Entry:
    """Return a change that nobody waits for; by default a plain outcome."""
    delivery = Delivery(id=1, envelope=ENVELOPE, seq=1, mailbox="app.a", route="r", state=state)
    delivery.outcome = Outcome.DELIVERED
    made = Change(delivery=delivery, follows=follows)
    return Entry(changes=(made,), snapshots=(changed_values(delivery),))


def retry() -> Entry:
    """Return an attempt that failed: its trace is kept beside."""
    return change(DeliveryState.PENDING, follows=Record())


def filled(*entries: Entry) -> Queue:
    """Return a queue with these, in this order."""
    made = Queue()
    for entry in entries:
        made.add(entry)
    return made


def test_outcomes_stand_aside_while_there_are_only_new_rows() -> None:
    """They are not forgotten: once they are due they make a batch."""
    first, outcome, second = fresh(), change(), fresh()
    waiting = filled(first, outcome, second)
    assert waiting.gather(due=False) == [first, second]
    assert waiting.gather(due=False) == []
    assert (len(waiting), waiting.waiting) == (1, 0)
    assert waiting.gather(due=True) == [outcome]
    assert not waiting


def test_a_batch_has_a_limit() -> None:
    """MAX_BATCH_ENTRIES in one commit; what is over it is in the next."""
    waiting = filled(*(fresh() for _ in range(queue.MAX_BATCH_ENTRIES + 1)))
    assert [len(waiting.gather(due=True)) for _ in range(2)] == [queue.MAX_BATCH_ENTRIES, 1]


def test_whatever_may_be_about_the_same_rows_is_written_in_order_of_arrival() -> None:
    """A retry before its outcome, an outcome before a statement that looks for it."""
    first, second = change(), change()
    flush, last = Entry(), fresh()
    for other in (retry(), flush):
        waiting = filled(first, other, second, last)
        assert waiting.gather(due=False) == [first, other, second, last]


def test_what_follows_from_an_outcome_does_not_wait() -> None:
    """Somebody waits for that: the result of a task, say."""
    dead = change(follows=Record())
    assert filled(dead).gather(due=False) == [dead]


def test_what_was_put_back_is_first() -> None:
    """In the order it was taken out."""
    first, outcome, last = fresh(), change(), fresh()
    waiting = filled(first, outcome)
    taken = waiting.gather(due=True)
    waiting.add(last)
    waiting.put_back(taken)
    assert waiting.gather(due=False) == [first, outcome, last]


@given(
    kinds=st.lists(st.sampled_from(["fresh", "outcome", "retry"]), max_size=30),
    dues=st.lists(st.booleans(), max_size=10),
    most=st.integers(1, 5),
)
def test_nothing_is_lost_and_nothing_that_matters_is_overtaken(
    kinds: list[str], dues: list[bool], most: int
) -> None:
    """However batches are cut: only new rows ever pass an outcome."""
    makers: dict[str, Callable[[], Entry]] = {"fresh": fresh, "outcome": change, "retry": retry}
    entries = [makers[kind]() for kind in kinds]
    waiting = filled(*entries)
    written: list[Entry] = []
    bound, queue.MAX_BATCH_ENTRIES = queue.MAX_BATCH_ENTRIES, most  # type: ignore[misc]
    try:
        for due in (*dues, *[True] * (len(entries) + 1)):
            written += waiting.gather(due=due)
    finally:
        queue.MAX_BATCH_ENTRIES = bound  # type: ignore[misc]
    assert sorted(map(id, written)) == sorted(map(id, entries))
    changes = [entry.number for entry in written if not entry.fresh]
    assert changes == sorted(changes)
