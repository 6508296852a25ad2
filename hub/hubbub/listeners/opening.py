"""Listeners of adapters: opened, tried again while their port is taken, closed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from hubbub.config import LimitSettings, TlsSettings
from hubbub.errors import HubError
from hubbub.ports import Clock, Listener, Timer

__all__ = ["Listeners", "Opened"]

RETRY_LISTEN_S: Final = 5.0
"""From a port that is taken to the next try."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Opened:
    """A listener that somebody asked for, and how it is.

    Attributes:
        stays: Whether it outlives a restart of its adapter.
        own_limits: Whether its limits are not those of its adapter's table.
        own_tls: Whether its certificate is not that of its adapter's table.
        was_closed: Whether its adapter has closed it; it is here while connections of it are left.
    """

    owner: str
    listener: Listener
    serve: Callable[[], Awaitable[None]]
    name: str
    stays: bool = False
    own_limits: bool = False
    own_tls: bool = False
    state: str = "closed"
    again: Timer | None = None
    was_closed: bool = False


class Listeners:
    """All listeners beside the one port.

    Attributes:
        stop_timeout_s: How long each may take to end its connections.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        told: Callable[[str, str, str | None], None],
        stop_timeout_s: float,
    ) -> None:
        """Begin with none.

        Args:
            told: Called with the owner, the listener and why it is down; with None once it is up.
        """
        self._clock = clock
        self._spawn = spawn
        self._told = told
        self.stop_timeout_s = stop_timeout_s
        self._opened: list[Opened] = []
        self._begun = False
        self._ending = False

    def __iter__(self) -> Iterator[Opened]:
        self._forget_idle()
        return iter(list(self._opened))

    def of(self, owner: str) -> list[Listener]:
        """Return the listeners of an adapter, in the order they were asked for."""
        return [opened.listener for opened in self if opened.owner == owner]

    async def open(
        self,
        owner: str,
        listener: Listener,
        serve: Callable[[], Awaitable[None]],
        *,
        stays: bool = False,
        own_limits: bool = False,
        own_tls: bool = False,
        retry: bool = True,
    ) -> Opened:
        """Take an address now, and serve it once the hub is ready; tried again until it is had.

        What closes it forgets it; connections that are left end with its adapter.

        Args:
            stays: Whether it outlives a restart of its adapter.
            own_limits: Whether its limits are not those of its adapter's table.
            own_tls: Whether its certificate is not that of its adapter's table.
            retry: Whether it is tried again; else what is wrong is raised, and nothing is left.

        Raises:
            HubError: it cannot be had, and is not to be tried again.
        """
        if not retry:
            listener.bind()
        name = f"{listener.kind} {listener.address}"
        opened = Opened(owner, listener, serve, name, stays, own_limits, own_tls)
        self._forget_idle()
        self._opened.append(opened)
        listener.on_close = lambda: self._closed(opened)
        await (self._try(opened) if retry else self._bound(opened))
        return opened

    def follow(self, owner: str, limits: LimitSettings, tls: TlsSettings | None) -> list[Opened]:
        """Bring what an adapter has open to the limits and the certificate of its table.

        Returns:
            Those that would have to be opened anew to do as `tls` says.
        """
        behind: list[Opened] = []
        for opened in self._opened:
            if opened.owner != owner:
                continue
            if not opened.own_limits:
                opened.listener.change_limits(limits)
            try:
                if not (opened.own_tls or opened.listener.renew(tls)):
                    behind.append(opened)
            except HubError as error:
                log.warning("tls.not_renewed", adapter=owner, error=str(error))
        return behind

    async def end(self, opened: Opened) -> None:
        """Close one, within its time."""
        await self._end([opened])
        self._told(opened.owner, opened.name, None)

    async def begin(self) -> None:
        """Serve what is bound: all that must not lose anything runs now."""
        self._begun = True
        for opened in self:
            if opened.state == "bound":
                await self._serve(opened)

    def close(self) -> None:
        """Accept nobody any more; who is connected stays."""
        self._ending = True
        for opened in self._opened:
            self._no_more(opened)

    async def stop(self, owner: str | None = None) -> None:
        """Close what one adapter asked for, or all, each within its time."""
        ending = [
            each
            for each in self._opened
            if owner is None or (each.owner == owner and not each.stays)
        ]
        await self._end(ending)

    async def _end(self, ending: Sequence[Opened]) -> None:
        self._opened = [each for each in self._opened if each not in ending]
        for opened in ending:
            self._no_more(opened)
        await asyncio.gather(*(each.listener.stop(self.stop_timeout_s) for each in ending))

    def _no_more(self, opened: Opened) -> None:
        if opened.again is not None:
            opened.again.cancel()
            opened.again = None
        opened.state = "closed"
        opened.listener.on_close = None
        opened.listener.close()

    def _closed(self, opened: Opened) -> None:
        """Its adapter has closed it: it is neither missed nor tried again."""
        if opened.again is not None:
            opened.again.cancel()
            opened.again = None
        opened.state, opened.was_closed = "closed", True
        same = (each for each in self._opened if each.owner == opened.owner)
        if not any(each.name == opened.name and each.again is not None for each in same):
            self._told(opened.owner, opened.name, None)
        self._forget_idle()

    def _forget_idle(self) -> None:
        """Forget what adapters have closed, once the last connection of it has ended."""
        self._opened = [
            each for each in self._opened if not (each.was_closed and each.listener.is_idle)
        ]

    async def _try(self, opened: Opened) -> None:
        if opened.was_closed:
            return
        try:
            opened.listener.bind()
        except HubError as error:
            log.warning("listener.down", adapter=opened.owner, error=str(error))
            self._told(opened.owner, opened.name, str(error))
            due_us = self._clock.now_us() + int(RETRY_LISTEN_S * 1e6)
            opened.again = self._clock.call_at(due_us, lambda: self._again(opened))
            return
        await self._bound(opened)

    async def _bound(self, opened: Opened) -> None:
        opened.state = "bound"
        if self._begun:
            await self._serve(opened)

    async def _serve(self, opened: Opened) -> None:
        opened.state = "up"
        await opened.serve()
        if opened.was_closed or opened not in self._opened:  # stopped meanwhile
            opened.listener.close()
            return
        self._told(opened.owner, opened.name, None)
        log.info("listener.up", adapter=opened.owner, url=opened.listener.url)

    def _again(self, opened: Opened) -> None:
        opened.again = None
        if not self._ending and opened in self._opened:
            self._spawn(self._try(opened))
