"""Addresses that are taken and given free, and who speaks from one."""

from __future__ import annotations

import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from hubbub.config import Address
from hubbub.errors import HubError

__all__ = ["PortTakenError", "bind_datagrams", "bind_stream", "host_of", "source_of"]

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""

SOURCE_BITS: Final = 64
"""Of an IPv6 address: one subscriber has a network of this size, and counts as one source."""


class PortTakenError(HubError):
    """An address cannot be listened on."""

    code = "port_taken"

    def __init__(self, *, host: str, port: int, why: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: {why}; end what listens there, or choose another port"
        )


def bind_stream(address: Address) -> socket.socket:
    """Take a TCP address; connections wait in the backlog until somebody accepts them.

    Raises:
        PortTakenError: it cannot be had.
    """
    listening = _bound(address, socket.SOCK_STREAM)
    try:
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _taken(address, error) from error
    return listening


def bind_datagrams(address: Address) -> socket.socket:
    """Take a UDP address; datagrams wait in the buffer of the system.

    Raises:
        PortTakenError: it cannot be had.
    """
    return _bound(address, socket.SOCK_DGRAM)


def _bound(address: Address, kind: socket.SocketKind) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=kind, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except OSError as error:
        raise _taken(address, error) from error
    # A name may have both; what reaches "localhost" over IPv4 is to find it.
    family, _, _, _, place = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    made = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            # Not for UDP: two sockets would share one port there, and both lose datagrams.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited on accept
        made.bind(place)
    except OSError as error:
        made.close()
        raise _taken(address, error) from error
    made.setblocking(False)
    return made


def _taken(address: Address, error: OSError) -> PortTakenError:
    why = error.strerror or str(error)
    return PortTakenError(host=address.host, port=address.port, why=why)


@lru_cache(maxsize=4096)
def source_of(host: str) -> tuple[str, bool]:
    """Return what limits count a peer's address as, and whether it is this machine."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:  # a Unix socket, or nothing at all
        return host, True
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_loopback:
            return str(IPv6Network((address, SOURCE_BITS), strict=False)), False
    return str(address), address.is_loopback


def host_of(peername: Any) -> str:  # noqa: ANN401  # what a transport says of its peer
    """Return the address in a transport's `peername`; empty when there is none."""
    match peername:
        case (str(host), *_):
            return host
        case _:
            return ""
