"""Stream clients that behave badly: none loses anything durable, none leaves anything behind."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub.delivery.mailbox import WINDOW
from hubbub.hub import Hub
from hubbub.testing import counted, serving_hub
from hubbub.web.sockets.connection import MAX_REQUESTS

ADMIN = "the-admin-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {ADMIN}"}
CONFIG = """
[hub]
drain_timeout = 0.1
backoff = 0.01

[hub.limits]
idle = 2
"""
WAIT_S = 20.0


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub with its sockets, which waits two seconds for whoever does not read."""
    environ = {"HUBBUB_ADMIN_TOKEN": ADMIN}
    async with serving_hub(tmp_path / "hub", CONFIG, environ=environ) as serving:
        yield serving


@asynccontextmanager
async def stream(hub: Hub, query: str, **how: Any) -> AsyncGenerator[ClientConnection]:
    """Connect, and read the hello; hang up without a word at the end."""
    url = hub.main.url.replace("http", "ws") + "/api/v1/stream?" + query
    client = await connect(url, additional_headers=HEADERS, proxy=None, ping_interval=None, **how)
    try:
        yield client
    finally:
        client.transport.abort()
        with suppress(ConnectionClosed):
            await client.close()


async def heard(client: ClientConnection, kind: str) -> Any:
    """Return the next frame, which is of that type."""
    async with asyncio.timeout(WAIT_S):
        frame = json.loads(await client.recv())
    assert frame["type"] == kind, frame
    return frame


async def publish(hub: Hub, subject: str, *data: object) -> None:
    """Publish durable envelopes, in one batch."""
    async with httpx2.AsyncClient(base_url=hub.main.url, headers=HEADERS, timeout=20) as client:
        batch = [{"subject": subject, "data": one} for one in data]
        answer = await client.post("/api/v1/envelopes", json=batch)
        assert answer.status_code == 202, answer.text


@dataclass(frozen=True)
class Counts:
    """What a hub holds in memory for those who are there; mailboxes are those of nobody known."""

    endpoints: int
    routes: int
    links: int
    mailboxes: int
    waiting: int
    in_flight: int
    tasks: int
    connections: int


def counts(hub: Hub) -> Counts:
    """Return what a hub holds now; mailboxes without a use are forgotten first, as in time."""
    core = hub.core
    core.room.forget_idle()
    return Counts(
        endpoints=len(core.directory),
        routes=len(core.table),
        links=len(core.room.links()),
        mailboxes=sum(core.directory.get(box.name) is None for box in core.room.boxes),
        waiting=sum(box.depth for box in core.room.boxes),
        in_flight=len(core.room.held()) + len(core.room.boxes.here),
        tasks=len(core._tasks),
        connections=int(counted(core, "hubbub_connections")),
    )


async def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until something holds."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not holds():  # noqa: ASYNC110  # what ends is many things, in no order
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:g} s: {what()}")


async def back_to(hub: Hub, before: Counts) -> None:
    """Wait until nothing more is held than before."""
    await until(lambda: counts(hub) == before, lambda: (asdict(counts(hub)), asdict(before)))


def deaf(hub: Hub) -> sockets.socket:
    """Return a socket that takes in next to nothing."""
    made = sockets.socket()
    made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    made.connect((hub.main.address.host, hub.main.address.port))
    made.setblocking(False)
    return made


async def numbers(client: ClientConnection, count: int) -> list[int]:
    """Return the first element of the data of so many envelopes."""
    return [(await heard(client, "envelope"))["envelope"]["data"][0] for _ in range(count)]


BIG = "x" * 100_000
BIG_ONES = 200


@pytest.mark.timeout(90)
async def test_a_client_that_never_reads_holds_up_nobody_and_loses_nothing(hub: Hub) -> None:
    """Its messages wait, within bounds; it is hung up on; what was not written comes when it does.

    Whoever reads gets everything meanwhile.
    """
    query = "name=keeper&durable=1&subject=big.>"
    async with (
        stream(hub, query, sock=deaf(hub), max_queue=1) as silent,
        stream(hub, "subject=big.>", max_size=None) as reader,
    ):
        assert silent.transport is not None
        await heard(reader, "hello")
        reading = asyncio.create_task(numbers(reader, BIG_ONES))
        for first in range(0, BIG_ONES, 5):
            await publish(hub, "big.one", *[[n, BIG] for n in range(first, first + 5)])
        assert await reading == list(range(BIG_ONES))
        box = hub.core.room.boxes.find("stream.keeper")
        assert box is not None
        assert 0 < len(box.line) <= WINDOW
        link = hub.core.room.link_of("stream.keeper")
        assert link is None or len(link.in_flight) == 1
        await until(
            lambda: counted(hub.core, "hubbub_connections_refused_total", reason="unread") == 1,
            lambda: "nobody hung up on who does not read",
        )
    left = box.depth
    assert left > 0
    async with stream(hub, query, max_size=None) as back:
        assert (await heard(back, "hello"))["resumed"] is True
        assert await numbers(back, left) == list(range(BIG_ONES - left, BIG_ONES))
        await publish(hub, "big.last", ["last"])
        assert (await heard(back, "envelope"))["envelope"]["data"] == ["last"]


@pytest.mark.timeout(90)
async def test_a_client_that_floods_waits_itself_and_nobody_else(hub: Hub) -> None:
    """It reads no answer either; others are served, and nothing of it is left."""
    before = counts(hub)
    frame = json.dumps({"type": "publish", "ref": 1, "envelope": {"subject": "f.f", "data": 1}})
    async with stream(hub, "name=flood", sock=deaf(hub), max_queue=1) as flood:

        async def pour() -> None:
            for _ in range(5000):
                await flood.send(frame)

        pouring = asyncio.create_task(pour())
        async with stream(hub, "name=calm") as calm:
            await heard(calm, "hello")
            for number in range(20):
                await calm.send(
                    json.dumps(
                        {"type": "publish", "ref": number,
                         "envelope": {"subject": "calm.x", "data": number}}
                    )
                )  # fmt: skip
                assert (await heard(calm, "accepted"))["ref"] == number
            journal = hub.core.journal
            assert journal._queue.waiting <= MAX_REQUESTS + 1
        pouring.cancel()
        with suppress(asyncio.CancelledError, ConnectionClosed):
            await pouring
    await back_to(hub, before)
    assert counted(hub.core, "hubbub_envelopes_accepted_total", adapter="stream") > 20


async def test_acknowledging_what_was_never_given_acknowledges_nothing(hub: Hub) -> None:
    """A thousand wrong numbers, each answered; what was given is given again after a death."""
    query = "name=liar&durable=1&subject=work.>&ack=manual"
    async with stream(hub, query) as liar:
        await heard(liar, "hello")
        await publish(hub, "work.a", 1)
        given = (await heard(liar, "envelope"))["delivery"]
        for number in (0, -1, 2**63, *range(given + 1, given + 998)):
            await liar.send(json.dumps({"type": "ack", "delivery": number}))
        for _ in range(1000):
            assert (await heard(liar, "error"))["problem"]["code"] in ("conflict", "invalid")
        link = hub.core.room.link_of("stream.liar")
        assert link is not None
        assert len(link.in_flight) == 1
    async with stream(hub, query) as honest:
        assert (await heard(honest, "hello"))["resumed"] is True
        frame = await heard(honest, "envelope")
        assert frame["envelope"]["data"] == 1
        await honest.send(json.dumps({"type": "ack", "delivery": frame["delivery"]}))
        await until(
            lambda: not hub.core.room.boxes.here, lambda: hub.core.room.boxes.here
        )  # fmt: skip


HANDSHAKE = (
    "GET /api/v1/stream?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    f"Authorization: Bearer {ADMIN}\r\n\r\n"
)


@pytest.mark.timeout(120)
async def test_a_client_that_reconnects_a_thousand_times_leaves_nothing(hub: Hub) -> None:
    """Under one name, at every point of the handshake, the older still open or not."""
    query = "name=nervous&durable=1&subject=calls.>"
    async with stream(hub, query) as first:
        await heard(first, "hello")
    await until(lambda: counts(hub).connections == 0, lambda: counts(hub))
    before = counts(hub)
    host, port = hub.main.address.host, hub.main.address.port
    request = HANDSHAKE.format(query=query).encode()
    older: asyncio.StreamWriter | None = None
    for number in range(1000):
        reader, writer = await asyncio.open_connection(host, port)
        match number % 4:
            case 0:  # half a request
                writer.write(request[: len(request) // 2])
            case 1:  # a whole one, and gone before the answer
                writer.write(request)
            case _:  # connected; every other time the one before is still there
                writer.write(request)
                async with asyncio.timeout(WAIT_S):
                    await reader.readuntil(b'"hello"')
        if older is not None:
            older.transport.abort()
        older = writer if number % 4 == 2 else None
        if older is None:
            writer.transport.abort()
        if number == 500:
            await publish(hub, "calls.one", "while it came and went")
    await until(lambda: counts(hub).connections == 0, lambda: counts(hub))
    async with stream(hub, query) as last:
        assert (await heard(last, "hello"))["resumed"] is True
        await publish(hub, "calls.two", "after")
        said = (await heard(last, "envelope"))["envelope"]["data"]
        if said != "after":  # else one of those who were there for a moment has taken it
            assert said == "while it came and went"
            assert (await heard(last, "envelope"))["envelope"]["data"] == "after"
    await back_to(hub, before)


async def test_a_subscriber_that_dies_in_mid_frame_is_given_it_again(hub: Hub) -> None:
    """It has read half of what the hub writes, or sent half of its answer; nothing is left."""
    query = "name=fragile&durable=1&subject=big.>&ack=manual"
    async with stream(hub, query) as client:
        await heard(client, "hello")
    await until(lambda: counts(hub).connections == 0, lambda: counts(hub))
    before = counts(hub)
    await publish(hub, "big.one", "y" * 900_000)
    host, port = hub.main.address.host, hub.main.address.port
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(HANDSHAKE.format(query=query).encode())
        await reader.readuntil(b'"type":"envelope"')
        writer.write(b"\x81\xfe\x00\x20\x00\x00\x00\x00" + b'{"type":"ack","del')  # 18 of 32
        await writer.drain()
        writer.transport.abort()
    async with stream(hub, query) as client:
        assert (await heard(client, "hello"))["resumed"] is True
        frame = await heard(client, "envelope")
        assert frame["envelope"]["data"] == "y" * 900_000
        await client.send(json.dumps({"type": "ack", "delivery": frame["delivery"]}))
        await until(lambda: not hub.core.room.boxes.here, lambda: hub.core.room.boxes.here)
    await back_to(hub, before)
