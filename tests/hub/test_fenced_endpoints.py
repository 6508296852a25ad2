"""Endpoints of third-party plugins: what they hold the loop for is counted as hooks' time is."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from pathlib import Path

import pytest

from hubbub import Endpoint, Envelope
from hubbub.core import Core
from hubbub.fence import FAULTS_IN_A_ROW, Plugin
from hubbub.testing import running_hub

BUDGET = "[hub]\nhook_budget = 0.02"

HOLD_S = 0.03


class Slow(Endpoint):
    """Holds the loop in `deliver`, between two waits."""

    async def deliver(self, envelope: Envelope) -> object:
        await asyncio.sleep(0)
        time.sleep(HOLD_S)  # noqa: ASYNC251  # that is the fault
        return await asyncio.sleep(0, None)


class SlowAtOnce(Endpoint):
    """Holds the loop in `deliver`, before it gives something to wait for."""

    def deliver(self, envelope: Envelope) -> Awaitable[object]:
        time.sleep(HOLD_S)
        return asyncio.sleep(0)


class SlowNow(Endpoint):
    """Holds the loop in `deliver_now`."""

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        time.sleep(HOLD_S)
        return len(envelopes)


class Patient(Endpoint):
    """Waits long and holds nothing."""

    async def deliver(self, envelope: Envelope) -> None:
        await asyncio.sleep(2 * HOLD_S)


class Old(Endpoint):
    """Has a coroutine of the old kind, which has no `__await__`."""

    @types.coroutine
    def deliver(self, envelope: Envelope) -> Generator[object, object, None]:
        yield None


def plugin_with(core: Core) -> Plugin:
    """Return a plugin that is nobody's but a third party's."""
    return core.plugins.add("third", types.SimpleNamespace())


async def tell(core: Core) -> None:
    """Send one message to the endpoint."""
    to = ("plugin.third",)
    await core.publish(Envelope.new(source="plugin.test", subject="any", to=to, durable=False))


def has_faults(plugin: Plugin, faults: int) -> bool:
    return plugin.faults == faults


async def until(true: Callable[[], bool]) -> None:
    """Wait for what the hub does next."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # the hub tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", [Slow, SlowAtOnce, SlowNow])
async def test_a_slow_endpoint_is_quarantine(tmp_path: Path, kind: type[Endpoint]) -> None:
    """Three in a row, as with hooks; one fewer is not."""
    async with running_hub(tmp_path, BUDGET) as core:
        plugin = plugin_with(core)
        core.hub_for(plugin).attach(kind(address="plugin.third"))
        for faults in range(1, FAULTS_IN_A_ROW):
            await tell(core)
            await until(partial(has_faults, plugin, faults))
            assert plugin.state == "up"
        await tell(core)
        await until(lambda: plugin.state == "quarantined")
        assert "deliver" in plugin.reason


@pytest.mark.parametrize("kind", [Patient, Old])
async def test_waiting_holds_no_loop(tmp_path: Path, kind: type[Endpoint]) -> None:
    """However long the peer takes, and whatever it is that waits."""
    async with running_hub(tmp_path, BUDGET) as core:
        plugin = plugin_with(core)
        link = core.hub_for(plugin).attach(kind(address="plugin.third"))
        for _ in range(FAULTS_IN_A_ROW):
            await tell(core)
        await until(lambda: link.idle)
        assert (plugin.state, plugin.faults) == ("up", 0)


async def test_a_fenced_endpoint_answers_and_is_cancelled(tmp_path: Path) -> None:
    """The fence changes nothing of what comes back, and lets a cancelled attempt end."""
    ended = asyncio.Event()

    class Both(Endpoint):
        async def deliver(self, envelope: Envelope) -> object:
            if envelope.subject == "answer":
                return Envelope.new(source="plugin.third", subject="any", data="done")
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return None

    async with running_hub(tmp_path, BUDGET) as core:
        endpoint = Both(address="plugin.third")
        hub = core.hub_for(plugin_with(core))
        hub.attach(endpoint).close()
        link = hub.attach(endpoint)  # fenced once
        asked = Envelope.new(source="plugin.test", subject="answer", to=("plugin.third",))
        assert (await core.request(asked, timeout_s=5)).json() == "done"
        await tell(core)
        await until(lambda: not link.idle)
        await asyncio.sleep(0)
        link.close()
        await asyncio.wait_for(ended.wait(), 5)
