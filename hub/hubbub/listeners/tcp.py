"""TCP: the listener that lets connections in, and ends them in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hubbub.config import Address, LimitSettings, TlsSettings
from hubbub.listeners.connections import Connection, Home, Spawn
from hubbub.listeners.streams import StreamListener
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


class TcpListener(StreamListener):
    """One TCP address and the connections to it."""

    kind = "tcp"

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
        super().__init__(address, name=name, limits=limits, clock=clock, metrics=metrics, tls=tls)
        self._make = make

        def failed(what: str) -> None:
            metrics.plugin_errors[name, what].inc()

        self._home = Home(name, self._gate, clock, spawn, failed)

    async def serve(self) -> None:
        """Begin to accept."""
        self._gate.open = True
        await self._accept(self._made)

    def _made(self) -> Connection:
        try:
            made = self._make()
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            made = _Unmade(error)
        return made.settle(self._home)

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
