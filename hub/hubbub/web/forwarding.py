"""What proxies say of the client they forward: `X-Forwarded-*` and `Forwarded` (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hubbub.config.origins import IpAddress, IpNetwork, address_in, read_address, read_authority

__all__ = ["Forwarded", "read_forwarded"]

Headers = Iterable[tuple[bytes, bytes]]

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORT: Final = re.compile(r"(?:\[([^\[\]]+)\]|([\d.]+))(?::[\w.-]{1,16})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What trusted proxies say of a client.

    Attributes:
        client: The rightmost address that is no trusted proxy; None where there is none.
        scheme: `http` or `https`, of what the client asked; None where it is not said.
        host: The `Host` that the client sent; None where it is not said.
    """

    client: str | None
    scheme: str | None
    host: str | None


def read_forwarded(headers: Headers, proxies: Sequence[IpNetwork]) -> Forwarded:
    """Return what the headers of a trusted proxy say.

    `X-Forwarded-For` goes before `Forwarded`: most proxies append to the former and pass on the
    latter as the client sent it. Of several values the last is the nearest proxy's.
    """
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name == b"forwarded" or name.startswith(b"x-forwarded-"):
            found.setdefault(name, []).append(value.decode("latin-1"))
    steps = [
        dict(_pairs(element))
        for value in found.get(b"forwarded", [])  # each for itself: one may have an open quote
        for element in _split(value, ",")
    ]
    last = steps[-1] if steps else {}
    hops = _listed(found.get(b"x-forwarded-for", []))
    if not hops:
        hops = [step.get("for", "") for step in steps]
    scheme = _last(found.get(b"x-forwarded-proto", [])) or last.get("proto", "")
    host = _last(found.get(b"x-forwarded-host", [])) or last.get("host", "")
    return Forwarded(
        client=_client(hops, tuple(proxies)),
        scheme=_SCHEMES.get(scheme.lower()),
        host=host if read_authority(host) is not None else None,
    )


def _client(hops: Sequence[str], proxies: tuple[IpNetwork, ...]) -> str | None:
    """Return the rightmost untrusted address; where one cannot be read, that of who told it."""
    known: str | None = None
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:
            break
        known = str(address)
        if not address_in(address, proxies):
            break
    return known


def _address(hop: str) -> IpAddress | None:
    """Return the address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`."""
    text = hop.strip()
    address = read_address(text)
    if address is not None:
        return address
    found = _PORT.fullmatch(text)
    return None if found is None else read_address(found[1] or found[2])


def _listed(values: Iterable[str]) -> list[str]:
    return [part.strip() for part in ",".join(values).split(",") if part.strip()]


def _last(values: Sequence[str]) -> str:
    listed = _listed(values)
    return listed[-1] if listed else ""


def _pairs(element: str) -> Iterator[tuple[str, str]]:
    for pair in _split(element, ";"):
        name, _, value = pair.partition("=")
        yield name.strip().lower(), _unquoted(value.strip())


def _split(text: str, separator: str) -> list[str]:
    """Split where no quotes are open; in one pass, whatever a client wrote.

    Quotes that are never closed leave one part that says nothing: they may hide what a proxy added
    behind the client's own words.
    """
    parts: list[str] = []
    start, quoted, escaped = 0, False, False
    for place, sign in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif sign == separator and not quoted:
            parts.append(text[start:place])
            start = place + 1
    if quoted:
        return ["?"]
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
