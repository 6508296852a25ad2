"""Only global unicast addresses are public, in whatever form they are written."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.networks import SPECIAL_V4, SPECIAL_V6, is_public

PUBLIC_V6 = 0x2606_4700 << 96
"""A network of the open internet that an ISATAP address may lie in."""

EMBEDDINGS: dict[str, Callable[[int], int]] = {
    "mapped": lambda v4: 0xFFFF << 32 | v4,
    "compatible": lambda v4: v4,
    "translated": lambda v4: 0xFFFF << 48 | v4,
    "nat64": lambda v4: 0x0064_FF9B << 96 | v4,
    "nat64 for local use": lambda v4: 0x0064_FF9B_0001 << 80 | v4,
    "nat64 for local use, around the u octet": lambda v4: (
        0x0064_FF9B_0001 << 80 | (v4 >> 16) << 64 | (v4 & 0xFFFF) << 40
    ),
    "6to4": lambda v4: 0x2002 << 112 | v4 << 80 | 1,
    "teredo server": lambda v4: 0x2001 << 112 | v4 << 64 | 0x0101_0101 ^ 0xFFFF_FFFF,
    "teredo client": lambda v4: 0x2001 << 112 | 0x0101_0101 << 64 | v4 ^ 0xFFFF_FFFF,
    "isatap": lambda v4: PUBLIC_V6 | 0x0000_5EFE << 32 | v4,
    "isatap, unique": lambda v4: PUBLIC_V6 | 0x0200_5EFE << 32 | v4,
}

REFUSED_V4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32",
    "192.0.0.170/31", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
    "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
)  # fmt: skip
REFUSED_V6 = (
    "::/128", "::1/128", "::/96", "::/8", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
    "2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48",
    "2001:3::/32", "2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28",
    "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20", "4000::/3",
    "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip


def ends(network: IPv4Network | IPv6Network) -> list[int]:
    """First and last address."""
    return [int(network[0]), int(network[-1])]


@pytest.mark.parametrize("network", REFUSED_V4)
@pytest.mark.parametrize("form", EMBEDDINGS)
def test_special_ipv4_networks_are_refused_in_every_form(network: str, form: str) -> None:
    """By their first and last address, plain and inside an IPv6 one."""
    for number in ends(IPv4Network(network)):
        assert not is_public(IPv4Address(number))
        assert not is_public(IPv6Address(EMBEDDINGS[form](number)))


@pytest.mark.parametrize("network", REFUSED_V6)
def test_special_ipv6_networks_are_refused(network: str) -> None:
    """By their first and last address."""
    for number in ends(IPv6Network(network)):
        assert not is_public(IPv6Address(number))


def test_the_tables_are_what_is_refused() -> None:
    """Each entry of the tables stands in this file's own list, in whole."""
    for special, refused in ((SPECIAL_V4, REFUSED_V4), (SPECIAL_V6, REFUSED_V6)):
        mine = [ip_network(text) for text in refused]
        left = {
            str(network)
            for network in special
            if not any(network[0] in net and network[-1] in net for net in mine)
        }
        assert left <= {"64:ff9b::/96"}


@given(st.sampled_from(SPECIAL_V4), st.sampled_from(sorted(EMBEDDINGS)), st.data())
def test_no_address_of_a_special_network_is_public(
    network: IPv4Network, form: str, data: st.DataObject
) -> None:
    """Whichever one it is."""
    number = int(network[0]) + data.draw(st.integers(0, network.num_addresses - 1))
    assert not is_public(IPv4Address(number))
    assert not is_public(IPv6Address(EMBEDDINGS[form](number)))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.0", "192.88.98.255", "192.88.100.0",
     "198.17.255.255", "223.255.255.255", "2000::1", "2606:4700::1111", "3fff:1000::1",
     "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2606:4700::5efe:101:101"],
)  # fmt: skip
def test_the_open_internet_is_public(address: str) -> None:
    """What stands beside a special network is not refused with it."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize("form", ["compatible", "translated", "6to4", "teredo client"])
def test_a_public_address_in_a_form_nobody_routes_is_refused(form: str) -> None:
    """Global unicast is only what IANA assigns."""
    assert not is_public(IPv6Address(EMBEDDINGS[form](int(IPv4Address("1.1.1.1")))))


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1"])
def test_an_address_with_a_zone_is_refused(address: str) -> None:
    """It names an interface of this machine, also where the network is allowed."""
    assert not is_public(ip_address(address))
    assert not is_public(ip_address(address), [ip_network("::/0")])


def test_a_network_may_be_allowed() -> None:
    """Also for the IPv6 form of its addresses; an IPv6 network does not allow the IPv4 inside."""
    allow = [ip_network("127.0.0.0/8")]
    assert is_public(ip_address("127.0.0.1"), allow)
    assert is_public(ip_address("::ffff:127.0.0.1"), allow)
    assert is_public(ip_address("64:ff9b::127.0.0.1"), allow)
    assert not is_public(ip_address("10.0.0.1"), allow)
    assert not is_public(ip_address("2002:7f00:1::"), allow)
    assert not is_public(ip_address("2002:7f00:1::"), [ip_network("2002::/16")])
    assert is_public(ip_address("2002:7f00:1::"), [*allow, ip_network("2002::/16")])
