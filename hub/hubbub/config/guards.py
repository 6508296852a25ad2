"""`[[guards.endpoint]]` and `[[guards.source]]`: what one address may do, or may be asked to do."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from hubbub.config.routes import Pattern
from hubbub.config.settings import Settings
from hubbub.config.units import Duration, Size
from hubbub.guards import BreakerRule, GuardRule

__all__ = ["EndpointGuardSettings", "GuardsSettings", "SourceGuardSettings"]


class GuardSettings(Settings):
    """What guards of endpoints and of sources have in common."""

    match: Pattern = Field(
        description="Pattern of addresses; each of them is guarded for itself, by the first entry "
        "that covers it."
    )
    rate: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Envelopes per second in the long run; 0 is no limit.",
    )
    burst: int = Field(
        default=0, ge=0, description="Envelopes at once; 0 is as many as one second has."
    )
    concurrency: int = Field(
        default=0, ge=0, description="Envelopes under way at once; 0 is no limit."
    )
    size: Size = Field(default=0, description="Largest data of an envelope; 0 is no limit.")

    @model_validator(mode="after")
    def _bursts_at_a_rate(self) -> Self:
        if self.burst and not self.rate:
            raise ValueError("burst is of a rate; give rate too")
        return self


class EndpointGuardSettings(GuardSettings):
    """What endpoints are handed, beside what they say of themselves."""

    breaker_failures: int = Field(
        default=0,
        ge=0,
        description="Failed attempts in a row after which the endpoint is left alone for a while; "
        "0 is no matter how many.",
    )
    breaker_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The same for a share of failed attempts within `breaker_window`; 0 is off.",
    )
    breaker_calls: int = Field(
        default=20, ge=1, description="Attempts there must be before their share counts."
    )
    breaker_window: Duration = Field(
        default=30.0, gt=0, description="How long attempts are counted for the share."
    )
    breaker_open: Duration = Field(
        default=30.0,
        gt=0,
        description="How long the endpoint is left alone before one envelope is tried; twice as "
        "long each time that fails.",
    )
    breaker_open_max: Duration = Field(
        default=300.0, gt=0, description="How long it is left alone at most."
    )

    @model_validator(mode="after")
    def _opens_in_order(self) -> Self:
        if self.breaker_open > self.breaker_open_max:
            raise ValueError(
                "breaker_open is longer than breaker_open_max; lower it, or raise breaker_open_max"
            )
        return self

    def rule(self) -> GuardRule:
        """Return the entry as a value."""
        breaker = BreakerRule(
            failures=self.breaker_failures,
            ratio=self.breaker_ratio,
            calls=self.breaker_calls,
            window_s=self.breaker_window,
            open_s=self.breaker_open,
            open_max_s=self.breaker_open_max,
        )
        return GuardRule(
            match=self.match,
            rate_per_s=self.rate,
            burst=self.burst,
            concurrency=self.concurrency,
            size_bytes=self.size,
            breaker=breaker if breaker.failures or breaker.ratio else None,
        )


class SourceGuardSettings(GuardSettings):
    """What sources may publish, and how often they may be connected."""

    connections: int = Field(
        default=0,
        ge=0,
        description="Streams of the hub's own API that are open at once; 0 is no limit.",
    )

    def rule(self) -> GuardRule:
        """Return the entry as a value."""
        return GuardRule(
            match=self.match,
            rate_per_s=self.rate,
            burst=self.burst,
            concurrency=self.concurrency,
            size_bytes=self.size,
            connections=self.connections,
        )


class GuardsSettings(Settings):
    """Guards, by address."""

    endpoint: tuple[EndpointGuardSettings, ...] = Field(
        default=(), description="What endpoints are handed; the first that covers one holds."
    )
    source: tuple[SourceGuardSettings, ...] = Field(
        default=(), description="What sources may publish; the first that covers one holds."
    )
