"""What every table of hub.toml has in common."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, ClassVar, Final, Self, TypeVar, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from hubbub.config.units import Address, Duration, Size, folder_of

__all__ = [
    "AdapterSettings",
    "ClientTlsSettings",
    "LimitSettings",
    "Settings",
    "TlsSettings",
    "adapter_model",
]

S = TypeVar("S", bound=BaseModel)

PER_SOURCE: Final = 100
"""Connections of one other machine, where `connections_per_source` is not set."""


class Settings(BaseModel):
    """One table of hub.toml; unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `port = true`, which pydantic reads as 1."""
        if isinstance(value, bool) and _is_number(cls.model_fields[info.field_name or ""]):
            raise ValueError("should be a number, not true or false")
        return value


def _is_number(field: FieldInfo) -> bool:
    """Tell whether a field is an int or a float, or may also be None."""
    kinds: set[object] = {*get_args(field.annotation)} or {field.annotation}
    return kinds <= {int, float, NoneType}


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return folder_of(info) / path


class TlsSettings(Settings):
    """How a listener speaks TLS; the files are read when it opens, cert and key at each reload."""

    cert: Annotated[Path, AfterValidator(_beside_the_file)] = Field(
        description="Certificate and what stands between it and a known authority, PEM; relative "
        "to the folder of hub.toml."
    )
    key: Annotated[Path, AfterValidator(_beside_the_file)] = Field(
        description="Its private key, PEM, without a password."
    )
    client_ca: Annotated[Path, AfterValidator(_beside_the_file)] | None = Field(
        default=None,
        description="Authorities, PEM; clients must then show a certificate of one of them.",
    )


class ClientTlsSettings(Settings):
    """How a link that the hub opens speaks TLS; the files are read at each attempt to connect."""

    ca: Annotated[Path, AfterValidator(_beside_the_file)] | None = Field(
        default=None,
        description="Authorities that the peer's certificate may be of, PEM; unset those of the "
        "system. Relative to the folder of hub.toml.",
    )
    cert: Annotated[Path, AfterValidator(_beside_the_file)] | None = Field(
        default=None, description="Certificate that is shown to the peer, PEM."
    )
    key: Annotated[Path, AfterValidator(_beside_the_file)] | None = Field(
        default=None, description="Its private key, PEM, without a password."
    )

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or none")
        return self


class LimitSettings(Settings):
    """What one listener takes; the rest is refused and counted, and nobody else notices."""

    connections: int = Field(
        default=1000, ge=1, description="Open connections of one listener at once."
    )
    connections_per_source: int | None = Field(
        default=None,
        ge=1,
        description="Those of one source among them, an IPv4 address or an IPv6 network of 64 "
        f"bits; unset it is {PER_SOURCE} for other machines and no limit for this one, where a "
        "proxy may be.",
    )
    rate_per_source: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="New connections of one source per second, of UDP its datagrams; 0 is no "
        "limit.",
    )
    frame: Size = Field(
        default=1024**2,
        ge=1,
        description="Largest frame: a line or packet over TCP, a datagram, a message over "
        "WebSocket.",
    )
    idle: Duration = Field(
        default=300.0,
        description="How long a connection stays while the peer owes bytes, or reads none of "
        "those that wait for it; 0 is for ever.",
    )


class AdapterSettings(Settings):
    """What every `[adapters.<name>]` table has; an adapter's own model adds to it.

    Attributes:
        ORIGINS_KEY: Its setting that lists web origins whose pages may call the adapter's own
            paths (`tuple[WebOrigin, ...]`); the hub reads it at every use.
    """

    ORIGINS_KEY: ClassVar[str | None] = None

    enabled: bool = Field(default=False, description="Whether the hub starts this adapter.")
    listen: tuple[Address, ...] = Field(
        default=(),
        description="More addresses that serve this adapter alone, beside the hub's one port; "
        "port 0 takes any free one.",
    )
    required: bool = Field(
        default=False, description="Whether the hub is not ready while this adapter is down."
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="What each listener of its own takes."
    )
    tls: TlsSettings | None = Field(
        default=None, description="TLS on its own listeners; none when it is not there."
    )

    @property
    def web_origins(self) -> tuple[str, ...]:
        """Web origins that may call the adapter's own paths, beside `hub.origins`."""
        origins: tuple[str, ...] = getattr(self, self.ORIGINS_KEY) if self.ORIGINS_KEY else ()
        return origins

    @property
    def sent_bytes(self) -> int:
        """The largest thing that one of the adapter's clients may send at once."""
        return self.limits.frame


@cache
def adapter_model(model: type[S]) -> type[S]:
    """Return the model of an adapter's table, with all that the hub itself reads of it."""
    if issubclass(model, AdapterSettings):
        return model
    both = cast("tuple[type, ...]", (model, AdapterSettings))
    return cast("type[S]", type(model.__name__, both, {"__doc__": model.__doc__}))
