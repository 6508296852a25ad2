"""Order inside a mailbox, against a model that looks at everything each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub.envelope import Envelope
from hubbub.lanes import Line, rank_of
from hubbub.memory import MemoryBudget
from hubbub.values import Delivery

ENVELOPE = Envelope(source="t", subject="t")


def a_line() -> Line:
    """Return an empty line, in which nobody counts."""
    memory = MemoryBudget()
    return Line(memory.account("mailbox", limit_bytes=1), memory.account("window", limit_bytes=1))


def delivery(
    number: int,
    *,
    rank: int = 0,
    lane: str | None = None,
    due_us: int = 0,
    durable: bool = True,
) -> Delivery:
    """Return a delivery that waits."""
    return Delivery(
        id=number, envelope=ENVELOPE, seq=number, mailbox="m", route="r",
        rank=rank, lane=lane, due_us=due_us, durable=durable,
    )  # fmt: skip


@given(
    st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 9), st.booleans()
)  # fmt: skip
def test_one_priority_step_is_a_minute(
    created_us: int, not_before_us: int, priority: int, keyed: bool
) -> None:
    """Rank is the later of both times, less a minute a step; keyed ones count as 5."""
    rank = rank_of(
        created_us=created_us, not_before_us=not_before_us, priority=priority, keyed=keyed
    )
    assert rank == max(created_us, not_before_us) - 60_000_000 * (5 if keyed else priority)


class LineMachine(RuleBasedStateMachine):
    """A line, and a list from which the next is chosen by looking at all."""

    def __init__(self) -> None:
        super().__init__()
        self.line = a_line()
        self.now_us = 0
        self.number = 0
        self.waiting: list[Delivery] = []
        self.taken: list[Delivery] = []
        self.lined_up: dict[int, int] = {}

    def leader_of(self, lane: str) -> Delivery | None:
        """Return the one of a key that may go: whoever was begun, else the first that is due."""
        begun = [d for d in (*self.taken, *self.waiting) if d.lane == lane and d.attempts]
        if begun:
            return begun[0]
        due = [d for d in self.waiting if d.lane == lane and d.due_us <= self.now_us]
        return min(due, key=lambda d: (d.rank, d.id), default=None)

    def ready(self) -> list[Delivery]:
        """Return all that may be handed over now, in order."""
        found = [
            d
            for d in self.waiting
            if d.due_us <= self.now_us and (d.lane is None or self.leader_of(d.lane) is d)
        ]
        return sorted(found, key=lambda d: (d.rank, d.id))

    @rule(
        rank=st.integers(0, 5),
        lane=st.sampled_from([None, None, "k", "l"]),
        later_us=st.sampled_from([0, 0, 0, 3]),
    )
    def add(self, rank: int, lane: str | None, later_us: int) -> None:
        """Something comes."""
        self.number += 1
        due_us = self.now_us + later_us if later_us else 0
        one = delivery(self.number, rank=rank, lane=lane, due_us=due_us)
        self.waiting.append(one)
        self.line.add(one, now_us=self.now_us)

    @precondition(lambda self: bool(self.ready()))
    @rule()
    def take(self) -> None:
        """The next is handed over."""
        one = self.line.head(now_us=self.now_us)
        assert one is not None
        assert one is self.ready()[0]
        self.line.take(one)
        one.attempts += 1
        one.due_us = 0
        self.waiting.remove(one)
        self.taken.append(one)

    @precondition(lambda self: bool(self.ready()))
    @rule(data=st.data())
    def take_any(self, data: st.DataObject) -> None:
        """A worker takes one that it wants, not the first."""
        wanted = data.draw(st.sampled_from(self.ready()))
        one = self.line.find(lambda d: d is wanted, now_us=self.now_us)
        assert one is not None
        assert one is wanted
        self.line.take(one)
        one.attempts += 1
        self.waiting.remove(one)
        self.taken.append(one)

    @precondition(lambda self: bool(self.taken))
    @rule(data=st.data(), backoff_us=st.sampled_from([0, 2, 9]))
    def again(self, data: st.DataObject, backoff_us: int) -> None:
        """It failed, and waits for its retry; its key waits with it."""
        one = data.draw(st.sampled_from(self.taken))
        self.taken.remove(one)
        one.due_us = self.now_us + backoff_us
        self.waiting.append(one)
        self.line.back(one, now_us=self.now_us)

    @precondition(lambda self: bool(self.taken))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        """It is done, and the next of its key may go."""
        one = data.draw(st.sampled_from(self.taken))
        self.taken.remove(one)
        self.line.free(one)

    @precondition(lambda self: bool(self.waiting))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """It is thrown out while it waits."""
        one = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(one)
        self.line.drop(one)
        self.line.free(one)
        self.line.drop(one)

    @precondition(lambda self: any(not d.attempts and d.lane is None for d in self.waiting))
    @rule(data=st.data())
    def out_and_in_again(self, data: st.DataObject) -> None:
        """It makes room, and is read from the store again: another object of the same id."""
        free = [d for d in self.waiting if not d.attempts and d.lane is None]
        one = data.draw(st.sampled_from(free))
        self.waiting.remove(one)
        self.line.drop(one)
        twin = delivery(one.id, rank=one.rank, lane=one.lane, due_us=one.due_us)
        self.waiting.append(twin)
        self.line.add(twin, now_us=self.now_us)

    @rule(us=st.integers(1, 5))
    def time_passes(self, us: int) -> None:
        """Time passes."""
        self.now_us += us

    @invariant()
    def the_next_is_the_models(self) -> None:
        """The head is what the model says, and nothing is lost."""
        ready = self.ready()
        assert self.line.head(now_us=self.now_us) is (ready[0] if ready else None)
        assert {d.id for d in self.line} == {d.id for d in self.waiting}
        assert len(self.line) == len(self.waiting)
        begun = {d.lane for d in (*self.taken, *self.waiting) if d.attempts and d.lane}
        assert self.line.busy_lanes() == begun


TestLine = LineMachine.TestCase


def test_a_retry_without_a_key_holds_nobody_back() -> None:
    """Whoever waits for its retry is passed by others."""
    line = a_line()
    first, second = delivery(1, rank=1), delivery(2, rank=2)
    line.add(first, now_us=0)
    line.add(second, now_us=0)
    line.take(first)
    first.due_us = 100
    line.back(first, now_us=0)
    assert line.head(now_us=0) is second
    assert line.head(now_us=99) is second
    assert line.head(now_us=100) is first


@pytest.mark.parametrize("lane", ["k"])
def test_a_retry_with_a_key_holds_back_its_key_only(lane: str) -> None:
    """The next of its key waits, others do not."""
    line = a_line()
    first, second, other = delivery(1, lane=lane), delivery(2, lane=lane), delivery(3, rank=9)
    for one in (first, second, other):
        line.add(one, now_us=0)
    line.take(first)
    first.due_us = 100
    line.back(first, now_us=0)
    assert line.head(now_us=0) is other
    line.take(other)
    assert line.head(now_us=99) is None
    assert line.head(now_us=100) is first
    line.take(first)
    line.free(first)
    assert line.head(now_us=100) is second


def test_a_key_that_was_busy_before_a_restart_is_busy() -> None:
    """Its followers wait until it is free."""
    line = a_line()
    first, second = delivery(1, lane="k"), delivery(2, lane="k")
    line.occupy(first)
    line.add(second, now_us=0)
    assert line.head(now_us=0) is None
    line.free(first)
    assert line.head(now_us=0) is second


def test_a_volatile_one_waits_behind_what_the_store_alone_has() -> None:
    """Until the store has been asked since: an answer from before the doubt decides nothing."""
    line = a_line()
    early = delivery(1, rank=1, lane="k", durable=False)
    late = delivery(3, rank=3, lane="k", durable=False)
    for one in (early, late):
        line.add(one, now_us=0)
    gone = delivery(2, rank=2, lane="k")
    line.doubt(gone)
    assert line.head(now_us=0) is early  # it ranks before
    line.take(early)
    line.free(early)
    assert line.head(now_us=0) is None
    asked = line.doubts()
    line.doubt(gone)
    line.sure(asked)
    assert line.head(now_us=0) is None
    line.sure(line.doubts())
    assert line.head(now_us=0) is late
