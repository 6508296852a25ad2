"""The HTTP listeners of a hub: its one port, and the addresses of adapters."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Final

import structlog

from hubbub.adapters import RunningAdapter, speaks_http
from hubbub.config import Address
from hubbub.core import Core
from hubbub.listeners import HttpListener, Opened, TlsError
from hubbub.web.app import HubApp, build_adapter_app, build_app
from hubbub.web.board import listener_routes
from hubbub.web.guarded import guarded

__all__ = ["Doors"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Door = tuple[str, Address, int]
"""An adapter, an address as its table says it, and which one of several that are the same."""


class Doors:
    """Opens what hub.toml says, and goes along when that changes.

    Attributes:
        main: The one port.
    """

    def __init__(self, core: Core) -> None:
        hub = core.config.hub
        self._core = core
        self.main: Final = HttpListener(
            hub.host,
            hub.port,
            limits=hub.limits,
            tls=hub.tls,
            clock=core.clock,
            metrics=core.metrics,
        )
        self._open: dict[Door, Opened] = {}
        self._apps: dict[Door, tuple[HubApp, int]] = {}
        self._settling = asyncio.Lock()
        core.app_guard = partial(guarded, core)

    async def open(self) -> None:
        """Begin to answer; what is needed to lose nothing must run by now."""
        await self.main.serve(
            build_app(self._core, loopback=self.main.is_loopback),
            drain_timeout_s=self._core.config.hub.drain_timeout,
            frame_bytes=self._frame_bytes(),
        )
        self._core.changed.append(self.settle)
        await self.settle()

    async def settle(self) -> None:
        """Open, change and close until all is as adapters and their tables are now."""
        async with self._settling:
            if self._core.state != "ready":
                return
            hub = self._core.config.hub
            self.main.change_limits(hub.limits, frame_bytes=self._frame_bytes())
            try:
                self.main.renew(hub.tls)
            except TlsError as error:
                log.warning("tls.not_renewed", adapter="hub", error=str(error))
            wanted = self._wanted()
            for door in [door for door in self._open if door not in wanted]:
                await self._close(door)
            for one in self._core.adapters:
                await self._follow(one)
            for door, one in wanted.items():
                if door not in self._open:
                    await self._open_one(one, door)
                self._serve_again(one, door)

    def _frame_bytes(self) -> int:
        """Each adapter keeps to its own limit; the port they share has room for the largest."""
        adapters = [one.settings.limits.frame for one in self._core.adapters]
        return max([self._core.config.hub.limits.frame, *adapters])

    def _wanted(self) -> dict[Door, RunningAdapter]:
        wanted: dict[Door, RunningAdapter] = {}
        for one in self._core.adapters:
            same = Counter[Address]()
            for address in one.settings.listen if speaks_http(one.adapter) else ():
                wanted[one.name, address, same[address]] = one
                same[address] += 1
        return wanted

    async def _follow(self, one: RunningAdapter) -> None:
        """Bring what an adapter has open to the limits and the certificate of its table."""
        for opened in self._core.listeners.follow(one.name, one.settings.limits, one.settings.tls):
            door = next((door for door, each in self._open.items() if each is opened), None)
            if door is not None:  # it has to be another one; an adapter's own comes with a restart
                await self._close(door)

    def _serve_again(self, one: RunningAdapter, door: Door) -> None:
        """Serve the paths that an adapter has since its last start."""
        app, starts = self._apps.get(door, (None, 0))
        if app is not None and starts != one.starts:
            app.change(listener_routes(one))
            self._apps[door] = app, one.starts

    async def _close(self, door: Door) -> None:
        self._apps.pop(door, None)
        await self._core.listeners.end(self._open.pop(door))

    async def _open_one(self, one: RunningAdapter, door: Door) -> None:
        core, (name, address, _) = self._core, door
        listener = HttpListener(
            address.host,
            address.port,
            name=name,
            limits=one.settings.limits,
            tls=one.settings.tls,
            clock=core.clock,
            metrics=core.metrics,
        )

        async def serve() -> None:
            app = build_adapter_app(core, name, loopback=listener.is_loopback)
            self._apps[door] = app, core.adapters.get(name).starts
            await listener.serve(app, drain_timeout_s=core.config.hub.drain_timeout)

        self._open[door] = await core.listeners.open(name, listener, serve, stays=True)
