"""The forms in which an envelope may be published: short, CloudEvents structured and binary, batch.

Values in, values out. `data` passes through as the bytes that came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import msgspec

from hubbub.envelope import EVENT, MAX_HOPS, Envelope
from hubbub.errors import HubError, InvalidError
from hubbub.subjects import check_subject
from hubbub.times import parse_deadline
from hubbub.values import Principal
from hubbub.web.bodies import check_json, check_utf8, invalid, malformed, members_of
from hubbub.web.problems import header

__all__ = ["Given", "envelope_of_short", "read_forms"]

SPEC_VERSION: Final = "1.0"
BATCH_TYPE: Final = "application/cloudevents-batch"
EVENT_TYPE: Final = "application/cloudevents+json"
_JSON_TYPE: Final = re.compile(r"[\w.+-]+/([\w.-]+\+)?json", re.ASCII)
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}|data_base64", re.ASCII)
_BINARY: Final = "ce-"


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
    data: msgspec.Raw = msgspec.Raw(b"null")
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
    check_utf8(body)
    first = body.lstrip()[:1]
    if first == b"{" and header(headers, b"ce-specversion") is None:
        return [_one(body, given)], False
    content_type = (header(headers, b"content-type") or "").partition(";")[0].strip().lower()
    if header(headers, b"ce-specversion") is not None:
        return [_binary(body, content_type, headers, given)], False
    if first == b"[" or content_type.startswith(BATCH_TYPE):
        return _batch(body, given, batch_limit), True
    return [_one(body, given)], False


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
    if "data_base64" in members:
        raise InvalidError("data_base64 is not taken here; send `data` as JSON")
    try:
        event = _read_event(body)
    except msgspec.ValidationError as wrong:
        raise InvalidError(f"the CloudEvent does not fit: {wrong}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise malformed(wrong) from None
    return _envelope_of_event(event, given)


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


def _binary(
    body: bytes, content_type: str, headers: Iterable[tuple[bytes, bytes]], given: Given
) -> Envelope:
    """Read a CloudEvent whose attributes are headers and whose data is the body."""
    if content_type and not _JSON_TYPE.fullmatch(content_type):
        raise InvalidError(f"data of type {content_type!r} is not taken here; send JSON")
    attributes: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1")
        if name.startswith(_BINARY):
            value = unquote(raw_value.decode("utf-8", errors="replace"), errors="replace")
            attributes[name.removeprefix(_BINARY)] = value
    data = body.strip()
    if data:
        check_json(data)
    try:
        event = msgspec.convert(attributes, Event, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the `ce-` headers do not fit: {error}") from None
    return _envelope_of_event(
        msgspec.structs.replace(event, data=msgspec.Raw(data or b"null")), given
    )


def _envelope_of_event(event: Event, given: Given) -> Envelope:
    if event.specversion != SPEC_VERSION:
        raise InvalidError(f"specversion is {event.specversion!r}, the hub speaks {SPEC_VERSION!r}")
    return _envelope(
        given,
        source=event.source,
        id=event.id,
        subject=event.subject,
        type=event.type,
        data=event.data,
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
        data=short.data,
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
    data: msgspec.Raw,
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
        data=bytes(data),
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
