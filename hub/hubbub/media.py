"""Media types of an envelope's data: which are JSON, and which can be shown as text. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from hubbub.errors import InvalidError

__all__ = ["MAX_MEDIA_TYPE", "OCTETS", "MediaType", "as_text", "is_json", "read_media_type"]

MAX_MEDIA_TYPE: Final = 256
"""Characters of a media type with its parameters."""

OCTETS: Final = "application/octet-stream"

# Each part takes what it can and gives nothing back: to try blanks on both sides of each `;` in all
# ways took a header of 60 characters a second, and one of 256 for ever.
_TOKEN: Final = r"[!#$%&'*+.^`|~\w-]++"
_VALUE: Final = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*+")'
_MEDIA_TYPE: Final = re.compile(
    rf"({_TOKEN}/{_TOKEN})((?:[ \t]*+;[ \t]*+(?:{_TOKEN}={_VALUE})?)*+)[ \t]*+", re.ASCII
)
_CHARSET: Final = re.compile(rf";[ \t]*charset=({_VALUE})", re.ASCII | re.IGNORECASE)
_JSON: Final = re.compile(r"[\w.+-]+/(?:[\w.-]+\+)?json", re.ASCII)
_TEXT: Final = re.compile(r"text/.+|application/(?:xml|yaml)|[^/]+/.+\+(?:xml|yaml)")
"""What is text by its registration, and by default in UTF-8: RFC 6838 4.2.1, RFC 7303, RFC 9512."""

_UTF8: Final = frozenset({None, "utf-8", "utf8", "us-ascii"})


class MediaType(NamedTuple):
    """A media type that was read.

    Attributes:
        name: Type and subtype in lower case, without parameters.
        charset: In lower case; None where none is said.
    """

    name: str
    charset: str | None

    @property
    def is_utf8(self) -> bool:
        """Whether its characters, if it has some, are in UTF-8 by what it says."""
        return self.charset in _UTF8


@lru_cache(maxsize=512)
def read_media_type(text: str) -> MediaType:
    """Read a media type with its parameters (RFC 9110, 8.3.1).

    Raises:
        InvalidError: it is none, or longer than `MAX_MEDIA_TYPE`.
    """
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= MAX_MEDIA_TYPE else None
    if found is None:
        raise InvalidError(
            f"{text[:64]!r} is no media type; write one such as text/plain or {OCTETS}"
        )
    charsets: list[str] = _CHARSET.findall(found[2])
    charset = charsets[0].strip('"').lower() if charsets else None
    return MediaType(found[1].lower(), charset)


def is_json(text: str) -> bool:
    """Tell whether data of a media type is JSON: `*/json` and `+json`, in UTF-8 (RFC 8259, 8.1).

    Raises:
        InvalidError: it is no media type.
    """
    kind = read_media_type(text)
    return kind.is_utf8 and _JSON.fullmatch(kind.name) is not None


def as_text(data: bytes, text: str) -> str | None:
    """Return data as text, if that says all of it: encoded again it is the same bytes.

    Args:
        text: Its media type.

    Returns:
        None for a type that is not text, for another charset than UTF-8, for bytes that are not
        UTF-8, and for a NUL, which many who read JSON cannot take.
    """
    kind = read_media_type(text)
    if not kind.is_utf8 or not _TEXT.fullmatch(kind.name) or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
