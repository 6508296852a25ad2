"""Dialling WebSockets."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from websockets.client import ClientProtocol
from websockets.typing import Subprotocol

from hubbub.config import ClientTlsSettings
from hubbub.errors import InvalidError
from hubbub.listeners.connections import Connection
from hubbub.net.dialer import Dial, DialEnv, DialPolicy
from hubbub.net.targets import read_url
from hubbub.net.websocket_connection import WebSocketConnection
from hubbub.net.websocket_link import WebSocketLink

__all__ = ["HeadersOf", "dial_websocket"]

HeadersOf = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Headers of a handshake, or what gives those of one attempt."""

_OURS: Final = ("connection", "upgrade", "sec-websocket-")
"""Beginnings of names of headers that are the handshake's own."""

_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

SILENT: Final = logging.Logger("hubbub.net.silent", logging.CRITICAL + 1)  # noqa: LOG001
"""For the library, which would write headers into the log, and with them tokens."""


def dial_websocket(
    url: str,
    make: Callable[[], WebSocketConnection],
    *,
    env: DialEnv,
    headers: HeadersOf | None = None,
    subprotocols: Sequence[str] = (),
    tls: ClientTlsSettings | None = None,
    policy: DialPolicy | None = None,
) -> Dial:
    """Return a dial of a WebSocket, not begun.

    Raises:
        InvalidError: the URL or a header cannot be used.
    """
    uri, target = read_url(url, tls)
    if headers is not None and not callable(headers):
        check_headers(headers)
    offered = [Subprotocol(each) for each in subprotocols] or None

    async def made(dial: Dial) -> Connection:
        given = await _given(headers)
        protocol = ClientProtocol(
            uri, subprotocols=offered, max_size=dial.limits.frame, logger=SILENT
        )  # without extensions: nothing is compressed, so a frame is as large as it says
        request = protocol.connect()
        request.headers["User-Agent"] = "hubbub"
        for name, value in given.items():
            if name in request.headers:
                del request.headers[name]
            request.headers[name] = value
        return WebSocketLink(dial, make(), protocol, request)

    return Dial(
        target,
        made,
        env=env,
        policy=policy or DialPolicy(),
        shakes_hands=True,
    )


async def _given(headers: HeadersOf | None) -> Mapping[str, str]:
    """Return the headers of one attempt.

    Raises:
        InvalidError: one of them cannot be sent.
    """
    if headers is None:
        return {}
    if not callable(headers):
        return headers
    asked = headers()
    given = await asked if inspect.isawaitable(asked) else asked
    check_headers(given)
    return given


def check_headers(headers: Mapping[str, str]) -> None:
    """Look at headers before they are sent.

    Raises:
        InvalidError: a name or value cannot stand there; values are not shown.
    """
    for name, value in headers.items():
        if not name or not _TOKEN.issuperset(name) or name.lower().startswith(_OURS):
            raise InvalidError(f"{name[:64]!r} is no header of a handshake that one may set")
        if any(ord(each) < 0x20 or not 0x7F != ord(each) < 0x100 for each in value):  # noqa: PLR2004
            raise InvalidError(
                f"the value of the header {name!r} has characters that none may have"
            )
