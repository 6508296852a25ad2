"""Outgoing HTTP to addresses that clients gave: never into private networks, unless allowed.

A host name is resolved once, every address it has is looked at, the connection goes to one of
those, and what it has reached is looked at once more before anything is sent: a name that changes
its mind between check and connection changes nothing. Redirects are not followed and no proxy of
the environment is used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

import httpx2

from hubbub.errors import ForbiddenError, InvalidError, UnavailableError
from hubbub.networks import is_public

__all__ = ["Outgoing", "Target", "host_of"]

TIMEOUT_S: Final = 10.0
"""Seconds for all of one call, from looking its host up to the answer's status."""

CONNECT_S: Final = 3.0
"""Seconds until the next address of a host is tried."""

MAX_ADDRESSES: Final = 8
"""Addresses of one host that are tried."""

MAX_URL: Final = 2048

_PORTS: Final = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called, and the addresses that were looked at."""

    url: httpx2.URL
    host: str
    addresses: tuple[str, ...]


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
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        self._timeout_s = timeout_s

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
        host = parsed.raw_host.decode("ascii")
        try:
            addresses: Sequence[str] = [str(ip_address(host))]
        except ValueError:
            addresses = await self._found(host, parsed.port or _PORTS[parsed.scheme])
        for address in addresses:
            self._allow_only(host, address)
        return Target(parsed, host, tuple(addresses[:MAX_ADDRESSES]))

    async def _found(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # a timeout is an OSError
            why = str(error) or type(error).__name__
            raise UnavailableError(f"the host {host!r} is not found: {why}") from error
        if not found:
            raise UnavailableError(f"the host {host!r} is not found: it has no address")
        return found

    def _allow_only(self, host: str, address: str) -> None:
        """Check one address of a host.

        Raises:
            ForbiddenError: it is in a network that is not public.
        """
        if not is_public(ip_address(address), self._allow):
            raise ForbiddenError(
                f"{host!r} is in a network that is not public; "
                f"add that network to {self._setting} if that is meant"
            )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a body; returns the status of the answer, whatever it is.

        Raises:
            InvalidError, ForbiddenError: it may not be called.
            UnavailableError: nobody answered.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(await self.check(url), body, headers)
        except TimeoutError:
            raise UnavailableError(
                f"{host_of(url)!r} did not answer within {self._timeout_s:g} s"
            ) from None

    async def _post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
        why = "no address"
        for address in target.addresses:
            try:
                return await self._post_to(target, address, body, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                why = f"{type(error).__name__}: {error}"
            except httpx2.HTTPError as error:  # it may have it: another address is no other host
                raise _unanswered(target, f"{type(error).__name__}: {error}") from error
        raise _unanswered(target, why)

    async def _post_to(
        self, target: Target, address: str, body: bytes, headers: Mapping[str, str]
    ) -> int:
        async def reached(event: str, info: Mapping[str, Any]) -> None:
            """Look at what the connection has reached, before anything is sent."""
            if event != "connection.connect_tcp.complete":
                return
            stream = info["return_value"]
            try:
                self._allow_only(target.host, str(stream.get_extra_info("server_addr")[0]))
            except BaseException:
                await stream.aclose()
                raise

        async with self._client.stream(
            "POST",
            target.url.copy_with(host=address),
            content=body,
            headers={**headers, "Host": target.url.netloc.decode("ascii")},
            extensions={"sni_hostname": target.host, "trace": reached},
        ) as answer:
            return int(answer.status_code)


def host_of(url: str) -> str:
    """Return the host and port that a URL names, in one form for each of them.

    Raises:
        InvalidError: it is no http or https URL with a host.
    """
    parsed = _parsed(url)
    host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    with suppress(ValueError):  # a name
        host = str(ip_address(host))
    return f"{host}:{parsed.port or _PORTS[parsed.scheme]}"


def _unanswered(target: Target, why: str) -> UnavailableError:
    return UnavailableError(f"{target.host!r} did not answer: {why}")


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
