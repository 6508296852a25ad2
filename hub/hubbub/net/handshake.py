"""What a peer answers to the handshake of a WebSocket: that it opens, or an answer of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httptools

__all__ = ["AnswerReader", "NotHttpError", "Refusal"]

HEAD_BYTES: Final = 65_536
"""Status line and headers of the answer to a handshake; more is no answer."""

REFUSAL_BYTES: Final = 65_536
"""Of the body of an answer that refuses; the rest is not read."""

_SWITCHING: Final = 101


class NotHttpError(Exception):
    """What came is no answer of HTTP."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that opens no WebSocket.

    Attributes:
        headers: Names in lower case; several of one name are joined.
        body: Its first `REFUSAL_BYTES`, or what came of it in time.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class AnswerReader:
    """Reads the answer as it comes, without keeping more than its bounds.

    Attributes:
        opens: The bytes of an answer that opens, and of what came behind it; None until it has all
            its headers.
        is_complete: Whether a refusal is there as a whole, or as far as it is read.
    """

    def __init__(self) -> None:
        self.opens: bytes | None = None
        self.is_complete = False
        self._head: bytearray | None = bytearray()
        self._parser: Final = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._has_headers = False
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more of it.

        Raises:
            NotHttpError: it is none, or its headers are too long.
        """
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if max(end, len(self._head) if end < 0 else 0) > HEAD_BYTES:
                raise NotHttpError(f"the headers of its answer are over {HEAD_BYTES} bytes")
            if end < 0:
                if not b"HTTP/".startswith(self._head[:5]):
                    raise NotHttpError("it does not speak HTTP")
                return
            data, self._head = bytes(self._head), None
            if data[9:12] == b"%d" % _SWITCHING:
                self.opens = data
                return
        if self.is_complete:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.is_complete = True
        except httptools.HttpParserError as error:
            if not self._has_headers:
                raise NotHttpError("its answer is not HTTP") from error
            self.is_complete = True

    @property
    def refusal(self) -> Refusal | None:
        """The refusal, as far as it is there; None before its headers are."""
        if not self._has_headers:
            return None
        return Refusal(self._parser.get_status_code(), self._headers, bytes(self._body))

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        key, said = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {said}" if key in self._headers else said

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._has_headers = True

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body[: REFUSAL_BYTES - len(self._body)]
        self.is_complete = self.is_complete or len(self._body) >= REFUSAL_BYTES

    def on_message_complete(self) -> None:
        """All is there."""
        self.is_complete = True
