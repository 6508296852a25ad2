"""One attempt to connect: name, address, encryption; and why it failed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from hubbub.listeners import TlsError
from hubbub.listeners.tls import HANDSHAKE_S
from hubbub.net.client_tls import client_context
from hubbub.net.targets import Target

__all__ = ["DialError", "Resolve", "connect", "resolve"]

MAX_ADDRESSES: Final = 8
"""Addresses of one host that are tried, one after the other, each with its share of the time."""

GOODBYE_S: Final = 1.0
"""How long the end of an encrypted connection may take."""

KEEPALIVE_S: Final = 30
"""Silence after which the system asks a peer whether it is there, and between its questions."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class DialError(Exception):
    """A peer could not be reached.

    Attributes:
        reason: As in `hubbub_dial_failures_total`.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host.

    Raises:
        OSError: it has none, or they cannot be found out now.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def connect(
    target: Target,
    make: Callable[[], asyncio.Protocol],
    *,
    within_s: float,
    resolve: Resolve = resolve,
) -> None:
    """Connect, encrypted where the target says so, and give the connection to what `make` gives.

    Args:
        within_s: The time for all of it, of which each address has its share; the caller keeps to
            the whole.

    Raises:
        DialError: no address of the target can be reached.
    """
    context, (host, port) = None, target.address
    if target.tls is not None:
        try:
            context = await asyncio.to_thread(client_context, target.tls)
        except TlsError as error:
            raise DialError("tls", str(error)) from error
    try:
        places = (await resolve(host, port))[:MAX_ADDRESSES]
    except OSError as error:
        raise DialError("dns", f"no address of {host!r} is known: {_why(error)}") from error
    last: Exception | None = None
    for number, place in enumerate(places, 1):
        share_s = within_s / len(places) if number < len(places) else None
        try:
            async with asyncio.timeout(share_s):
                await _reach(target, place, make, context)
            return
        except ssl.SSLError as error:
            raise DialError("tls", f"no agreement on encryption: {_why(error)}") from error
        except OSError as error:  # TimeoutError is one
            last = error
    raise DialError("connect", f"cannot connect to {target.address}: {_why(last)}") from last


async def _reach(
    target: Target,
    place: str,
    make: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext | None,
) -> None:
    # By its address, not by a socket of ours: only what the loop has made it closes in any case.
    transport, _ = await asyncio.get_running_loop().create_connection(
        make,
        place,
        target.address.port,
        local_addr=None if target.source is None else (target.source, 0),
        ssl=context,
        server_hostname=target.address.host if context else None,
        ssl_handshake_timeout=HANDSHAKE_S if context else None,
        ssl_shutdown_timeout=GOODBYE_S if context else None,
    )
    _keep_alive(transport.get_extra_info("socket"))


def _keep_alive(made: socket.socket) -> None:
    with suppress(OSError):  # it may have ended by now
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, name):  # not everywhere under this name
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), KEEPALIVE_S)


def _why(error: Exception | None) -> str:
    """Say it without names of files and lines of C."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
