"""What listeners of connections have in common: an address, a gate, a certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from socket import socket
from typing import Final

from hubbub.config import Address, LimitSettings, TlsSettings, is_loopback_host
from hubbub.listeners.limits import Gate
from hubbub.listeners.sockets import BACKLOG, bind_stream
from hubbub.listeners.tls import HANDSHAKE_S, is_renewal, renew, server_context
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock

__all__ = ["StreamListener"]

GOODBYE_S: Final = 1.0
"""How long the end of an encrypted connection may take."""


class StreamListener:
    """One bound address that lets connections in, within limits, until it is stopped.

    Attributes:
        address: Where it listens; with its real port once it is bound.
        schemes: Of its URL, without and with TLS.
        alpn: What may follow the agreement on encryption.
        on_close: Told once when it is closed.
    """

    schemes: tuple[str, str] = ("tcp", "tls")
    alpn: Sequence[str] = ()

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        limits: LimitSettings,
        clock: Clock,
        metrics: Metrics | None,
        tls: TlsSettings | None,
    ) -> None:
        self.address = address
        self.on_close: Callable[[], None] | None = None
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._socket: socket | None = None
        self._server: asyncio.Server | None = None
        self._gate: Final = Gate(name, limits, clock=clock, metrics=metrics)

    @property
    def limits(self) -> LimitSettings:
        """What it takes."""
        return self._gate.limits

    @property
    def is_loopback(self) -> bool:
        """Whether it is bound to an address that nothing but this machine reaches.

        It is that of the listening socket: a connection to 127.0.0.1 may have come by 0.0.0.0.
        False before it is bound.
        """
        bound = self._socket
        return bound is not None and is_loopback_host(bound.getsockname()[0])

    @property
    def is_idle(self) -> bool:
        """Whether nobody is connected."""
        return not len(self._gate)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.schemes[self._tls is not None]}://{self.address}"

    def bind(self) -> None:
        """Take the address; who connects now waits until it is served.

        Raises:
            PortTakenError: it cannot be had.
            TlsError: the certificate cannot be used.
        """
        self._context = None if self._tls is None else server_context(self._tls, alpn=self.alpn)
        self._socket = bind_stream(self.address)
        self.address = Address(self.address.host, self._socket.getsockname()[1])

    def change_limits(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on; who is inside stays."""
        self._gate.change(limits)

    def renew(self, tls: TlsSettings | None) -> bool:
        """Read the certificate and its key again, for those who connect from here on.

        Returns:
            False where only a new listener can do as `tls` says: it begins or ends to encrypt, or
            trusts other authorities.

        Raises:
            TlsError: the files cannot be used; the old ones still are.
        """
        if not is_renewal(self._tls, tls):
            return False
        if tls is not None and self._context is not None:
            renew(self._context, tls)
        self._tls = tls
        return True

    def close(self) -> None:
        """Give the address free; connections stay."""
        self._gate.open = False
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        told, self.on_close = self.on_close, None
        if told is not None:
            told()

    async def _accept(self, made: Callable[[], asyncio.BaseProtocol]) -> None:
        """Begin to let connections in, each with a protocol of its own."""
        assert self._socket is not None
        self._server = await asyncio.get_running_loop().create_server(
            made,
            sock=self._socket,
            backlog=BACKLOG,  # it listens once more, and says how many may wait
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S if self._context else None,
            ssl_shutdown_timeout=GOODBYE_S if self._context else None,
        )
