"""Addresses on the open internet: one allow rule, from a table of our own.

The tables are those of the IANA IPv4 and IPv6 Special-Purpose Address Registries, and not what
`ipaddress` says of an address, which changes with the version of Python. All entries are refused,
those too that the registries call globally reachable: these are anycast services, and the nearest
one may stand inside a private network.

Sources: https://www.iana.org/assignments/iana-ipv4-special-registry,
https://www.iana.org/assignments/iana-ipv6-special-registry, RFC 4291 (global unicast, mapped,
compatible), RFC 6052 (NAT64), RFC 7915 (translated), RFC 3056 (6to4), RFC 4380 (Teredo),
RFC 5214 (ISATAP), RFC 3879 (site-local), RFC 7526 (6to4 relays).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

__all__ = [
    "GLOBAL_UNICAST_V6",
    "SPECIAL_V4",
    "SPECIAL_V6",
    "TABLES_AS_OF",
    "Address",
    "Network",
    "is_public",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TABLES_AS_OF: Final = "2025-10-09"
"""Date of the registries that the tables below were made of."""

SPECIAL_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private use
            "100.64.0.0/10",  # shared address space
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link local
            "172.16.0.0/12",  # private use
            "192.0.0.0/24",  # IETF protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relay anycast, deprecated
            "192.168.0.0/16",  # private use
            "192.175.48.0/24",  # AS112, direct delegation
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, limited broadcast
        ),
    )
)
"""IPv4 networks that are not global unicast."""

GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")
"""The IPv6 networks IANA assigns from; what lies outside is not global unicast."""

SPECIAL_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "::/128",  # unspecified
            "::1/128",  # loopback
            "::ffff:0:0/96",  # IPv4-mapped: counts as its IPv4 address
            "64:ff9b::/96",  # NAT64: counts as its IPv4 address
            "64:ff9b:1::/48",  # NAT64 for local use
            "100::/64",  # discard only
            "100:0:0:1::/64",  # dummy prefix
            "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, AMT, ORCHID, DRIP
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112, direct delegation
            "3ffe::/16",  # 6bone, returned
            "3fff::/20",  # documentation
            "5f00::/16",  # SRv6 SIDs
            "fc00::/7",  # unique local
            "fe80::/10",  # link local
            "fec0::/10",  # site local, deprecated
            "ff00::/8",  # multicast
        ),
    )
)
"""IPv6 networks that are not global unicast; most of them lie outside `2000::/3` anyway."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Upper half of an ISATAP interface id; its lower half is an IPv4 address."""

_LAST_32: Final = 0xFFFF_FFFF


def is_public(address: Address, allow: Iterable[Network] = ()) -> bool:
    """Tell whether an address is global unicast, or in a network that is allowed.

    An IPv6 address that holds IPv4 addresses is public only if these are, too; a mapped one and one
    of NAT64 count as their IPv4 address alone. One with a zone id is not public.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    networks = tuple(allow)
    return all(
        _is_global_unicast(each) or any(each in network for network in networks)
        for each in _meant(address)
    )


def _is_global_unicast(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    return address in GLOBAL_UNICAST_V6 and not any(address in net for net in SPECIAL_V6)


def _meant(address: Address) -> tuple[Address, ...]:
    """Return the addresses that a packet to this one may reach."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address in _MAPPED or address in _NAT64:
        return (_v4(address),)
    return (address, *_embedded(address))


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses inside an IPv6 address that is one itself."""
    number = int(address)
    if address in _COMPATIBLE or address in _TRANSLATED:
        return (_v4(address),)
    if address in _NAT64_LOCAL:
        return (_of_local_nat64(number),)
    if address in _SIX_TO_FOUR:
        return (_v4(number >> 80),)
    if address in _TEREDO:
        return (_v4(number >> 64), _v4(~number))
    if number >> 32 & _LAST_32 in _ISATAP:
        return (_v4(address),)
    return ()


def _of_local_nat64(number: int) -> IPv4Address:
    """Return the address in one of `64:ff9b:1::/48`: the last 32 bits, or around the `u` octet."""
    if number & 0xFF_FFFF_FFFF:
        return _v4(number)
    return _v4((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)


def _v4(number: IPv6Address | int) -> IPv4Address:
    return IPv4Address(int(number) & _LAST_32)
