"""What of a mailbox is in memory: bounded, in order by key, and never all of blocked keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlmodel import Session

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.delivery import mailbox as mailbox_module
from hubbub.delivery.mailbox import MAX_BUSY_LANES, WINDOW, Mailbox
from hubbub.envelope import TASK_REQUEST
from hubbub.lanes import Line
from hubbub.ports import Taken
from hubbub.testing import RecordingEndpoint, settle
from hubbub.values import Delivery, Submission
from tests.hub.invariants.test_random_runs import window

ENVELOPE = Envelope(source="t", subject="t")
LARGE = Envelope(source="t", subject="t", data=bytes(15))


def _within(found: list[Delivery], room_bytes: int) -> list[Delivery]:
    """Return as many of the first as have room; one in any case."""
    sizes = accumulate(len(one.envelope.data) for one in found)
    fitting = sum(1 for size in sizes if size <= room_bytes)
    return found[: max(1, fitting)]


class WindowMachine(RuleBasedStateMachine):
    """A mailbox and its store; hand-overs, retries, ends and reads of the store in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Mailbox("m", limit=10**6, overflow="refuse")
        self.number = 0
        self.store: list[Delivery] = []
        self.flying: list[Delivery] = []
        self.alive: dict[int, Delivery] = {}
        self.reading: tuple[frozenset[str], int, int, dict[int, int]] | None = None
        self.patched = window(4)

    @initialize(size=st.sampled_from([4, 6, 16]))
    def begin(self, size: int) -> None:
        """Keep so few in memory."""
        self.patched = window(size)
        self.patched.__enter__()

    def teardown(self) -> None:
        """Keep as many as before."""
        self.patched.__exit__(None, None, None)

    @rule(
        lanes=st.lists(st.sampled_from([None, "k", "k", "l", "m"]), min_size=1, max_size=9),
        durable=st.sampled_from([True, True, True, False]),
    )
    def arrive(self, lanes: list[str | None], durable: bool) -> None:
        """Some come, in the order of their ranks."""
        self.come(lanes, durable, ENVELOPE)

    def come(self, lanes: list[str | None], durable: bool, envelope: Envelope) -> None:
        """Some come, in the order of their ranks."""
        for lane in lanes:
            self.number += 1
            one = Delivery(
                id=self.number, envelope=envelope, seq=self.number, mailbox="m", route="r",
                rank=self.number // 3, lane=lane, durable=durable,
            )  # fmt: skip
            self.alive[one.id] = one
            self.box.depth += 1
            here, moved = self.box.admit(one, now_us=0)
            if not here:
                self.store.append(one)
            self.store += moved

    @precondition(lambda self: self.box.line.head(now_us=0) is not None)
    @rule()
    def hand_over(self) -> None:
        """The next goes: none of its key is before it, here or in the store, nor under way."""
        one = self.box.line.head(now_us=0)
        assert one is not None
        if one.lane is not None:
            mates = [d for d in self.alive.values() if d.lane == one.lane and d is not one]
            assert not [d for d in mates if d.id < one.id], f"{one.id} goes before {mates}"
            assert not [d for d in mates if d in self.flying]
        self.box.line.take(one)
        self.box.left()
        self.flying.append(one)

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data(), again=st.booleans())
    def answer(self, data: st.DataObject, again: bool) -> None:
        """It is done, or waits for its retry."""
        one = data.draw(st.sampled_from(self.flying))
        self.flying.remove(one)
        if again:
            self.box.depth += 1
            self.box.line.back(one, now_us=0)
        else:
            del self.alive[one.id]
            self.box.free(one)

    @precondition(lambda self: self.reading is None and self.box.wants_refill)
    @rule()
    def read(self) -> None:
        """A read of the store begins."""
        self.box.refilling, self.box.stirred = True, False
        blocked = self.box.blocked
        assert len(blocked) <= MAX_BUSY_LANES
        doubts = self.box.line.doubts(but=blocked)
        self.reading = (blocked, self.box.places, self.box.room_bytes, doubts)

    @precondition(lambda self: self.reading is not None)
    @rule()
    def take_in(self) -> None:
        """What it gives is there."""
        assert self.reading is not None
        (blocked, limit, room_bytes, doubts), self.reading = self.reading, None
        due = sorted((d for d in self.store if d.lane not in blocked), key=lambda d: d.id)
        found = _within(due[:limit], room_bytes)
        all_due = len(found) == len(due) < limit
        self.box.refilled(found, now_us=0, all_due=all_due)
        self.box.line.sure(doubts, up_to=None if all_due else found[-1])
        self.box.refilling = False
        self.store = [d for d in self.store if d not in found] + list(self.box.make_room())
        line, most = self.box.line, mailbox_module.WINDOW
        assert line.stored <= most or not line.surplus(most // 2)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Each is here, in the store or under way, once; memory is bounded."""
        here = [d.id for d in self.box.line]
        there = [d.id for d in self.store]
        assert sorted([*here, *there, *(d.id for d in self.flying)]) == sorted(self.alive)
        assert self.box.behind == len(there)
        held = sum(len(d.envelope.data) for d in self.box.line if d.durable)
        assert self.box.line.stored_bytes.held_bytes == held
        assert self.box.line.stored == sum(d.durable for d in self.box.line)
        # Twice as much for a moment: what was read of a key that was done meanwhile.
        assert self.box.line.stored <= 2 * mailbox_module.WINDOW + len(self.flying)

    @invariant()
    def nothing_waits_for_what_is_blocked(self) -> None:
        """When nothing can go and nothing is read, then everything waits for its key."""
        if self.reading or self.box.wants_refill or self.box.line.head(now_us=0) is not None:
            return
        busy = {d.lane for d in self.flying}
        idle = [d.id for d in self.alive.values() if d not in self.flying and d.lane not in busy]
        assert not idle, f"{idle} could go"


class HeavyWindowMachine(WindowMachine):
    """The same with payloads of which few have room, and a hub that holds too much at times."""

    def __init__(self) -> None:
        super().__init__()
        self.box.line.stored_bytes.limit_bytes = 40

    @rule(
        lanes=st.lists(st.sampled_from([None, "k", "k", "l", "m"]), min_size=1, max_size=9),
        durable=st.booleans(),
    )
    def arrive_large(self, lanes: list[str | None], durable: bool) -> None:
        """Some come that are large."""
        self.come(lanes, durable, LARGE)

    @invariant()
    def memory_is_bounded_in_bytes(self) -> None:
        """Beside those that stand for their keys, or came back, and one."""
        line = self.box.line
        light = [d for d in line if d.durable and d.lane is None and not d.attempts]
        assert sum(len(d.envelope.data) for d in light) <= 40 + len(LARGE.data)

    @precondition(lambda self: self.reading is None)
    @rule()
    def drop_window(self) -> None:
        """The hub holds too much: what the store has too is left to it."""
        self.store += self.box.drop_window()
        assert not [d for d in self.box.line if d.durable and d.lane is None and not d.attempts]


TestWindow = WindowMachine.TestCase
TestHeavyWindow = HeavyWindowMachine.TestCase


def no_surplus(line: Line, room: int) -> int:
    """Let what waits behind busy keys count as everything else."""
    del line, room
    return 0


def keep_all(line: Line, number: int, *, room: int) -> list[Delivery]:
    """Leave nothing to the store again."""
    del line, number, room
    return []


@pytest.mark.parametrize(
    ("method", "without"),
    [
        ("surplus", no_surplus),
        ("let_go", keep_all),
    ],
)
def test_a_mutant_of_the_window_is_caught(
    monkeypatch: pytest.MonkeyPatch, method: str, without: Callable[..., Any]
) -> None:
    """With one of its rules taken out, the machine says so."""
    monkeypatch.setattr(Line, method, without)
    how = settings(database=None, derandomize=True, phases=(Phase.generate,))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(WindowMachine, settings=how)


class Hanging(RecordingEndpoint):
    """A peer that takes everything but those of one key."""

    def __init__(self, concurrency: int) -> None:
        accepts = ("hubbub.event.v1", TASK_REQUEST)
        super().__init__("app.a", concurrency=concurrency, accepts=accepts)
        self.let = asyncio.Event()

    async def deliver(self, envelope: Envelope) -> None:
        """Hang at the first of the blocked key."""
        await super().deliver(envelope)
        if envelope.key == "blocked":
            await self.let.wait()


async def publish(core: Core, keys: Sequence[str | None], *, durable: bool = True) -> None:
    """Publish one for each key, together."""
    await core.router.publish_all(
        [
            Envelope.new(source="t", subject="e", data=place, key=key, durable=durable)
            for place, key in enumerate(keys)
        ]
    )


async def publish_later(core: Core) -> None:
    """Publish what waits in the store for hours, whatever is handed over meanwhile."""
    hour_s = core.clock.now_us() / 1e6 + 3600
    work = Submission(task_type="t", source="t", to=("app.a",), not_before=hour_s, priority=9)
    await core.submit(work)


def count_reads(core: Core) -> Iterator[int]:
    """Return what gives, each time, how often a mailbox was read since now."""
    reads = 0
    take = core.engine.take

    async def counted(*what: Any, **how: Any) -> Taken:
        nonlocal reads
        reads += 1
        return await take(*what, **how)

    core.engine.take = counted  # type: ignore[method-assign]
    return iter(lambda: reads, None)


async def read_all(core: Core, name: str) -> None:
    """Return when a mailbox has nothing to read; what came while it was read, is read too."""
    await settle()
    while await core.room.boxes.read_more(core.room.boxes.get(name)):
        await settle()


async def test_a_blocked_key_does_not_block_its_mailbox(core: Core) -> None:
    """Of more than memory holds all are of one key, and that hangs: the others are handed over."""
    peer = Hanging(concurrency=2)
    core.attach(peer)
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    link = core.room.link_of("app.a")
    assert link is not None
    link.slots = 0
    await publish(core, ["blocked"] * (2 * WINDOW))
    await publish(core, [None, "free", "free", None])
    link.slots = 2
    try:
        await peer.wait_for(5)
        assert sorted(str(envelope.key) for envelope in peer.taken) == [
            "None", "None", "blocked", "free", "free",
        ]  # fmt: skip
    finally:
        peer.let.set()
    await peer.wait_for(2 * WINDOW + 4)
    blocked = [envelope.json() for envelope in peer.taken if envelope.key == "blocked"]
    assert blocked == list(range(2 * WINDOW))


async def test_few_keys_in_a_long_mailbox_do_not_read_the_store_for_each(core: Core) -> None:
    """All of memory waits behind busy keys, and still the store is read now and then only."""
    peer = Hanging(concurrency=4)
    core.attach(peer)
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    link = core.room.link_of("app.a")
    assert link is not None
    link.slots = 0
    await publish(core, [f"k{place % 4}" for place in range(4 * WINDOW)])
    reads = count_reads(core)
    link.slots = 4
    await peer.wait_for(4 * WINDOW)
    assert next(reads) < 4 * WINDOW / 16
    for key in range(4):
        mine = [envelope.json() for envelope in peer.taken if envelope.key == f"k{key}"]
        assert mine == list(range(key, 4 * WINDOW, 4))


class OneByOne(RecordingEndpoint):
    """A peer that takes one whenever it is let."""

    def __init__(self) -> None:
        super().__init__("app.a", accepts=("hubbub.event.v1", TASK_REQUEST))
        self.turns = asyncio.Semaphore(0)

    async def deliver(self, envelope: Envelope) -> None:
        """Wait for its turn."""
        await self.turns.acquire()
        await super().deliver(envelope)


async def test_a_busy_key_does_not_read_the_store_for_each_that_comes(core: Core) -> None:
    """Nor for each that is done: once, for what came while the first was under way."""
    peer = OneByOne()
    core.attach(peer)
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    await publish_later(core)
    try:
        await publish(core, ["k"])
        await read_all(core, "app.a")
        reads = count_reads(core)
        for _ in range(20):
            await publish(core, ["k"])
            await read_all(core, "app.a")
        came = next(reads)
        for number in range(21):
            peer.turns.release()
            await peer.wait_for(number + 1)
            await settle()
            await read_all(core, "app.a")
        assert (came, next(reads)) == (0, 2)
    finally:
        peer.turns = asyncio.Semaphore(99)


async def test_what_was_in_doubt_behind_a_crowded_key_goes_after_it(core: Core) -> None:
    """Its key was left out of the read that would have told: the last of the crowd asks anew."""
    with window(4):
        peer = Hanging(concurrency=1)
        core.attach(peer)
        core.table.put(Route(name="r", match="e", to=("app.a",)))
        try:
            await publish(core, ["blocked"] * 3)
            await publish_later(core)
            await publish(core, ["blocked"], durable=False)
            await settle()
        finally:
            peer.let.set()
        await peer.wait_for(4)
        assert [envelope.durable for envelope in peer.taken] == [True, True, True, False]


async def test_a_read_goes_on_where_something_of_it_ended_meanwhile(core: Core) -> None:
    """Fewer than were asked for would say that the store has no more, and nobody would ask again.

    As after a restart: a long line is read while somebody brings the result of one that is in it.
    """
    core.attach(Hanging(concurrency=1))
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    link = core.room.link_of("app.a")
    assert link is not None
    link.slots = 0
    await publish(core, [None] * 4)
    first, *others = core.room.boxes.get("app.a").line
    for delivery in (first, *others):
        core.engine.let_go(delivery)
    read = core.database.read

    async def ends_meanwhile(query: Callable[[Session], Any], *, patient: bool = False) -> Any:
        found = await read(query, patient=patient)
        core.engine.hold(first)
        return found

    core.database.read = ends_meanwhile  # type: ignore[method-assign]
    taken = await core.engine.take("app.a", limit=2, now_us=core.clock.now_us())
    assert [delivery.id for delivery in taken.deliveries] == [
        delivery.id for delivery in others[:2]
    ]


async def test_a_volatile_one_waits_for_those_of_its_key_in_the_store(core: Core) -> None:
    """It came last and goes last, although memory never had all that were before it."""
    peer = Hanging(concurrency=1)
    core.attach(peer)
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    link = core.room.link_of("app.a")
    assert link is not None
    link.slots = 0
    await publish(core, ["other"] * WINDOW)
    await publish(core, ["mine"])
    await publish(core, ["mine"], durable=False)
    await publish(core, ["else"], durable=False)
    link.slots = 1
    await peer.wait_for(WINDOW + 3)
    await settle()
    assert [envelope.durable for envelope in peer.taken if envelope.key == "mine"] == [True, False]
    assert peer.taken[-1].key == "else"


async def test_what_a_read_gave_before_it_was_admitted_is_handed_over_once(core: Core) -> None:
    """It is committed, and read with the others, before the hub comes to what follows from that."""
    peer = Hanging(concurrency=2 * WINDOW)
    link = core.attach(peer)
    core.table.put(Route(name="r", match="e", to=("app.a",)))
    link.slots = 0
    await publish(core, [None] * (WINDOW + 1))
    accept, late = core.room.accept, list[Delivery]()
    core.room.accept = late.extend  # type: ignore[method-assign, assignment]
    await publish(core, ["blocked"])
    core.room.accept = accept  # type: ignore[method-assign]
    link.slots = 2 * WINDOW
    await peer.wait_for(WINDOW + 2)
    assert len(late) == 1
    try:
        core.room.accept(late)
        await settle()
        box = core.room.boxes.get("app.a")
        assert (len(peer.taken), box.depth, box.behind) == (WINDOW + 2, 0, 0)
    finally:
        peer.let.set()


def test_what_makes_room_says_nothing_of_what_the_store_has() -> None:
    """The last of memory may rank behind what only the store has: a new one is not let between."""

    def come(number: int, rank: int, due_us: int = 0) -> bool:
        one = Delivery(
            id=number, envelope=ENVELOPE, seq=number, mailbox="m", route="r",
            rank=rank, due_us=due_us,
        )  # fmt: skip
        return box.admit(one, now_us=0)[0]

    with window(2):
        box = Mailbox("m", limit=10, overflow="refuse")
        assert [come(1, 1), come(2, 9)] == [True, True]
        assert not come(3, 99, due_us=99_000_000)
        assert not come(4, 5)
        assert come(5, -1)  # the one of rank 9 makes room
        for _ in range(2):
            first = box.line.head(now_us=0)
            assert first is not None
            box.line.take(first)
        assert not come(6, 7)
