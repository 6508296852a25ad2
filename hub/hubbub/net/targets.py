"""Where a dial goes, and how that may be shown: never with what is secret in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from hubbub.config import Address, ClientTlsSettings
from hubbub.errors import InvalidError

__all__ = ["Target", "read_url", "shown_url"]

MAX_URL: Final = 2048
"""Characters of the URL of a dial."""


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to connect to.

    Attributes:
        shown: Its URL without secrets.
        tls: None for no encryption.
        source: Own address that the connection comes from; None for any.
    """

    address: Address
    shown: str
    tls: ClientTlsSettings | None = None
    source: str | None = None


def read_url(url: str, tls: ClientTlsSettings | None) -> tuple[WebSocketURI, Target]:
    """Read the URL of a WebSocket.

    Raises:
        InvalidError: it is none, or `tls` is given for one without encryption.
    """
    if len(url) > MAX_URL:
        raise InvalidError(f"the URL of a dial has over {MAX_URL} characters; shorten it")
    try:
        uri = parse_uri(url)
    except (InvalidURI, ValueError):  # their text has the URL, with what is secret in it
        raise InvalidError(
            f"{shown_url(url)!r} is no URL of a WebSocket; write ws://host:port/path or "
            "wss://host:port/path, with user:password@ or without, and no fragment"
        ) from None
    if any(not 0x21 <= ord(each) <= 0x7E for each in uri.resource_name):  # noqa: PLR2004  # VCHAR
        raise InvalidError(f"{shown_url(url)!r} has blanks or control characters; encode them")
    if tls is not None and not uri.secure:
        raise InvalidError(f"{shown_url(url)!r} has settings of TLS; write wss:// for it")
    if uri.secure and tls is None:
        tls = ClientTlsSettings()
    return uri, Target(Address(uri.host, uri.port), shown_url(url), tls)


def shown_url(url: str) -> str:
    """Return a URL for logs: without userinfo, and with names of its query alone."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "(unreadable)"
    if ":" in host:
        host = f"[{host}]"
    if not parts.scheme or not host:
        return "(unreadable)"
    names = [pair.partition("=")[0] for pair in parts.query.split("&") if "=" in pair]
    query = "&".join(f"{name}=***" for name in names) or ("***" if parts.query else "")
    place = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path}{'?' if query else ''}{query}"[:MAX_URL]
