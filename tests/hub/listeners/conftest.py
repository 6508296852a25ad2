"""Listeners without a hub around them."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import ssl
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.listeners import (
    Connection,
    Datagrams,
    HttpListener,
    TcpListener,
    UdpListener,
)
from hubbub.observe.metrics import Metrics
from hubbub.testing import FakeClock, TcpPeer

ANY = Address("127.0.0.1", 0)
STILL = 50
OPENSSL = shutil.which("openssl")


@dataclass
class Bench:
    """Opens listeners and stops them after the test."""

    clock: FakeClock
    metrics: Metrics = field(default_factory=Metrics)
    opened: list[Any] = field(default_factory=list[Any])
    peers: list[TcpPeer] = field(default_factory=list[TcpPeer])

    def limits(self, **limits: Any) -> LimitSettings:
        return LimitSettings.model_validate(limits)

    async def tcp(self, make: Callable[[], Connection], **how: Any) -> TcpListener:
        tls = how.pop("tls", None)
        listener = TcpListener(
            ANY,
            make,
            name="test",
            limits=self.limits(**how),
            clock=self.clock,
            metrics=self.metrics,
            spawn=lambda work: asyncio.get_running_loop().create_task(work),
            tls=tls,
        )
        await self._serving(listener, listener.serve)
        return listener

    async def udp(self, make: Callable[[], Datagrams], **how: Any) -> UdpListener:
        listener = UdpListener(
            ANY,
            make,
            name="test",
            limits=self.limits(**how),
            clock=self.clock,
            metrics=self.metrics,
        )
        await self._serving(listener, listener.serve)
        return listener

    async def http(self, app: Any, **how: Any) -> HttpListener:
        tls = how.pop("tls", None)
        listener = HttpListener(
            "127.0.0.1",
            0,
            name="test",
            limits=self.limits(**how),
            clock=self.clock,
            metrics=self.metrics,
            tls=tls,
        )
        await self._serving(listener, lambda: listener.serve(app, drain_timeout_s=0.2))
        return listener

    async def _serving(self, listener: Any, serve: Callable[[], Awaitable[None]]) -> None:
        listener.bind()
        self.opened.append(listener)
        await serve()

    async def peer(self, listener: Any, **how: Any) -> TcpPeer:
        """Connect to a listener; closed after the test."""
        peer = await TcpPeer.connect(listener.address, **how)
        self.peers.append(peer)
        return peer

    def refused(self, reason: str) -> float:
        """Return how many connections were refused for a reason."""
        return self._value("hubbub_connections_refused_total", reason)

    def frames(self, reason: str) -> float:
        """Return how many frames were refused for a reason."""
        return self._value("hubbub_frames_refused_total", reason)

    @property
    def open(self) -> float:
        """How many connections are open."""
        value = self.metrics.registry.get_sample_value
        return value("hubbub_connections", {"adapter": "test"}) or 0.0

    def _value(self, name: str, reason: str) -> float:
        labels = {"adapter": "test", "reason": reason}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110  # sockets have no event for it
                await asyncio.sleep(0.002)

    async def read_all(self, listener: Any, *peers: TcpPeer) -> None:
        """Wait until a listener has read what its peers have sent, or has closed them."""
        out = [peer.writer.get_extra_info("socket") for peer in peers]
        await self.until(
            lambda: (
                not self.open
                or (
                    not any(_queued(one, termios.TIOCOUTQ) for one in out)
                    and not any(_queued(one, termios.FIONREAD) for one in _sockets(listener))
                )
            )
        )

    async def still(self, value: Callable[[], object]) -> None:
        """Wait until a value changes no more: it is the same at fifty looks in a row."""
        last, same = value(), 0
        async with asyncio.timeout(10):
            while same < STILL:  # sockets have no event for it
                await asyncio.sleep(0.001)
                now = value()
                same, last = (same + 1 if now == last else 0), now


def _queued(sock: Any, which: int) -> int:
    """Return the bytes in a queue of a socket; none when it is closed."""
    if sock is None or sock.fileno() < 0:
        return 0
    (number,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), which, b"\0\0\0\0"))
    return int(number)


def _sockets(listener: Any) -> list[Any]:
    """Return the sockets of those who are connected to a listener."""
    if isinstance(listener, HttpListener):
        transports = [one.transport for one in listener._state.connections]
    else:
        transports = [one._transport for one in listener._home.connections]
    return [one.get_extra_info("socket") for one in transports]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bench(clock: FakeClock) -> AsyncIterator[Bench]:
    """Listeners that are stopped in the end."""
    made = Bench(clock)
    yield made
    for peer in made.peers:
        await peer.close()
    for listener in made.opened:
        await listener.stop(0.2)
    await made.until(lambda: made.open == 0)


@dataclass(frozen=True)
class Files:
    """A certificate that signs itself, and its key."""

    cert: Path
    key: Path

    @property
    def settings(self) -> TlsSettings:
        return TlsSettings(cert=self.cert, key=self.key)

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.cert)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Files]:
    """Make a certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")

    def made(name: str) -> Files:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        command = (
            f"{OPENSSL} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
            f"-subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
        )
        subprocess.run(command.split(), check=True, capture_output=True)
        return Files(cert, key)

    return made


@pytest.fixture(scope="session")
def files(make: Callable[[str], Files]) -> Files:
    return make("hub")
