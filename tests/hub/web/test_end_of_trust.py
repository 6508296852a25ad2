"""What a token has opened ends within two seconds of the token's end."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub.envelope import Envelope
from hubbub.errors import CredentialEndedError
from hubbub.store.reads.envelopes import newest_seq
from hubbub.testing import FakeClock, RecordingEndpoint
from hubbub.values import Endpoint
from tests.hub.web.conftest import FAST, Served, serving
from tests.hub.web.test_stream_names import heard, refused, stream, token_of

SOON_S = 2.0


@asynccontextmanager
async def within_two_seconds() -> AsyncGenerator[None]:
    """Fail where something takes longer."""
    began = monotonic()
    async with asyncio.timeout(10):
        yield
    assert monotonic() - began < SOON_S


async def revoke(served: Served, token_id: str) -> None:
    """Revoke a token as `hubbub token revoke` does."""
    assert (await served.client.delete(f"/api/v1/tokens/{token_id}")).status_code == 204


async def test_a_stream_is_closed_with_its_token(served: Served) -> None:
    """With 4401; others of other tokens stay, and nothing that it says afterwards is taken."""
    gone, mine = await token_of(served, "publish:>", "read")
    _, other = await token_of(served, "publish:>", "read")
    async with (
        stream(served, "name=x&durable=1&subject=a.>", mine) as (socket, _),
        stream(served, "name=y&subject=a.>", other) as (others, _),
    ):
        before = await served.core.read(newest_seq)
        async with within_two_seconds():
            await revoke(served, gone)
            assert served.core.room.link_of("stream.x") is None  # at once, whatever it reads
            for number in range(50):
                try:
                    await socket.send(
                        json.dumps(
                            {"type": "publish", "envelope": {"subject": "b.c", "data": number}}
                        )
                    )
                except ConnectionClosed:
                    break
            with pytest.raises(ConnectionClosed):
                await heard(socket)
        assert (socket.close_code, socket.close_reason) == (4401, "the token was revoked")
        await served.core.journal.flush()
        assert await served.core.read(newest_seq) == before
        await served.publish("a.b", 1)
        assert json.loads(await heard(others))["envelope"]["data"] == 1
    await refused(served, "name=x", mine, 401)


async def test_a_stream_that_does_not_read_ends_too(tmp_path: Path) -> None:
    """Its name is free at once, and it is not counted among those of its source any more."""
    only_one = f'{FAST}[[guards.source]]\nmatch = "api.app"\nconnections = 1\n'
    async with serving(tmp_path / "hub", only_one) as served:
        gone, mine = await token_of(served, "publish:>", "read")
        _, other = await token_of(served, "publish:>", "read")
        async with stream(served, "name=x&subject=a.>&concurrency=1000", mine) as (socket, _):
            socket.transport.pause_reading()
            for _ in range(30):
                await served.publish("a.b", "x" * 500_000)
            async with within_two_seconds():
                await revoke(served, gone)
                assert served.core.credentials.count(gone) == 0
                while True:
                    try:
                        async with stream(served, "name=x", other) as (_, hello):
                            assert hello["resumed"] is False
                            break
                    except InvalidStatus:  # 429, as long as the other one is counted
                        await asyncio.sleep(0.02)
            socket.transport.abort()


async def test_time_ends_a_stream(tmp_path: Path) -> None:
    """By the hub's clock, at the moment the token expires."""
    clock = FakeClock()
    async with serving(tmp_path / "hub", FAST, clock=clock) as served:
        until_us = clock.now_us() + 60_000_000
        _, text = await served.core.tokens.create("app", ["read"], expires_us=until_us)
        async with stream(served, "name=x&subject=a.>", text) as (socket, _):
            await clock.advance(59.9)
            assert served.core.room.link_of("stream.x") is not None
            await clock.advance(0.1)
            assert served.core.room.link_of("stream.x") is None
            with pytest.raises(ConnectionClosed):
                await heard(socket)
            assert (socket.close_code, socket.close_reason) == (4401, "the token has expired")


async def test_a_token_that_ends_during_the_handshake_opens_nothing(served: Served) -> None:
    """What was checked before a wait is checked again after it."""
    gone, mine = await token_of(served, "read")
    held = asyncio.Event()

    async def hold() -> None:
        await held.wait()

    clearing = served.core.attachments._clearing  # pyright: ignore[reportPrivateUsage]  # as while a name is freed
    clearing["stream.x"] = asyncio.create_task(hold())
    coming = asyncio.create_task(refused(served, "name=x&durable=1", mine, 401))
    await asyncio.sleep(0.1)  # it is authenticated; an answer would be there
    assert not coming.done()
    await revoke(served, gone)
    del clearing["stream.x"]
    held.set()
    assert (await coming)["code"] == "credential_ended"
    assert served.core.directory.get("stream.x") is None


async def test_events_end_with_their_token(served: Served) -> None:
    """The last one says why."""
    gone, mine = await token_of(served, "read")
    headers = {"authorization": f"Bearer {mine}"}
    async with served.client.stream("GET", "/api/v1/stream", headers=headers) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == ": welcome"
        async with within_two_seconds():
            await revoke(served, gone)
            rest = [line async for line in lines if line]
        assert rest[-2:] == ["event: end", 'data: {"code":"credential_ended","reason":"revoked"}']


async def test_events_that_nobody_reads_end_too(served: Served) -> None:
    """The hub waits a second for its reader, and no longer."""
    gone, mine = await token_of(served, "read")
    host, port = served.url.removeprefix("http://").split(":")
    with closing(sockets.create_connection((host, int(port)))) as peer:
        head = f"GET /api/v1/stream HTTP/1.1\r\nHost: {host}:{port}\r\n"
        peer.sendall(f"{head}Authorization: Bearer {mine}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            while not served.core.credentials.count(gone):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        for _ in range(30):
            await served.publish("a.b", "x" * 500_000)
        async with within_two_seconds():
            await revoke(served, gone)
            while served.core.credentials.count(gone):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_a_request_that_waits_ends_with_its_token(served: Served) -> None:
    """401 with a code of its own; the answer that comes later reaches nobody."""
    gone, mine = await token_of(served, "publish:>")
    asked = asyncio.Event()

    class Silent(Endpoint):
        async def deliver(self, envelope: Envelope) -> None:
            del envelope
            asked.set()
            await asyncio.Event().wait()

    endpoint = Silent(address="plugin.silent")
    served.core.attach(endpoint)
    await served.core.subscribe(endpoint, "ask.>")
    headers = {"authorization": f"Bearer {mine}"}
    body = {"subject": "ask.me", "data": 1, "timeout": "30s"}
    asking = asyncio.create_task(served.client.post("/api/v1/requests", json=body, headers=headers))
    async with asyncio.timeout(10):
        await asked.wait()
    async with within_two_seconds():
        await revoke(served, gone)
        answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (401, "credential_ended")


@pytest.mark.parametrize("path", ["/api/v1/envelopes", "/api/v1/tasks"])
async def test_a_body_that_ends_after_its_token_is_not_taken(served: Served, path: str) -> None:
    """Its headers were good; the rest came when the token was not any more."""
    gone, mine = await token_of(served, "publish:>", "tasks")
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncGenerator[bytes]:
        yield b'{"subject":"a.b",'
        yield await parts.get()

    headers = {"authorization": f"Bearer {mine}", "content-type": "application/json"}
    before = await served.core.read(newest_seq)
    posting = asyncio.create_task(served.client.post(path, content=body(), headers=headers))
    await asyncio.sleep(0.2)  # its headers are there; an answer would be, if it had to be
    await revoke(served, gone)
    parts.put_nowait(b'"data":1}')
    answer: httpx2.Response = await posting
    assert (answer.status_code, answer.json()["code"]) == (401, "credential_ended")
    await served.core.journal.flush()
    assert await served.core.read(newest_seq) == before


async def test_a_task_of_a_stream_goes_to_another_worker(served: Served) -> None:
    """What it had in hand is tried again elsewhere."""
    gone, mine = await token_of(served, "tasks", "tasks:>", "read")
    worker = "accepts=hubbub.task.request.v1&task_types=t&ack=manual"
    async with stream(served, f"name=w1&{worker}", mine) as (socket, _):
        made = await served.client.post("/api/v1/tasks", json={"task_type": "t", "params": {}})
        assert made.status_code == 202
        await heard(socket)
        other = RecordingEndpoint("plugin.w2", accepts=["hubbub.task.request.v1"], task_types=["t"])
        served.core.attach(other)
        async with within_two_seconds():
            await revoke(served, gone)
            await other.wait_for(1)


async def test_a_credential_that_has_ended_is_told_by_its_code(served: Served) -> None:
    """The registry of a running hub has what tokens there are."""
    gone, _ = await token_of(served, "read")
    served.core.credentials.check(gone)
    await revoke(served, gone)
    with pytest.raises(CredentialEndedError):
        served.core.credentials.check(gone)


async def test_a_publisher_that_waits_for_a_place_ends_with_its_token(tmp_path: Path) -> None:
    """A full mailbox lets it wait without end; what it has is not taken afterwards."""
    full = f'{FAST}mailbox_limit = 1\noverflow = "wait"\n'
    async with serving(tmp_path / "hub", full) as served:
        gone, mine = await token_of(served, "direct:>")
        link = served.core.attach(RecordingEndpoint("plugin.slow"))
        link.slots = 0
        body = {"subject": "a.b", "data": 1, "to": ["plugin.slow"]}
        await served.publish("a.b", 0, to=["plugin.slow"])
        headers = {"authorization": f"Bearer {mine}"}
        posting = asyncio.create_task(
            served.client.post("/api/v1/envelopes", json=body, headers=headers)
        )
        async with asyncio.timeout(10):
            while not served.core.credentials.count(gone):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        async with within_two_seconds():
            await revoke(served, gone)
            answer = await posting
        assert (answer.status_code, answer.json()["code"]) == (401, "credential_ended")
        assert link.waiting == 1
