"""A worker on a stream dies a hundred times, at every bad moment: each task is finished once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub.hub import Hub
from hubbub.testing import serving_hub
from tests.chaos.stream_worker import QUERY, result_of

LIVES = int(os.environ.get("HUBBUB_KILLS", "100"))
SEED = int(os.environ.get("HUBBUB_SEED", "20260102"))
KILLED_EVERY = 25
"""Of so many lives one is a process that is killed; the others hang up without a word."""

KEY = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
ADMIN = "the-admin-token-of-the-tests"

CONFIG = """
[hub]
drain_timeout = 0.1
backoff = 0.01

[adapters.relay]
enabled = true

[[routes]]
name = "the child's work is done by a stream"
match = "relay.child.task.>"
to = ["stream.worker"]
attempts = 1000
"""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub with its sockets, and a route from the relay to a stream."""
    environ = {"HUBBUB_ADMIN_TOKEN": ADMIN}
    async with serving_hub(tmp_path / "hub", CONFIG, environ=environ) as serving:
        yield serving


class Worker:
    """One life of the worker, in this process.

    Attributes:
        given: Ids of the tasks it was handed, in order.
    """

    def __init__(self, socket: ClientConnection, name: str) -> None:
        self.name = name
        self.given: list[str] = []
        self._socket = socket

    async def take(self) -> str:
        """Return the next task that is handed over."""
        while True:
            frame = json.loads(await self._socket.recv())
            assert frame["type"] in ("hello", "envelope", "accepted"), frame
            if frame["type"] == "envelope":
                task_id: str = frame["envelope"]["data"]["task_id"]
                self.given.append(task_id)
                return task_id

    async def finish(self, task_id: str) -> None:
        """Send the result; whether the hub has it nobody knows yet."""
        await self._socket.send(result_of(task_id, self.name))

    def finish_half(self, task_id: str) -> None:
        """Die in the middle of the frame that holds the result."""
        text = result_of(task_id, self.name).encode()
        head = bytes((0x81, 0xFE)) + len(text).to_bytes(2, "big") + bytes(4)
        self._socket.transport.write((head + text)[: len(text) // 2])

    def die(self) -> None:
        """Hang up as a process does that is killed."""
        self._socket.transport.abort()


async def live(url: str, name: str, chance: random.Random) -> list[str]:
    """Live once: take a few tasks, do something with them, and die; returns their ids."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    socket = await connect(f"{url}?{QUERY}", additional_headers=headers, proxy=None)
    worker = Worker(socket, name)
    with suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(5):
            for _ in range(chance.randint(0, 4)):
                task_id = await worker.take()
                match chance.choice(("finish", "finish", "forget", "half")):
                    case "finish":
                        await worker.finish(task_id)
                    case "half":
                        worker.finish_half(task_id)
                        break
                    case _:
                        pass
    worker.die()
    with suppress(ConnectionClosed):
        await socket.close()
    return worker.given


async def live_and_be_killed(url: str, name: str) -> list[str]:
    """Live once as a process that gets SIGKILL as soon as it says what it was given."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.stream_worker", url, ADMIN, name,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(20):
        said = await process.stdout.readline()
        process.kill()
        said += await process.stdout.read()
        await process.wait()
    return [line.split()[1] for line in said.decode().splitlines()]


async def finish_all(url: str, left: Any) -> list[str]:
    """Work, and this time live on; returns the ids of what it was given."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with connect(f"{url}?{QUERY}", additional_headers=headers, proxy=None) as socket:
        worker = Worker(socket, "last")
        while await left():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    while True:
                        await worker.finish(await worker.take())
        return worker.given


@pytest.mark.crash
@pytest.mark.timeout(180)
async def test_each_task_is_finished_once_however_often_its_worker_dies(hub: Hub) -> None:
    """Relay tasks go by a route to a stream; no death of the worker loses or doubles one."""
    chance = random.Random(SEED)
    stream = hub.main.url.replace("http", "ws") + "/api/v1/stream"
    sent: list[str] = []
    given: Counter[str] = Counter()
    headers = {**KEY, "Authorization": f"Bearer {ADMIN}"}
    async with httpx2.AsyncClient(base_url=hub.main.url, headers=headers, timeout=20) as client:

        async def send(number: int) -> None:
            for _ in range(number):
                body = {"from": "master", "to": "child", "type": "task", "cmd": "solve",
                        "payload": {"n": len(sent)}}  # fmt: skip
                answer = await client.post("/api/relay/send", json=body)
                assert answer.status_code == 200, answer.text
                sent.append(answer.json()["task_id"])

        async def left() -> list[str]:
            return [t for t in await listed(client, "tasks") if t["state"] not in ENDED]

        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with connect(f"{stream}?{QUERY}", additional_headers=headers, proxy=None) as first:
            await first.recv()  # known from here on: what is sent waits for it
        for life in range(LIVES):
            await send(2)
            if life % KILLED_EVERY == KILLED_EVERY - 1:
                await send(2)
                given.update(await live_and_be_killed(stream, f"p{life}"))
            else:
                given.update(await live(stream, f"w{life}", chance))
        given.update(await finish_all(stream, left))

        tasks = await listed(client, "tasks")
        assert [t for t in tasks if t["state"] != "completed"] == []
        assert sorted(t["task_id"] for t in tasks) == sorted(sent)
        results = await listed(client, "envelopes", type="hubbub.task.result.v1")
    once = Counter(result["data"]["task_id"] for result in results)
    assert once == dict.fromkeys(sent, 1)
    assert given.keys() == once.keys()
    assert given.total() > len(sent)  # some died with one, and it was given again
    check_nothing_is_left(hub)


ENDED = ("completed", "failed", "timeout", "cancelled")


async def listed(client: httpx2.AsyncClient, what: str, **query: str) -> list[Any]:
    """Return a whole list of the API."""
    items: list[Any] = []
    more: dict[str, str] = {**query, "limit": "1000"}
    while True:
        answer = await client.get(f"/api/v1/{what}", params=more)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next"] is None:
            return items
        more["cursor"] = page["next"]


def check_nothing_is_left(hub: Hub) -> None:
    """No delivery in flight, no task in hand, no place taken."""
    room = hub.core.room
    assert room.held() == {}
    assert room.in_hand == {}
    assert {box.name: box.depth for box in room.boxes if box.depth} == {}
