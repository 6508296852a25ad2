"""Guards of sources: what somebody may publish."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.errors import BusyError, RateLimitedError, TooLargeError
from hubbub.guards import GuardRule
from hubbub.sources import MAX_SOURCES, Sources
from hubbub.testing import FakeClock, RecordingEndpoint, counted
from hubbub.values import Endpoint, Principal
from tests.hub.web.conftest import FAST, serving

ANN = Principal("ann", "api.ann", frozenset({"admin"}))
BOB = Principal("bob", "api.bob", frozenset({"admin"}))


def said(number: object = 1, source: str = "") -> Envelope:
    return Envelope.new(source=source, subject="a.b", data=number, durable=False)


def guard(core: Core, **limits: object) -> None:
    rule = GuardRule(match="api.*", **limits)  # type: ignore[arg-type]
    core.router.sources.change(0.0, [rule])


async def test_each_source_has_its_own_rate(core: Core, clock: FakeClock) -> None:
    """Ann is over hers, Bob is not; after the time that Ann was told she may again."""
    guard(core, rate_per_s=1.0, burst=2)
    for _ in range(2):
        await core.publish(said(), principal=ANN)
    with pytest.raises(RateLimitedError, match=r"guards\.source") as refused:
        await core.publish(said(), principal=ANN)
    await core.publish(said(), principal=BOB)
    await clock.advance(refused.value.after_s)
    await core.publish(said(), principal=ANN)
    assert counted(core, "hubbub_envelopes_refused_total", reason="rate_limited") == 1


async def test_an_adapter_speaks_for_many_sources(core: Core) -> None:
    """What it publishes counts for the source of the envelope; the hub's own is never refused."""
    core.router.sources.change(0.0, [GuardRule(match=">", rate_per_s=0.001)])
    for source in ("kenko.app.a", "kenko.app.b"):
        await core.publish(said(source=source))
        with pytest.raises(RateLimitedError):
            await core.publish(said(source=source))
    for _ in range(3):
        await core.publish(said(source="hub.directory"))


async def test_publish_rate_holds_where_no_entry_does(core: Core) -> None:
    """For whoever came with a token, not for adapters."""
    core.router.sources.change(0.001, [GuardRule(match="api.bob", concurrency=5)])
    await core.publish(said(), principal=ANN)
    with pytest.raises(RateLimitedError, match=r"hub\.publish_rate"):
        await core.publish(said(), principal=ANN)
    for _ in range(3):
        await core.publish(said(), principal=BOB)
        await core.publish(said(source="kenko.app.a"))


async def test_size_has_a_limit(core: Core) -> None:
    """The limit itself is taken, one byte more is not; in a batch each member counts alone."""
    guard(core, size_bytes=4)
    await core.router.publish_all([said(1234), said(5678)], principal=ANN)
    with pytest.raises(TooLargeError, match="5 bytes, the limit is 4"):
        await core.router.publish_all([said(1234), said(56789)], principal=ANN)


async def test_concurrency_has_a_limit(core: Core) -> None:
    """Requests that wait for an answer are under way; when one ends there is room again."""
    guard(core, concurrency=2)
    released = asyncio.Event()

    begun = asyncio.Semaphore(0)

    class Slow(Endpoint):
        async def deliver(self, envelope: Envelope) -> Envelope:
            begun.release()
            await released.wait()
            return Envelope.new(source=self.address, subject="a.done", data="done")

    slow = Slow(address="plugin.slow", concurrency=9)
    core.attach(slow)
    core.table.put(Route(name="r", match="a.>", to=("plugin.slow",)))
    asking = [
        asyncio.create_task(core.asking.request(said(), timeout_s=60, principal=ANN))
        for _ in range(2)
    ]
    await begun.acquire()
    await begun.acquire()
    with pytest.raises(BusyError, match="2 are under way"):
        await core.asking.request(said(), timeout_s=60, principal=ANN)
    with pytest.raises(BusyError):
        await core.publish(said(), principal=ANN)
    await core.publish(said(), principal=BOB)
    released.set()
    assert [answer.json() for answer in await asyncio.gather(*asking)] == ["done", "done"]
    await core.publish(said(), principal=ANN)


def test_remembers_a_bounded_number_of_sources() -> None:
    """The one that was silent longest is forgotten, but not one that has a stream open."""
    sources = Sources(0.0, [GuardRule(match=">", rate_per_s=1.0, connections=3)])
    sources.connect("api.first")
    for number in range(MAX_SOURCES + 10):
        sources.of(f"api.{number}")
    assert sources.find("api.first") is not None
    assert sources.find("api.0") is None
    assert sources.find(f"api.{MAX_SOURCES + 9}") is not None


GUARDS = """
[[guards.source]]
match = "api.*"
connections = 1
size = 100

[[guards.endpoint]]
match = "plugin.*"
rate = 5.0
concurrency = 1
breaker_failures = 2
"""


async def test_hub_toml_and_a_reload_set_guards_and_the_api_shows_them(tmp_path: Path) -> None:
    """As in the file, with how they stand; taken out of the file they are gone."""
    async with serving(tmp_path / "hub", FAST + GUARDS) as served:
        core = served.core
        core.attach(RecordingEndpoint("plugin.x"))
        shown = await served.get("/api/v1/endpoints/plugin.x")
        assert shown["guard"] == {
            "match": "plugin.*", "rate": 5.0, "burst": 5, "concurrency": 1, "size": None,
            "tokens": 5.0,
            "breaker": {"state": "closed", "failures": 0, "opened": 0, "tries_at": None},
        }  # fmt: skip
        text = (await served.client.get("/metrics")).text
        assert 'hubbub_breakers{adapter="plugin",state="closed"} 1.0' in text
        answer = await served.client.post(
            "/api/v1/envelopes", json={"subject": "a.b", "data": "x" * 99}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert core.config.file is not None
        core.config.file.write_text(FAST + GUARDS.replace("5.0", "7.0"), encoding="utf-8")
        done = (await served.client.post("/api/v1/reload")).json()
        assert done == {"applied": ["guards.endpoint"], "needs_restart": []}
        shown = await served.get("/api/v1/endpoints/plugin.x")
        assert (shown["guard"]["rate"], shown["guard"]["tokens"]) == (7.0, 7.0)
        core.config.file.write_text(FAST, encoding="utf-8")
        done = (await served.client.post("/api/v1/reload")).json()
        assert done["applied"] == ["guards.endpoint", "guards.source"]
        assert (await served.get("/api/v1/endpoints/plugin.x"))["guard"] is None
        assert (await served.publish("a.b", "x" * 99))["outcome"] == "unrouted"


async def test_streams_of_one_source_have_a_limit(tmp_path: Path) -> None:
    """The second one is refused with 429, and let in when the first one has ended."""
    async with serving(tmp_path / "hub", FAST + GUARDS) as served:
        path = "/api/v1/stream?subject=a.>"

        async def status(client: httpx2.AsyncClient) -> int:
            async with client.stream("GET", path) as answer:
                return answer.status_code

        async with served.client.stream("GET", path) as first:
            assert first.status_code == 200
            async with served.client.stream("GET", path) as second:
                problem = json.loads(await second.aread())
                assert (second.status_code, problem["code"]) == (429, "busy")
        guarded = served.core.router.sources.find("api.admin")
        assert guarded is not None
        async with asyncio.timeout(20):
            while guarded.connections:
                await served.client.get("/healthz")
        assert await status(served.client) == 200
