"""Addresses of adapters: those they listen on, and those they dial."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from hubbub.config import Address, ClientTlsSettings, LimitSettings, TlsSettings
from hubbub.errors import NotFoundError, UnavailableError
from hubbub.listeners import Connection, Datagrams, HttpListener, TcpListener, UdpListener
from hubbub.net import Dial, DialPolicy, HeadersOf, WebSocketConnection
from hubbub.net.dialer import DialEnv
from hubbub.net.tcp_dialer import dial_tcp
from hubbub.net.websocket_dialer import dial_websocket
from hubbub.rooms import Rooms

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Addresses"]


class Addresses(Rooms):
    """What adapters may open with the rooms of their hub."""

    # Listeners

    async def listen_tcp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Connection],
        *,
        limits: LimitSettings | None = None,
        tls: TlsSettings | Literal[False] | None = None,
    ) -> TcpListener:
        """Open a TCP address for an adapter; while it is taken the adapter is degraded."""
        settings = self.adapters.get(name).settings
        listener = TcpListener(
            address,
            make,
            name=name,
            limits=limits or settings.limits,
            tls=settings.tls if tls is None else tls or None,
            clock=self.clock,
            metrics=self.metrics,
            spawn=self.spawn,
        )
        await self.listeners.open(
            name,
            listener,
            listener.serve,
            own_limits=limits is not None,
            own_tls=tls is not None,
        )
        return listener

    async def listen_udp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Datagrams],
        *,
        limits: LimitSettings | None = None,
    ) -> UdpListener:
        """Open a UDP address for an adapter; while it is taken the adapter is degraded."""
        listener = UdpListener(
            address,
            make,
            name=name,
            limits=limits or self.adapters.get(name).settings.limits,
            clock=self.clock,
            metrics=self.metrics,
        )
        await self.listeners.open(name, listener, listener.serve, own_limits=limits is not None)
        return listener

    async def listen_http(
        self,
        name: str,
        address: Address,
        app: ASGIApp,
        *,
        limits: LimitSettings | None = None,
        tls: TlsSettings | Literal[False] | None = None,
        retry: bool = True,
    ) -> HttpListener:
        """Open an HTTP address for an adapter; bound when this returns."""
        settings, guard = self.adapters.get(name).settings, self.app_guard
        if guard is None:
            raise UnavailableError("this hub has no sockets; HTTP needs `serving_hub` in tests")
        listener = HttpListener(
            address.host,
            address.port,
            name=name,
            limits=limits or settings.limits,
            tls=settings.tls if tls is None else tls or None,
            clock=self.clock,
            metrics=self.metrics,
        )

        async def serve() -> None:
            await listener.serve(
                guard(name, app, listener.is_loopback),
                drain_timeout_s=self.config.hub.drain_timeout,
            )

        await self.listeners.open(
            name,
            listener,
            serve,
            own_limits=limits is not None,
            own_tls=tls is not None,
            retry=retry,
        )
        return listener

    # Links that it opens itself

    def dial_websocket(
        self,
        name: str,
        url: str,
        make: Callable[[], WebSocketConnection],
        *,
        headers: HeadersOf | None = None,
        subprotocols: Sequence[str] = (),
        tls: ClientTlsSettings | None = None,
        frame: int | None = None,
        policy: DialPolicy | None = None,
    ) -> Dial:
        """Dial a WebSocket, again and again."""
        return self.dials.add(
            dial_websocket(
                url,
                make,
                env=self._dial_env(name, frame=frame),
                headers=headers,
                subprotocols=subprotocols,
                tls=tls,
                policy=policy,
            )
        )

    def dial_tcp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Connection],
        *,
        source: str | None = None,
        tls: ClientTlsSettings | None = None,
        limits: LimitSettings | None = None,
        policy: DialPolicy | None = None,
    ) -> Dial:
        """Dial a TCP address, again and again."""
        return self.dials.add(
            dial_tcp(
                address,
                make,
                env=self._dial_env(name, limits=limits),
                source=source,
                tls=tls,
                policy=policy,
            )
        )

    def _dial_env(
        self, name: str, *, limits: LimitSettings | None = None, frame: int | None = None
    ) -> DialEnv:
        """Return what a dial is given; limits are those of the adapter's table, where it has one.

        Raises:
            NotFoundError: no adapter or plugin has that name, so nothing would end what is dialled.
        """

        def limits_now() -> LimitSettings:
            if limits is not None:
                return limits
            adapter = next((one for one in self.adapters if one.name == name), None)
            now = LimitSettings() if adapter is None else adapter.settings.limits
            return now if frame is None else now.model_copy(update={"frame": frame})

        adapters = (one.name for one in self.adapters)
        if name not in adapters and self.plugins.get(name) is None:
            raise NotFoundError(
                f"no adapter or plugin {name[:100]!r} is here; dial under a name of your own"
            )
        return DialEnv(name, limits_now, self.clock, self.metrics, self.spawn, random.random)
