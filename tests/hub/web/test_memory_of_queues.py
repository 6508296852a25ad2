"""What waits is bounded in bytes: at the edge of each queue, and of the whole hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.delivery import mailbox as mailboxes
from hubbub.errors import MailboxFullError
from hubbub.memory import MemoryBudget
from hubbub.replies import Origins
from hubbub.testing import RecordingEndpoint, counted, running_hub, settle
from hubbub.web.api import stream as streams
from hubbub.web.api.stream import Reader
from tests.hub.web.conftest import Served
from tests.hub.web.test_sockets import heard, stream

SIZE = 2000


def said(number: int = 0, *, durable: bool = False, size: int = SIZE) -> Envelope:
    """Return an envelope whose data has so many bytes."""
    text = f"{number:04}".ljust(size - 2, "x")
    return Envelope.new(source="plugin.test", subject="slow.x", data=text, durable=durable)


class Slow(RecordingEndpoint):
    """Counts how often it is told that it is too slow."""

    told = 0

    def overloaded(self) -> None:
        self.told += 1


def attached(core: Core, *names: str) -> list[Slow]:
    """Attach endpoints that take nothing yet, to which everything goes."""
    slow = [Slow(f"plugin.{name}", concurrency=0) for name in names]
    for each in slow:
        core.attach(each)
    addresses = tuple(each.address for each in slow)
    core.table.put(Route(name="slow", match="slow.>", to=addresses))
    return slow


def taken(slow: Slow) -> list[str]:
    """Return what an endpoint was handed, in order."""
    return [str(envelope.json())[:4] for envelope in slow.taken]


async def test_a_mailbox_is_full_by_bytes_of_what_is_volatile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its bound and one message over it; durable ones wait in the store."""
    monkeypatch.setattr(mailboxes, "VOLATILE_BYTES", 3 * SIZE)
    async with running_hub(tmp_path) as core:
        attached(core, "a")
        for number in range(3):
            await core.publish(said(number))
        with pytest.raises(MailboxFullError, match="bytes"):
            await core.publish(said(3, size=10))
        await core.publish(said(4, durable=True))


async def test_drop_oldest_makes_room_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many volatile ones go as it takes; what the store has stays."""
    monkeypatch.setattr(mailboxes, "VOLATILE_BYTES", 3 * SIZE)
    async with running_hub(tmp_path, '[hub]\noverflow = "drop_oldest"\n') as core:
        (slow,) = attached(core, "a")
        await core.publish(said(9, durable=True))
        for number in range(3):
            await core.publish(said(number))
        await core.publish(said(3, size=2 * SIZE))
        link = core.room.link_of("plugin.a")
        assert link is not None
        link.slots = 1
        await slow.wait_for(3)
        await settle()
        assert taken(slow) == ["0009", "0002", "0003"]


async def test_over_the_limit_the_fullest_volatile_mailbox_gives_way(tmp_path: Path) -> None:
    """Its endpoint is told, who published last is not refused, and the others lose nothing."""
    async with running_hub(tmp_path) as core:
        (slow,) = attached(core, "a")
        other = Slow("plugin.other", concurrency=0)
        core.attach(other)
        await core.publish(said().replace(to=("plugin.other",)))
        for number in range(4):
            await core.publish(said(number))
        core.memory.limit_bytes = 5 * SIZE
        await core.publish(said(4))
        assert (slow.told, other.told) == (1, 0)
        assert core.memory.used_bytes == 2 * SIZE
        assert counted(core, "hubbub_memory_shed_total", kind="mailbox") == 1
        assert counted(core, "hubbub_deliveries_total", outcome="dropped") == 4


async def test_windows_go_to_the_store_and_come_back_in_order(tmp_path: Path) -> None:
    """Durable deliveries lose nothing by it; a payload of two mailboxes counts once."""
    async with running_hub(tmp_path) as core:
        both = attached(core, "a", "b")
        for number in range(5):
            await core.publish(said(number, durable=True))
        await core.journal.flush()
        assert core.memory.by_kind()["window"] == 10 * SIZE
        before = core.memory.used_bytes
        assert before == 5 * SIZE
        core.memory.limit_bytes = 2 * SIZE
        core.memory.relieve()
        assert "window" not in core.memory.by_kind()
        for each in both:
            link = core.room.link_of(each.address)
            assert link is not None
            link.slots = 1
        for each in both:
            await each.wait_for(5)
            assert taken(each) == ["0000", "0001", "0002", "0003", "0004"]


async def test_a_window_is_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fill it, the rest are read as there is room, and one larger than all of it too."""
    monkeypatch.setattr(mailboxes, "WINDOW_BYTES", 3 * SIZE)
    async with running_hub(tmp_path) as core:
        (slow,) = attached(core, "a")
        for number in range(8):
            await core.publish(said(number, durable=True))
        await core.publish(said(8, durable=True, size=9 * SIZE))
        box = core.room.boxes.get("plugin.a")
        assert (box.line.stored_bytes.held_bytes, box.behind) == (3 * SIZE, 6)
        link = core.room.link_of("plugin.a")
        assert link is not None
        link.slots = 1
        await slow.wait_for(9)
        assert taken(slow) == [f"{number:04}" for number in range(9)]


class Hanging(RecordingEndpoint):
    """Takes and does not end until it is let."""

    async def deliver(self, envelope: Envelope) -> None:
        await super().deliver(envelope)
        await self.ready.wait()

    ready = asyncio.Event()


async def test_publishes_are_503_when_nothing_gives_way(served: Served) -> None:
    """What is in flight cannot; the hub stays ready, and takes again once that has ended."""
    hanging = Hanging("plugin.hanging", concurrency=9)
    hanging.ready = asyncio.Event()
    served.core.attach(hanging)
    served.core.table.put(Route(name="h", match="h", to=("plugin.hanging",)))
    await served.publish("h", "x" * SIZE, durable=False)
    await hanging.wait_for(1)
    served.core.memory.limit_bytes = SIZE + 100
    await served.publish("h", "x" * 50, durable=False)
    refused = await served.client.post("/api/v1/envelopes", json={"subject": "h", "data": "x" * 50})
    assert refused.status_code == 503
    assert refused.json()["code"] == "memory_full"
    assert refused.headers["retry-after"] == "1"
    assert (await served.client.get("/readyz")).status_code == 200
    metrics = (await served.client.get("/metrics")).text
    assert f'hubbub_memory_bytes{{kind="all"}} {SIZE + 54}.0' in metrics
    assert f"hubbub_memory_limit_bytes {SIZE + 100}.0" in metrics
    hanging.ready.set()
    await settle()
    await served.publish("h", "x" * SIZE)


async def test_a_stream_that_is_too_slow_is_closed(served: Served) -> None:
    """It is told with 4008 that it reads too slowly, when the hub holds too much."""
    async with stream(served, "name=slow&subject=slow.>") as socket:
        await heard(socket, "hello")
        link = served.core.room.link_of("stream.slow")
        assert link is not None
        link.slots = 0
        await served.core.publish(said())
        served.core.memory.limit_bytes = SIZE // 2
        served.core.memory.relieve()
        async with asyncio.timeout(5):
            await socket.wait_closed()
        assert socket.close_code == 4008
        assert not served.core.memory.used_bytes


def test_a_reader_of_events_has_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it is one gap; an empty one takes anything, and the hub may take all of it."""
    monkeypatch.setattr(streams, "QUEUE_BYTES", 3 * SIZE)
    memory = MemoryBudget()
    reader = Reader((">",), memory)
    for number in range(5):
        reader.tap(said(number))
    assert memory.used_bytes == 3 * SIZE
    assert [each is None for each in reader.take()] == [False] * 3 + [True]
    reader.tap(said(size=99 * SIZE))
    assert memory.used_bytes == 99 * SIZE
    memory.limit_bytes = SIZE
    memory.relieve()
    assert (memory.used_bytes, reader.take()) == (0, [None])
    reader.tap(said())
    assert len(reader.take(limit_bytes=1)) == 1
    assert not memory.used_bytes


def test_events_are_written_in_pieces() -> None:
    """So that what a slow reader has missed is not joined into one."""
    reader = Reader((">",), MemoryBudget())
    for number in range(5):
        reader.tap(said(number))
    assert [len(reader.take(limit_bytes=2 * SIZE)) for _ in range(3)] == [2, 2, 1]
    assert not reader.woken.is_set()


async def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record of any size, and what has room beside it; the rest is refused, and forgotten."""
    async with running_hub(tmp_path) as core:
        monkeypatch.setattr(core.journal._account, "limit_bytes", 2 * SIZE)
        how = {"return_exceptions": True}
        first = [core.publish(said(number, durable=True)) for number in range(3)]
        outcomes = await asyncio.gather(*first, **how)
        assert [type(each).__name__ for each in outcomes] == ["Receipt"] * 2 + ["MemoryFullError"]
        await core.publish(said(4, durable=True, size=9 * SIZE))
        await core.journal.flush()
        assert not core.memory.used_bytes


def test_the_ring_of_origins_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest large ones go; small ones count by number, as they always did."""
    monkeypatch.setattr("hubbub.replies.ORIGINS_BYTES", 3 * SIZE)
    memory = MemoryBudget()
    origins = Origins(size=5, memory=memory)
    for number in range(4):
        origins.remember(said(number).replace(id=f"large{number}"))
    origins.remember(said(size=1024).replace(id="small"))
    known = [bool(origins.find(f"large{number}")) for number in range(4)]
    assert known == [False, True, True, True]
    assert origins.find("small")
    assert memory.used_bytes == 3 * SIZE
    for number in range(3):
        origins.remember(said(size=9).replace(id=f"tiny{number}"))
    assert memory.used_bytes == SIZE
    memory.limit_bytes = 10
    memory.relieve()
    assert not memory.used_bytes
    assert origins.find("tiny2")
