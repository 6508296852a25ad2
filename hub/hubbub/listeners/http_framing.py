"""Ends of HTTP messages: refusals, answers to HTTP/1.0, upgrades that are not spoken."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from hubbub.listeners.http_headers import Headers, Refusal

__all__ = [
    "CHUNK_BYTES",
    "answer_of",
    "closing_unless_continued",
    "plain_head",
    "refusal_of",
    "unchunked",
]

CHUNK_BYTES: Final = 20
"""Of one chunk without its data: 16 digits and two line ends. What is more are its extensions."""

_BODILESS: Final = (204, 304)


def refusal_of(error: httptools.HttpParserError) -> Refusal:
    """Return the refusal of what the parser could not read."""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "the method of the request is not known here; methods are upper-case")
    reason = str(error).strip("'\"") or type(error).__name__
    return Refusal(400, f"invalid HTTP request: {reason}; RFC 9112 has the format")


def answer_of(refusal: Refusal, *, is_head: bool = False) -> bytes:
    """Return the answer that ends a connection.

    Args:
        is_head: Whether it is to a HEAD, so that no body may follow.
    """
    body = refusal.why.encode()
    return b"HTTP/1.1 %d %b\r\n%bcontent-type: text/plain; charset=utf-8\r\n" % (
        refusal.status,
        HTTPStatus(refusal.status).phrase.encode(),
        refusal.headers,
    ) + b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (
        len(body),
        b"" if is_head else body,
    )


def plain_head(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return a head without its upgrade, which the parser then reads as any other request."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    for name, value in headers:
        if name == b"upgrade":
            continue
        if name == b"connection":
            options = [each for each in value.split(b",") if each.strip().lower() != b"upgrade"]
            value = b",".join(options)  # noqa: PLW2901  # the one that is written
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)


def unchunked(app: Any, cycle: RequestResponseCycle) -> Any:  # noqa: ANN401  # ASGI
    """Return an application whose answers HTTP/1.0 can read: their end is that of the connection.

    One whose length is known leaves the connection open for who asked for that.
    """

    async def served(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        is_raw = False

        async def told(message: Any) -> None:  # noqa: ANN401  # ASGI
            nonlocal is_raw
            if message["type"] == "http.response.start":
                headers = [
                    each
                    for each in message.get("headers", ())
                    if each[0].lower() != b"transfer-encoding"
                ]
                has_length = any(name.lower() == b"content-length" for name, _ in headers)
                is_raw = not has_length and message["status"] not in _BODILESS
                if is_raw:
                    cycle.chunked_encoding = False  # before the start, or it chooses chunks
                    cycle.keep_alive = False
                elif cycle.keep_alive:
                    headers.append((b"connection", b"keep-alive"))
                message = {**message, "headers": headers}
            elif is_raw:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, told)

    return served


def closing_unless_continued(app: Any, cycle: RequestResponseCycle) -> Any:  # noqa: ANN401  # ASGI
    """Return an application after whose answer the connection ends, if the body was not asked for.

    A client that waits for `100 Continue` may send its body or the next request after a final
    answer: what comes has two meanings (RFC 9110, 10.1.1).
    """

    async def served(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        async def told(message: Any) -> None:  # noqa: ANN401  # ASGI
            if cycle.waiting_for_100_continue:  # until the first message of the answer
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, told)

    return served
