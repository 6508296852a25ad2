"""Whose page a request comes from, by which name, and whether it comes from this machine.

Pure: settings and an ASGI scope in, a verdict out. A browser lets every page send requests to a
hub on its user's machine, also by a name that the page's owner lets resolve to 127.0.0.1, and a
proxy makes every stranger look as if it called from here. So the address of a peer is no proof of
who calls; a request is local only if nothing speaks against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from hubbub.config import HubSettings
from hubbub.config.origins import (
    ANY_ORIGIN,
    Authority,
    address_in,
    is_ip_literal,
    is_loopback_host,
    is_loopback_url,
    read_address,
    read_authority,
    read_network,
    read_origin,
    read_url,
)
from hubbub.web.forwarding import Forwarded, read_forwarded

__all__ = ["FOREIGN", "TRUST", "UNKNOWN_HOST", "RequestTrust", "Verdict", "is_local", "names"]

TRUST: Final = "hubbub.trust"
"""Key of a request's verdict in its ASGI scope. No client can set it."""

FOREIGN: Final = "foreign_origin"
UNKNOWN_HOST: Final = "unknown_host"

_REMEMBERED: Final = 4096
"""Peers with their `Host` and `Origin`, and names of headers, whose judgement is remembered."""

_LONGEST: Final = 640
"""Bytes of `Host` and `Origin`, or of a name, that are remembered."""

_HOST, _ORIGIN, _SITE, _FORWARDED = 1, 2, 3, 4
_OTHER_SITES: Final = (b"cross-site", b"same-site")
_TWICE: Final = b""
"""Stands for a header that was given twice: nothing that can be read, and nothing that passes."""


class _Kinds(dict[bytes, int]):
    """What each header is for the rule, by its name in lower case; 0 for nothing."""

    def __missing__(self, name: bytes) -> int:
        kind = _FORWARDED if name.startswith(b"x-forwarded") else 0
        if len(self) < _REMEMBERED and len(name) <= _LONGEST:
            self[name] = kind
        return kind


_kinds: Final = _Kinds(
    {
        b"host": _HOST,
        b"origin": _ORIGIN,
        b"sec-fetch-site": _SITE,
        b"forwarded": _FORWARDED,
        b"x-real-ip": _FORWARDED,
        b"via": _FORWARDED,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of where a request comes from.

    Attributes:
        local: It comes from this machine, and from no page of another origin.
        refusal: Why it is refused, unless its path's own list names its origin.
        origin: Its origin as it was sent; empty without one, None where it was given twice.
        is_named: `hub.origins` names its origin, which is then told so (CORS).
        follows_link: It is the GET of a browser that follows a link of another site, refused only
            where it might change something.
        forwarded: What a trusted proxy says of the client.
    """

    local: bool = False
    refusal: Literal["foreign_origin", "unknown_host"] | None = None
    origin: bytes | None = b""
    is_named: bool = False
    follows_link: bool = False
    forwarded: Forwarded | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the request is served as it is."""
        return self is _LOCAL or self is _REMOTE


_LOCAL: Final = Verdict(local=True)
_REMOTE: Final = Verdict()


def is_local(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request comes from this machine, so that it may do without a secret.

    It does if its listener is bound to loopback, its peer is there, its `Host` is a loopback name
    or address, its `Origin` is the hub's own or absent, no header says that it was forwarded, and
    no `hub.public_url` says that the hub is reached from elsewhere.

    Args:
        scope: ASGI scope of a request that came through the hub; others are never local.
    """
    verdict: Verdict | None = scope.get(TRUST)
    return verdict is not None and verdict.local


def names(origins: Iterable[str], origin: bytes | None) -> bool:
    """Tell whether a list of origins names one, as it was sent; `*` names all.

    Args:
        origin: Empty for a page that sends none, None for one that cannot be read: no list has it.
    """
    known = frozenset(origins)
    if origin is None or not known:
        return False
    if ANY_ORIGIN in known:
        return True
    read = read_origin(origin.decode("latin-1"))
    return read is not None and read[0] in known


class RequestTrust:
    """The rule for the requests of one listener.

    Attributes:
        settings: Those that it was made of.
    """

    def __init__(self, settings: HubSettings, *, loopback: bool) -> None:
        """Prepare it.

        Args:
            loopback: Whether the listener is bound to loopback.
        """
        self.settings: Final = settings
        self._loopback = loopback
        self._origins = frozenset(settings.origins)
        self._hosts = frozenset(settings.hosts)
        self._public = read_url(settings.public_url)
        self._proxies = tuple(map(read_network, settings.trusted_proxies))
        self._may_be_local = loopback and (
            not settings.public_url or is_loopback_url(settings.public_url)
        )
        self._remembered: dict[tuple[str, bytes, bytes | None], Verdict] = {}

    def judge(self, scope: Mapping[str, Any]) -> Verdict:
        """Return the verdict on one request, HTTP or WebSocket."""
        host: bytes | None = None
        origin: bytes | None = None
        elsewhere = forwarded = False
        for name, value in scope["headers"]:
            kind = _kinds[name]
            if not kind:
                continue
            if kind == _HOST:
                host = value if host is None else _TWICE
            elif kind == _ORIGIN:
                origin = value if origin is None else _TWICE
            elif kind == _SITE:
                elsewhere = elsewhere or value.strip().lower() in _OTHER_SITES
            else:
                forwarded = True
        client = scope.get("client")
        peer: str = client[0] if client else ""
        if host is None or forwarded or (elsewhere and origin is None):
            return self._judged(scope, peer, host, origin, elsewhere, forwarded)
        verdict = self._remembered.get((peer, host, origin))
        if verdict is None:
            verdict = self._judged(scope, peer, host, origin, elsewhere, False)
            if len(host) + len(origin or b"") <= _LONGEST:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[peer, host, origin] = verdict
        return verdict

    def _judged(
        self,
        scope: Mapping[str, Any],
        peer: str,
        host: bytes | None,
        origin: bytes | None,
        elsewhere: bool,
        forwarded: bool,
    ) -> Verdict:
        address = read_address(peer)
        trusted = address is not None and address_in(address, self._proxies)
        told = None
        if trusted and forwarded:
            told = read_forwarded(scope["headers"], self._proxies)
        asked = None if host is None else read_authority(host.decode("latin-1"))
        if self._loopback and not forwarded and not self._knows(scope, host, asked):
            return Verdict(refusal=UNKNOWN_HOST, forwarded=told)
        if told is not None and told.host is not None:
            asked = read_authority(told.host)
        own = origin is not None and self._is_own(origin, asked)
        local = (
            self._may_be_local
            and not forwarded
            and not trusted
            and address is not None
            and address.is_loopback
            and asked is not None
            and is_loopback_host(asked.host)
            and (origin is None or own)
        )
        if origin is None and not elsewhere:
            if told is None:
                return _LOCAL if local else _REMOTE
            return Verdict(forwarded=told)
        return self._of_a_page(scope, origin, own=own, local=local, told=told)

    def _of_a_page(
        self,
        scope: Mapping[str, Any],
        origin: bytes | None,
        *,
        own: bool,
        local: bool,
        told: Forwarded | None,
    ) -> Verdict:
        """Judge a request that has an origin, or none although it comes from another site."""
        sent = b"" if origin is None else origin if origin != _TWICE else None
        named = names(self._origins, sent)
        if own and not named and told is None:
            return _LOCAL if local else _REMOTE
        follows = origin is None and not named and _follows_link(scope)
        return Verdict(
            local=local and (own or follows),
            refusal=None if own or named else FOREIGN,
            origin=sent,
            is_named=named,
            follows_link=follows,
            forwarded=told,
        )

    def _knows(self, scope: Mapping[str, Any], host: bytes | None, asked: Authority | None) -> bool:
        """Tell whether a loopback listener is asked by a name of this hub."""
        if host is None:
            return scope.get("http_version") == "1.0"
        if asked is None:
            return False
        name = asked.host
        return (
            is_ip_literal(name)
            or is_loopback_host(name)
            or name in self._hosts
            or (self._public is not None and name == self._public.host)
        )

    def _is_own(self, origin: bytes, asked: Authority | None) -> bool:
        read = read_origin(origin.decode("latin-1"))
        if read is None or read[1] is None:
            return False
        return read[1] in (asked, self._public)


def _follows_link(scope: Mapping[str, Any]) -> bool:
    """Tell whether a browser shows the answer as a page of its own."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    modes = [value.strip().lower() for name, value in headers if name == b"sec-fetch-mode"]
    return modes == [b"navigate"]
