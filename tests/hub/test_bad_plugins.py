"""Hooks and converters that raise, hang or give nonsense; a clock that jumps; crowded tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hubbub import Converter, Envelope, Route, hookimpl
from hubbub.clock import Ids, SystemClock
from hubbub.core import Core
from hubbub.errors import ConfigError
from hubbub.fence import FAULTS_IN_A_ROW
from hubbub.testing import FakeClock, RecordingEndpoint, counted, running_hub, settle
from hubbub.values import Delivery, Endpoint
from hubbub.web.app import build_app

BUDGET_S = 0.05


def raises(*_: object) -> Any:
    raise ValueError("bad")


def exits(*_: object) -> Any:
    raise SystemExit(3)


def recurses(*given: object) -> Any:
    return recurses(*given)


def dawdles(envelope: object) -> Any:
    until = time.perf_counter() + BUDGET_S * 1.2
    while time.perf_counter() < until:
        pass
    return envelope


NONSENSE: dict[str, Callable[..., Any]] = {
    "raises": raises,
    "exits": exits,
    "recurses": recurses,
    "a text": lambda *_: "text",
    "a dictionary": lambda *_: {"subject": "a.b"},
    "a class": lambda *_: Envelope,
    "a coroutine function": lambda *_: dawdles,
}


class Hooked:
    """A plugin whose hooks do what the test says."""

    def __init__(self, does: Callable[..., Any]) -> None:
        self.does = does
        self.calls = 0

    @hookimpl
    def before_route(self, envelope: Envelope) -> Any:
        self.calls += 1
        return self.does(envelope)

    @hookimpl
    def after_delivery(self, delivery: Delivery) -> Any:
        return self.does(delivery)


def sent(data: object = 1, **more: Any) -> Envelope:
    return Envelope.new(source="plugin.test", subject="a.b", data=data, **more)


def taker_of(core: Core, **how: Any) -> RecordingEndpoint:
    taker = RecordingEndpoint("plugin.x", **how)
    core.attach(taker)
    core.table.put(Route(name="r", match="a.>", to=("plugin.x",), attempts=2))
    return taker


@pytest.mark.parametrize("does", NONSENSE.values(), ids=NONSENSE)
async def test_a_bad_hook_changes_nothing_but_its_counter(
    tmp_path: Path, clock: FakeClock, does: Callable[..., Any]
) -> None:
    """Every message goes on unchanged; three faults in a row take the plugin out."""
    bad = Hooked(does)
    async with running_hub(tmp_path / "hub", clock=clock, plugins={"bad": bad}) as core:
        taker = taker_of(core, concurrency=10)
        for number in range(6):
            await core.publish(sent(number))
        assert [envelope.json() for envelope in await taker.wait_for(6)] == list(range(6))
        await settle()
        plugin = core.plugins.get("bad")
        assert plugin is not None
        assert plugin.state == "quarantined"
        assert bad.calls <= FAULTS_IN_A_ROW
        faults = [
            counted(core, "hubbub_plugin_errors_total", plugin="bad", hook=hook)
            for hook in ("before_route", "after_delivery")
        ]
        assert max(faults) == FAULTS_IN_A_ROW
        assert counted(core, "hubbub_deliveries_total", outcome="delivered") == 6


async def test_a_hook_over_its_budget_is_a_fault(tmp_path: Path) -> None:
    """What it gives counts, and so does the time it took."""
    bad = Hooked(dawdles)
    async with running_hub(tmp_path / "hub", plugins={"bad": bad}) as core:
        taker = taker_of(core, concurrency=10)
        for number in range(4):
            await core.publish(sent(number))
        await taker.wait_for(4)
        plugin = core.plugins.get("bad")
        assert plugin is not None
        assert plugin.state == "quarantined"
        assert "took" in plugin.reason


class Converting:
    """A plugin with a converter that does what the test says."""

    def __init__(self, does: Callable[..., Any]) -> None:
        self.does = does

    @hookimpl
    def converters(self) -> list[Converter]:
        return [Converter("from.v1", "to.v1", self.does)]


def same(envelope: Envelope) -> Envelope:
    return envelope


def other(envelope: Envelope) -> Envelope:
    return envelope.replace(type="other.v1")


WRONG: dict[str, Callable[..., Any]] = {
    **{name: does for name, does in NONSENSE.items() if name != "exits"},
    "the type it had": same,
    "another type": other,
}


@pytest.mark.parametrize("does", WRONG.values(), ids=WRONG)
async def test_a_bad_converter_is_not_the_endpoints_fault(
    tmp_path: Path, clock: FakeClock, does: Callable[..., Any]
) -> None:
    """The delivery is dead with the reason after its attempts; what needs none goes on."""
    bad = Converting(does)
    async with running_hub(tmp_path / "hub", clock=clock, plugins={"bad": bad}) as core:
        taker = taker_of(core, accepts=("to.v1",))
        await core.publish(sent("convert", type="from.v1"))
        await core.publish(sent("as it is", type="to.v1"))
        assert [envelope.json() for envelope in await taker.wait_for(1)] == ["as it is"]
        await clock.advance(10.0)
        assert counted(core, "hubbub_deliveries_total", outcome="dead") == 1
        assert counted(core, "hubbub_plugin_errors_total", plugin="bad") == 2
        assert counted(core, "hubbub_plugin_errors_total", plugin="plugin") == 0
        assert len(taker.taken) == 1


async def test_a_converter_cannot_say_that_it_is_another_message(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Id, source, time, trace and hops are those of the envelope that was published."""

    def forges(envelope: Envelope) -> Envelope:
        return Envelope.new(source="forged", subject="c", type="to.v1", data=envelope.data)

    async with running_hub(
        tmp_path / "hub", clock=clock, plugins={"p": Converting(forges)}
    ) as core:
        taker = taker_of(core, accepts=("to.v1",))
        receipt = await core.publish(sent(type="from.v1"))
        (taken,) = await taker.wait_for(1)
        assert (taken.id, taken.source, taken.trace_id, taken.hops) == (
            receipt.id, "plugin.test", receipt.trace_id, 1,
        )  # fmt: skip
        assert taken.subject == "c"


class Clocks:
    """The clocks of a machine, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_ns = 1_767_323_045_000_000_000
        self.steady_ns = 5_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.steady_ns)

    def pass_by(self, seconds: float, *, wall_jumps: float = 0.0) -> None:
        self.steady_ns += int(seconds * 1e9)
        self.wall_ns += int((seconds + wall_jumps) * 1e9)


def test_the_hubs_clock_never_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall goes back an hour: the hub's time goes on at its pace, and so do its numbers."""
    clocks = Clocks(monkeypatch)
    clock = SystemClock()
    ids = Ids(clock)
    before, number, name = clock.now_us(), ids.seq(), ids.ulid()
    for _ in range(50):
        clocks.pass_by(2.0, wall_jumps=-3600.0)
        now, after, later = clock.now_us(), ids.seq(), ids.ulid()
        assert now - before == 2_000_000
        assert after > number
        assert later > name
        before, number, name = now, after, later


def test_the_hubs_clock_follows_the_wall_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept, a clock that was put right: within a second the hub knows."""
    clocks = Clocks(monkeypatch)
    clock = SystemClock()
    before = clock.now_us()
    clocks.pass_by(1.0, wall_jumps=3600.0)
    assert clock.now_us() - before == 3_601_000_000


@pytest.mark.parametrize("durable", [True, False])
async def test_a_jump_over_many_deadlines_ends_each_once(
    core: Core, clock: FakeClock, durable: bool
) -> None:
    """However many expire at once, they are ended in a loop and not one inside the other."""
    taker = taker_of(core)
    link = core.room.links()[0]
    link.slots = 0
    expires_us = clock.now_us() + 10_000_000
    for number in range(600):
        await core.publish(sent(number, durable=durable).replace(expires_us=expires_us))
    clock._now_us += 3_600_000_000  # nothing has been told yet
    link.slots = 1
    await settle()
    await core.publish(sent("later", durable=durable))
    while not taker.taken:
        await clock.advance(1.0)
        await core.journal.flush()
    assert [envelope.json() for envelope in taker.taken] == ["later"]
    for _ in range(20):
        await clock.advance(60.0)
        await core.journal.flush()
    assert counted(core, "hubbub_deliveries_total", outcome="expired") == 600


# 10,000 routes that all match

CROWD = 10_000


def cpu_s(since: float) -> float:
    return time.process_time() - since


async def test_ten_thousand_routes_to_one_endpoint_are_one_delivery(core: Core) -> None:
    """It gets the envelope once, by the first of them, in a time linear in the routes."""
    taker = RecordingEndpoint("plugin.x")
    core.attach(taker)
    core.table.replace_all(
        "file",
        [
            Route(
                name=f"r{number}", match="a.>", to=("plugin.x",), where={"data": 1}, origin="file"
            )
            for number in range(CROWD)
        ],
    )
    began = time.process_time()
    receipt = await core.publish(sent())
    assert cpu_s(began) < 2.0
    assert receipt.deliveries == 1
    await taker.wait_for(1)
    await settle()
    assert len(taker.taken) == 1


@pytest.mark.parametrize("durable", [True, False])
async def test_ten_thousand_routes_to_as_many_endpoints(core: Core, durable: bool) -> None:
    """Each gets it once; nobody waits for a square of them."""
    taken: list[str] = []
    all_taken = asyncio.Event()

    class One(Endpoint):
        async def deliver(self, envelope: Envelope) -> None:
            taken.append(self.address)
            if len(taken) >= CROWD:
                all_taken.set()

    for number in range(CROWD):
        core.attach(One(address=f"plugin.n{number}"))
    core.table.replace_all(
        "file",
        [
            Route(name=f"r{number}", match="a.>", to=(f"plugin.n{number}",), origin="file")
            for number in range(CROWD)
        ],
    )
    began = time.process_time()
    receipt = await core.publish(sent(durable=durable))
    await asyncio.wait_for(all_taken.wait(), 50)
    assert cpu_s(began) < 12.0
    assert receipt.deliveries == CROWD
    assert len(set(taken)) == CROWD


class Giving:
    """A plugin whose hooks give what the test says."""

    def __init__(self, hook: str, given: object) -> None:
        def hooked() -> object:
            return given

        hooked.__name__ = hook
        setattr(self, hook, hookimpl(hooked))


GIVEN = {
    "a number": 5,
    "a text": "route",
    "a list of nothing": [None],
    "a list of texts": ["route"],
    "a list of tuples": [("a", "b")],
    "a dictionary": {"a": 1},
}


@pytest.mark.parametrize("hook", ["adapters", "converters", "http_routes", "routes", "transforms"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
async def test_a_hook_that_gives_nonsense_fails_its_plugin_alone(
    tmp_path: Path, hook: str, given: object
) -> None:
    """The hub starts, works, and names the plugin."""
    plugins = {"bad": Giving(hook, given)}
    async with running_hub(tmp_path / "hub", plugins=plugins) as core:
        build_app(core, loopback=True)
        plugin = core.plugins.get("bad")
        assert plugin is not None
        assert plugin.state == "failed"
        assert plugin.reason
        taker = taker_of(core)
        await core.publish(sent())
        await taker.wait_for(1)


@pytest.mark.parametrize("hook", ["adapters", "converters", "http_routes", "routes", "transforms"])
async def test_a_hook_that_gives_nothing_gives_an_empty_list(tmp_path: Path, hook: str) -> None:
    """A function without `return` is no mistake."""
    async with running_hub(tmp_path / "hub", plugins={"none": Giving(hook, None)}) as core:
        build_app(core, loopback=True)
        plugin = core.plugins.get("none")
        assert plugin is not None
        assert (plugin.state, plugin.reason) == ("up", "")


async def test_a_converter_may_be_a_plain_tuple(tmp_path: Path) -> None:
    """`(from_type, to_type, function)`; nothing of ours has to be imported for it."""

    def shout(envelope: Envelope) -> Envelope:
        return envelope.replace(type="loud.v1", data=b'"HELLO"')

    plugins = {"loud": Giving("converters", [("quiet.v1", "loud.v1", shout)])}
    async with running_hub(tmp_path / "hub", plugins=plugins) as core:
        taker = taker_of(core, accepts=["loud.v1"])
        await core.publish(sent("hello", type="quiet.v1"))
        [taken] = await taker.wait_for(1)
        assert (taken.type, taken.json()) == ("loud.v1", "HELLO")


async def test_the_config_of_an_adapter_may_be_any_model(tmp_path: Path) -> None:
    """What the hub reads of its table is there all the same; its own keys reach it."""

    class Greeting(BaseModel):
        greeting: str = "hi"

    class Greeter:
        name = "greeter"
        Config = Greeting
        said = ""

        async def start(self, hub: Any) -> None:
            self.said = hub.settings(self.name, self.Config).greeting

        async def stop(self) -> None:
            pass

    greeter = Greeter()
    toml = '[adapters.greeter]\nenabled = true\nrequired = true\ngreeting = "hello"\n'
    plugins = {"greeter": Giving("adapters", [greeter])}
    async with running_hub(tmp_path / "hub", toml, plugins=plugins) as core:
        running = core.adapters.get("greeter")
        assert (running.state, running.settings.required) == ("up", True)
        assert greeter.said == "hello"
    with pytest.raises(ConfigError, match=r"hub.toml:4: adapters.greeter.greting: unknown key"):
        async with running_hub(
            tmp_path / "b", toml.replace("greeting", "greting"), plugins=plugins
        ):
            pass
