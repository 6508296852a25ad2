"""What every adapter has to stand: a suite that its tests subclass."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from hubbub.adapters import RunningAdapter
from hubbub.config import Address
from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.hub import Hub
from hubbub.testing.clock import FakeClock
from hubbub.testing.hubs import serving_hub
from hubbub.testing.peers import TcpPeer
from hubbub.testing.recorders import RecordingEndpoint, counted
from hubbub.values import Route

__all__ = ["AdapterSuite", "Served"]

TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT: Final = f"00-{TRACE_ID}-b7ad6b7169203331-01"

DRAIN_S: Final = 1.0
STOP_S: Final = DRAIN_S + 4.0
"""How long a hub with connected peers may take to stop; the rest is room for a slow machine."""

WAIT_S: Final = 10.0
VANISHING: Final = 20

P = TypeVar("P")


@dataclass(slots=True)
class Served:
    """A hub that serves the adapter, and what was published by it.

    Attributes:
        recorder: Takes every envelope on the suite's `subject`.
        errors: Exceptions that nobody handled.
    """

    hub: Hub
    name: str
    recorder: RecordingEndpoint
    errors: list[str] = field(default_factory=list[str])

    @property
    def core(self) -> Core:
        """The hub without its sockets."""
        return self.hub.core

    @property
    def adapter(self) -> RunningAdapter:
        """The adapter and how it is."""
        return self.core.adapters.get(self.name)

    @property
    def address(self) -> Address:
        """Its first own listener; the one port when it has none."""
        own = self.core.listeners.of(self.name)
        return own[0].address if own else self.hub.main.address

    async def said(self, number: int = 1) -> list[Envelope]:
        """Return what was published once it is that many."""
        return await self.recorder.wait_for(number, timeout_s=WAIT_S)


class AdapterSuite(ABC, Generic[P]):
    """Subclass it in your tests as `Test...`, say how one speaks your protocol, and run pytest.

    Attributes:
        name: The adapter.
        subject: Pattern of what it publishes when a peer says something.
        garbage: What it must refuse, by a name for each.
        plugins: Plugins to load, by name; empty when an entry point of the adapter is installed.
        settings: More lines of its table in hub.toml.
        transport: What its listener is.
        carries_trace: Whether a peer can send a `traceparent` by this protocol.
    """

    name: ClassVar[str]
    subject: ClassVar[str]
    garbage: ClassVar[Mapping[str, bytes]]
    plugins: ClassVar[Mapping[str, object]] = {}
    settings: ClassVar[str] = ""
    transport: ClassVar[Literal["tcp", "udp"]] = "tcp"
    carries_trace: ClassVar[bool] = True

    # What a protocol says

    @abstractmethod
    async def connect(self, served: Served) -> P:
        """Connect a peer to `served.address`, and do what has to be done before it may speak."""

    @abstractmethod
    async def say(self, peer: P, text: str, traceparent: str) -> None:
        """Send one message that is published on `subject`."""

    @abstractmethod
    async def throw(self, peer: P, garbage: bytes) -> None:
        """Send something the adapter cannot use, and wait until it has refused it."""

    @abstractmethod
    async def vanish(self, peer: P) -> None:
        """Let a peer be gone without a word, best in the middle of one."""

    @abstractmethod
    async def leave(self, peer: P) -> None:
        """Let a peer leave as the protocol wants it; also one the adapter has closed."""

    def table(self, address: Address) -> str:
        """Return the adapter's part of hub.toml, with its listener at an address."""
        return f'[adapters.{self.name}]\nenabled = true\nlisten = ["{address}"]\n{self.settings}\n'

    # What every adapter stands

    async def test_it_starts_and_is_heard(self, tmp_path: Path) -> None:
        """It is up, and what a peer says is published."""
        async with self.serving(tmp_path) as served:
            assert (served.adapter.state, served.adapter.reason) == ("up", "")
            assert counted(served.core, "hubbub_adapter_up", adapter=self.name) == 1
            await self._heard(served)

    async def test_it_refuses_garbage(self, tmp_path: Path) -> None:
        """Whatever a peer sends, others are heard, and no code of the adapter fails."""
        async with self.serving(tmp_path) as served:
            for number, (what, garbage) in enumerate(self.garbage.items(), start=1):
                peer = await self.connect(served)
                await self.throw(peer, garbage)
                await self.leave(peer)
                assert served.adapter.state == "up", what
                await self._heard(served, number)
            published = [envelope.subject for envelope in served.recorder.taken]
            assert len(published) == len(self.garbage), "garbage was published"

    async def test_it_survives_peers_that_vanish(self, tmp_path: Path) -> None:
        """However many are gone without a word, the next one is heard."""
        async with self.serving(tmp_path) as served:
            for _ in range(VANISHING):
                await self.vanish(await self.connect(served))
            await self._heard(served)
            assert served.adapter.state == "up"

    async def test_it_keeps_the_trace(self, tmp_path: Path) -> None:
        """What a peer says is on the trace it gave, or on one of the hub's."""
        async with self.serving(tmp_path) as served:
            await self._heard(served)
            (envelope,) = await served.said()
            assert len(envelope.trace_id) == len(TRACE_ID)
            if self.carries_trace:
                assert envelope.trace_id == TRACE_ID

    async def test_it_starts_again(self, tmp_path: Path) -> None:
        """After a restart a new peer is heard."""
        async with self.serving(tmp_path) as served:
            peer = await self.connect(served)
            await self.say(peer, "before", TRACEPARENT)
            await served.said(1)
            await served.core.extensions.restart_adapter(self.name)
            assert (served.adapter.state, served.adapter.reason) == ("up", "")
            await self.leave(peer)
            await self._heard(served, 2)

    async def test_it_stops_in_time(self, tmp_path: Path) -> None:
        """Peers that stay connected do not hold the hub; its address is free again."""
        async with self.serving(tmp_path) as served:
            idle, busy = await self.connect(served), await self.connect(served)
            await self.say(busy, "last words", TRACEPARENT)
            await served.said()
            address = served.address
            began = time.monotonic()
            await served.hub.stop()
            took_s = time.monotonic() - began
            assert served.adapter.state == "stopped"
            assert took_s < STOP_S, f"it took {took_s:.1f} s"
            with self._taken(address):
                pass
            await self.leave(idle)
            await self.leave(busy)

    async def test_it_is_degraded_while_its_port_is_taken(self, tmp_path: Path) -> None:
        """The hub is up without it and says why; once the port is free it comes by itself."""
        clock = FakeClock()
        with self._taken(Address("127.0.0.1", 0)) as other:
            address = Address(*other.getsockname()[:2])
            async with self.serving(tmp_path, address, clock=clock) as served:
                assert served.adapter.state == "degraded"
                assert str(address.port) in served.adapter.reason
                status, ready = await _ready(served.hub.main.address)
                assert status == HTTPStatus.OK
                assert ready["parts"]["adapters"][self.name]["state"] == "degraded"
                other.close()
                await clock.advance(60)
                await _until(lambda: served.adapter.state == "up")
                assert served.address == address
                await self._heard(served)

    # Inside

    @asynccontextmanager
    async def serving(
        self,
        folder: Path,
        address: Address = Address("127.0.0.1", 0),  # noqa: B008  # a tuple
        *,
        clock: FakeClock | None = None,
    ) -> AsyncGenerator[Served]:
        """Serve the adapter; fails when something was left unhandled in the end."""
        toml = f'[hub]\ndrain_timeout = "{DRAIN_S}s"\n\n{self.table(address)}'
        async with serving_hub(folder, toml, clock=clock, plugins=self.plugins) as hub:
            recorder = RecordingEndpoint("plugin.suite", concurrency=100)
            hub.core.attach(recorder)
            hub.core.table.put(Route(name="suite", match=self.subject, to=(recorder.address,)))
            served = Served(hub, self.name, recorder)
            loop = asyncio.get_running_loop()
            before = loop.get_exception_handler()
            loop.set_exception_handler(lambda _, context: served.errors.append(str(context)))
            try:
                yield served
            finally:
                loop.set_exception_handler(before)
            assert served.errors == []
            assert counted(hub.core, "hubbub_plugin_errors_total", plugin=self.name) == 0

    async def _heard(self, served: Served, number: int = 1) -> None:
        """Let a new peer say something, as the how-manieth message of this hub."""
        peer = await self.connect(served)
        await self.say(peer, f"hello {number}", TRACEPARENT)
        await served.said(number)
        await self.leave(peer)

    def _taken(self, address: Address) -> socket.socket:
        """Take an address, as another program would."""
        kind = socket.SOCK_DGRAM if self.transport == "udp" else socket.SOCK_STREAM
        taken = socket.socket(socket.AF_INET, kind)
        if kind is socket.SOCK_STREAM:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        if kind is socket.SOCK_STREAM:
            taken.listen()
        return taken


async def _ready(address: Address) -> tuple[int, Any]:
    """Return status and answer of `/readyz`."""
    peer = await TcpPeer.connect(address)
    await peer.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
    await peer.close()
    return int(head.split()[1]), json.loads(body)


async def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)
