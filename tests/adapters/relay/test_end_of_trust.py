"""What a key or a token has opened ends with it: long polls, leases, bodies under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic

import httpx2
import pytest

from hubbub.reload import Reloads
from hubbub.testing import FakeClock
from tests.adapters.relay.serving import BOSS, SETTINGS, Relay, RunRelay
from tests.adapters.relay.test_work import polls

SOON_S = 2.0
WORKER = "a-key-of-a-worker"
KEYS = """
[adapters.relay]
enabled = true
allow_default_key = true
{more}
api_keys = [
  {{ name = "boss", key = "{boss}", scopes = ["admin"] }},
  {{ name = "worker", key = "{worker}", scopes = ["work", "callback", "send"]{limits} }},
]
"""


def keys(*, worker: str = WORKER, limits: str = "", more: str = "") -> str:
    """Return a hub.toml with two keys."""
    return KEYS.format(boss=BOSS, worker=worker, limits=limits, more=more)


def without_worker() -> str:
    """Return a hub.toml without the second key."""
    return SETTINGS


async def reload(relay: Relay, toml: str) -> tuple[str, ...]:
    """Write hub.toml and read it again; returns what needs a restart."""
    file = relay.core.config.file
    assert file is not None
    file.write_text(toml, encoding="utf-8")
    return (await Reloads(relay.core).reload(by="test")).needs_restart


@asynccontextmanager
async def soon() -> AsyncGenerator[None]:
    """Fail where something takes longer than two seconds."""
    began = monotonic()
    async with asyncio.timeout(10):
        yield
    assert monotonic() - began < SOON_S


async def take(relay: Relay, key: str = WORKER, **query: str | int) -> httpx2.Response:
    """Ask for tasks with a key."""
    return await relay.anybody.get(
        "/tasks", params={"to": "child", **query}, headers={"X-Relay-API-Key": key}
    )


@pytest.mark.parametrize(
    ("after", "status"),
    [
        pytest.param(without_worker(), 401, id="removed"),
        pytest.param(keys(worker="another"), 401, id="changed"),
        pytest.param(keys(limits=', cmd = ["b"]'), 200, id="narrowed"),
    ],
)
async def test_a_long_poll_ends_when_its_key_is_gone(
    run_relay: RunRelay, after: str, status: int
) -> None:
    """Also when the name of the key stays; other keys' polls and leases stay as they are."""
    async with run_relay(keys()) as relay:
        others = await relay.task(to="elsewhere")
        boss = await take(relay, BOSS, to="elsewhere", lease=600)
        assert [task["task_id"] for task in boss.json()["tasks"]] == [others]
        polling = asyncio.create_task(take(relay, wait=30))
        waiting = asyncio.create_task(take(relay, BOSS, wait=30))
        await polls(relay, 2)
        async with soon():
            assert await reload(relay, after) == ()
            answer = await polling
        assert (answer.status_code, answer.json()["status"]) == (401, "error")
        assert (await take(relay)).status_code == status
        task_id = await relay.task(cmd="b")
        assert [task["task_id"] for task in (await waiting).json()["tasks"]] == [task_id]
        assert await relay.state(others) == "processing"


async def test_a_lease_is_given_back_when_its_key_is_gone(run_relay: RunRelay) -> None:
    """The attempt does not count, so a task with only one is not lost; nor can it be renewed."""
    async with run_relay(keys(more="max_attempts = 1")) as relay:
        task_id = await relay.task()
        [task] = (await take(relay, lease=600)).json()["tasks"]
        assert task["attempt"] == 1
        async with soon():
            waiting = asyncio.create_task(take(relay, BOSS, wait=30))
            await reload(relay, without_worker())
            [again] = (await waiting).json()["tasks"]
        assert (again["task_id"], again["attempt"]) == (task_id, 1)
        assert await relay.state(task_id) == "processing"


async def test_a_lease_is_given_back_when_its_token_is_revoked(relay: Relay) -> None:
    """As with a key; one that was ended before stays ended."""
    token, text = await relay.core.tokens.create("worker", ["tasks"], expires_us=None)
    headers = {"Authorization": f"Bearer {text}"}
    first, second = await relay.task(), await relay.task()
    answer = await relay.anybody.get(
        "/tasks", params={"to": "child", "limit": 2, "lease": 600}, headers=headers
    )
    assert len(answer.json()["tasks"]) == 2
    done = {"task_id": first, "status": "done", "result": 1, "child_id": "child"}
    assert (await relay.anybody.post("/callback", json=done, headers=headers)).status_code == 200
    async with soon():
        waiting = asyncio.create_task(relay.lease(wait=30))
        await polls(relay, 1)
        await relay.core.tokens.revoke(token.id)
        [again] = await waiting
    assert again["task_id"] == second
    assert await relay.state(first) == "completed"


async def test_time_ends_leases_and_polls(run_relay: RunRelay) -> None:
    """By the hub's clock, when the token expires."""
    clock = FakeClock()
    async with run_relay(SETTINGS, clock=clock) as relay:
        until_us = clock.now_us() + 10_000_000
        _, text = await relay.core.tokens.create("worker", ["tasks"], expires_us=until_us)
        headers = {"Authorization": f"Bearer {text}"}
        task_id = await relay.task()
        params = {"to": "child", "lease": "600"}
        taken = await relay.anybody.get("/tasks", params=params, headers=headers)
        assert len(taken.json()["tasks"]) == 1
        polling = asyncio.create_task(
            relay.anybody.get("/tasks", params={**params, "wait": "30"}, headers=headers)
        )
        await polls(relay, 1)
        await clock.advance(9.9)
        assert await relay.state(task_id) == "processing"
        await clock.advance(0.1)
        assert (await polling).status_code == 401
        assert await relay.state(task_id) == "pending"


async def test_a_renewed_lease_is_of_the_key_that_renewed_it(run_relay: RunRelay) -> None:
    """A worker that changes its key keeps its task by renewing it with the new one."""
    async with run_relay(keys()) as relay:
        task_id = await relay.task()
        await take(relay, worker="w", lease=600)
        renewed = await relay.anybody.post(
            f"/tasks/{task_id}/renew",
            json={"worker": "w", "lease": 600},
            headers={"X-Relay-API-Key": BOSS},
        )
        assert renewed.status_code == 200
        await reload(relay, without_worker())
        assert await relay.state(task_id) == "processing"


@pytest.mark.parametrize("after", [without_worker(), keys(worker="another")], ids=["gone", "new"])
async def test_a_body_that_ends_after_its_key_is_not_taken(run_relay: RunRelay, after: str) -> None:
    """Also where the name of the key has another secret now."""
    async with run_relay(keys()) as relay:
        rest = asyncio.Event()

        async def body() -> AsyncGenerator[bytes]:
            yield b'{"from":"master","to":"child",'
            await rest.wait()
            yield b'"type":"task"}'

        headers = {"X-Relay-API-Key": WORKER, "Content-Type": "application/json"}
        posting = asyncio.create_task(relay.anybody.post("/send", content=body(), headers=headers))
        await asyncio.sleep(0.2)  # its headers are there; an answer would be, if it had to be
        assert not posting.done()
        await reload(relay, after)
        rest.set()
        assert (await posting).status_code == 401
        assert (await take(relay, BOSS)).json()["tasks"] == []


async def test_a_restart_of_the_relay_ends_nothing(run_relay: RunRelay) -> None:
    """Its keys are the same, and so are their leases; when it stays off they end."""
    clock = FakeClock()
    async with run_relay(keys(), clock=clock) as relay:
        task_id = await relay.task()
        await take(relay, lease=600)
        await relay.core.adapters.restart("relay")
        await clock.advance(5)
        assert await relay.state(task_id) == "processing"
        await relay.core.adapters.stop_one("relay")
        await clock.advance(1)
        await relay.core.journal.flush()
        task = await relay.core.work.find(task_id)
        assert task is not None
        assert task.state == "queued"
