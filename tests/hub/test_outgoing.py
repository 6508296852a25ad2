"""Outgoing calls never reach private networks."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from hubbub.errors import ForbiddenError, UnavailableError
from hubbub.outgoing import Outgoing, is_public

PRIVATE = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "224.0.0.1", "255.255.255.255", "100.64.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
    "::ffff:10.0.0.1", "2002:7f00:0001::", "64:ff9b::7f00:1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    """Loopback, private, link-local, multicast, unspecified, and IPv6 forms of these."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses(address: str) -> None:
    """The open internet may be called."""
    assert is_public(ip_address(address))


def test_a_network_may_be_allowed() -> None:
    """Also for the IPv6 form of its addresses."""
    allow = [ip_network("127.0.0.0/8")]
    assert is_public(ip_address("127.0.0.1"), allow)
    assert is_public(ip_address("::ffff:127.0.0.1"), allow)
    assert not is_public(ip_address("10.0.0.1"), allow)


async def test_all_addresses_of_a_name_must_be_public() -> None:
    """One private address among public ones refuses the name."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["1.1.1.1", "127.0.0.1"]

    outgoing = Outgoing(resolve=resolve)
    with pytest.raises(ForbiddenError):
        await outgoing.check("https://example.com/hook")
    await outgoing.close()


async def test_a_name_without_address_may_be_tried_again() -> None:
    """It is not refused for good."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    outgoing = Outgoing(resolve=resolve)
    with pytest.raises(UnavailableError):
        await outgoing.check("https://example.com/hook")
    await outgoing.close()
