"""Names out of requests: paths, queries and headers, decoded without loss or refused.

A decoder that puts a replacement for what it cannot read makes one name of two (`%FE` and `%FF`
both become U+FFFD), and who reads a header that is there twice has chosen between two names.
Here each of these is an error. Raw bytes above 0x7F in a path or a query are refused before, by the
HTTP parser (RFC 3986 has none).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from hubbub.errors import InvalidError, MalformedError

__all__ = [
    "MAX_QUERY",
    "bearer_of",
    "check_path",
    "header",
    "parse_query",
    "traceparent",
    "unquote",
]

MAX_QUERY: Final = 100
"""Parameters in one query."""

_HALF: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

Headers = Iterable[tuple[bytes, bytes]]


def unquote(text: str, *, what: str) -> str:
    """Return a percent-encoded text decoded once (RFC 3986, 2.1).

    Args:
        what: What it is, for the error.

    Raises:
        MalformedError: a `%` without two hex digits behind it, or bytes that are not UTF-8.
    """
    if "%" not in text:
        return text
    if _HALF.search(text):
        raise MalformedError(f"{what} has a % without two hex digits behind it; write it as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise MalformedError(
            f"{what} is not UTF-8 at byte {error.start} when its %XX are decoded"
        ) from None


def check_path(scope: Scope) -> None:
    """Refuse a path that the server could not decode without loss.

    Raises:
        MalformedError: of the path as it was sent.
    """
    path: str = scope["path"]
    if "%" in path or "\ufffd" in path:  # else nothing was replaced, and no % was left as it is
        raw: bytes | None = scope.get("raw_path")
        if raw is not None:
            unquote(raw.decode("latin-1"), what="the path")


def parse_query(query: bytes, *, limit: int = MAX_QUERY) -> list[tuple[str, str]]:
    """Return the parameters of a query, in order, empty ones too; `+` is a space.

    Raises:
        MalformedError: a name or a value cannot be decoded.
        InvalidError: more than `limit` parameters.
    """
    if not query:
        return []
    if query.count(b"&") >= limit:
        raise InvalidError(f"the query has over {limit} parameters")
    pairs: list[tuple[str, str]] = []
    for part in query.decode("latin-1").replace("+", " ").split("&"):
        if part:
            name, _, value = part.partition("=")
            name = unquote(name, what="the name of a query parameter")
            pairs.append((name, unquote(value, what=f"?{name[:40]}=")))
    return pairs


def header(headers: Headers, name: bytes) -> str | None:
    """Return a header that may be there once, by its lower-case name; None without it.

    Raises:
        MalformedError: it is there twice, or it is not UTF-8.
    """
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            if found is not None:
                raise MalformedError(f"the header {name.decode()} is there twice; send it once")
            found = value
    if found is None:
        return None
    try:
        return found.decode()
    except UnicodeDecodeError:
        raise MalformedError(f"the header {name.decode()} is not UTF-8") from None


def traceparent(headers: Headers) -> str:
    """Return the trace that a request is on; empty for none, and for more than one.

    A trace context that cannot be read begins a new trace; the request goes on (W3C Trace Context,
    3.2.2.1).
    """
    found = [value for key, value in headers if key == b"traceparent"]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def bearer_of(headers: Headers) -> str | None:
    """Return the token of a request; None without one.

    Raises:
        MalformedError: there are two headers that could have it.
    """
    said = header(headers, b"authorization")
    if said is None:
        return None
    scheme, _, token = said.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
