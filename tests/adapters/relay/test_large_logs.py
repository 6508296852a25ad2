"""Logs and leases of large records: a bounded number of bytes at once, nothing lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx2

from hubbub_relay import events
from hubbub_relay.api import WHOLE_LOG
from hubbub_relay.wire import LogsQuery
from tests.adapters.relay.serving import Relay

LARGE = 900_000


async def send(relay: Relay, place: int, size_bytes: int = LARGE, **more: Any) -> None:
    """Send something of a size."""
    body = {"from": "user", "to": "child", "text": str(place), "payload": {"x": "x" * size_bytes}}
    answer = await relay.client.post("/send", json={**body, **more})
    assert answer.status_code == 200, answer.text


async def logged(relay: Relay, **query: Any) -> httpx2.Response:
    """Return the answer to `logs`."""
    answer = await relay.client.get("/logs", params=query)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_long_log_comes_as_it_is_read(relay: Relay) -> None:
    """All that was asked for, oldest first, without a length where it is long."""
    for place in range(6):
        await send(relay, place)
    answer = await logged(relay, limit=1000)
    assert [one["text"] for one in answer.json()["logs"]] == ["0", "1", "2", "3", "4", "5"]
    assert "content-length" not in answer.headers
    newest = await logged(relay, limit=1)
    assert [one["text"] for one in newest.json()["logs"]] == ["5"]


async def test_a_short_log_has_its_length(relay: Relay) -> None:
    """As ever for what fits at once; one byte more than that comes as it is read."""
    assert (await logged(relay)).json() == {"status": "ok", "logs": []}
    await send(relay, 0, 10)
    short = await logged(relay)
    assert short.headers["content-length"] == str(len(short.content))
    fits = WHOLE_LOG - len(short.content) + 10
    for size_bytes, has_length in ((fits, True), (fits + 1, False)):
        await send(relay, 1, size_bytes)
        answer = await logged(relay, limit=1)
        assert len(answer.content) == WHOLE_LOG + size_bytes - fits
        assert ("content-length" in answer.headers) is has_length


async def test_records_are_read_by_bytes(relay: Relay) -> None:
    """The first of the ids, as many as fit; a record that is gone is passed over."""
    for place in range(4):
        await send(relay, place, 1000)
    query = LogsQuery(limit=10)
    ids = await relay.core.read(partial(events.chosen, query=query))
    assert len(ids) == 4
    some = partial(events.some, limit_bytes=2500)
    found, looked_at = await relay.core.read(partial(some, ids=ids))
    assert ([one.id for one in found], looked_at) == (ids[:2], 2)
    gone = ids[-1] + 7
    found, looked_at = await relay.core.read(partial(some, ids=[*ids[2:], gone]))
    assert ([one.id for one in found], looked_at) == (ids[2:], 2)
    assert await relay.core.read(partial(some, ids=[gone])) == ([], 1)


async def test_a_lease_ends_early_by_bytes(relay: Relay) -> None:
    """A worker gets as many tasks as fit into a page, and the others when it asks again."""
    for place in range(6):
        await send(relay, place, type="task", cmd="work")
    taken: list[int] = []
    while len(taken) < 2:
        answer = await relay.client.get("/tasks", params={"to": "child", "limit": 100})
        assert answer.status_code == 200, answer.text
        taken.append(len(answer.json()["tasks"]))
    assert taken == [4, 2]
