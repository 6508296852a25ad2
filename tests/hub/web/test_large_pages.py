"""Large pages: they end early by bytes with a cursor, and hold up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, insert
from starlette.types import Message, Scope

from hubbub import Envelope
from hubbub.cli.client import HubClient
from hubbub.portions import PAGE_BYTES, PORTION_BYTES
from hubbub.store.reads import envelopes as reads
from hubbub.store.reads import tasks as task_reads
from hubbub.store.tables import TaskRow
from hubbub.web.app import build_app
from hubbub.web.encoding import Listing, Page, in_portions
from tests.hub.web.conftest import ADMIN, Served

LARGE = 900_000


async def fill(served: Served, number: int, size_bytes: int = LARGE) -> list[str]:
    """Publish large envelopes; returns their ids, oldest first."""
    made: list[str] = []
    for place in range(number):
        envelope = Envelope.new(
            source="test", subject=f"big.{place}", type="t", data={"text": "x" * size_bytes}
        )
        made.append((await served.core.publish(envelope.replace(durable=True))).id)
    return made


async def ask(served: Served, path: str, *, headers: dict[str, str] | None = None) -> list[Message]:
    """Return all that the application sends as an answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = build_app(served.core, loopback=True)
    await app(scope_of(path, headers or {}), never, send)
    return sent


async def never() -> Message:
    """Receive nothing."""
    message: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await message


def scope_of(path: str, headers: dict[str, str]) -> Scope:
    """Return the scope of a request of the administrator."""
    where, _, query = path.partition("?")
    lines = {"host": "127.0.0.1", "authorization": f"Bearer {ADMIN}", **headers}
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }


async def test_history_ends_early_by_bytes(served: Served) -> None:
    """Each page keeps to its bytes; all pages together have everything once, in order."""
    made = await fill(served, 10)
    first = await served.client.get("/api/v1/envelopes", params={"limit": 1000})
    assert len(first.json()["items"]) == PAGE_BYTES // LARGE
    assert len(first.content) <= PAGE_BYTES
    assert first.headers["content-length"] == str(len(first.content))
    items = await served.pages("/api/v1/envelopes", limit=1000)
    assert [one["id"] for one in items] == made[::-1]


async def test_commands_follow_pages_that_end_early(served: Served) -> None:
    """A command shows as many as there are, over as many pages as that takes."""
    made = await fill(served, 6)

    def items() -> list[Any]:
        with HubClient(served.url, ADMIN) as hub:
            return hub.items("/api/v1/envelopes", 1000)

    found = await asyncio.to_thread(items)
    assert [one["id"] for one in found] == made[::-1]


async def test_a_page_is_sent_in_portions(served: Served) -> None:
    """No part of an answer is larger than a portion, also where one item is."""
    await fill(served, 5)
    start, *body = await ask(served, "/api/v1/envelopes?limit=1000")
    assert start["status"] == 200
    assert max(len(part["body"]) for part in body) <= PORTION_BYTES
    page = msgspec.json.decode(b"".join(part["body"] for part in body))
    assert len(page["items"]) == PAGE_BYTES // LARGE


@pytest.mark.parametrize(
    ("budget", "shown"),
    [(3000, 3), (2999, 2), (1, 1)],
    ids=["all fit", "one byte too much", "none fits"],
)
async def test_history_and_resume_at_the_edge(served: Served, budget: int, shown: int) -> None:
    """What fits exactly is shown; one item is, whatever it takes."""
    made = await fill(served, 3, 1000 - len('{"text":""}'))
    core = served.core
    found, after = await core.read(
        partial(
            reads.history, wanted=reads.EnvelopeFilter(), before=None, limit=10, limit_bytes=budget
        )
    )
    assert [one.envelope.id for one in found] == made[::-1][:shown]
    assert after == (None if shown == 3 else found[-1].seq)
    oldest, after = await core.read(
        partial(reads.later, seq=0, patterns=[">"], limit=10, limit_bytes=budget)
    )
    assert [one.envelope.id for one in oldest] == made[:shown]
    assert after == (None if shown == 3 else oldest[-1].seq)


async def test_tasks_end_early_by_their_results(served: Served) -> None:
    """The results of tasks count, and what does not fit is not read."""
    row = {
        "task_type": "t", "asker": "a", "state": "completed", "run": 1, "attempt": 1,
        "orphan": False, "retry_on_failure": False, "trace_id": "0" * 32, "created_us": 1,
        "updated_us": 1, "result": b"%d" % 10**900,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [{**row, "id": f"t{place}", "seq": place} for place in range(5)]
    await served.core.execute((insert(TaskRow), rows))
    listed = partial(task_reads.listed, state=None, task_types=None, limit=10)
    first, after = await served.core.read(partial(listed, before=None, limit_bytes=2000))
    assert [one.id for one in first] == ["t4", "t3"]
    rest, end = await served.core.read(partial(listed, before=after, limit_bytes=2703))
    assert [one.id for one in rest] == ["t2", "t1", "t0"]
    assert end is None


async def test_the_audit_ends_early_by_bytes(served: Served) -> None:
    """As history does: lists that hold only small things most of the time have the same budget."""
    for place in range(6):
        await served.core.audit("tester", "act", str(place), "x" * LARGE)
    first = await served.client.get("/api/v1/audit", params={"limit": 1000})
    assert len(first.content) <= PAGE_BYTES
    items = await served.pages("/api/v1/audit", limit=1000)
    assert [one["target"] for one in items if one["act"] == "act"] == ["5", "4", "3", "2", "1", "0"]


async def test_users_are_looked_for_in_large_messages(served: Served) -> None:
    """Who spoke is found without having all messages in memory."""
    for name in ("ann", "bob"):
        data = {"sender": {"id": name}, "text": "x" * LARGE}
        envelope = Envelope.new(source="test", subject="chat.a", type="t", data=data)
        await served.core.publish(envelope.replace(durable=True))
    found = await served.pages("/api/v1/traces", user="bob")
    assert len(found) == 1


async def test_a_resumed_stream_misses_nothing(served: Served) -> None:
    """More than one read's worth comes in order, once, and what is live follows."""
    first, *missed = await fill(served, 6)
    headers = {"last-event-id": first}
    async with (
        served.client.stream("GET", "/api/v1/stream", headers=headers) as answer,
        aclosing(events(answer.aiter_lines())) as ids,
    ):
        assert [await anext(ids) for _ in missed] == missed
        [live] = await fill(served, 1, 10)
        assert await anext(ids) == live


async def events(lines: Any) -> AsyncGenerator[str]:
    """Yield the id of each event, and `gap` for a gap."""
    async for line in lines:
        if line.startswith("id: "):
            yield line.removeprefix("id: ")
        elif line == "event: gap":
            yield "gap"


async def test_a_resume_is_read_as_fast_as_it_is_taken(served: Served) -> None:
    """While the reader takes nothing, no more is read from the store."""
    first, *_ = await fill(served, 8)
    read: list[int] = []

    def note(*executed: Any) -> None:
        _, _, statement, parameters, *_ = executed
        if "envelope.data AS" in statement or "envelope.data," in statement:
            read.append(len(parameters))  # the numbers of those whose data is read

    stuck = asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body", b"").startswith(b"id:"):
            stuck.set()
            await never()

    event.listen(served.core.database.engine, "after_cursor_execute", note)
    app = build_app(served.core, loopback=True)
    scope = scope_of("/api/v1/stream", {"last-event-id": first})
    streaming = asyncio.ensure_future(app(scope, never, send))
    await stuck.wait()
    streaming.cancel()
    await asyncio.gather(streaming, return_exceptions=True)
    assert read == [1]


def busy(number: int, ran: Callable[[], object]) -> Any:
    """Yield items each of which takes a while to make."""
    for place in range(number):
        time.sleep(0.001)
        ran()
        yield place


async def test_others_have_their_turn_in_a_long_answer() -> None:
    """While items are made and encoded one by one, the loop is given back again and again."""
    turns = 0
    done = False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    portions = await Listing("items", busy(30, lambda: None), before={"a": 1}).encode()
    done = True
    await running
    assert msgspec.json.decode(b"".join(portions)) == {"a": 1, "items": [*range(30)]}
    assert turns >= 5


@pytest.mark.parametrize(
    ("limit", "shown", "following"),
    [(8, 2, '"c1"'), (7, 1, '"c0"'), (1, 1, '"c0"')],
    ids=["exact", "one byte less", "less than one"],
)
async def test_a_page_at_the_edge(limit: int, shown: int, following: str) -> None:
    """It ends before the item that would go over its bytes; behind the first at the earliest."""
    items = (b'"%d?"' % place for place in range(3))  # four bytes each
    page = Page(items, None, cursor_at=lambda at: f"c{at}", limit_bytes=limit)
    text = b"".join(await page.encode()).decode()
    inside = ",".join(f'"{place}?"' for place in range(shown))
    assert text == f'{{"items":[{inside}],"next":{following}}}'


def test_portions_have_their_size() -> None:
    """Small parts are joined up to a portion, large ones cut; nothing is lost."""
    parts = [b"a" * 100_000] * 5 + [b"b" * (2 * PORTION_BYTES + 1)] + [b"c"]
    portions = [*in_portions(parts)]
    assert b"".join(portions) == b"".join(parts)
    assert max(map(len, portions)) <= PORTION_BYTES
    assert len(portions) == 3 + 3 + 1


async def test_steps_of_a_long_trace_are_in_order(served: Served) -> None:
    """A trace of more steps than are sorted at once."""
    trace_id = "ab" * 16
    for place in range(2500):
        at_us = (place * 7919) % 2500
        served.core.tracer.step(trace_id, "step", at_us, 0, {"delivery": str(place)})
    spans = (await served.get(f"/api/v1/traces/{trace_id}"))["spans"]
    assert len(spans) == 2500
    assert all(one["at"] <= two["at"] for one, two in pairwise(spans))
