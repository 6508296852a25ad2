"""Limits at their edges, those that no test of their own place names (`docs/operating.md`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlmodel import Session, select

from hubbub import Envelope, Retry, Route
from hubbub.config.models import HubSettings
from hubbub.config.origins import MAX_AUTHORITY, read_address, read_authority
from hubbub.config.routes import MAX_ROUTE_NAME
from hubbub.config.settings import PER_SOURCE, LimitSettings
from hubbub.core import Core
from hubbub.envelope import MAX_HOPS
from hubbub.errors import ConflictError, HubError, InvalidError, KeyReusedError, MalformedError
from hubbub.guards.failed_attempts import MAX_REMEMBERED, FailedAttempts, name_of
from hubbub.intake import MAX_PRIORITY, MAX_TARGETS, MAX_TEXT
from hubbub.listeners.limits import MAX_SOURCES, Gate, SourceRates
from hubbub.observe.tracing import RING_STEPS, Tracer
from hubbub.replies import ORIGINS, Origins
from hubbub.store.reads import deliveries
from hubbub.store.reads.envelopes import SCAN
from hubbub.store.tables import DeliveryRow, EnvelopeRow, table_of
from hubbub.tasks import MAX_TASK_ID
from hubbub.testing import FakeClock, RecordingEndpoint, counted, running_hub
from hubbub.values import Delivery, Outcome
from hubbub.web.api.requests import LONGEST_S
from hubbub.web.api.tokens import MAX_SCOPES
from hubbub.web.decoding import MAX_QUERY
from hubbub.web.pages import MAX_LIMIT
from hubbub.web.sockets.connection import MAX_SUBSCRIPTIONS
from hubbub.web.sockets.frames import MAX_REF, read_frame
from hubbub.web.sockets.options import MAX_CONCURRENCY, MAX_OPTIONS, Options
from tests.hub.web.conftest import FAST, Served, serving

API = "/api/v1"


def said(**more: Any) -> Envelope:
    members: dict[str, Any] = {"source": "api.test", "subject": "a.b", "data": 1, **more}
    return Envelope.new(**members)


async def refusal(core: Core, envelope: Envelope) -> type[HubError] | None:
    """Return how publishing is refused; None when it is taken."""
    try:
        await core.publish(envelope)
    except HubError as error:
        return type(error)
    return None


@pytest.fixture
async def core(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Core]:
    """A hub without sockets; nothing here is about the store."""
    async with running_hub(tmp_path / "hub", clock=clock) as running:
        yield running


# What may enter


async def test_data_depth(core: Core) -> None:
    """`hub.data_depth`: so deep, and not one deeper."""
    most = HubSettings().data_depth
    nested = [json.loads("[" * depth + "]" * depth) for depth in (most, most + 1)]
    refused = [await refusal(core, said(data=data)) for data in nested]
    assert refused == [None, MalformedError]


@pytest.mark.parametrize("what", ["id", "type", "key", "idempotency_key", "in_reply_to"])
async def test_max_text(core: Core, what: str) -> None:
    """MAX_TEXT of each short text."""
    refused = [await refusal(core, said(**{what: "x" * (MAX_TEXT + over)})) for over in (0, 1)]
    assert refused == [None, InvalidError]


async def test_max_targets(core: Core) -> None:
    """MAX_TARGETS addresses in `to`."""
    for over, outcome in ((0, None), (1, InvalidError)):
        to = tuple(f"app.n{number}" for number in range(MAX_TARGETS + over))
        assert await refusal(core, said(to=to)) is outcome


async def test_max_priority(core: Core) -> None:
    """MAX_PRIORITY and 0 are within."""
    given = (-1, 0, MAX_PRIORITY, MAX_PRIORITY + 1)
    refused = [await refusal(core, said(priority=priority)) for priority in given]
    assert refused == [InvalidError, None, None, InvalidError]


async def test_max_task_id(core: Core) -> None:
    """MAX_TASK_ID of a task request."""
    for over, outcome in ((0, None), (1, InvalidError)):
        data = {"task_type": "t", "task_id": "i" * (MAX_TASK_ID + over)}
        request = said(type="hubbub.task.request.v1", subject="tasks.t.request", data=data)
        assert await refusal(core, request) is outcome


async def test_dedupe_window(tmp_path: Path, clock: FakeClock) -> None:
    """`hub.dedupe_window`: a key is known as long, and then new again."""
    window_s = HubSettings().dedupe_window
    async with running_hub(tmp_path / "hub", clock=clock) as core:
        await core.publish(said(idempotency_key="k", data=1))
        await clock.advance(window_s)
        await core.retention.sweep()
        assert await refusal(core, said(idempotency_key="k", data=2)) is KeyReusedError
        await clock.advance(1)
        await core.retention.sweep()
        assert await refusal(core, said(idempotency_key="k", data=2)) is None


# What becomes of it


async def only_delivery(core: Core) -> Delivery:
    def read(session: Session) -> Delivery | None:
        return deliveries.one(session, session.exec(select(DeliveryRow.id)).one())

    found = await core.read(read)
    assert found is not None
    return found


async def test_attempts(core: Core, clock: FakeClock) -> None:
    """`hub.attempts` and no more; then it is a dead letter."""
    most = HubSettings().attempts
    peer = RecordingEndpoint("plugin.peer")
    peer.answers = [Retry()] * (most + 1)
    core.attach(peer)
    await core.publish(said(to=("plugin.peer",)))
    for _ in range(most + 1):
        await clock.advance(600)
    await core.journal.flush()
    assert len(peer.taken) == most
    assert (await only_delivery(core)).outcome is Outcome.DEAD


async def test_timeout(core: Core, clock: FakeClock) -> None:
    """`hub.timeout` is how long one attempt may take."""
    let_go = asyncio.Event()

    class Hanging(RecordingEndpoint):
        async def deliver(self, envelope: Envelope) -> None:
            await super().deliver(envelope)
            await let_go.wait()

    peer = Hanging("plugin.peer")
    core.attach(peer)
    await core.publish(said(to=("plugin.peer",)))
    await peer.wait_for(1)
    await clock.advance(HubSettings().timeout - 1)
    assert counted(core, "hubbub_delivery_retries_total") == 0
    await clock.advance(2)
    let_go.set()
    await clock.advance(HubSettings().backoff_max)
    await peer.wait_for(2)
    assert counted(core, "hubbub_delivery_retries_total") == 1


async def test_queue_ttl(core: Core, clock: FakeClock) -> None:
    """`hub.queue_ttl`: a task waits so long for a worker, and not longer."""
    data = {"task_type": "t", "task_id": "t1"}
    await core.publish(said(type="hubbub.task.request.v1", subject="tasks.t.request", data=data))
    states: list[str] = []
    for passes_s in (HubSettings().queue_ttl - 1, 2):
        await clock.advance(passes_s)
        await core.sweeper.look()
        await core.journal.flush()
        task = await core.work.find("t1")
        assert task is not None
        states.append(task.state.value)
    assert states == ["queued", "failed"]


async def test_max_hops(core: Core) -> None:
    """The time through the hub that makes it MAX_HOPS is a loop, and a dead letter."""
    peer = RecordingEndpoint("plugin.peer")
    core.attach(peer)
    core.table.put(Route(name="r", match="a.b", to=("plugin.peer",)))
    await core.publish(said(hops=MAX_HOPS - 1))  # that were before this one
    dead = await only_delivery(core)
    assert (dead.outcome, dead.reason) == (Outcome.DEAD, "loop")
    await core.publish(said(hops=MAX_HOPS - 2))
    (taken,) = await peer.wait_for(1)
    assert taken.hops == MAX_HOPS - 1


# Who comes, and what is remembered of whom


def test_per_source() -> None:
    """PER_SOURCE connections of another machine; this one has no such limit."""
    gate = Gate("x", LimitSettings(), clock=FakeClock())
    inside = [gate.enter("192.0.2.1") for _ in range(PER_SOURCE + 1)]
    assert [source is None for source in inside] == [False] * PER_SOURCE + [True]
    assert all(gate.enter("127.0.0.1") for _ in range(PER_SOURCE + 1))
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.1") is not None


def test_sources_of_a_listener() -> None:
    """MAX_SOURCES of `rate_per_source`: one more begins the oldest anew."""
    rates = SourceRates(1.0)
    for number in range(MAX_SOURCES):
        assert rates.take(str(number), now_us=0)
    assert not rates.take("1", now_us=0)
    assert not rates.take("0", now_us=0)
    assert rates.take("one more", now_us=0)
    assert rates.take("2", now_us=0)
    assert not rates.take("0", now_us=0)


def test_names_of_failures() -> None:
    """MAX_REMEMBERED: at the bound all are remembered, one more takes the place of one."""
    failures = FailedAttempts(1, 300.0)
    names = [name_of(str(number)) for number in range(MAX_REMEMBERED + 1)]
    for name in names[:-1]:
        failures.count(name, now_s=0.0)
    assert all(failures.wait_s(name, now_s=0.0) > 0 for name in names[:-1])
    failures.count(names[-1], now_s=0.0)
    assert len(failures) == MAX_REMEMBERED
    assert failures.wait_s(names[-1], now_s=0.0) > 0


async def test_auth_failure_window(tmp_path: Path, clock: FakeClock) -> None:
    """`hub.auth_failure_window`: then as many may fail again as before."""
    toml = f'{FAST}auth_failure_limit = 2\nauth_failure_window = "30s"\n'
    async with serving(tmp_path / "hub", toml, clock=clock) as served:

        async def statuses() -> list[int]:
            wrong = {"authorization": "Bearer wrong"}
            answers = [await served.client.get(f"{API}/routes", headers=wrong) for _ in range(3)]
            return [answer.status_code for answer in answers]

        assert await statuses() == [401, 401, 429]
        await clock.advance(14)
        assert await statuses() == [429] * 3
        await clock.advance(31)
        assert await statuses() == [401, 401, 429]


def test_origins() -> None:
    """ORIGINS envelopes may be answered from memory."""
    origins = Origins()
    for number in range(ORIGINS + 1):
        origins.remember(said(id=str(number)))
    found = [origins.find(str(number)) is not None for number in (0, 1, ORIGINS)]
    assert found == [False, True, True]


def test_ring_steps() -> None:
    """RING_STEPS steps are shown; the oldest is forgotten for one more."""
    tracer = Tracer()
    for number in range(RING_STEPS + 1):
        tracer.step(str(number), "x", 0, 0, {})
    assert [len(tracer.of_trace(str(number))) for number in (0, 1, RING_STEPS)] == [0, 1, 1]


def test_max_authority() -> None:
    """MAX_AUTHORITY characters of a `Host` or an `Origin` are looked at."""
    name = ".".join(["a" * 60] * 6)[: MAX_AUTHORITY - 5] + ":8080"
    assert len(name) == MAX_AUTHORITY
    assert read_authority(name) is not None
    assert read_authority("a" + name) is None
    assert read_address("fe80::1%" + "x" * (MAX_AUTHORITY - 8)) is not None
    assert read_address("fe80::1%" + "x" * (MAX_AUTHORITY - 7)) is None


# The API


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path / "hub", FAST) as running:
        yield running


async def test_max_limit(served: Served) -> None:
    """MAX_LIMIT items of one page."""
    for limit, status in ((MAX_LIMIT, 200), (MAX_LIMIT + 1, 422)):
        answer = await served.client.get(f"{API}/envelopes", params={"limit": limit})
        assert answer.status_code == status


async def test_max_query(served: Served) -> None:
    """MAX_QUERY parameters of one request."""
    for number, status in ((MAX_QUERY, 200), (MAX_QUERY + 1, 422)):
        query = "&".join(["limit=1"] * number)
        assert (await served.client.get(f"{API}/envelopes?{query}")).status_code == status


async def test_max_scopes(served: Served) -> None:
    """MAX_SCOPES of one token."""
    for number, status in ((MAX_SCOPES, 201), (MAX_SCOPES + 1, 422)):
        body = {"name": "n", "scopes": [f"publish:a.n{place}" for place in range(number)]}
        assert (await served.client.post(f"{API}/tokens", json=body)).status_code == status


async def test_longest_request(served: Served) -> None:
    """LONGEST_S of waiting for a reply; within it nobody is there."""
    for timeout_s, status in ((LONGEST_S, 503), (LONGEST_S + 1, 422)):
        body = {"subject": "a.b", "data": 1, "timeout": timeout_s}
        assert (await served.client.post(f"{API}/requests", json=body)).status_code == status


async def test_max_route_name(served: Served) -> None:
    """MAX_ROUTE_NAME characters."""
    route = {"match": "a.b", "to": ["app.a"]}
    for over, status in ((0, 201), (1, 422)):
        name = "r" * (MAX_ROUTE_NAME + over)
        assert (await served.client.put(f"{API}/routes/{name}", json=route)).status_code == status


async def test_scan(served: Served) -> None:
    """SCAN rows are looked at for one page of history; the next one goes on from there."""
    first = await served.publish("rare.one", 1)
    core = served.core
    row = await core.read(lambda session: session.exec(select(EnvelopeRow)).one())
    values = row.model_dump()
    seq = values["seq"]
    rows = [
        {**values, "seq": seq + number, "id": f"i{number}", "subject": "rarely.else"}
        for number in range(1, SCAN + 1)
    ]
    await core.execute((insert(table_of(EnvelopeRow)), rows), patient=True)
    page = await served.get(f"{API}/envelopes", subject="rare.*")  # by its index
    assert [item["id"] for item in page["items"]] == [first["id"]]
    page = await served.get(f"{API}/envelopes", subject="*.one")
    assert page["items"] == []
    page = await served.get(f"{API}/envelopes", subject="*.one", cursor=page["next"])
    assert [item["id"] for item in page["items"]] == [first["id"]]


# Streams


async def test_max_subscriptions(core: Core) -> None:
    """MAX_SUBSCRIPTIONS of one connection."""
    peer = RecordingEndpoint("plugin.peer")
    core.attach(peer)
    for number in range(MAX_SUBSCRIPTIONS):
        await core.attachments.subscribe(peer, f"a.n{number}", limit=MAX_SUBSCRIPTIONS)
    with pytest.raises(ConflictError, match=str(MAX_SUBSCRIPTIONS)):
        await core.attachments.subscribe(peer, "a.more", limit=MAX_SUBSCRIPTIONS)


def test_max_ref() -> None:
    """MAX_REF characters of a `ref`."""
    for over in (0, 1):
        frame = {"type": "publish", "ref": "r" * (MAX_REF + over), "envelope": {"subject": "a"}}
        if over:
            with pytest.raises(InvalidError, match=str(MAX_REF)):
                read_frame(json.dumps(frame))
        else:
            read_frame(json.dumps(frame))


def test_max_concurrency() -> None:
    """MAX_CONCURRENCY slots of a stream."""
    assert Options.read(b"concurrency=%d" % MAX_CONCURRENCY).concurrency == MAX_CONCURRENCY
    with pytest.raises(InvalidError):
        Options.read(b"concurrency=%d" % (MAX_CONCURRENCY + 1))


def test_max_options() -> None:
    """MAX_OPTIONS parameters in the query of a stream."""
    Options.read(b"&".join([b"subject=a"] * MAX_OPTIONS))
    with pytest.raises(HubError, match=str(MAX_OPTIONS)):
        Options.read(b"&".join([b"subject=a"] * (MAX_OPTIONS + 1)))
