"""HTTP addresses that adapters open and close while the hub runs."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub import Adapter, Hub, hookimpl
from hubbub.config import AdapterSettings, Address, LimitSettings, WebOrigin
from hubbub.errors import UnavailableError
from hubbub.listeners import Connection, Datagrams, HttpListener, PortTakenError
from hubbub.testing import FakeClock, TcpPeer, running_hub, serving_hub

ANY = Address("127.0.0.1", 0)
TOML = (
    "[hub]\ndrain_timeout = 0.2\n"
    '[adapters.web]\nenabled = true\norigins = ["https://named.example"]\n'
    "limits.frame = 100\n"
)


class WebSettings(AdapterSettings):
    ORIGINS_KEY: ClassVar[str | None] = "origins"

    origins: tuple[WebOrigin, ...] = ()


class Web:
    """An adapter that opens what a test says."""

    name = "web"
    Config = WebSettings
    hub: Hub

    def __init__(self, *early: Address) -> None:
        self._early = early

    @hookimpl
    def adapters(self) -> list[Adapter]:
        return [self]

    async def start(self, hub: Hub) -> None:
        self.hub = hub
        for address in self._early:
            await self.open(address)

    async def stop(self) -> None:
        pass

    async def open(self, address: Address = ANY, **how: Any) -> HttpListener:
        opened = await self.hub.listen_http(self.name, address, app, **how)
        assert isinstance(opened, HttpListener)
        return opened


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Say the path, or say again what a WebSocket says."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def state_of(hub: Any) -> str:
    return str(hub.core.adapters.get("web").state)


async def get(url: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(url, headers=headers)


async def test_it_serves_at_once(tmp_path: Path) -> None:
    """All paths are the adapter's, also those that are the hub's elsewhere; and WebSockets."""
    web = Web()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}) as hub:
        listener = await web.open()
        assert listener in hub.core.listeners.of("web")
        assert (await get(f"{listener.url}/api/v1/stats")).text == "/api/v1/stats"
        async with connect(f"ws://{listener.address}/x") as peer:
            await peer.send("hello")
            assert await peer.recv() == "hello"
            await peer.send("x" * 101)  # its adapter's limit
            await peer.wait_closed()
            assert peer.close_code == 1009


async def test_one_that_was_opened_early_waits(tmp_path: Path) -> None:
    """Bound in `start` of its adapter, it answers once the hub is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address(*free.getsockname())
    async with serving_hub(tmp_path, TOML, plugins={"web": Web(address)}):
        assert (await get(f"http://{address}/x")).text == "/x"


async def test_the_rule_of_origins_holds(tmp_path: Path) -> None:
    """Pages of other sites and foreign names never reach the application; named origins do."""
    web = Web()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}):
        listener = await web.open()
        url = f"{listener.url}/x"
        assert (await get(url, Origin="https://evil.example")).status_code == 403
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await get(url, **link)).status_code == 403
        assert (await get(url, Host="evil.example")).status_code == 421
        named = await get(url, Origin="https://named.example")
        assert named.text == "/x"
        assert named.headers["access-control-allow-origin"] == "https://named.example"
        assert (await get(f"{listener.url}/%ff")).status_code == 400
        for path, headers in (
            ("x", {"Origin": "https://evil.example"}),
            ("%ff", {}),
        ):
            with pytest.raises(InvalidStatus) as raised:
                async with connect(f"ws://{listener.address}/{path}", additional_headers=headers):
                    pass
            assert raised.value.response.status_code in (400, 403)
            assert json.loads(raised.value.response.body)["status"] in (400, 403)


async def test_limits_hold(tmp_path: Path) -> None:
    """Those that are given, as on any listener."""
    web = Web()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}) as hub:
        listener = await web.open(limits=LimitSettings(connections=1))
        first = await TcpPeer.connect(listener.address)
        second = await TcpPeer.connect(listener.address)
        assert await second.rest() == b""
        value = hub.core.metrics.registry.get_sample_value
        labels = {"adapter": "web", "reason": "connections"}
        assert value("hubbub_connections_refused_total", labels) == 1
        await first.close()
        await second.close()


async def test_a_taken_port_that_is_not_tried_again(tmp_path: Path) -> None:
    """Raised at once, with nothing left: no listener, no lack, no timer."""
    web, clock = Web(), FakeClock()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}, clock=clock) as hub:
        running = hub.core.adapters.get("web")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            timers = len(clock._timers)
            with pytest.raises(PortTakenError):
                await web.open(Address(*taken.getsockname()), retry=False)
            assert (state_of(hub), running.reason) == ("up", "")
            assert hub.core.listeners.of("web") == []
            assert len(clock._timers) == timers


async def test_a_taken_port_that_is_tried_again(tmp_path: Path) -> None:
    """The adapter is degraded until it is had, or until the adapter gives it up."""
    web, clock = Web(), FakeClock()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}, clock=clock) as hub:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = Address(*taken.getsockname())
            waiting = await web.open(address)
            given_up = await web.open(address)
            assert state_of(hub) == "degraded"
            given_up.close()
            assert hub.core.listeners.of("web") == [waiting]
            assert state_of(hub) == "degraded"  # the other one still lacks it
        await clock.advance(6)
        assert state_of(hub) == "up"
        assert (await get(f"{waiting.url}/x")).text == "/x"


async def test_one_that_is_given_up_degrades_nobody(tmp_path: Path) -> None:
    """For all kinds of listeners."""
    web, clock = Web(), FakeClock()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}, clock=clock) as hub:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        ):
            datagrams.bind(("127.0.0.1", 0))
            address, udp = Address(*taken.getsockname()), Address(*datagrams.getsockname())
            for given_up in (
                web.open(address),
                web.hub.listen_tcp("web", address, Connection),
                web.hub.listen_udp("web", udp, Datagrams),
            ):
                listener = await given_up
                assert state_of(hub) == "degraded"
                listener.close()
                assert state_of(hub) == "up"
        assert hub.core.listeners.of("web") == []
        await clock.advance(6)
        assert hub.core.listeners.of("web") == []


async def test_one_that_is_closed_with_a_peer(tmp_path: Path) -> None:
    """It is kept while somebody is connected, and ends with its adapter at the latest."""
    web = Web()
    async with serving_hub(tmp_path, TOML, plugins={"web": web}) as hub:
        listener, other = await web.open(), await web.open()
        async with (
            connect(f"ws://{listener.address}/x") as peer,
            connect(f"ws://{other.address}/x") as stays,
        ):
            listener.close()
            other.close()
            await peer.send("still")
            assert await peer.recv() == "still"
            assert hub.core.listeners.of("web") == [listener, other]
            await peer.close()
            while not listener.is_idle:  # noqa: ASYNC110  # sockets have no event for it
                await asyncio.sleep(0.002)
            assert hub.core.listeners.of("web") == [other]
            await hub.core.adapters.stop_one("web")
            assert hub.core.listeners.of("web") == []
            await stays.wait_closed()


async def test_a_thousand_leave_nothing(tmp_path: Path) -> None:
    """No socket, task, timer or series, whether they had a peer or none."""
    web, clock = Web(), FakeClock()

    def held(hub: Any) -> tuple[int, ...]:
        series = sum(len(each.samples) for each in hub.core.metrics.registry.collect())
        alive = [each for each in clock._timers if each[2].callback is not None]
        tasks = [each for each in asyncio.all_tasks() if not each.done()]
        return sum(1 for _ in Path("/proc/self/fd").iterdir()), len(tasks), len(alive), series

    async with serving_hub(tmp_path, TOML, plugins={"web": web}, clock=clock) as hub:
        before: tuple[int, ...] = ()
        for number in range(1000):
            listener = await web.open()
            if number % 100 == 0:
                peer = await TcpPeer.connect(listener.address)
                await peer.send(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in await peer.rest()
                await peer.close()
            if number % 2:
                listener.close()
            else:
                await listener.stop()
            await asyncio.sleep(0)
            before = before or held(hub)
        await asyncio.sleep(0.01)
        assert hub.core.listeners.of("web") == []
        assert held(hub) == before


async def test_a_hub_without_sockets(tmp_path: Path) -> None:
    """Nothing is served past the rule: it says so."""
    web = Web()
    async with running_hub(tmp_path, TOML, plugins={"web": web}):
        with pytest.raises(UnavailableError, match="serving_hub"):
            await web.open()
