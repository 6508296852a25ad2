"""What is shown of a task is in the store: nothing of it is seen before its commit is done.

Commits are held back for real, by another connection that has locked what the journal writes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import Session

from hubbub import Reject, Route, hookimpl
from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import ConflictError, StoreUnavailableError
from hubbub.hub import Hub
from hubbub.store.reads import tasks as task_reads
from hubbub.testing import FakeClock, RecordingEndpoint, serving_hub, settle
from hubbub.values import Delivery, Submission, TaskResult
from tests.hub.store.locks import no_commits

WAIT_S = 60.0
"""Much more than anything here takes: the machine may have other things to do."""

TOML = """
[hub]
drain_timeout = "50ms"
task_backoff = "5s"

[adapters.relay]
enabled = true
lease_seconds = 60

[adapters.octohub]
enabled = true

[store]
url = "{url}"
"""
KEY = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
WORKER = "node.a"


class Worker(RecordingEndpoint):
    """Takes a task, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(WORKER, accepts=(TASK_REQUEST,), linger_s=None)
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def deliver(self, envelope: Any) -> None:
        """Take it."""
        await super().deliver(envelope)
        await self.answer


@dataclass
class Plugin:
    """Keeps what it is told of deliveries that have ended."""

    ended: list[str] = field(default_factory=list[str])

    @hookimpl
    def after_delivery(self, delivery: Delivery) -> None:
        """Note the end of a task."""
        if delivery.leased:
            self.ended.append(f"{delivery.task_id}: {delivery.outcome}")


@dataclass
class Shown:
    """A hub, and all that shows something of its tasks."""

    hub: Hub
    http: httpx2.AsyncClient
    clock: FakeClock
    plugin: Plugin
    worker: Worker
    watcher: RecordingEndpoint
    url: str
    events: list[str] = field(default_factory=list[str])

    @property
    def core(self) -> Core:
        """The hub without its sockets."""
        return self.hub.core

    async def get(self, path: str) -> Any:
        """Read something; what is not there is shown as its status."""
        answer = await self.http.get(path, headers=KEY if path.startswith("/api/relay") else {})
        return answer.json() if answer.status_code == 200 else answer.status_code

    async def submit(self, to: str, **more: Any) -> str:
        """Submit a task."""
        body = {"task_type": "echo", "to": to, **more}
        answer = await self.http.post("/api/v1/tasks", json=body)
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    async def view(self, task_id: str) -> dict[str, Any]:
        """Return all that is shown of one task, and because of it."""
        task = await self.get(f"/api/v1/tasks/{task_id}")
        paths = {
            "api": f"/api/v1/tasks/{task_id}",
            "list": "/api/v1/tasks",
            "octohub": f"/api/octohub/tasks/{task_id}",
            "octohub list": "/api/octohub/tasks",
            "relay": f"/api/relay/task-status/{task_id}",
            "trace": f"/api/v1/traces/{task['trace_id']}",
            "envelope": f"/api/v1/envelopes/{task['envelope_id']}",
            "deliveries": "/api/v1/deliveries",
            "delivery": f"/api/v1/deliveries/{task['delivery_id']}",
            "in flight": "/api/v1/deliveries?state=in_flight",
            "pending": "/api/v1/deliveries?state=pending",
        }
        answers = await asyncio.gather(*map(self.get, paths.values()))
        stats = await self.get("/api/v1/stats")
        return {
            **dict(zip(paths, answers, strict=True)),
            "stats": {name: stats[name] for name in ("tasks", "deliveries", "in_flight")},
            "metrics": await self._metrics(),
            "events": list(self.events),
            "updates": [str(one.subject) for one in self.watcher.taken],
            "plugin": list(self.plugin.ended),
        }

    async def _metrics(self) -> list[str]:
        text = (await self.http.get("/metrics")).text
        names = ("hubbub_tasks", "hubbub_deliver", "hubbub_relay_tasks", "hubbub_octohub_tasks")
        return [
            line for line in text.splitlines() if line.startswith(names) and "_bucket" not in line
        ]

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Return once something holds."""
        async with asyncio.timeout(WAIT_S):
            while not await holds():  # noqa: ASYNC110  # most of it is in the store
                await asyncio.sleep(0.002)

    async def stored(self, task_id: str, state: str) -> bool:
        """Tell whether a task is so in the store."""
        found = await self.core.read(lambda session: task_reads.one(session, task_id))
        return found is not None and found.state == state

    async def given(self, task_id: str) -> None:
        """Return once the worker has a task."""
        await self.worker.wait_for(1, timeout_s=WAIT_S)
        await self.until(lambda: self.stored(task_id, "dispatched"))

    async def lease(self) -> httpx2.Response:
        """Take tasks as a relay worker."""
        query = {"to": "child", "worker": "w", "limit": "10"}
        return await self.http.get("/api/relay/tasks", params=query, headers=KEY)

    async def callback(self, task_id: str, status: str = "completed") -> httpx2.Response:
        """Bring a result as a relay worker."""
        body = {"task_id": task_id, "child_id": "child", "status": status, "result": {"n": 1}}
        return await self.http.post("/api/relay/callback", json=body, headers=KEY)

    async def watch(self) -> None:
        """Read the stream, for as long as the hub is there."""
        async with self.http.stream(
            "GET", "/api/v1/stream", params={"subject": "tasks.>"}
        ) as lines:
            async for line in lines.aiter_lines():
                if line.startswith("data: ") and '"subject"' in line:
                    event = json.loads(line[6:])
                    if not event["subject"].endswith(".request"):
                        self.events.append(event["subject"])


@pytest.fixture
async def shown(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> AsyncIterator[Shown]:
    """A hub with everything that shows tasks."""
    folder = tmp_path / "hub"
    url, plugin = store_url(folder), Plugin()
    toml = TOML.format(url=url)
    async with serving_hub(folder, toml, clock=clock, plugins={"watching": plugin}) as hub:
        token = (folder / "admin.token").read_text(encoding="utf-8").strip()
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(
            base_url=hub.main.url, headers=headers, trust_env=False, timeout=WAIT_S
        ) as http:
            worker, watcher = Worker(), RecordingEndpoint("app.watcher")
            hub.core.attach(worker)
            hub.core.attach(watcher)
            hub.core.table.put(Route(name="watched", match="tasks.>", to=("app.watcher",)))
            shown = Shown(hub, http, clock, plugin, worker, watcher, url)
            assert (await shown.lease()).json()["tasks"] == []  # the name is known from here on
            watching = asyncio.create_task(shown.watch())
            await shown.until(lambda: _is(bool(hub.core.router._taps)))
            yield shown
            for link in hub.core.room.links():  # a stop would wait for what they have
                hub.core.attachments.detach(link)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _is(fact: bool) -> bool:
    return fact


@dataclass(frozen=True)
class Case:
    """Something that happens to a task.

    Attributes:
        begin: Returns the task, to which it will happen.
        act: Does it; what was refused because of the store is done again.
        state: What the task is then.
        tells: It is an end.
    """

    begin: Callable[[Shown], Awaitable[str]]
    act: Callable[[Shown, str], Awaitable[object]]
    state: str
    tells: bool = True


def pulled(**more: Any) -> Callable[[Shown], Awaitable[str]]:
    """Begin with a task that a relay worker has taken."""

    async def begin(shown: Shown) -> str:
        task_id = await shown.submit("relay.child", **more)
        assert [task["task_id"] for task in (await shown.lease()).json()["tasks"]] == [task_id]
        return task_id

    return begin


def waiting(**more: Any) -> Callable[[Shown], Awaitable[str]]:
    """Begin with a task that waits for a relay worker."""
    return lambda shown: shown.submit("relay.child", **more)


def pushed(**more: Any) -> Callable[[Shown], Awaitable[str]]:
    """Begin with a task that a worker was given."""

    async def begin(shown: Shown) -> str:
        task_id = await shown.submit(WORKER, **more)
        await shown.given(task_id)
        return task_id

    return begin


async def reject(shown: Shown, _: str) -> None:
    """The worker will never do it."""
    if not shown.worker.answer.done():
        shown.worker.answer.set_exception(Reject("not mine"))


async def leave(shown: Shown, _: str) -> None:
    """The worker's link ends."""
    link = shown.core.room.link_of(WORKER)
    if link is not None:
        shown.core.attachments.detach(link)


async def fail(shown: Shown, task_id: str) -> None:
    """The worker says that it failed."""
    await shown.core.work.finish(TaskResult(task_id, "failed", error="boom"), by=WORKER)


async def succeed(shown: Shown, task_id: str) -> None:
    """The worker brings its result."""
    await shown.core.work.finish(TaskResult(task_id, "completed"), by=WORKER)


def later(seconds: float) -> Callable[[Shown, str], Awaitable[object]]:
    """Time passes."""

    async def act(shown: Shown, _: str) -> None:
        await shown.clock.advance(seconds)
        await shown.core.sweeper.look()

    return act


async def cancel(shown: Shown, task_id: str) -> httpx2.Response:
    """The asker takes it back."""
    return await shown.http.post(f"/api/v1/tasks/{task_id}/cancel")


CASES = {
    "leased": Case(waiting(), lambda shown, _: shown.lease(), "dispatched", tells=False),
    "completed": Case(pulled(), lambda shown, name: shown.callback(name), "completed"),
    "failed": Case(pulled(), lambda shown, name: shown.callback(name, "failed"), "failed"),
    "pushed, completed": Case(pushed(), succeed, "completed"),
    "cancelled in flight": Case(pulled(), cancel, "cancelled"),
    "cancelled while it waits": Case(waiting(), cancel, "cancelled"),
    "lease over": Case(pulled(), later(61), "queued", tells=False),
    "last lease over": Case(pulled(max_attempts=1), later(61), "timeout"),
    "expired": Case(waiting(expires="10s"), later(11), "failed"),
    "rejected": Case(pushed(), reject, "failed"),
    "link lost": Case(pushed(), leave, "queued", tells=False),
    "last link lost": Case(pushed(max_attempts=1), leave, "failed"),
    "to be tried again": Case(pushed(retry_on_failure=True), fail, "queued", tells=False),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", CASES)
async def test_a_task_is_shown_as_it_is_stored(shown: Shown, name: str) -> None:
    """Readers, streams, metrics and plugins see the old state until the commit of the new one."""
    case = CASES[name]
    task_id = await case.begin(shown)
    await shown.core.journal.flush()
    await settle()
    before = await shown.view(task_id)
    told_before = len(shown.events)

    async def act() -> None:
        answer = await case.act(shown, task_id)
        if isinstance(answer, httpx2.Response):
            answer.raise_for_status()

    acting: list[asyncio.Task[None]] = []

    async def known() -> bool:
        """Do it, and again if it was refused; tell whether memory knows it."""
        if not acting or (acting[-1].done() and acting[-1].exception() is not None):
            acting.append(asyncio.create_task(act()))
        task = await shown.core.work.current(task_id)
        return task is not None and task.state == case.state

    async with no_commits(shown.url):
        await shown.until(known)
        assert await shown.view(task_id) == before
    await shown.until(lambda: _now_done(shown, task_id, case, known))
    await shown.until(lambda: _is(acting[-1].done()))

    after = await shown.view(task_id)
    states = (after["api"], after["octohub"], after["list"]["items"][0])
    assert [one["state"] for one in states] == [case.state] * 3
    told = f"tasks.echo.{case.state}"
    await shown.until(lambda: _is(told in shown.events[told_before:]))
    assert shown.events[told_before:] == [told]
    assert len(shown.plugin.ended) == int(case.tells)
    assert after["metrics"] != before["metrics"]


async def _now_done(
    shown: Shown, task_id: str, case: Case, known: Callable[[], Awaitable[bool]]
) -> bool:
    await known()
    return await shown.stored(task_id, case.state)


@pytest.mark.timeout(120)
async def test_who_takes_back_what_has_ended_is_told_so_after_that_commit(shown: Shown) -> None:
    """An end that nobody waits for is no reason to refuse before it is written."""
    task_id = await shown.submit("relay.child", expires="10s")
    async with no_commits(shown.url):
        await later(11)(shown, task_id)
        cancelling = asyncio.create_task(shown.core.work.cancel(task_id))
        await asyncio.wait([cancelling], timeout=1)
        refused = cancelling.done() and isinstance(cancelling.exception(), StoreUnavailableError)
        assert refused or not cancelling.done()
    with pytest.raises((ConflictError, StoreUnavailableError)):
        await cancelling
    await shown.until(lambda: shown.stored(task_id, "failed"))
    with pytest.raises(ConflictError, match="is failed already"):
        await shown.core.work.cancel(task_id)


@pytest.mark.timeout(120)
async def test_a_result_that_came_second_is_counted_nowhere(shown: Shown) -> None:
    """Of two for one delivery the store takes the first; the loser is told how the task ended."""
    task_id = await pushed()(shown)
    first = (await shown.core.work.ledger.find(task_id))[1]
    assert first is not None
    await shown.core.work.finish(TaskResult(task_id, "failed", error="boom"), by=WORKER)
    # As if this hub had not seen it end: what a standby, or a lost commit, leaves behind.
    first.state, first.outcome, first.reason = type(first.state)("in_flight"), None, None
    shown.core.room.in_hand[task_id] = first
    counted = len(shown.plugin.ended)
    finished = await shown.core.work.finish(TaskResult(task_id, "completed"), by=WORKER)
    assert finished.verdict == "late"
    assert finished.task is not None
    assert (finished.task.state, finished.task.error) == ("failed", "boom")
    await shown.submit("relay.child")  # what is seen of that is seen after all of the former
    await shown.until(lambda: _is(shown.events.count("tasks.echo.queued") == 2))
    assert "tasks.echo.completed" not in shown.events
    assert len(shown.plugin.ended) == counted


@pytest.mark.timeout(120)
async def test_one_read_is_of_one_moment(core: Core) -> None:
    """Whatever is committed between its queries, all of them see the store as the first did."""
    link = core.attach(RecordingEndpoint(WORKER, accepts=(TASK_REQUEST,), linger_s=None))
    loop = asyncio.get_running_loop()

    def read(session: Session) -> tuple[dict[str, int], dict[str, int]]:
        before = task_reads.counts(session)
        asyncio.run_coroutine_threadsafe(core.work.cancel("t1"), loop).result(WAIT_S)
        return before, task_reads.counts(session)

    await core.submit(Submission(task_type="echo", source="api.t", to=("node.b",), task_id="t1"))
    before, after = await core.read(read)
    assert before == after != {}
    assert await core.read(task_reads.counts) == {}
    link.close()


@pytest.mark.timeout(180)
async def test_one_answer_is_of_one_moment(shown: Shown) -> None:
    """State, attempt and history of a task agree in each answer, while it is taken and lost."""
    task_id = await shown.submit("relay.child", max_attempts=1000)
    over = asyncio.Event()
    seen = 0

    async def read(path: str) -> None:
        nonlocal seen
        while not over.is_set():
            task = await shown.get(path)
            history = task["attempts"]
            is_open = bool(history) and history[-1]["ended_at"] is None
            assert is_open == (task["state"] == "dispatched"), task
            assert len(history) == task["attempt"], task
            seen += 1

    paths = (f"/api/v1/tasks/{task_id}", f"/api/octohub/tasks/{task_id}")
    readers = [asyncio.create_task(read(path)) for path in paths for _ in range(2)]
    for _ in range(40):
        await shown.lease()
        await shown.clock.advance(61)
    over.set()
    await asyncio.gather(*readers)
    assert seen > 40
