"""What may enter: limits, scopes, and the name under which a repeated message is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final, cast

import msgspec

from hubbub.envelope import Envelope
from hubbub.errors import ForbiddenError, InvalidError, MalformedError, TooLargeError
from hubbub.media import is_json
from hubbub.subjects import check_pattern, check_subject, matches
from hubbub.values import Principal, TaskState

__all__ = [
    "ADDED_BYTES",
    "GROWTH",
    "MAX_TEXT",
    "Limits",
    "allowed",
    "body_hash",
    "check_envelope",
    "check_stored",
    "check_text",
    "has_control",
    "is_hubs_own",
    "is_over",
    "may",
    "scoped",
    "texts_of",
]

MAX_TEXT: Final = 256
"""Characters of an id, type, key or idempotency key."""

MAX_PRIORITY: Final = 9
MAX_TARGETS: Final = 1000

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PAIR: Final = re.compile(rb"\[\]|\{\}")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HUBS_OWN: Final = re.compile(rf"tasks\.[^.]+\.({'|'.join(state.value for state in TaskState)})")
_NUL_ESCAPED: Final = b"\\u0000"


GROWTH: Final = 8
"""Times that what a client sent may grow as data: a control character takes six bytes as JSON,
`1e15,` nineteen for five, and a text that is none is kept twice, as it was and as a text."""

ADDED_BYTES: Final = 64 * 1024
"""Bytes that an adapter may add to what a client sent: ids, names, members of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large an envelope may be.

    Attributes:
        sent_bytes: The largest thing that a client may send, by whatever way of the hub's own;
            measured where it comes in, as the client sent it.
        kept_bytes: What the clients of an adapter may send, by its name, where that is more.
        frame_bytes: The largest frame of an adapter, by its name: so large it may be in what is
            not stored.
    """

    sent_bytes: int = 1024 * 1024
    data_depth: int = 64
    kept_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    frame_bytes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def data_bytes(self) -> int:
        """The largest data that can come of it; what is larger was measured nowhere."""
        return _grown(self.sent_bytes)

    def stored_data_bytes(self, source: str) -> int:
        """The largest data of a source that is stored."""
        owner = source.partition(".")[0]
        return _grown(max(self.sent_bytes, self.kept_bytes.get(owner, 0)))

    def volatile_data_bytes(self, source: str) -> int:
        """The largest data of a source that is not."""
        owner = source.partition(".")[0]
        return max(self.stored_data_bytes(source), _grown(self.frame_bytes.get(owner, 0)))


def _grown(sent_bytes: int) -> int:
    return sent_bytes * GROWTH + ADDED_BYTES


def check_envelope(envelope: Envelope, limits: Limits) -> None:
    """Check what a publisher wrote, before anything is done with it.

    Raises:
        SubjectError: subject, reply address or target is not valid.
        InvalidError: another attribute is not valid.
        TooLargeError: the data is over what can come of the largest thing a client may send.
        MalformedError: the data is nested too deep, has a number out of range, or is no JSON.
    """
    check_subject(envelope.subject)
    _check_data(envelope, limits)
    check_text("type", envelope.type)
    if not 0 <= envelope.priority <= MAX_PRIORITY:
        raise InvalidError(f"priority is {envelope.priority}, it must be 0 to {MAX_PRIORITY}")
    if envelope.id:
        check_text("id", envelope.id)
    if envelope.key is not None:
        check_text("key", envelope.key)
    if envelope.idempotency_key is not None:
        check_text("idempotency key", envelope.idempotency_key)
    if envelope.in_reply_to is not None:
        check_text("inreplyto", envelope.in_reply_to)
    if envelope.reply_to is not None:
        check_subject(envelope.reply_to)
    if len(envelope.to) > MAX_TARGETS:
        raise InvalidError(f"`to` has {len(envelope.to)} addresses, the limit is {MAX_TARGETS}")
    for address in envelope.to:
        check_subject(address)


def _check_data(envelope: Envelope, limits: Limits) -> None:
    data = envelope.data
    if len(data) > limits.data_bytes:
        most = limits.volatile_data_bytes(envelope.source)
        if len(data) > most:
            raise TooLargeError(
                what="data", size_bytes=len(data), limit_bytes=most, setting="hub.max_body"
            )
    if envelope.content_type is None:
        check_depth(data, limits.data_depth)
        decoded = readable(data)
        if _NUL_ESCAPED in data and any("\0" in text for text in texts_of(decoded)):
            raise InvalidError("data has a NUL character in a text; take it out")
    elif is_json(envelope.content_type):
        raise InvalidError(
            f"content_type {envelope.content_type!r} is JSON, which None says; "
            "Envelope.new sees to it"
        )


def check_stored(envelope: Envelope, limits: Limits) -> None:
    """Check an envelope of which something is to be stored.

    Raises:
        TooLargeError: it is so large as only what is volatile may be.
    """
    most = limits.stored_data_bytes(envelope.source)
    if len(envelope.data) > most:
        raise TooLargeError(
            what="data that is stored",
            size_bytes=len(envelope.data),
            limit_bytes=most,
            setting="hub.max_body",
        )


def is_over(frame: str | bytes, limit_bytes: int) -> bool:
    """Tell whether a frame is over a limit in bytes; a text counts as UTF-8, as it was sent."""
    size = len(frame)
    if isinstance(frame, str) and size <= limit_bytes < size * 4 and not frame.isascii():
        size = len(frame.encode("utf-8", "surrogatepass"))
    return size > limit_bytes


def check_text(what: str, text: str) -> str:
    """Return a short text that can be stored and logged.

    Raises:
        InvalidError: empty, too long, or with a control character or half a surrogate pair.
    """
    if not 1 <= len(text) <= MAX_TEXT:
        raise InvalidError(f"{what} has {len(text)} characters, it must have 1 to {MAX_TEXT}")
    if has_control(text):
        raise InvalidError(f"{what} {text!r} has a control character; take it out")
    return text


def has_control(text: str) -> bool:
    """Tell whether a text has a control character, an end of a line, or half a surrogate pair.

    An ideographic space and what joins the parts of an emoji are neither, though not "printable".
    """
    return not text.isprintable() and _CONTROL.search(text) is not None


def check_depth(data: bytes, limit: int) -> None:
    """Refuse JSON that is nested deeper than the limit, without decoding it.

    Raises:
        MalformedError: it is.
    """
    if data.count(b"[") + data.count(b"{") <= limit:
        return
    # Only the brackets are left; each pass takes the innermost pairs away.
    rest = _TEXT.sub(b"", data).translate(None, delete=_NOT_BRACKETS)
    for _ in range(limit):
        rest = _PAIR.sub(b"", rest)
        if not rest:
            return
    raise MalformedError(f"data is nested deeper than {limit}, or its brackets do not match")


def readable(data: bytes) -> object:
    """Return JSON decoded, so that what is kept can be read by everybody who gets it.

    To decode is the cheapest way to know: 0.3 us where a search for wide numbers takes 1 us. What
    comes of it is not kept, for most messages nobody looks inside again.

    Raises:
        MalformedError: it is no JSON, or has a number that no float or integer here can hold.
    """
    try:
        return cast("object", msgspec.json.decode(data))
    except msgspec.ValidationError as error:
        raise MalformedError(f"data has a number out of range: {error}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"data is not JSON: {error}") from error


def texts_of(decoded: object) -> Iterator[str]:
    """Yield all texts in decoded JSON, names of members too."""
    rest = [decoded]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            members = cast("dict[str, object]", value)
            rest += members.keys()
            rest += members.values()
        elif isinstance(value, list):
            rest += cast("list[object]", value)


def body_hash(envelope: Envelope) -> bytes:
    """Return the hash of what a publisher said, without what only names the act of saying it."""
    said: tuple[object, ...] = (
        envelope.subject,
        envelope.type,
        envelope.key,
        envelope.priority,
        envelope.reply_to,
        envelope.in_reply_to,
        envelope.to,
    )
    if envelope.content_type is not None:
        said = (*said, envelope.content_type)
    return blake2b(msgspec.json.encode(said) + envelope.data, digest_size=16).digest()


@lru_cache(maxsize=4096)
def scoped(scopes: frozenset[str], verb: str) -> tuple[str, ...]:
    """Return the patterns a principal has for `publish`, `subscribe`, `direct` or `tasks`."""
    return tuple(
        pattern for scope in scopes if (pattern := scope.partition(":")[2]) and
        scope.startswith(f"{verb}:")
    )  # fmt: skip


@lru_cache(maxsize=8192)
def allowed(scopes: frozenset[str], verb: str, subject: str) -> bool:
    """Tell whether one of the scopes covers a subject, an address, or a task type as a token.

    No scope but `admin` covers publishing on the hub's own subjects.
    """
    if verb == "publish" and _HUBS_OWN.fullmatch(subject) is not None:
        return False
    return any(matches(pattern, subject) for pattern in scoped(scopes, verb))


def may(principal: Principal, verb: str, subject: str) -> None:
    """Check that a principal may publish to a subject, subscribe to it, or write to an address.

    Raises:
        ForbiddenError: it may not.
    """
    if "admin" in principal.scopes:
        return
    if not allowed(principal.scopes, verb, subject):
        if verb == "publish" and is_hubs_own(subject):
            raise ForbiddenError(
                f"{principal.name!r} may not publish on {subject!r}: there the hub tells how tasks "
                "are; end one with a `hubbub.task.result.v1`, or use another subject"
            )
        raise ForbiddenError(
            f"{principal.name!r} may not {verb} {subject!r}; "
            f"it needs the scope 'admin' or '{verb}:{subject}'"
        )


def is_hubs_own(subject: str) -> bool:
    """Tell whether a subject is one that the hub tells the states of tasks on."""
    return _HUBS_OWN.fullmatch(subject) is not None


def check_scope(scope: str) -> str:
    """Return a scope that means something.

    Raises:
        InvalidError: it does not.
    """
    verb, colon, pattern = scope.partition(":")
    if scope in ("admin", "read", "tasks"):
        return scope
    if colon and verb in ("publish", "subscribe", "direct", "stream", "tasks"):
        check_pattern(pattern)
        return scope
    raise InvalidError(
        f"{scope!r} is no scope; use admin, read, tasks, tasks:PATTERN, publish:PATTERN, "
        "subscribe:PATTERN, direct:PATTERN or stream:PATTERN"
    )
