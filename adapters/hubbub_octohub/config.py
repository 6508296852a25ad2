"""The table `[adapters.octohub]` of hub.toml."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from hubbub.config import AdapterSettings, Duration, LimitSettings, Secret, Size

__all__ = ["SHIPPED_API_KEY", "SHIPPED_WS_KEY", "OctohubLimits", "OctohubSettings"]

SHIPPED_API_KEY: Final = "mySignatureKey123456789012345"
"""The key for asking for an address that is built into the original's node and API server."""

SHIPPED_WS_KEY: Final = "your-secret-key-here"
"""The key for WebSocket addresses that the original's server ships with."""

SECRET_BYTES: Final = 32
"""Shortest key of HMAC-SHA256 that is as strong as it can be (RFC 7518, 3.2)."""


def _prefix(text: str) -> str:
    if text and (not text.startswith("/") or text.endswith("/") or "{" in text):
        raise ValueError('should be empty, or begin with "/" and not end with it, such as "/api"')
    return text


def _ws_url(text: str) -> str:
    if text and not text.startswith(("ws://", "wss://")):
        raise ValueError('should begin with ws:// or wss://, such as "wss://hub.example.org"')
    return text.rstrip("/")


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


class OctohubLimits(LimitSettings):
    """What one of the adapter's own listeners takes; a node is a connection that stays."""

    connections: int = Field(
        default=11_000, ge=1, description="Open connections of one listener at once."
    )


class OctohubSettings(AdapterSettings):
    """OctoHub nodes and users."""

    limits: OctohubLimits = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default=OctohubLimits(), description="What each of its own listeners takes."
    )
    api_prefixes: tuple[Annotated[str, AfterValidator(_prefix)], ...] = Field(
        default=("", "/api"),
        min_length=1,
        description="What stands before `/node/ws`, `/user/...` and `/login/login`.",
    )
    signature_key: Secret = Field(
        default=Secret(SHIPPED_API_KEY),
        description="Key with which nodes sign the request for their address; the one built into "
        "the original's node holds on loopback only.",
    )
    ws_signature_key: Secret = Field(
        default=Secret(SHIPPED_WS_KEY),
        description="Key that signs WebSocket addresses; the one the original ships with holds on "
        "loopback only.",
    )
    allow_default_keys: bool = Field(
        default=False,
        description="Whether the two shipped keys may be used where other machines reach the hub.",
    )
    signature_window: Duration = Field(
        default=300.0, gt=0, description="How far a signed time may be off, to either side."
    )
    nonce_cache: bool = Field(
        default=True, description="Whether a signed request for an address works only once."
    )
    one_time_urls: bool = Field(
        default=True, description="Whether an address that the hub gave works only once."
    )
    split_keys: bool = Field(
        default=False,
        description="Whether addresses of nodes and of users are signed with different keys made "
        "of `ws_signature_key`; false where another server signs them too.",
    )
    public_ws_url: Annotated[str, AfterValidator(_ws_url)] = Field(
        default="",
        description="Where nodes reach the hub, such as `wss://hub.example.org`; when empty it is "
        "where they asked.",
    )
    max_connections: int = Field(
        default=10_000, ge=1, description="Nodes and users that are connected at once."
    )
    max_message_bytes: Size = Field(
        default=1024**2, ge=1, description="Largest message over WebSocket, and largest task."
    )
    queue_size: int = Field(
        default=256, ge=1, description="Frames that may wait to be written to one connection."
    )
    task_timeout: Duration = Field(
        default=300.0, gt=0, description="How long one attempt of a task may take on a node."
    )
    max_attempts: int = Field(default=3, ge=1, le=1000, description="Attempts of one task.")
    queue_ttl: Duration = Field(
        default=3600.0, description="How long a task waits for a node; 0 is without end."
    )
    legacy_task_types: tuple[str, ...] = Field(
        default=("default", "echo", "sleep"),
        description="What a node does that does not say what it does, as the original's do not.",
    )
    ready_wait: Duration = Field(
        default=1.0,
        description="How long a new node may take to say what it does before it gets tasks of "
        "`legacy_task_types`.",
    )
    node_retention: Duration = Field(
        default=7 * 86_400.0,
        description="How long what was said of a single node is kept when it is not seen any more; "
        "0 is for ever. What keeps a node out stays in any case.",
    )
    flap_limit: int = Field(
        default=3, ge=1, description="How often within `flap_window` a node may be taken over."
    )
    flap_window: Duration = Field(
        default=60.0, gt=0, description="See `flap_limit`; also how long it gets no address then."
    )
    jwt_secret: Secret = Field(
        default=Secret(""),
        description="Signs logins of users; without it each start of the hub makes a new one, and "
        "users log in again.",
    )
    jwt_ttl: Duration = Field(default=86_400.0, gt=0, description="How long a login holds.")
    cors_origins: tuple[str, ...] = Field(
        default=("http://localhost:3000", "http://127.0.0.1:3000"),
        description="Pages of which browsers may use the paths of users.",
    )
    callback_allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        default=(),
        description="Networks that are not public and yet may be a `callback_url`, such as "
        '"127.0.0.0/8".',
    )
    public_status: bool | None = Field(
        default=None,
        description="Whether `/status` is told without a token; unset it is where only this "
        "machine reaches the hub.",
    )

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        """Let own listeners take the largest message, whatever `limits.frame` says by default."""
        if self.limits.frame < self.max_message_bytes:
            wider = self.limits.model_copy(update={"frame": self.max_message_bytes})
            object.__setattr__(self, "limits", wider)
        return self

    @property
    def sent_bytes(self) -> int:
        """The largest thing that a client may send at once."""
        return self.max_message_bytes
