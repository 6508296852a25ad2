"""The forms in which an envelope may be published: short, CloudEvents structured and binary, batch.

Values in, values out. `data` passes through as the bytes that came; what is not JSON keeps its
media type. Source of the rules: CloudEvents 1.0.2, JSON format 3.1 and HTTP binding 3.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from hubbub.envelope import EVENT, MAX_HOPS, Envelope
from hubbub.errors import HubError, InvalidError, MalformedError
from hubbub.media import OCTETS, is_json, read_media_type
from hubbub.subjects import check_subject
from hubbub.times import parse_deadline
from hubbub.values import Principal
from hubbub.web.bodies import check_json, check_utf8, invalid, malformed, members_of
from hubbub.web.decoding import header, unquote

__all__ = ["Given", "envelope_of_short", "is_binary", "read_forms"]

SPEC_VERSION: Final = "1.0"
BATCH_TYPE: Final = "application/cloudevents-batch"
STRUCTURED: Final = "application/cloudevents"
"""What the media type of a structured event, or of a batch of them, begins with."""

_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}|data_base64", re.ASCII)
_BINARY: Final = b"ce-"
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_ABSENT: Final = msgspec.Raw(b"null")
_NUMBERS: Final[dict[str, type[int]]] = {"priority": int, "hops": int, "durable": bool}
"""Attributes that are no texts; headers have them as texts."""


class Short(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The short form."""

    subject: str
    data: msgspec.Raw
    type: str = EVENT
    key: str | None = None
    priority: int = 5
    reply_to: str | None = None
    in_reply_to: str | None = None
    to: str | list[str] = ""
    expires: str | float | None = None
    idempotency_key: str | None = None
    durable: bool | None = None
    id: str = ""
    source: str = ""
    traceparent: str = ""


class Event(msgspec.Struct, frozen=True):
    """A CloudEvent, as far as the hub reads it; the rest of its attributes is left out."""

    specversion: str
    subject: str
    type: str = EVENT
    id: str = ""
    source: str = ""
    datacontenttype: str | None = None
    data: msgspec.Raw = _ABSENT
    data_base64: str | None = None
    partitionkey: str | None = None
    priority: int = 5
    replyto: str | None = None
    inreplyto: str | None = None
    to: str | list[str] = ""
    expirytime: str | None = None
    idempotencykey: str | None = None
    durable: bool | None = None
    traceparent: str = ""
    hops: int = 0


_read_short = msgspec.json.Decoder(Short).decode
_read_event = msgspec.json.Decoder(Event).decode
_read_shorts = msgspec.json.Decoder(list[Short]).decode
_read_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode

_SHORT_NAMES: Final = Short.__struct_encode_fields__


@dataclass(frozen=True, slots=True)
class Given:
    """Who publishes, when, and what holds for all members of the body.

    Attributes:
        traceparent: Of the request; for members that have none.
    """

    principal: Principal
    now_us: int
    traceparent: str = ""


def read_forms(
    body: bytes, headers: Iterable[tuple[bytes, bytes]], given: Given, *, batch_limit: int
) -> tuple[Sequence[Envelope], bool]:
    """Read what was published; True when it was a batch.

    Raises:
        MalformedError: not JSON, or not UTF-8.
        InvalidError: no envelope; `index` says which member of a batch.
    """
    if is_binary(headers):
        return [_binary(body, headers, given)], False
    check_utf8(body)
    first = body.lstrip()[:1]
    if first == b"{":
        return [_one(body, given)], False
    if first == b"[" or (header(headers, b"content-type") or "").lower().startswith(BATCH_TYPE):
        return _batch(body, given, batch_limit), True
    return [_one(body, given)], False


def is_binary(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request is a CloudEvent in binary mode (HTTP binding, 3).

    Raises:
        MalformedError: a header that tells it is there twice.
    """
    if header(headers, b"ce-specversion") is None:
        return False
    return not (header(headers, b"content-type") or "").lower().startswith(STRUCTURED)


def _one(body: bytes, given: Given) -> Envelope:
    """Read one object: short where it fits, else a CloudEvent or a reason."""
    try:
        short = _read_short(body)
    except msgspec.ValidationError as error:
        return _event_or_reason(body, error, given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    return envelope_of_short(short, given)


def _event_or_reason(body: bytes, error: msgspec.ValidationError, given: Given) -> Envelope:
    members = members_of(body)
    if members is None or "specversion" not in members:
        raise _short_reason(error, body, members) from None
    for name in members:
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidError(
                f"{name!r} is no CloudEvents attribute; names are lower-case letters and digits"
            )
    try:
        event = _read_event(body)
    except msgspec.ValidationError as wrong:
        raise InvalidError(f"the CloudEvent does not fit: {wrong}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise malformed(wrong) from None
    return _envelope_of_event(event, given, *_data_of(event))


def _short_reason(
    error: msgspec.ValidationError, body: bytes, members: dict[str, msgspec.Raw] | None
) -> HubError:
    if members is None:
        return InvalidError(
            f"the body does not fit: {error}; send an object with at least `subject` and `data`"
        )
    return invalid(error, body, _SHORT_NAMES)


def _batch(body: bytes, given: Given, limit: int) -> list[Envelope]:
    try:
        members: Sequence[Short | msgspec.Raw] = _read_shorts(body)
    except msgspec.ValidationError:
        members = _raw_members(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    if not members:
        raise InvalidError("the batch is empty; send at least one envelope")
    if len(members) > limit:
        raise InvalidError(
            f"the batch has {len(members)} members, the limit is {limit}; "
            "send several, or raise hub.batch_limit"
        )
    envelopes: list[Envelope] = []
    for index, member in enumerate(members):
        try:
            if isinstance(member, Short):
                envelopes.append(envelope_of_short(member, given))
            else:
                envelopes.append(_one(bytes(member), given))
        except InvalidError as error:
            error.index = index
            raise
    _check_names(envelopes)
    return envelopes


def _raw_members(body: bytes) -> list[msgspec.Raw]:
    check_json(body)
    try:
        return _read_raws(body)
    except msgspec.ValidationError as error:
        raise InvalidError(f"a batch is an array of envelopes: {error}") from None


def _check_names(envelopes: Sequence[Envelope]) -> None:
    """Refuse a batch that says one id or key twice: which of the two would be meant?"""
    seen: set[tuple[str, str]] = set()
    for index, envelope in enumerate(envelopes):
        for kind, name in (("id", envelope.id), ("idempotency key", envelope.idempotency_key)):
            if name and (kind, name) in seen:
                error = InvalidError(f"the {kind} {name!r} is in this batch twice; send it once")
                error.index = index
                raise error
            seen.add((kind, name or ""))


def _binary(body: bytes, headers: Iterable[tuple[bytes, bytes]], given: Given) -> Envelope:
    """Read a CloudEvent whose attributes are headers and whose data is the body."""
    attributes: dict[str, object] = {}
    for raw_name, raw_value in headers:
        if raw_name.startswith(_BINARY):
            name = raw_name.decode("latin-1").removeprefix("ce-")
            if name in attributes:
                raise MalformedError(f"the header ce-{name} is there twice; send it once")
            attributes[name] = _attribute(name, raw_value)
    if not attributes.keys().isdisjoint(("data", "data_base64", "datacontenttype")):
        raise InvalidError(
            "in binary mode the data is the body, and its type the header Content-Type; "
            "leave out ce-data, ce-data_base64 and ce-datacontenttype"
        )
    try:
        for name, kind in _NUMBERS.items():
            if name in attributes:
                attributes[name] = msgspec.convert(attributes[name], kind, strict=False)
        event = msgspec.convert(attributes, Event)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the `ce-` headers do not fit: {error}") from None
    media_type = header(headers, b"content-type") or None
    data, content_type = body, media_type
    if media_type is None or is_json(media_type):
        data, content_type = _json_of(body, unsaid=media_type is None), None
    return _envelope_of_event(event, given, data, content_type)


def _attribute(name: str, raw: bytes) -> str:
    """Return the value of a header: quotes and escapes taken away, then decoded once.

    Source: CloudEvents, HTTP binding 3.1.3.2.

    Raises:
        MalformedError: it cannot be decoded without loss.
    """
    what = f"the header ce-{name[:64]}"
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedError(f"{what} is not ASCII; write other characters as %XX") from None
    if '"' in text:
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise MalformedError(f'{what} has a " inside, or one that is not closed; write %22')
        text = _ESCAPED.sub(r"\1", quoted[1])
    return unquote(text, what=what)


def _json_of(body: bytes, *, unsaid: bool) -> bytes:
    """Return data that is JSON; null for none.

    Args:
        unsaid: No media type said that it is JSON.
    """
    check_utf8(body)
    data = body.strip()
    if not data:
        return b"null"
    try:
        check_json(data)
    except MalformedError as error:
        hint = "; data of another type needs its Content-Type" if unsaid else ""
        raise MalformedError(error.message + hint) from None
    return data


def _data_of(event: Event) -> tuple[bytes, str | None]:
    """Return the data of a structured event, and its media type; None for JSON.

    Raises:
        InvalidError: data and type do not go together.
        MalformedError: data_base64 is JSON by its type, and no JSON.
    """
    media_type = event.datacontenttype
    if event.data_base64 is not None:
        if event.data is not _ABSENT:
            raise InvalidError("the CloudEvent has `data` and `data_base64`; send one of them")
        data, media_type = _from_base64(event.data_base64), media_type or OCTETS
        return (_json_of(data, unsaid=False), None) if is_json(media_type) else (data, media_type)
    if media_type is None or is_json(media_type):
        return bytes(event.data), None
    try:
        text = msgspec.json.decode(event.data, type=str | None) or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = None
    if text is None or "\0" in text or not read_media_type(media_type).is_utf8:
        raise InvalidError(
            f"`data` of type {media_type[:64]!r} is a JSON string, of characters in UTF-8 and "
            "without NUL; send everything else as `data_base64`"
        )
    return text.encode(), media_type


def _from_base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError(f"data_base64 is not Base64: {error}") from None


def _envelope_of_event(
    event: Event, given: Given, data: bytes, content_type: str | None
) -> Envelope:
    if event.specversion != SPEC_VERSION:
        raise InvalidError(f"specversion is {event.specversion!r}, the hub speaks {SPEC_VERSION!r}")
    envelope = _envelope(
        given,
        source=event.source,
        id=event.id,
        subject=event.subject,
        type=event.type,
        data=data,
        key=event.partitionkey,
        priority=event.priority,
        reply_to=event.replyto,
        in_reply_to=event.inreplyto,
        to=event.to,
        expires=event.expirytime,
        idempotency_key=event.idempotencykey,
        traceparent=event.traceparent,
        durable=event.durable,
        hops=event.hops,
    )
    return envelope if content_type is None else envelope.replace(content_type=content_type)


def envelope_of_short(short: Short, given: Given) -> Envelope:
    """Return the envelope of a short form.

    Raises:
        InvalidError: a member says nothing the hub understands.
    """
    reply_to, in_reply_to = short.reply_to, short.in_reply_to
    if reply_to is not None and "." not in reply_to:
        if in_reply_to is not None:
            raise InvalidError(
                f"`reply_to` {reply_to!r} has no dot, so it is an id, and `in_reply_to` says "
                "another one; leave one of them out"
            )
        reply_to, in_reply_to = None, reply_to
    return _envelope(
        given,
        source=short.source,
        id=short.id,
        subject=short.subject,
        type=short.type,
        data=bytes(short.data),
        key=short.key,
        priority=short.priority,
        reply_to=reply_to,
        in_reply_to=in_reply_to,
        to=short.to,
        expires=short.expires,
        idempotency_key=short.idempotency_key,
        traceparent=short.traceparent,
        durable=short.durable,
        hops=0,
    )


def _envelope(  # noqa: PLR0913  # the attributes a publisher may set
    given: Given,
    *,
    source: str,
    id: str,  # noqa: A002  # the CloudEvents name
    subject: str,
    type: str,  # noqa: A002
    data: bytes,
    key: str | None,
    priority: int,
    reply_to: str | None,
    in_reply_to: str | None,
    to: str | list[str],
    expires: str | float | None,
    idempotency_key: str | None,
    traceparent: str,
    durable: bool | None,
    hops: int,
) -> Envelope:
    principal = given.principal
    trusted = "admin" in principal.scopes
    return Envelope(
        id=id,
        source=check_subject(source) if source and trusted else principal.source,
        subject=subject,
        type=type,
        data=data,
        key=key,
        priority=priority,
        reply_to=reply_to,
        in_reply_to=in_reply_to,
        to=() if not to else (to,) if isinstance(to, str) else tuple(to),
        expires_us=(
            None
            if expires is None
            else parse_deadline(expires, what="expires", now_us=given.now_us)
        ),
        idempotency_key=idempotency_key,
        traceparent=traceparent or given.traceparent,
        hops=min(max(hops, 0), MAX_HOPS) if trusted else 0,
        durable=durable,
    )
