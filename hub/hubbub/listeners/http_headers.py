"""Heads of HTTP requests: what RFC 9110 and 9112 refuse before anything is served.

Pure: a head in, a refusal or nothing out. The parser has checked syntax and lengths before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = [
    "JUDGED",
    "Headers",
    "Refusal",
    "asks_for_websocket",
    "check_handshake",
    "check_head",
    "check_size",
    "is_plain",
    "origin_form_of",
    "tokens_of",
    "too_large",
]

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

JUDGED: Final = frozenset({b"host", b"transfer-encoding", b"expect"})
"""Headers that decide whether a request is served."""

WEBSOCKET_VERSION: Final = b"13"
"""RFC 6455, 4.1."""

_VERSIONS: Final = ("1.1", "1.0")
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Za-z:.%_~!$&'()*+,;=-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?"
)
"""RFC 3986, 3.2: a host and perhaps a port; no user, and not empty."""

_ABSOLUTE: Final = re.compile(rb"(?:https?|wss?)://([^/?#]*)(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is not served; the connection ends behind it.

    Attributes:
        status: HTTP status.
        why: What is wrong, and what to send instead.
        headers: Header lines, each with its line end.
        reason: Label of the count.
    """

    status: int
    why: str
    headers: bytes = b""
    reason: str = "malformed"


@lru_cache(maxsize=4096)
def _is_authority(value: bytes) -> bool:
    return _AUTHORITY.fullmatch(value) is not None


def origin_form_of(target: bytes) -> tuple[bytes, bytes] | None:
    """Return host and port of a target in absolute form, and its path; None for other forms."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not _is_authority(found[1]):
        return None
    path = found[2]
    return found[1], path if path.startswith(b"/") else b"/" + path


def tokens_of(headers: Headers, name: bytes) -> list[bytes]:
    """Return the members of a header that is a list, in lower case, of all its lines."""
    return [
        token
        for key, value in headers
        if key == name
        for token in (part.strip().lower() for part in value.split(b","))
        if token
    ]


def check_size(
    head_bytes: int, headers: Headers, *, limit_bytes: int, limit: int
) -> Refusal | None:
    """Refuse a head that is too large, or has too many headers."""
    if head_bytes > limit_bytes:
        return too_large(limit_bytes)
    if len(headers) > limit:
        return Refusal(
            431,
            f"the request has {len(headers)} headers, limits.headers allows {limit}",
            reason="too_large",
        )
    return None


def too_large(limit_bytes: int, *, is_behind: bool = False) -> Refusal:
    """Return the refusal of a head over the limit; or of what stands around a body behind it."""
    what = "chunk extensions and trailers are" if is_behind else "request line and headers are"
    return Refusal(
        431,
        f"{what} over {limit_bytes} bytes, which limits.header_bytes allows",
        reason="too_large",
    )


def is_plain(target: bytes, version: str, judged: Headers) -> bool:
    """Tell whether a head is one of nearly all, of which `check_head` would refuse none."""
    return (
        len(judged) == 1
        and version == "1.1"
        and target.startswith(b"/")
        and target.isascii()
        and judged[0][0] == b"host"
        and _is_authority(judged[0][1])
    )


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> Refusal | None:
    """Refuse a head that has no one meaning, or asks for what is not spoken here.

    Args:
        version: `1.1` or `1.0`; others are refused.
        headers: Those of `JUDGED`, at least.
    """
    if version not in _VERSIONS:
        return Refusal(505, f"HTTP/{version} is not spoken here; send HTTP/1.1")
    hosts: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"expect" and version != "1.0" and value.lower() != b"100-continue":
            return Refusal(417, "Expect: 100-continue is the only expectation that is met here")
    refusal = _check_target(method, target) or _check_hosts(hosts, version)
    return refusal or (_check_codings(codings, version) if codings else None)


def _check_target(method: bytes, target: bytes) -> Refusal | None:
    if method == b"CONNECT":
        return Refusal(501, "this is no proxy: CONNECT is not implemented")
    if not target.isascii():
        return Refusal(400, "the target of the request is not ASCII; percent-encode it")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return None
    if origin_form_of(target) is None:
        return Refusal(400, "the target of the request is neither a path nor an http URL")
    return None


def _check_hosts(hosts: Sequence[bytes], version: str) -> Refusal | None:
    """RFC 9112, 3.2; an empty one names nobody, so it is refused as well."""
    if len(hosts) > 1:
        return Refusal(400, "the request has more than one Host header; send one")
    if not hosts:
        if version == "1.0":
            return None
        return Refusal(400, "the request has no Host header; send one")
    if not _is_authority(hosts[0]):
        return Refusal(400, "the Host header is no host with an optional port; send host:port")
    return None


def _check_codings(codings: Sequence[bytes], version: str) -> Refusal | None:
    """RFC 9112, 6.1 and 7: `chunked` and nothing else."""
    if version == "1.0":
        return Refusal(400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    names = tokens_of([(b"", each) for each in codings], b"")
    if names == [b"chunked"]:
        return None
    known = names[-1:] == [b"chunked"] and names.count(b"chunked") == 1
    return Refusal(
        501 if known else 400,
        "chunked is the only Transfer-Encoding that is read here, once; send it alone",
    )


def asks_for_websocket(method: bytes, version: str, headers: Headers) -> bool:
    """Tell whether an upgrade is one that is spoken here; others are ignored (RFC 9110, 7.8)."""
    if method != b"GET" or version != "1.1":
        return False
    return b"websocket" in tokens_of(headers, b"upgrade")


def check_handshake(headers: Headers) -> Refusal | None:
    """Refuse a WebSocket handshake with a body, or of another version (RFC 6455, 4.4)."""
    if _has_body(headers):
        return Refusal(400, "a WebSocket handshake has no body; send it without")
    versions = [value.strip() for name, value in headers if name == b"sec-websocket-version"]
    if versions != [WEBSOCKET_VERSION]:
        return Refusal(
            426,
            "version 13 of WebSocket is spoken here; send Sec-WebSocket-Version: 13",
            b"upgrade: websocket\r\nsec-websocket-version: 13\r\n",
        )
    return None


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
        for name, value in headers
    )
