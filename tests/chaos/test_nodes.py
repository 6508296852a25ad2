"""Nodes killed at random under load: nothing is lost, every task has one result, and only what a
killed node had in hand is done a second time.

`HUBBUB_CHAOS_SECONDS=60` is the run of the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from time import monotonic, time_ns

import httpx2
import pytest

from hubbub_node.journal import Journal
from tests.chaos.nodes import CONCURRENCY, NodeProcess
from tests.chaos.process import HubProcess
from tests.chaos.test_kill import rows

SECONDS = float(os.environ.get("HUBBUB_CHAOS_SECONDS", "8"))
SEED = int(os.environ.get("HUBBUB_SEED", "20260102"))
NODES = 32
KILLS = 10
SUBMITTERS = 32
WAIT_S = 60.0

UNDER_WAY = (
    "SELECT state, endpoint, attempts, mailbox, count(*), min(due_us), min(lease_until_us) "
    "FROM delivery WHERE state <> 'done' GROUP BY state, endpoint, attempts, mailbox"
)

CONFIG = """
[hub]
drain_timeout = "2s"
[adapters.octohub]
enabled = true
"""


async def submit(client: httpx2.AsyncClient, said: dict[str, int], until: asyncio.Event) -> None:
    """Submit tasks, one after the other."""
    while not until.is_set():
        number = len(said)
        body = {"task_type": "work", "data": {"n": number}, "max_attempts": 20}
        answer = await client.post("/api/octohub/tasks", json=body)
        assert answer.status_code == 202, answer.text
        said[answer.json()["task_id"]] = number


async def kill_some(nodes: list[NodeProcess], url: str, chance: random.Random) -> set[str]:
    """Kill `KILLS` different nodes over the time; each comes back a moment later."""
    victims = chance.sample(nodes, KILLS)
    moments = sorted(chance.uniform(0.1, 0.9) * SECONDS for _ in victims)
    now_s = 0.0
    for victim, at_s in zip(victims, moments, strict=True):
        await asyncio.sleep(at_s - now_s)  # the load goes on meanwhile: this is what is tested
        now_s = at_s
        await asyncio.to_thread(victim.kill)
        asyncio.get_running_loop().call_later(chance.uniform(0.1, 1.0), victim.start, url)
    await asyncio.sleep(SECONDS - now_s)
    return {victim.name for victim in victims}


async def connected(client: httpx2.AsyncClient, number: int) -> None:
    """Return once so many nodes are there."""
    until = monotonic() + WAIT_S
    while (status := (await client.get("/status")).json())["pc_connections"] < number:
        assert monotonic() < until, f"of {number} nodes not all came in {WAIT_S:g} s: {status}"
        await asyncio.sleep(0.1)


async def all_final(client: httpx2.AsyncClient, database: str) -> None:
    """Return once no task is under way."""
    query = "SELECT count(*) FROM task WHERE finished_us IS NULL"
    until = monotonic() + WAIT_S
    while (await asyncio.to_thread(rows, database, query))[0][0]:
        if monotonic() > until:
            pytest.fail(f"still under way after {WAIT_S:g} s:\n{await left(client, database)}")
        await asyncio.sleep(0.1)


async def left(client: httpx2.AsyncClient, database: str) -> str:
    """Return what is under way, where it stands, and how busy its endpoints are."""
    said = ["state, endpoint, attempts, mailbox: number, earliest due, earliest end of a lease"]
    said += [
        f"{row[:4]}: {row[4:]}" for row in await asyncio.to_thread(rows, database, UNDER_WAY)
    ]  # fmt: skip
    said.append(f"now: {time_ns() // 1000}")
    for path in ("/api/v1/endpoints", "/api/v1/stats"):
        answer = await client.get(path)
        said.append(f"{path}: {answer.text}")
    return "\n".join(said)


def check(database: str, said: dict[str, int], folder: Path, killed: set[str]) -> Counter[str]:
    """Compare what was submitted, what the hub has, and what the nodes did; returns figures."""
    tasks = {row[0]: row[1:] for row in rows(database, "SELECT id, state, result FROM task")}
    assert said.keys() <= tasks.keys(), "acknowledged, and lost"
    assert {state for state, _ in tasks.values()} == {"completed"}
    for task_id, number in said.items():
        assert json.loads(tasks[task_id][1])["n"] == number
    found = rows(database, "SELECT data FROM envelope WHERE type = 'hubbub.task.result.v1'")
    results = Counter(json.loads(bytes(row[0]))["task_id"] for row in found)
    assert results.keys() == tasks.keys()
    assert set(results.values()) == {1}

    attempts: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    query = "SELECT task_id, endpoint, outcome FROM task_attempt ORDER BY task_id, attempt"
    for task_id, endpoint, outcome in rows(database, query):
        attempts[task_id].append((endpoint.removeprefix("octohub.node."), outcome))
    lost = Counter[str]()
    for task_id, tried in attempts.items():
        for node, outcome in tried[:-1]:
            assert outcome == "node_lost", (task_id, tried)
            assert node in killed, (task_id, tried)
            lost[task_id] += 1

    runs = NodeProcess.runs(folder)
    begun = Counter(run.task_id for run in runs if run.what == "begun")
    assert begun.keys() >= said.keys()
    again = {task_id for task_id, times in begun.items() if times > 1}
    assert again <= lost.keys(), "done twice, though no node was lost with it"
    for task_id in again:
        assert begun[task_id] <= lost[task_id] + 1
    return Counter(tasks=len(tasks), killed=len(killed), lost=lost.total(), again=len(again))


@pytest.mark.crash
@pytest.mark.timeout(SECONDS + 180)
async def test_killed_nodes_lose_nothing(tmp_path: Path) -> None:
    """10 of 32 nodes are killed at random while tasks come in."""
    chance = random.Random(SEED)
    config = tmp_path / "hub.toml"
    config.write_text(CONFIG, encoding="utf-8")
    data_dir, folder = tmp_path / "var", tmp_path / "nodes"
    folder.mkdir()
    database = f"sqlite:///{data_dir / 'hub.db'}"
    hub = HubProcess(data_dir, config=config)
    await hub.start()
    nodes = [NodeProcess(f"node_{number}", folder) for number in range(NODES)]
    said: dict[str, int] = {}
    try:
        for node in nodes:
            node.start(hub.url)
        headers = {"Authorization": f"Bearer {hub.token}"}
        async with httpx2.AsyncClient(
            base_url=hub.url, headers=headers, timeout=30, trust_env=False
        ) as client:
            await connected(client, NODES)
            over = asyncio.Event()
            submitters = [
                asyncio.create_task(submit(client, said, over)) for _ in range(SUBMITTERS)
            ]
            killed = await kill_some(nodes, hub.url, chance)
            over.set()
            await asyncio.gather(*submitters)
            await connected(client, NODES)
            await all_final(client, database)
        for node in nodes:
            node.stop()
        ended = [await asyncio.to_thread(node.join, WAIT_S) for node in nodes]
        assert ended == [0] * NODES
    finally:
        for node in nodes:
            node.kill()
        assert await hub.stop() == 0
    figures = check(database, said, folder, killed)
    assert figures["lost"], "no node had anything in hand when it was killed: nothing was tested"
    for node in nodes:
        journal = Journal(node.journal)
        assert not journal.all(), f"{node.name} keeps results that the hub has"
        journal.close()
    print(f"{SECONDS:g} s, {NODES} nodes of {CONCURRENCY}: {dict(figures)}")  # noqa: T201
