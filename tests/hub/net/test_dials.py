"""Dials of a hub: they live with the adapter or plugin that asked for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hubbub import Adapter, Hub, hookimpl
from hubbub.config import AdapterSettings, Address
from hubbub.errors import NotFoundError
from hubbub.listeners import LineConnection
from hubbub.net import Dial, WebSocketConnection
from hubbub.reload import Reloads
from hubbub.switching import disable, enable, plugin_named
from hubbub.testing import FakeClock, running_hub, serving_hub
from tests.hub.net.conftest import Bench, accept, frame_of, hang

TOML = "[hub]\ndrain_timeout = 0.2\n[adapters.caller]\nenabled = true\nlimits.frame = 77\n"


class Line(LineConnection):
    def frame(self, frame: bytes) -> None:
        pass


class Caller:
    """An adapter that dials."""

    name = "caller"
    Config = AdapterSettings

    def __init__(self, address: Address) -> None:
        self._address = address
        self.dials: list[Dial] = []
        self.states: list[str] = []
        self.fails = False

    @hookimpl
    def adapters(self) -> list[Adapter]:
        return [self]

    async def start(self, hub: Hub) -> None:
        self.dials = [
            hub.dial_websocket(self.name, f"ws://{self._address}/?key=secret", WebSocketConnection),
            hub.dial_tcp(self.name, self._address, Line),
        ]
        self.states = [dial.state for dial in self.dials]
        if self.fails:
            raise RuntimeError

    async def stop(self) -> None:
        pass


class Plugin:
    """A plugin without an adapter that dials."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @hookimpl
    async def startup(self, hub: Hub) -> None:
        hub.dial_tcp("single", self._address, Line)


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a WebSocket for who asks for one, and hang for others."""
    try:
        async with asyncio.timeout(0.05):
            await accept(reader, writer)
    except TimeoutError:
        await hang(reader, writer)
    while (await frame_of(reader))[0] != 8:
        pass
    writer.write(b"\x88\x02\x03\xe9")
    await hang(reader, writer)


async def test_they_live_with_their_adapter(tmp_path: Path, bench: Bench) -> None:
    """Begun once the hub is ready, closed and forgotten when the adapter stops, new after that."""
    caller = Caller(await bench.peer(talk))
    async with running_hub(tmp_path, TOML, plugins={"caller": caller}) as hub:
        assert caller.states == ["waiting", "waiting"]  # the hub was not ready then
        first = caller.dials
        assert list(hub.dials) == first
        await bench.until(lambda: [dial.state for dial in first] == ["open", "open"])
        assert first[0].limits.frame == 77
        await hub.extensions.restart_adapter("caller")
        assert [dial.is_gone for dial in first] == [True, True]
        assert list(hub.dials) == caller.dials != first
        await bench.until(lambda: [dial.state for dial in caller.dials] == ["open", "open"])
        await hub.adapters.stop_one("caller")
        assert list(hub.dials) == []
        assert all(dial.is_gone for dial in caller.dials)
    value = hub.metrics.registry.get_sample_value
    for state in ("waiting", "connecting", "open"):
        assert not value("hubbub_dials", {"adapter": "caller", "state": state})


async def test_an_adapter_that_cannot_start_leaves_none(tmp_path: Path, bench: Bench) -> None:
    """Else each further try would leave one more."""
    clock = FakeClock()
    caller = Caller(await bench.peer(hang))
    caller.fails = True
    async with running_hub(tmp_path, TOML, plugins={"caller": caller}, clock=clock) as hub:
        assert list(hub.dials) == []
        caller.fails = False
        await clock.advance(1)
        await bench.until(lambda: list(hub.dials) == caller.dials)


async def test_a_hub_that_drains_dials_nobody(tmp_path: Path, bench: Bench) -> None:
    """What is lost meanwhile is not dialled again; what is open stays until adapters stop."""
    clock = FakeClock()
    caller = Caller(await bench.peer(hang))
    async with running_hub(tmp_path, TOML, plugins={"caller": caller}, clock=clock) as hub:
        websocket, tcp = caller.dials
        await bench.until_state(tcp, "open")
        await bench.until(lambda: bench.came == 2)
        await hub.drain()
        assert tcp.state == "open"
        for task in bench.tasks:
            task.cancel()
        await bench.until(lambda: [each.state for each in caller.dials] == ["waiting", "waiting"])
        await clock.advance(100)
        assert bench.came == 2
        assert websocket.reason


async def test_dials_of_a_plugin(tmp_path: Path, bench: Bench) -> None:
    """Under its own name; they end with it, and come again."""
    address = await bench.peer(hang)
    async with running_hub(tmp_path, plugins={"single": Plugin(address)}) as hub:
        plugin = plugin_named(hub, "single")
        (first,) = hub.dials.of("single")
        await bench.until_state(first, "open")
        await disable(hub, plugin, by="test")
        assert first.is_gone
        assert list(hub.dials) == []
        await enable(hub, plugin)
        (second,) = hub.dials
        await bench.until_state(second, "open")


async def test_limits_that_change(tmp_path: Path, bench: Bench) -> None:
    """A reload holds from the next link on; what was given to the dial itself stays."""
    caller = Caller(await bench.peer(talk))
    async with serving_hub(tmp_path, TOML, plugins={"caller": caller}) as hub:
        own = hub.core.dial_websocket(
            "caller", f"ws://{caller._address}", WebSocketConnection, frame=5
        )
        dials = [*caller.dials, own]
        await bench.until(lambda: [dial.state for dial in dials] == ["open"] * 3)
        file = hub.core.config.file
        assert file is not None
        file.write_text(TOML.replace("77", "78"))
        await Reloads(hub.core).reload(by="test")
        again = hub.core.dial_tcp("caller", caller._address, Line)
        assert [dial.limits.frame for dial in (*dials, again)] == [77, 77, 5, 78]
        for task in bench.tasks:
            task.cancel()
        await bench.until(lambda: [dial.limits.frame for dial in dials] == [78, 78, 5])


async def test_they_are_shown(tmp_path: Path, bench: Bench) -> None:
    """With their adapter in the API, without what is secret in them."""
    caller = Caller(await bench.peer(talk))
    async with serving_hub(tmp_path, TOML, plugins={"caller": caller}) as hub:
        await bench.until(lambda: [dial.state for dial in caller.dials] == ["open", "open"])
        headers = {"Authorization": f"Bearer {hub.core.new_admin_token}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
            answer = await client.get(f"{hub.main.url}/api/v1/adapters")
        (shown,) = [each["dials"] for each in answer.json()["items"] if each["name"] == "caller"]
        assert [(each["state"], each["reason"], each["failures"]) for each in shown] == [
            ("open", None, 0),
            ("open", None, 0),
        ]
        assert shown[0]["url"] == f"ws://{caller._address}/?key=***"
        assert "secret" not in answer.text


async def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    """Nothing would end such a dial."""
    async with running_hub(tmp_path) as hub:
        with pytest.raises(NotFoundError, match="stranger"):
            hub.dial_tcp("stranger", Address("127.0.0.1", 1), Line)


async def test_a_dial_that_is_closed_is_forgotten(tmp_path: Path, bench: Bench) -> None:
    """By the adapter itself: nothing of it is left, however many there were."""
    caller = Caller(await bench.peer(hang))
    async with running_hub(tmp_path, TOML, plugins={"caller": caller}) as hub:
        held: list[Any] = []
        for _ in range(50):
            dial = hub.dial_tcp("caller", caller._address, Line)
            await bench.until_state(dial, "open")
            dial.close()
            dial.close()
            await bench.until_gone(dial)
            await bench.until(lambda: len(bench.tasks_alive()) <= 2)
            held.append((len(asyncio.all_tasks() - bench.tasks), list(hub.dials)))
        assert held[0][1] == caller.dials
        assert held == held[:1] * 50
