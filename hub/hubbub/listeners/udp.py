"""UDP: one object an address, datagrams in and out, and a rate for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from socket import socket
from typing import Any, cast

import structlog

from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.errors import HubError
from hubbub.listeners.limits import Gate, SourceRates
from hubbub.listeners.sockets import bind_datagrams, host_of, source_of
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock

__all__ = ["Datagrams", "UdpListener"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Peer = tuple[Any, ...]
"""Where a datagram came from, as the system names it; give it back to `send`."""


class Datagrams(asyncio.DatagramProtocol):
    """One UDP address. A protocol is a subclass that overrides `received`.

    A source over its rate, and a datagram over the limit, is dropped and counted.
    """

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._gate: Gate | None = None
        self._clock: Clock | None = None
        self._failed: Callable[[Exception], None] | None = None
        self._rates = SourceRates(0)
        self._full = False

    # To override

    def received(self, data: bytes, peer: Peer) -> None:
        """Take one datagram."""

    # To call

    def send(self, data: bytes, peer: Peer) -> bool:
        """Send one datagram; False when the system takes no more just now."""
        if self._transport is None or self._transport.is_closing() or self._full:
            return False
        self._transport.sendto(data, peer)
        return True

    def refuse(self, reason: str) -> None:
        """Count a datagram that could not be used."""
        if self._gate is not None:
            self._gate.refuse_frame(reason)

    # asyncio.DatagramProtocol

    def settle(self, gate: Gate, clock: Clock, failed: Callable[[Exception], None]) -> Datagrams:
        """Belong to a listener."""
        self._gate, self._clock, self._failed = gate, clock, failed
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        del exc
        self._transport = None

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        """Take one datagram, if its source may send one."""
        assert self._gate is not None
        assert self._clock is not None
        assert self._failed is not None
        if not self._gate.open:
            return
        source, _ = source_of(host_of(addr))
        if not self._gate.rates.take(source, now_us=self._clock.now_us()):
            self._gate.refuse_frame("rate")
            return
        if len(data) > self._gate.limits.frame:
            self._gate.refuse_frame("too_large")
            return
        try:
            self.received(data, addr)
        except HubError as error:
            self._gate.refuse_frame(error.code)
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            self._failed(error)

    def pause_writing(self) -> None:
        """The system takes no more."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False

    def error_received(self, exc: Exception) -> None:
        """A datagram sent before reached nobody; peers come and go."""


class UdpListener:
    """One UDP address.

    Attributes:
        address: Where it listens; with its real port once it is bound.
        on_close: Told once when it is closed.
    """

    def __init__(
        self,
        address: Address,
        make: Callable[[], Datagrams],
        *,
        name: str,
        limits: LimitSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.address = address
        self.on_close: Callable[[], None] | None = None
        self._make = make
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._gate = Gate(name, limits, clock=clock, metrics=metrics)
        self._socket: socket | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def kind(self) -> str:
        """What it speaks."""
        return "udp"

    @property
    def is_idle(self) -> bool:
        """Whether its socket is closed; until `stop` it can still send."""
        return self._transport is None or self._transport.is_closing()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"udp://{self.address}"

    def bind(self) -> None:
        """Take the address; what is sent now waits until it is served.

        Raises:
            PortTakenError: it cannot be had.
        """
        self._socket = bind_datagrams(self.address)
        self.address = Address(self.address.host, self._socket.getsockname()[1])

    async def serve(self) -> None:
        """Begin to read."""
        assert self._socket is not None
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self._make().settle(self._gate, self._clock, self._broken), sock=self._socket
        )

    def change_limits(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on."""
        self._gate.change(limits)

    def renew(self, tls: TlsSettings | None) -> bool:
        """Stay as it is: datagrams are not encrypted."""
        del tls
        return True

    def close(self) -> None:
        """Read nothing more."""
        self._gate.open = False
        if self._transport is None and self._socket is not None:
            self._socket.close()
        told, self.on_close = self.on_close, None
        if told is not None:
            told()

    async def stop(self, timeout_s: float) -> None:
        """Give the address free."""
        del timeout_s
        self.close()
        if self._transport is not None:
            self._transport.abort()
            await asyncio.sleep(0)

    def _broken(self, error: Exception) -> None:
        log.error(
            "datagram.failed",
            adapter=self._name,
            error=f"{type(error).__name__}: {error}",
            exc_info=error,
        )
        self._metrics.plugin_errors[self._name, "datagram"].inc()
