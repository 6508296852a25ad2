"""Host names, web origins and networks, as browsers and proxies write them and hub.toml names them.

All functions are pure. What cannot be read is None, never a guess: a header that nobody sends by
accident must not be taken for a name that is trusted.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator

__all__ = [
    "ANY_ORIGIN",
    "Authority",
    "HostName",
    "IpAddress",
    "IpNetwork",
    "Network",
    "PublicUrl",
    "WebOrigin",
    "address_in",
    "is_ip_literal",
    "is_loopback_host",
    "is_loopback_url",
    "read_address",
    "read_authority",
    "read_network",
    "read_origin",
    "read_url",
]

ANY_ORIGIN: Final = "*"
"""Stands for every origin in a list of them."""

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_CACHED: Final = 4096
"""Texts whose reading is remembered: clients send the same few again and again."""

MAX_AUTHORITY: Final = 320
"""Characters of an origin; a longer text is none, and is not remembered."""

_MAX_PORT: Final = 65535
_DEFAULT_PORTS: Final = (80, 443)
_PORT_OF: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}

_AUTHORITY: Final = re.compile(
    r"(?:\[([0-9a-f:.]{2,45})(?:%[a-z0-9._~-]{1,32})?\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)"
    r"(?::(\d{1,5}))?",
    re.ASCII,
)
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]{0,63})://([^/?#@\\\s]{1,300})", re.ASCII)
_URL: Final = re.compile(r"(https?)://([^/?#@\\\s]{1,300})(/[^?#\\\s]{0,1000})?", re.ASCII)
_FILE: Final = ("file://", "file:///")


class Authority(NamedTuple):
    """Host and port of an address; the port is None where it is 80, 443 or not said."""

    host: str
    port: int | None


def read_authority(text: str) -> Authority | None:
    """Return host and port of a `Host` header, such as `hub.example:8080` or `[::1]:17680`.

    The host is in lower case and without a dot at its end, an address in its shortest form and
    without brackets. None for anything else, such as user names, blanks, or two hosts.
    """
    return _authority(text) if len(text) <= MAX_AUTHORITY else None


@lru_cache(maxsize=_CACHED)
def _authority(text: str) -> Authority | None:
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    port = int(found[3]) if found[3] else None
    if port is not None and not 0 < port <= _MAX_PORT:
        return None
    if found[1] is not None:
        address = read_address(found[1])
        if address is None or ":" not in found[1]:
            return None
        host = str(address)
    else:
        host = found[2]
    return Authority(host, None if port in _DEFAULT_PORTS else port)


def read_origin(text: str) -> tuple[str, Authority | None] | None:
    """Return an `Origin` header as it is compared: its text, and its host and port.

    Host and port are None where it is no origin of the web: `null`, `file://`, one of an extension
    or an installed application. None for what is no origin at all.
    """
    return _origin(text) if len(text) <= MAX_AUTHORITY else None


@lru_cache(maxsize=_CACHED)
def _origin(text: str) -> tuple[str, Authority | None] | None:
    lower = text.lower()
    if lower == "null":
        return lower, None
    if lower in _FILE:
        return _FILE[0], None
    found = _ORIGIN.fullmatch(lower)
    authority = None if found is None else read_authority(found[2])
    if found is None or authority is None:
        return None
    scheme, (host, port) = found[1], authority
    if port is None and scheme in _PORT_OF:  # 80 or 443 may be that of the other scheme
        given = re.search(r":(\d+)\Z", found[2])
        if given is not None and int(given[1]) != _PORT_OF[scheme]:
            port = int(given[1])
    shown = f"[{host}]" if ":" in host else host
    said = f"{scheme}://{shown}" if port is None else f"{scheme}://{shown}:{port}"
    return said, authority if scheme in _PORT_OF else None


def read_url(text: str) -> Authority | None:
    """Return host and port of an `http` or `https` URL; None where it is no such URL."""
    found = _URL.fullmatch(text.lower())
    return None if found is None else read_authority(found[2])


def read_address(text: str) -> IpAddress | None:
    """Return an IP address, an IPv4 address in IPv6 as that; None where it is none."""
    if len(text) > MAX_AUTHORITY:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_ip_literal(host: str) -> bool:
    """Tell whether a host is an IP address."""
    return read_address(host) is not None


def is_loopback_host(host: str) -> bool:
    """Tell whether a host can only be this machine: a loopback address, or a name of RFC 6761."""
    address = read_address(host)
    if address is not None:
        return address.is_loopback
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def is_loopback_url(text: str) -> bool:
    """Tell whether the host of a URL can only be this machine."""
    authority = read_url(text)
    return authority is not None and is_loopback_host(authority.host)


def read_network(text: str) -> IpNetwork:
    """Return a network, or an address as a network of one.

    Raises:
        ValueError: it is neither.
    """
    return ip_network(text, strict=False)


def address_in(address: IpAddress, networks: tuple[IpNetwork, ...]) -> bool:
    """Tell whether an address is in one of some networks."""
    return any(address.version == each.version and address in each for each in networks)


def _checked_origin(text: str) -> str:
    if text == ANY_ORIGIN:
        return text
    origin = read_origin(text.removesuffix("/") if text.lower() not in _FILE else text)
    if origin is None:
        raise ValueError(
            f"{text[:80]!r} is no web origin; write scheme and host, and the port unless it is the "
            'default one, such as "https://app.example" or "http://localhost:3000", without a '
            'path; or "null", "file://" or "*"'
        )
    return origin[0]


def _checked_host(text: str) -> str:
    authority = read_authority(text)
    if authority is None or ":" in text.rpartition("]")[2]:
        raise ValueError(
            f'{text[:80]!r} is no host name; write it as browsers do, such as "hub.example.org", '
            "without scheme and port (it holds for every port)"
        )
    return authority.host


def _checked_url(text: str) -> str:
    if text and read_url(text) is None:
        raise ValueError(
            f"{text[:80]!r} is no public address; write scheme, host and port unless it is the "
            'default one, such as "https://hub.example.org"'
        )
    return text.rstrip("/")


def _checked_network(text: str) -> str:
    try:
        return str(read_network(text))
    except ValueError:
        raise ValueError(
            f"{text[:80]!r} is no network and no IP address; write one, such as "
            '"127.0.0.1" or "10.0.0.0/8" (names are not looked up)'
        ) from None


WebOrigin = Annotated[str, AfterValidator(_checked_origin)]
"""One entry of a list of origins, as `read_origin` gives it."""

HostName = Annotated[str, AfterValidator(_checked_host)]
"""A host name as `read_authority` gives it."""

PublicUrl = Annotated[str, AfterValidator(_checked_url)]
"""An `http` or `https` URL, or empty."""

Network = Annotated[str, AfterValidator(_checked_network)]
"""A network, or an address as a network of one."""
