"""Answers about the hub itself, as types; see `shapes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hubbub.adapters import AdapterState
from hubbub.net import DialState
from hubbub.plugins import PluginState
from hubbub.web.shapes import Count, Next, Time

__all__ = [
    "AdapterList",
    "AdapterPart",
    "AdapterView",
    "AuditEntry",
    "AuditList",
    "Box",
    "DialView",
    "Health",
    "HubPart",
    "NewTokenView",
    "Part",
    "Parts",
    "PluginPart",
    "Published",
    "Readiness",
    "SpanView",
    "Stats",
    "StoreStats",
    "TokenList",
    "TokenView",
    "Trace",
]


class TokenView(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of a token; never the token itself."""

    id: str
    name: str
    scopes: list[str]
    created_at: Time
    expires: Time | None
    revoked_at: Time | None


class TokenList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of tokens."""

    items: list[TokenView]
    next: Next


class NewTokenView(msgspec.Struct, forbid_unknown_fields=True):
    """A new token, shown this once."""

    id: str
    name: str
    scopes: list[str]
    expires: Time | None
    token: str


class SpanView(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One step of a trace."""

    name: str
    at: Time
    took_ms: float
    span_id: str | None = None
    envelope: str | None = None
    endpoint: str | None = None
    detail: dict[str, Any] = {}


class Trace(msgspec.Struct, forbid_unknown_fields=True):
    """All steps of a trace, in order."""

    trace_id: str
    spans: list[SpanView]


class AuditEntry(msgspec.Struct, forbid_unknown_fields=True):
    """An administrative act."""

    at: Time
    principal: str
    act: str
    target: str
    detail: str


class AuditList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of administrative acts."""

    items: list[AuditEntry]
    next: Next


class DialView(msgspec.Struct, forbid_unknown_fields=True):
    """A link that an adapter dials."""

    url: Annotated[str, Meta(description="without user, password and values of its query")]
    state: DialState
    reason: str | None
    failures: Annotated[Count, Meta(description="attempts and links in a row that did not last")]


class AdapterView(msgspec.Struct, forbid_unknown_fields=True):
    """An adapter that is enabled."""

    name: str
    state: AdapterState
    reason: str | None
    required: bool
    listen: list[str]
    dials: list[DialView]


class AdapterList(msgspec.Struct, forbid_unknown_fields=True):
    """Adapters that are enabled."""

    items: list[AdapterView]
    next: Next


class Published(msgspec.Struct, forbid_unknown_fields=True):
    """Envelopes since the start."""

    accepted: Count
    refused: Count
    unrouted: Count
    per_second: Annotated[float, Meta(description="accepted, over the last minute", ge=0)]


class Box(msgspec.Struct, forbid_unknown_fields=True):
    """A mailbox and what waits in it."""

    mailbox: str
    waiting: Count


class StoreStats(msgspec.Struct, forbid_unknown_fields=True):
    """The store."""

    kind: str
    bytes: int | None


class Stats(msgspec.Struct, forbid_unknown_fields=True):
    """Counts that operators want."""

    version: str
    hub: str
    state: str
    at: Time
    uptime_s: Annotated[float, Meta(ge=0)]
    envelopes: Published
    deliveries: dict[str, Count]
    waiting: Count
    in_flight: Count
    mailboxes: list[Box]
    endpoints: dict[str, Count]
    tasks: dict[str, Count]
    routes: Count
    store: StoreStats


class Health(msgspec.Struct, forbid_unknown_fields=True):
    """The process answers."""

    status: Literal["alive"]
    version: str


class HubPart(msgspec.Struct, forbid_unknown_fields=True):
    """The hub itself."""

    state: str


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """One part of the hub."""

    state: str
    reason: str | None


class AdapterPart(Part, forbid_unknown_fields=True):
    """One adapter."""

    required: bool


class PluginPart(msgspec.Struct, forbid_unknown_fields=True):
    """One plugin."""

    state: PluginState
    reason: str | None


class Parts(msgspec.Struct, forbid_unknown_fields=True):
    """Every part of the hub."""

    hub: HubPart
    store: Part
    adapters: dict[str, AdapterPart]
    plugins: dict[str, PluginPart]


class Readiness(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Whether the hub takes messages, and who keeps it from that."""

    status: Literal["ready", "not ready"]
    parts: Parts
    culprits: list[str] = []
