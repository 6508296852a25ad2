"""One budget for what waits: counted once for the hub, once for each queue, and never negative."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub.errors import MemoryFullError
from hubbub.memory import MemoryAccount, MemoryBudget, Shed

LIMIT = 1000
KINDS = ("sse", "mailbox", "journal")


class BudgetMachine(RuleBasedStateMachine):
    """A budget, and lists of what each queue holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pressed = 0
        self.budget = MemoryBudget(LIMIT, pressed=self.press)
        self.accounts = [self.budget.account(kind, limit_bytes=300) for kind in KINDS]
        self.payloads = [bytes(size) for size in (0, 1, 7, 100, 301, 900)]
        self.held: list[list[bytes]] = [[] for _ in KINDS]
        self.alone: list[list[int]] = [[] for _ in KINDS]

    def press(self) -> None:
        """Be told that the hub is over its limit."""
        self.pressed += 1
        assert self.budget.over

    @rule(queue=st.integers(0, 2), payload=st.integers(0, 5))
    def add(self, queue: int, payload: int) -> None:
        """Hold a payload, perhaps one that others hold."""
        self.accounts[queue].add(self.payloads[payload])
        self.held[queue].append(self.payloads[payload])

    @rule(queue=st.integers(0, 2), size=st.integers(0, 500))
    def add_bytes(self, queue: int, size: int) -> None:
        """Hold what nobody else holds."""
        self.accounts[queue].add_bytes(size)
        self.alone[queue].append(size)

    @rule(queue=st.integers(0, 2), data=st.data())
    @precondition(lambda self: any(self.held))
    def release(self, queue: int, data: st.DataObject) -> None:
        """Hold one of them no more."""
        held = self.held[queue]
        if held:
            payload = held.pop(data.draw(st.integers(0, len(held) - 1)))
            self.accounts[queue].release(payload)

    @rule(queue=st.integers(0, 2))
    def release_bytes(self, queue: int) -> None:
        """The same of what is its own."""
        if self.alone[queue]:
            self.accounts[queue].release_bytes(self.alone[queue].pop())

    @invariant()
    def it_counts_each_payload_once(self) -> None:
        """The hub has the sum of what is there, a queue of what it holds."""
        there = {id(each): len(each) for held in self.held for each in held}
        assert self.budget.used_bytes == sum(there.values()) + sum(map(sum, self.alone))
        for account, held, alone in zip(self.accounts, self.held, self.alone, strict=True):
            assert account.held_bytes == sum(map(len, held)) + sum(alone)
        wanted = {each.kind: each.held_bytes for each in self.accounts if each.held_bytes}
        assert self.budget.by_kind() == Counter(wanted)
        assert self.budget.used_bytes >= 0

    @invariant()
    def it_forgets_what_nobody_holds(self) -> None:
        """A payload that is gone leaves nothing behind."""
        assert len(self.budget.holders) == len({id(p) for held in self.held for p in held if p})
        assert len(self.budget.holding) == sum(1 for each in self.accounts if each.held_bytes)


TestBudget = BudgetMachine.TestCase


@pytest.mark.parametrize(
    ("held", "size", "fits"), [(0, 9999, True), (1, 299, True), (1, 300, False)]
)
def test_an_empty_queue_takes_anything(held: int, size: int, fits: bool) -> None:
    """Else one of the largest messages could not pass at all."""
    account = MemoryBudget(LIMIT).account("sse", limit_bytes=300)
    account.add_bytes(held)
    assert account.room_for(size) is fits


@pytest.mark.parametrize(
    ("held", "size", "fits"), [(0, 9999, True), (1, 999, True), (1, 1000, False)]
)
def test_a_full_hub_refuses(held: int, size: int, fits: bool) -> None:
    """It does so at the edge, once nothing can give way; an empty one takes anything."""
    budget = MemoryBudget(LIMIT)
    budget.account("journal", limit_bytes=1).add_bytes(held)
    if fits:
        budget.admit(size)
        return
    with pytest.raises(MemoryFullError, match=r"hub\.memory"):
        budget.admit(size)


class Queue:
    """One that gives up all it holds."""

    def __init__(self, budget: MemoryBudget, kind: str, size: int, order: Shed) -> None:
        self.account: MemoryAccount = budget.account(
            kind, limit_bytes=LIMIT, shed=self.drop, order=order
        )
        self.account.add_bytes(size)

    def drop(self) -> None:
        """Give way."""
        self.account.release_bytes(self.account.held_bytes)


def test_volatile_readers_give_way_first_and_the_slowest_of_them() -> None:
    """Only as many as it takes, until an eighth is free."""
    shed: list[str] = []
    budget = MemoryBudget(LIMIT, gave_way=shed.append)
    durable = Queue(budget, "mailbox", 500, Shed.DURABLE)
    small, large = (Queue(budget, "sse", size, Shed.VOLATILE) for size in (150, 300))
    budget.admit(50)
    assert budget.used_bytes == 950
    budget.admit(51)
    assert [each.account.held_bytes for each in (small, large, durable)] == [150, 0, 500]
    budget.admit(600)
    assert [each.account.held_bytes for each in (small, large, durable)] == [0, 0, 0]
    assert shed == ["sse", "sse", "mailbox"]


def test_what_comes_in_by_another_way_is_relieved_soon() -> None:
    """Who adds is not disturbed in the middle; it is told once until it was done."""
    told: list[int] = []
    budget = MemoryBudget(LIMIT, pressed=lambda: told.append(budget.used_bytes))
    queues = [Queue(budget, "sse", 400, Shed.VOLATILE) for _ in range(4)]
    assert told == [1200]
    assert [each.account.held_bytes for each in queues] == [400] * 4
    budget.relieve()
    assert budget.used_bytes == 800
    Queue(budget, "sse", 300, Shed.VOLATILE)
    assert told == [1200, 1100]


def test_shedding_one_of_many_that_share_does_not_end_it() -> None:
    """What twelve hold is gone only when all twelve have let go."""
    budget = MemoryBudget(LIMIT)
    payload = bytes(900)
    held = {number: [payload] for number in range(12)}
    accounts: list[MemoryAccount] = []

    def drop(number: int) -> None:
        for each in held.pop(number):
            accounts[number].release(each)

    for number in range(12):
        accounts.append(budget.account("sse", limit_bytes=LIMIT, shed=partial(drop, number)))
        accounts[number].add(payload)
    assert budget.used_bytes == 900
    assert budget.by_kind() == {"sse": 12 * 900}
    budget.admit(200)
    assert not held
    assert budget.used_bytes == 0
