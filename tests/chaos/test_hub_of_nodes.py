"""The hub killed under its nodes: what was acknowledged is done, each with one result, and nodes
come back by themselves, ours and one as the original's.

`HUBBUB_KILLS=20` kills it that often.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic
from urllib.error import URLError

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from hubbub_node.journal import Journal
from tests.adapters.octohub.readme_node import ReadmeNode
from tests.chaos.nodes import NodeProcess
from tests.chaos.process import HubProcess
from tests.chaos.test_kill import rows
from tests.chaos.test_nodes import CONFIG, all_final, connected, left

KILLS = int(os.environ.get("HUBBUB_KILLS", "2"))
SEED = int(os.environ.get("HUBBUB_SEED", "20260102"))
NODES = 4
SUBMITTERS = 6
PAUSE_S = 0.2
WAIT_S = 30.0


class SeedNode:
    """A node as the original's: serial, a new address for each attempt, nothing kept.

    Attributes:
        times: How often it was connected.
        done: Tasks it has done, whether or not the hub heard of it.
    """

    def __init__(self, url: str, pc_id: str) -> None:
        self._node = ReadmeNode(url, pc_id)
        self.times = 0
        self.done = Counter[str]()

    async def run(self) -> None:
        """Connect again and again; a result that cannot be sent is lost."""
        while True:
            with suppress(OSError, URLError, WebSocketException):
                async with connect(await asyncio.to_thread(self._node.address), proxy=None) as link:
                    self.times += 1
                    async for frame in link:
                        answer = await self._answer(json.loads(frame))
                        if answer is not None:
                            await link.send(json.dumps(answer))
            await asyncio.sleep(PAUSE_S)  # its `reconnect_interval`

    async def _answer(self, frame: dict[str, object]) -> dict[str, object] | None:
        if frame["type"] == "connected":
            return {"type": "node_ready", "pc_id": self._node.pc_id, "timestamp": 0}
        if frame["type"] != "task":
            return None
        await asyncio.sleep(0.02)  # the work
        self.done[str(frame["task_id"])] += 1
        said = {"type": "task_result", "task_id": frame["task_id"], "status": "completed"}
        return {**said, "result": {"echo": frame["data"]}, "timestamp": 0}


async def submit(client: httpx2.AsyncClient, said: dict[str, str], over: asyncio.Event) -> None:
    """Submit tasks, also while the hub is not there; only what it acknowledged counts."""
    number = 0
    while not over.is_set():
        number += 1
        task_type = "echo" if number % 4 == 0 else "work"
        body = {"task_type": task_type, "data": {"n": number}, "max_attempts": 50}
        try:
            answer = await client.post("/api/octohub/tasks", json=body)
        except httpx2.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code == 202:
            said[answer.json()["task_id"]] = task_type
        await asyncio.sleep(0.01)


async def kill_with_work_in_hand(
    hub: HubProcess, client: httpx2.AsyncClient, database: str, chance: random.Random
) -> int:
    """Kill the hub while nodes have tasks, and start it again; returns how many they had."""
    query = "SELECT count(*) FROM task WHERE state = 'dispatched'"
    until = monotonic() + WAIT_S
    while (await asyncio.to_thread(rows, database, query))[0][0] < NODES:
        if monotonic() > until:
            under_way = await left(client, database)
            pytest.fail(f"fewer than {NODES} are at work after {WAIT_S:g} s:\n{under_way}")
        await asyncio.sleep(0.02)
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    await hub.kill()
    in_hand = (await asyncio.to_thread(rows, database, query))[0][0]
    await hub.start()
    return int(in_hand)


def check(database: str, said: dict[str, str]) -> Counter[str]:
    """Compare what was acknowledged with what the hub has; returns figures."""
    tasks = dict(rows(database, "SELECT id, state FROM task"))
    assert said.keys() <= tasks.keys(), "acknowledged, and lost"
    assert set(tasks.values()) == {"completed"}
    found = rows(database, "SELECT data FROM envelope WHERE type = 'hubbub.task.result.v1'")
    results = Counter(json.loads(bytes(row[0]))["task_id"] for row in found)
    assert results.keys() == tasks.keys()
    assert set(results.values()) == {1}
    attempts = rows(database, "SELECT outcome FROM task_attempt")
    outcomes = Counter[str](outcome for (outcome,) in attempts)
    assert outcomes.keys() <= {"completed", "node_lost"}, outcomes
    return Counter(tasks=len(tasks), lost=outcomes["node_lost"])


def free_port() -> int:
    """Return a port that the hub can have each time it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.crash
@pytest.mark.timeout(120 + KILLS * 30)
async def test_a_killed_hub_loses_no_task_of_its_nodes(tmp_path: Path) -> None:
    """Nobody starts a node again: they find the hub when it is there."""
    chance = random.Random(SEED)
    config, data_dir, folder = tmp_path / "hub.toml", tmp_path / "var", tmp_path / "nodes"
    config.write_text(CONFIG, encoding="utf-8")
    folder.mkdir()
    database = f"sqlite:///{data_dir / 'hub.db'}"
    hub = HubProcess(data_dir, config=config, settings=(f"hub.port={free_port()}",))
    await hub.start()
    nodes = [NodeProcess(f"node_{number}", folder) for number in range(NODES)]
    seed = SeedNode(hub.url, "node_00112233aabbccdd")
    old = asyncio.create_task(seed.run())
    said: dict[str, str] = {}
    over = asyncio.Event()
    in_hand = 0
    try:
        for node in nodes:
            node.start(hub.url)
        headers = {"Authorization": f"Bearer {hub.token}"}
        async with httpx2.AsyncClient(
            base_url=hub.url, headers=headers, timeout=10, trust_env=False
        ) as client:
            await connected(client, NODES + 1)
            submitters = [
                asyncio.create_task(submit(client, said, over)) for _ in range(SUBMITTERS)
            ]
            for _ in range(KILLS):
                in_hand += await kill_with_work_in_hand(hub, client, database, chance)
                await connected(client, NODES + 1)
            over.set()
            await asyncio.gather(*submitters)
            await all_final(client, database)
        for node in nodes:
            node.stop()
        ended = [await asyncio.to_thread(node.join, WAIT_S) for node in nodes]
        assert ended == [0] * NODES
    finally:
        old.cancel()
        for node in nodes:
            node.kill()
        assert await hub.stop() == 0
    figures = check(database, said)
    assert in_hand, "nobody had anything in hand when the hub was killed: nothing was tested"
    assert set(said.values()) == {"echo", "work"}
    assert seed.times == KILLS + 1
    assert seed.done
    for node in nodes:
        journal = Journal(node.journal)
        assert not journal.all(), f"{node.name} keeps results that the hub has"
        journal.close()
    print(f"{KILLS} kills, {in_hand} in hand, {len(said)} acknowledged: {dict(figures)}")  # noqa: T201
