"""Bodies and parameters as the description of the API shows them, limits included.

The handlers read bodies with types of their own, which say in words what is wrong; these are for
whoever writes a client. A test compares their members.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from hubbub.envelope import EVENT
from hubbub.intake import MAX_TARGETS, MAX_TEXT
from hubbub.media import MAX_MEDIA_TYPE
from hubbub.subjects import MAX_SUBJECT, MAX_TOKENS
from hubbub.values import Deliver
from hubbub.web.calls import Parameter
from hubbub.web.pages import MAX_LIMIT

__all__ = [
    "CURSOR",
    "IDEMPOTENCY_KEY",
    "LIMIT",
    "SINCE",
    "SUBJECT",
    "TRACEPARENT",
    "UNTIL",
    "EnvelopeIn",
    "EventIn",
    "NewTokenIn",
    "ReplayIn",
    "ReplaySomeIn",
    "RequestIn",
    "RouteIn",
    "TaskIn",
    "choice_of",
    "text",
]

Subject = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_SUBJECT,
        pattern=rf"^[^.*>\s]+(\.[^.*>\s]+){{0,{MAX_TOKENS - 1}}}$",
        examples=["orders.eu"],
    ),
]
Pattern = Annotated[
    str, Meta(min_length=1, max_length=MAX_SUBJECT, examples=["orders.>", "plugin.desk"])
]
MediaType = Annotated[
    str, Meta(min_length=3, max_length=MAX_MEDIA_TYPE, description="application/json without it")
]
Base64 = Annotated[
    str,
    Meta(
        description="in the place of data, for bytes",
        extra_json_schema={"contentEncoding": "base64"},
    ),
]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Priority = Annotated[int, Meta(ge=0, le=9, description="9 first")]
Targets = Subject | Annotated[list[Subject], Meta(max_length=MAX_TARGETS)]
When = Annotated[str | float, Meta(description="RFC 3339, or a duration from now such as `10m`")]
Span = Annotated[str | float, Meta(description="such as `30s`; a number is seconds")]


class EnvelopeIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An envelope in the short form."""

    subject: Subject
    data: Any
    type: Text = EVENT
    key: Text | None = None
    priority: Priority = 5
    reply_to: str | None = None
    in_reply_to: Text | None = None
    to: Targets | None = None
    expires: When | None = None
    idempotency_key: Text | None = None
    durable: bool | None = None
    id: Text | None = None
    source: str | None = None
    traceparent: str | None = None


class RequestIn(EnvelopeIn, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An envelope that wants an answer."""

    timeout: Span = "30s"


class EventIn(msgspec.Struct, omit_defaults=True):
    """An envelope as a CloudEvent 1.0; unknown attributes are left out."""

    specversion: Literal["1.0"]
    subject: Subject
    type: Text = EVENT
    id: Text | None = None
    source: str | None = None
    datacontenttype: MediaType | None = None
    data: Any = None
    data_base64: Base64 | None = None
    partitionkey: Text | None = None
    priority: Priority = 5
    replyto: str | None = None
    inreplyto: Text | None = None
    to: Targets | None = None
    expirytime: str | None = None
    idempotencykey: Text | None = None
    durable: bool | None = None
    traceparent: str | None = None


class TaskIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A task that somebody wants done."""

    task_type: Text
    params: Any = {}
    text: str | None = None
    labels: dict[str, str] = {}
    to: Subject | None = None
    priority: Priority = 5
    timeout: Span | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    not_before: When | None = None
    retry_on_failure: bool = False
    task_id: (
        Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:\-]+$")] | None
    ) = None
    key: Text | None = None
    reply_to: str | None = None
    expires: When | None = None


class RouteCaseIn(msgspec.Struct, forbid_unknown_fields=True):
    """A test of the table."""

    given: dict[str, Any]
    to: list[str]


class RouteIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A route: the `[[routes]]` entry of hub.toml as JSON, without its name."""

    match: Pattern
    to: Annotated[list[Pattern], Meta(min_length=1)]
    where: dict[str, Any] = {}
    where_cel: str | None = None
    types: list[str] = []
    labels: dict[str, str] = {}
    deliver: Deliver = "all"
    fallback: bool = False
    hold: Span = 0
    key: str | None = None
    durable: bool | None = None
    attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    timeout: Span | None = None
    transform: str | None = None
    test: list[RouteCaseIn] = []


class NewTokenIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A token that somebody wants."""

    name: Text
    scopes: Annotated[list[str], Meta(min_length=1, max_length=100)]
    expires: When | None = None


class ReplayIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a replay may change: with `data` it is a new envelope."""

    data: Any = None


class ReplaySomeIn(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which dead deliveries to replay, and how."""

    endpoint: str | None = None
    route: str | None = None
    reason: str | None = None
    subject: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    rate: Annotated[float, Meta(gt=0)] | None = None
    dry_run: bool = False
    all: Annotated[bool, Meta(description="needed where no filter is given, and only there")] = (
        False
    )


def text(name: str, says: str) -> Parameter:
    """Return a parameter that is a text."""
    return Parameter(name, says, {"type": "string"})


def choice_of(name: str, says: str, values: list[str]) -> Parameter:
    """Return a parameter that has a few possible values."""
    return Parameter(name, says, {"type": "string", "enum": values})


LIMIT: Final = Parameter(
    "limit",
    "Items of one page.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100},
)
CURSOR: Final = text("cursor", "`next` of the page before.")
SINCE: Final = text("since", "RFC 3339, or a duration before now such as `1h`.")
UNTIL: Final = text("until", "RFC 3339, or a duration before now such as `1h`.")
SUBJECT: Final = text("subject", "A pattern: `*` is one token, a final `>` the rest.")
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "Names the act of sending, so that it may be repeated.",
    {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": "^[ -~]+$"},
    "header",
)
TRACEPARENT: Final = Parameter(
    "traceparent", "W3C trace context that the message joins.", {"type": "string"}, "header"
)
