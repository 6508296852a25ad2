"""Routes: which envelopes go to which endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Deliver", "Origin", "Route", "RouteCase"]

Deliver = Literal["all", "one", "sticky"]
"""How many of a route's endpoints get the envelope."""

Origin = Literal["file", "api", "plugin", "private"]
"""Where a route comes from; routes are read in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCase:
    """One `[[routes.test]]`: this envelope must go exactly there."""

    given: Mapping[str, object]
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule: which envelopes go to which endpoints, and how hard to try.

    Attributes:
        match: Subject pattern.
        to: Addresses or address patterns; `{subject.1}` is the second token of the subject.
        where: JSON paths and what must stand there; all must hold.
        where_cel: The same as a CEL expression; needs the `cel` extra.
        types: Envelope types it is for; empty for all. A fallback is also for types that can be
            converted to one of them.
        labels: Labels an endpoint must have.
        fallback: Only where no other route matched; private ones, subscriptions, do not count.
        hold_s: Seconds a durable envelope is kept when no endpoint is known yet.
        key: JSON path of the ordering key; None keeps the envelope's own.
        durable: None leaves it to the publisher and the source.
        attempts: None leaves it to the adapter and the core.
        timeout_s: Seconds one attempt may take; None as above.
        transform: `kind:argument` of a transform that a plugin registered.
        cases: Tests of the whole table that stand beside this route.
    """

    name: str
    match: str
    to: tuple[str, ...]
    where: Mapping[str, object] = field(default_factory=dict[str, object])
    where_cel: str | None = None
    types: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    deliver: Deliver = "all"
    fallback: bool = False
    hold_s: float = 0.0
    key: str | None = None
    durable: bool | None = None
    attempts: int | None = None
    timeout_s: float | None = None
    transform: str | None = None
    origin: Origin = "plugin"
    cases: tuple[RouteCase, ...] = ()

    def __post_init__(self) -> None:
        """Allow lists where tuples are kept, so that plugins may write either."""
        object.__setattr__(self, "to", tuple(self.to))
        object.__setattr__(self, "types", tuple(self.types))
