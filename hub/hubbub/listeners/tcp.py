"""TCP: the listener that lets connections in, and ends them in time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from socket import socket

from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.listeners.connections import Connection, Home, Spawn
from hubbub.listeners.limits import Gate
from hubbub.listeners.sockets import bind_stream
from hubbub.listeners.tls import HANDSHAKE_S, server_context
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock

__all__ = ["TcpListener"]


class _Unmade(Connection):
    """Stands for a connection whose protocol could not be made."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def opened(self) -> None:
        raise self._error


class TcpListener:
    """One TCP address and the connections to it.

    Attributes:
        address: Where it listens; with its real port once it is bound.
    """

    def __init__(
        self,
        address: Address,
        make: Callable[[], Connection],
        *,
        name: str,
        limits: LimitSettings,
        clock: Clock,
        metrics: Metrics,
        spawn: Spawn,
        tls: TlsSettings | None = None,
    ) -> None:
        self.address = address
        self._make = make
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._socket: socket | None = None
        self._server: asyncio.Server | None = None
        self._gate = Gate(name, limits, clock=clock, metrics=metrics)

        def failed(what: str) -> None:
            metrics.plugin_errors[name, what].inc()

        self._home = Home(name, self._gate, clock, spawn, failed)

    @property
    def kind(self) -> str:
        """What it speaks."""
        return "tcp"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'tls' if self._tls else 'tcp'}://{self.address}"

    def bind(self) -> None:
        """Take the address; who connects now waits until it is served.

        Raises:
            PortTakenError: it cannot be had.
            TlsError: the certificate cannot be used.
        """
        self._context = None if self._tls is None else server_context(self._tls)
        self._socket = bind_stream(self.address)
        self.address = Address(self.address.host, self._socket.getsockname()[1])

    async def serve(self) -> None:
        """Begin to accept."""
        assert self._socket is not None
        self._gate.open = True
        self._server = await asyncio.get_running_loop().create_server(
            self._made,
            sock=self._socket,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S if self._context else None,
            ssl_shutdown_timeout=1.0 if self._context else None,
        )

    def _made(self) -> Connection:
        try:
            made = self._make()
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            made = _Unmade(error)
        return made.settle(self._home)

    def close(self) -> None:
        """Give the address free; connections stay."""
        self._gate.open = False
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()

    async def stop(self, timeout_s: float) -> None:
        """Give the address free, say goodbye to everybody, and wait until they are gone."""
        self.close()
        for connection in list(self._home.connections):
            connection.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gate.emptied()
                while self._home.talking:
                    await asyncio.wait(self._home.talking)
        for connection in list(self._home.connections):
            connection.abort()
        for task in self._home.talking:
            task.cancel()
        await asyncio.sleep(0)
