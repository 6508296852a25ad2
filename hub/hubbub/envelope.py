"""The envelope: one message, immutable, a CloudEvent 1.0.

`data` is kept as the bytes that came in, JSON in nearly all envelopes, and is decoded only where
something looks inside, so that a message that passes through is never encoded again.
"""

from __future__ import annotations

import gc
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from hubbub.errors import InvalidError, MalformedError, NotJsonError
from hubbub.media import as_text, is_json, read_media_type

__all__ = [
    "CHAT_MESSAGE",
    "CHAT_TEMPLATE",
    "EVENT",
    "MAX_HOPS",
    "PRESENCE",
    "TASK_REQUEST",
    "TASK_RESULT",
    "TASK_UPDATE",
    "Envelope",
    "decode_json",
    "decode_undisturbed",
    "encode_json",
    "finite_float",
    "rfc3339",
]

EVENT: Final = "hubbub.event.v1"
CHAT_MESSAGE: Final = "hubbub.chat.message.v1"
CHAT_TEMPLATE: Final = "hubbub.chat.template.v1"
TASK_REQUEST: Final = "hubbub.task.request.v1"
TASK_UPDATE: Final = "hubbub.task.update.v1"
TASK_RESULT: Final = "hubbub.task.result.v1"
PRESENCE: Final = "hubbub.presence.v1"

MAX_HOPS: Final = 16
"""Times an envelope may pass through the hub before it is dead with reason `loop`."""

DEFAULT_PRIORITY: Final = 5

T = TypeVar("T")

LARGE_BYTES: Final = 4096
"""Size of JSON from which numbers are read in the way that never is slow."""

encode_json = msgspec.json.Encoder().encode
_decode_small = msgspec.json.Decoder().decode


def finite_float(text: str) -> float:
    """Read a number of JSON that is no integer; the `float_hook` of decoders of what clients send.

    msgspec's own way is four times as fast for most numbers, and takes 11 us for `1e300`: two
    seconds for a message of 1 MiB. This one takes at most 0.5 us.

    Raises:
        ValueError: it is out of range.
    """
    number = float(text)
    if number - number:  # NaN for the infinite ones
        raise ValueError("Number out of range")
    return number


_decode_large = msgspec.json.Decoder(float_hook=finite_float).decode


def decode_json(data: bytes | str | msgspec.Raw) -> object:
    """Return JSON of a client decoded; 1 MiB of it never takes much longer than 50 ms.

    Raises:
        msgspec.DecodeError, UnicodeError, RecursionError: it is none, or has a number out of range.
    """
    if len(data) < LARGE_BYTES:
        return cast("object", _decode_small(data))
    return decode_undisturbed(_decode_large, data)


def decode_undisturbed(decode: Callable[[Any], T], data: bytes | str | msgspec.Raw) -> T:
    """Decode JSON of a client with another decoder, which has `finite_float` where it needs that.

    Garbage is not looked for while much is decoded: a list of 350,000 lists would have it looked
    for 500 times, ten of them among everything that the hub holds.
    """
    if len(data) < LARGE_BYTES or not gc.isenabled():
        return decode(data)
    gc.disable()
    try:
        return decode(data)
    finally:
        gc.enable()


def rfc3339(time_us: int) -> str:
    """Write microseconds since the epoch as `2026-01-02T03:04:05.678901Z`."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """Write a second; a busy hub asks for the same one thousands of times."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One message. Change it with `replace`, which gives a new one.

    Attributes:
        id: Unique per source; made by the hub it is time-ordered.
        source: Address of the endpoint that sent it.
        time_us: When the hub took it, microseconds since the epoch; 0 before that.
        data: The payload; JSON, unless `content_type` says otherwise.
        key: Orders messages of one mailbox, and makes `sticky` stick.
        priority: 0 to 9, 9 first.
        reply_to: Address where answers shall go.
        in_reply_to: Id of the envelope that this one answers.
        to: Addresses it goes to without the table; empty for the table.
        expires_us: When it is worth nothing any more, microseconds since the epoch.
        idempotency_key: Names the act of sending, so that it may be repeated.
        traceparent: W3C trace context; empty before the hub took it.
        hops: Times it has been through the hub.
        durable: What the publisher asked for; None for the default of the source.
        content_type: Media type of data that is not JSON; None for JSON.
    """

    id: str = ""
    source: str
    subject: str
    type: str = EVENT
    time_us: int = 0
    data: bytes = b"null"
    key: str | None = None
    priority: int = DEFAULT_PRIORITY
    reply_to: str | None = None
    in_reply_to: str | None = None
    to: tuple[str, ...] = ()
    expires_us: int | None = None
    idempotency_key: str | None = None
    traceparent: str = ""
    hops: int = 0
    durable: bool | None = None
    content_type: str | None = None

    @classmethod
    def new(  # noqa: PLR0913  # the attributes a publisher may set
        cls,
        *,
        source: str,
        subject: str,
        data: object = None,
        type: str = EVENT,  # noqa: A002  # the CloudEvents name
        id: str = "",  # noqa: A002
        key: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        reply_to: str | None = None,
        in_reply_to: str | None = None,
        to: tuple[str, ...] = (),
        expires_us: int | None = None,
        idempotency_key: str | None = None,
        traceparent: str = "",
        hops: int = 0,
        durable: bool | None = None,
        content_type: str | None = None,
    ) -> Envelope:
        """Make an envelope of plain values.

        Args:
            data: Anything JSON can say; bytes are taken as JSON that is already encoded. With a
                `content_type` that is not JSON: bytes, or a text, which is encoded as UTF-8.
            content_type: Media type of the data; None and JSON types mean JSON.

        Raises:
            InvalidError: data that JSON cannot say, or that is neither bytes nor text where it is
                not JSON; a content type that is none.
        """
        if content_type is not None and is_json(content_type):
            content_type = None
        if content_type is not None:
            encoded = _content(data, content_type)
        elif isinstance(data, bytes):
            encoded = data
        else:
            try:
                encoded = encode_json(data)
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidError(f"data cannot be written as JSON: {error}") from error
        # A call with more than 15 keywords costs three times as much: CPython makes a dict first.
        made = cls(
            id=id, source=source, subject=subject, type=type, data=encoded, key=key,
            priority=priority, reply_to=reply_to, in_reply_to=in_reply_to, to=to,
            expires_us=expires_us, idempotency_key=idempotency_key, traceparent=traceparent,
            hops=hops, durable=durable,
        )  # fmt: skip
        return made if content_type is None else made.replace(content_type=content_type)

    def replace(self, **changes: object) -> Envelope:
        """Return a copy with some attributes changed.

        Where `data` becomes JSON and was not, `content_type=None` belongs to it.
        """
        return msgspec.structs.replace(self, **changes)

    def with_data_of(self, before: Envelope) -> Envelope:
        """Return it with the content type that its data had in another envelope, if it has that.

        For what plugins make of an envelope: bytes that were not JSON are not JSON afterwards.
        """
        if before.content_type is None or self.data is not before.data:
            return self
        return msgspec.structs.replace(self, content_type=before.content_type)

    def json(self) -> object:
        """Return `data` decoded; the work is done once per envelope.

        Raises:
            MalformedError: the data is not JSON.
            NotJsonError: it says so by its content type.
        """
        try:
            return self.__dict__["_decoded"]
        except KeyError:
            pass
        try:
            decoded = decode_json(self.json_bytes())
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MalformedError(f"data of envelope {self.id!r} is not JSON: {error}") from error
        cast("dict[str, object]", self.__dict__)["_decoded"] = decoded
        return decoded

    def json_bytes(self) -> bytes:
        """Return `data` for a decoder of JSON.

        Raises:
            NotJsonError: by its content type, the data is not JSON.
        """
        if self.content_type is not None:
            raise NotJsonError(envelope_id=self.id, content_type=self.content_type)
        return self.data

    def data_members(self) -> dict[str, object]:
        """Return what says the data in JSON, as members of an object (CloudEvents JSON, 3.1).

        `data` alone for JSON; else `datacontenttype` with `data`, a text, or `data_base64`.
        """
        if self.content_type is None:
            return {"data": msgspec.Raw(self.data)}
        text = as_text(self.data, self.content_type)
        if text is not None:
            return {"datacontenttype": self.content_type, "data": text}
        return {
            "datacontenttype": self.content_type,
            "data_base64": b64encode(self.data).decode(),
        }

    @property
    def trace_id(self) -> str:
        """The 32 hex digits of its trace; empty before the hub took it."""
        return self.traceparent[3:35]

    def encode(self) -> bytes:
        """Return the one JSON form (CloudEvents 1.0); the work is done once per envelope."""
        try:
            known: bytes = self.__dict__["_encoded"]
            return known
        except KeyError:
            pass
        encoded = encode_json(self.cloud_event())
        cast("dict[str, object]", self.__dict__)["_encoded"] = encoded
        return encoded

    def cloud_event(self) -> CloudEvent:
        """Return the CloudEvents 1.0 form, with `data` as it came."""
        data, data_base64 = msgspec.Raw(self.data), None
        if self.content_type is not None:
            text = as_text(self.data, self.content_type)
            if text is not None:
                data = msgspec.Raw(encode_json(text))
            else:
                data, data_base64 = _NO_DATA, b64encode(self.data).decode()
        return CloudEvent(
            id=self.id,
            source=self.source,
            type=self.type,
            subject=self.subject,
            time=rfc3339(self.time_us) if self.time_us else None,
            datacontenttype=self.content_type,
            data=data,
            data_base64=data_base64,
            traceparent=self.traceparent or None,
            partitionkey=self.key,
            priority=self.priority,
            replyto=self.reply_to,
            inreplyto=self.in_reply_to,
            expirytime=None if self.expires_us is None else rfc3339(self.expires_us),
            hops=self.hops,
        )


def _content(data: object, content_type: str) -> bytes:
    """Return the bytes of data that is not JSON."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str) and read_media_type(content_type).is_utf8:
        return data.encode()
    raise InvalidError(
        f"data of type {content_type!r} is bytes, or a text where that is UTF-8, "
        f"not {type(data).__name__}"
    )


_NO_DATA: Final = msgspec.Raw(b"")
"""In the place of `data` where `data_base64` has it; as the default, it is left out."""


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON form of an envelope. Extension names are lower case, as CloudEvents wants."""

    specversion: str | None = None
    id: str
    source: str
    type: str
    subject: str
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = _NO_DATA
    data_base64: str | None = None
    traceparent: str | None = None
    partitionkey: str | None = None
    priority: int | None = None
    replyto: str | None = None
    inreplyto: str | None = None
    expirytime: str | None = None
    hops: int | None = None

    def __post_init__(self) -> None:
        """Fill what is constant, nearly; `omit_defaults` would leave it out as a default."""
        if self.specversion is None:
            msgspec.structs.force_setattr(self, "specversion", "1.0")
        if self.datacontenttype is None:
            msgspec.structs.force_setattr(self, "datacontenttype", "application/json")
