"""Ports that are taken: the adapter is degraded, the hub is up, and the port is tried again."""

from __future__ import annotations

import socket
from pathlib import Path

from hubbub import Adapter, Hub, hookimpl
from hubbub.config import AdapterSettings, Address
from hubbub.testing import FakeClock, TcpPeer, UdpPeer, running_hub, serving_hub
from tests.hub.listeners.test_tcp import Echo
from tests.hub.listeners.test_udp import Echo as UdpEcho

TOML = "[hub]\ndrain_timeout = 0.2\n[adapters.both]\nenabled = true\n"


class Both:
    """An adapter with TCP and UDP on one port."""

    name = "both"
    Config = AdapterSettings

    def __init__(self, port: int) -> None:
        self._address = Address("127.0.0.1", port)

    @hookimpl
    def adapters(self) -> list[Adapter]:
        return [self]

    async def start(self, hub: Hub) -> None:
        await hub.listen_udp(self.name, self._address, UdpEcho)
        await hub.listen_tcp(self.name, self._address, Echo)

    async def stop(self) -> None:
        pass


async def works(address: Address) -> bool:
    peer = await TcpPeer.connect(address)
    await peer.send(b"hello\n")
    answer = await peer.line()
    await peer.close()
    return answer == b"hello\n"


async def test_a_udp_port_that_is_taken(tmp_path: Path) -> None:
    """TCP works meanwhile; after 5 seconds UDP is there too, on its own."""
    clock = FakeClock()
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    async with running_hub(tmp_path, TOML, clock=clock, plugins={"both": Both(port)}) as hub:
        running = hub.adapters.get("both")
        udp, tcp = hub.listeners.of("both")
        assert running.state == "degraded"
        assert f"127.0.0.1:{port}" in running.reason
        assert await works(tcp.address)
        states: list[str] = []
        for seconds in (5, 4, 2):
            await clock.advance(seconds)
            states.append(running.state)
            taken.close()
        assert states == ["degraded", "degraded", "up"]
        assert running.reason == ""
        peer = UdpPeer(udp.address)
        peer.send(b"hello")
        assert await peer.answer() == b">hello"
        peer.close()


async def test_a_restart_closes_and_opens(tmp_path: Path) -> None:
    """Both listeners are new ones on the old port; stopping gives it free."""
    async with running_hub(tmp_path, TOML, plugins={"both": Both(0)}) as hub:
        before = hub.listeners.of("both")
        await hub.extensions.restart_adapter("both")
        after = hub.listeners.of("both")
        assert len(after) == 2
        assert not set(before) & set(after)
        assert await works(after[1].address)
        await hub.adapters.stop_one("both")
        assert hub.listeners.of("both") == []


async def test_the_one_port_is_there_while_an_adapter_is_not(tmp_path: Path) -> None:
    """A `listen` that is taken degrades the relay, and comes by itself."""
    clock = FakeClock()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        toml = f'[adapters.relay]\nenabled = true\nlisten = ["127.0.0.1:{port}"]\n'
        async with serving_hub(tmp_path, toml, clock=clock) as hub:
            running = hub.core.adapters.get("relay")
            states = [running.state]
            taken.close()
            await clock.advance(6)
            states.append(running.state)
            assert states == ["degraded", "up"]
