"""Outgoing HTTP to addresses that clients gave: never into private networks, unless allowed.

A host name is resolved once, every address it has is looked at, and the connection goes to one
of those: a name that changes its mind between check and connection changes nothing. Redirects are
not followed and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import httpx2

from hubbub.errors import ForbiddenError, InvalidError, UnavailableError

__all__ = ["Outgoing", "Target", "is_public"]

TIMEOUT_S: Final = 10.0
"""Seconds from connecting to the answer's first line."""

MAX_URL: Final = 2048

_NAT64: Final = IPv6Network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called, and the addresses that were looked at."""

    url: httpx2.URL
    host: str
    addresses: tuple[str, ...]


def is_public(address: Address, allow: Iterable[Network] = ()) -> bool:
    """Tell whether an address is on the open internet, or in a network that is allowed.

    IPv6 addresses that stand for an IPv4 one (mapped, 6to4, Teredo, NAT64) count as that one.
    """
    networks = tuple(allow)
    return all(
        (each.is_global and not each.is_multicast) or any(each in net for net in networks)
        for each in _meant(address)
    )


def _meant(address: Address) -> tuple[Address, ...]:
    """Return the addresses a packet to this one may reach."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, *address.teredo)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return (address,)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host name.

    Raises:
        OSError: it has none, or they cannot be found out now.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Outgoing:
    """Calls URLs that clients gave."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve = resolve,
        setting: str = "callback_allow",
    ) -> None:
        self._allow = tuple(ip_network(network, strict=False) for network in allow)
        self._resolve = resolve
        self._setting = setting
        # A connection is kept for nobody: two names may share an address, not a certificate.
        self._client: Final = httpx2.AsyncClient(
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """End."""
        await self._client.aclose()

    async def check(self, url: str) -> Target:
        """Return a URL that may be called.

        Raises:
            InvalidError: it is no http or https URL with a host.
            ForbiddenError: it leads into a network that is not public.
            UnavailableError: its host is not found now.
        """
        parsed = _parsed(url)
        host = parsed.host
        try:
            addresses: Sequence[str] = [str(ip_address(host))]
        except ValueError:
            try:
                addresses = await self._resolve(host, parsed.port or _PORTS[parsed.scheme])
            except (OSError, UnicodeError) as error:
                raise UnavailableError(f"the host {host!r} is not found: {error}") from error
        for address in addresses:
            if not is_public(ip_address(address.partition("%")[0]), self._allow):
                raise ForbiddenError(
                    f"{host!r} is in a network that is not public; "
                    f"add that network to {self._setting} if that is meant"
                )
        return Target(parsed, host, tuple(addresses))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a body; returns the status of the answer, whatever it is.

        Raises:
            InvalidError, ForbiddenError: it may not be called.
            UnavailableError: nobody answered.
        """
        target = await self.check(url)
        why = "no address"
        for address in target.addresses:
            try:
                return await self._post(target, address, body, headers)
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
        raise UnavailableError(f"{target.host!r} did not answer: {why}")

    async def _post(
        self, target: Target, address: str, body: bytes, headers: Mapping[str, str]
    ) -> int:
        async with self._client.stream(
            "POST",
            target.url.copy_with(host=address),
            content=body,
            headers={**headers, "Host": target.url.netloc.decode("ascii")},
            extensions={"sni_hostname": target.host},
        ) as answer:
            return int(answer.status_code)


def _parsed(url: str) -> httpx2.URL:
    if len(url) > MAX_URL:
        raise InvalidError(f"the URL has {len(url)} characters, the limit is {MAX_URL}")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise InvalidError(f"this is no URL: {error}") from error
    if parsed.scheme not in _PORTS or not parsed.host:
        raise InvalidError("a URL must begin with http:// or https:// and name a host")
    if parsed.userinfo:
        raise InvalidError("a URL must not hold a user name or password")
    return parsed
