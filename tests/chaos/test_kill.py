"""SIGKILL at random moments under load: what was acknowledged is there once, with an outcome or
still waiting; and no task has two results.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.chaos.process import HubProcess

KILLS = int(os.environ.get("HUBBUB_KILLS", "20"))
SEED = int(os.environ.get("HUBBUB_SEED", "20260102"))
PUBLISHERS = 8
WORKERS = 4
KEY = {"X-Relay-API-Key": "lynker_relay_secret_2025"}

CONFIG = """
[adapters.relay]
enabled = true
lease_seconds = 2
max_attempts = 100

[[routes]]
name = "orders are logged for the auditor"
match = "orders.>"
to = ["relay.auditor"]
"""


@dataclass
class Acknowledged:
    """What the hub said 2xx to, and so must not lose."""

    envelopes: set[str] = field(default_factory=set[str])
    tasks: set[str] = field(default_factory=set[str])
    finished: dict[str, str] = field(default_factory=dict[str, str])
    leases: Counter[str] = field(default_factory=Counter[str])


async def publish(client: httpx2.AsyncClient, said: Acknowledged, name: str) -> None:
    """Publish envelopes and send tasks until the hub is gone."""
    number = 0
    while True:
        number += 1
        answer = await client.post(
            "/api/v1/envelopes", json={"subject": "orders.eu", "data": {"from": name, "n": number}}
        )
        assert answer.status_code == 202, answer.text
        said.envelopes.add(answer.json()["id"])
        task = {
            "from": "master",
            "to": "child",
            "type": "task",
            "cmd": "echo",
            "payload": {"n": number},
        }
        answer = await client.post("/api/relay/send", json=task, headers=KEY)
        assert answer.status_code == 200, answer.text
        said.tasks.add(answer.json()["task_id"])


async def work(client: httpx2.AsyncClient, said: Acknowledged, name: str) -> None:
    """Lease tasks and finish them until the hub is gone."""
    while True:
        answer = await client.get(
            "/api/relay/tasks", params={"to": "child", "limit": 8, "wait": 1, "worker": name},
            headers=KEY,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        for task in answer.json()["tasks"]:
            task_id = task["task_id"]
            said.leases[task_id] += 1
            result = f"{name}:{said.leases[task_id]}"
            body = {"task_id": task_id, "child_id": name, "status": "done", "result": result}
            answer = await client.post("/api/relay/callback", json=body, headers=KEY)
            assert answer.status_code == 200, answer.text
            if "duplicate" not in answer.json():
                assert task_id not in said.finished, "two results were taken for one task"
                said.finished[task_id] = result


async def under_load(hub: HubProcess, said: Acknowledged, seconds: float) -> None:
    """Put load on a hub, kill it after some time, and let the clients see it."""
    limits = httpx2.Limits(max_connections=PUBLISHERS + WORKERS)
    headers = {"Authorization": f"Bearer {hub.token}"}
    async with httpx2.AsyncClient(
        base_url=hub.url, headers=headers, limits=limits, timeout=10
    ) as client:
        clients = [asyncio.create_task(publish(client, said, f"p{n}")) for n in range(PUBLISHERS)]
        clients += [asyncio.create_task(work(client, said, f"w{n}")) for n in range(WORKERS)]
        await asyncio.wait(clients, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        early = [c for c in clients if c.done()]
        await hub.kill()
        results = await asyncio.gather(*clients, return_exceptions=True)
    assert not early, f"a client failed before the kill: {[c.exception() for c in early]}"
    for result in results:
        assert isinstance(result, httpx2.TransportError), repr(result)


def rows(database: str, query: str) -> list[Any]:
    """Return what the database holds, read as a stranger would."""
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def check(database: str, said: Acknowledged) -> None:
    """All that was acknowledged is there once; outcomes, tasks and results agree."""
    envelopes = Counter(row[0] for row in rows(database, "SELECT id FROM envelope"))
    assert said.envelopes <= envelopes.keys()
    assert not [name for name, times in envelopes.items() if times > 1]
    orphans = rows(
        database,
        "SELECT id FROM envelope e WHERE unrouted IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.envelope_seq = e.seq)",
    )
    assert orphans == []
    odd = rows(database, "SELECT id FROM delivery WHERE (state = 'done') <> (outcome IS NOT NULL)")
    assert odd == []

    tasks = dict(rows(database, "SELECT id, state FROM task"))
    assert said.tasks <= tasks.keys()
    for task_id in said.finished:
        assert tasks[task_id] == "completed"
    wrong = rows(
        database,
        "SELECT t.id, t.state, d.state, d.outcome FROM task t "
        "JOIN delivery d ON d.id = t.delivery_id WHERE t.state <> CASE "
        "WHEN d.state = 'pending' THEN 'queued' WHEN d.state = 'in_flight' THEN 'dispatched' "
        "WHEN d.outcome = 'delivered' THEN 'completed' "
        "WHEN d.reason = 'timeout' THEN 'timeout' ELSE 'failed' END",
    )
    assert wrong == []
    found = rows(database, "SELECT data FROM envelope WHERE type = 'hubbub.task.result.v1'")
    results = Counter(json.loads(bytes(row[0]))["task_id"] for row in found)
    assert set(results.values()) <= {1}
    completed = {name for name, state in tasks.items() if state == "completed"}
    assert completed == results.keys()


@pytest.mark.crash
@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_when_the_hub_is_killed(
    tmp_path: Path, store_url: Callable[[Path], str]
) -> None:
    """Kill it again and again; then every task ends, once."""
    chance = random.Random(SEED)
    config = tmp_path / "hub.toml"
    config.write_text(CONFIG, encoding="utf-8")
    data_dir = tmp_path / "var"
    database = store_url(data_dir)
    hub = HubProcess(data_dir, config=config, settings=[f'store.url="{database}"'])
    said = Acknowledged()
    for _ in range(KILLS):
        await hub.start()
        await under_load(hub, said, chance.uniform(0.1, 1.0))
        check(database, said)
    assert len(said.envelopes) > KILLS
    assert len(said.finished) > KILLS

    await hub.start()
    await finish_all(hub, said)
    assert await hub.stop() == 0
    check(database, said)
    left = rows(database, "SELECT state, count(*) FROM task GROUP BY state")
    assert [row[0] for row in left] == ["completed"]


async def finish_all(hub: HubProcess, said: Acknowledged) -> None:
    """Work until no task is left, also those whose lease a killed hub had given."""
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as client:
        idle = 0
        while idle < 2:
            answer = await client.get(
                "/api/relay/tasks",
                params={"to": "child", "limit": 100, "wait": 3, "worker": "last"},
                headers=KEY,
            )
            found = answer.json()["tasks"]
            idle = 0 if found else idle + 1
            for task in found:
                body = {"task_id": task["task_id"], "child_id": "last", "result": "last"}
                answer = await client.post("/api/relay/callback", json=body, headers=KEY)
                assert answer.status_code == 200
                assert task["task_id"] not in said.finished
                said.finished[task["task_id"]] = "last"
