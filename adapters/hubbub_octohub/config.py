"""The table `[adapters.octohub]` of hub.toml."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, model_validator

from hubbub.config import AdapterSettings, Duration, LimitSettings, Secret, Size, WebOrigin
from hubbub.guards import PasswordLimits

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

    ORIGINS_KEY: ClassVar[str | None] = "cors_origins"

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
        "the original's node holds for local requests only.",
    )
    ws_signature_key: Secret = Field(
        default=Secret(SHIPPED_WS_KEY),
        description="Key that signs WebSocket addresses; the one the original ships with holds for "
        "local requests only.",
    )
    allow_default_keys: bool = Field(
        default=False,
        description="Whether the two shipped keys hold for everybody; without it OctoHub does not "
        "start with them where other machines reach it.",
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
    login_failure_limit: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="Wrong passwords of one user from one source within `login_failure_window`; "
        "then logins are answered 429, and no password is looked at.",
    )
    login_failure_limit_per_source: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="The same from one source, of whatever users; not for a user who has logged in "
        "from there.",
    )
    login_failure_limit_per_user: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="The same of one user, from whatever sources; not at a source where that user "
        "has logged in.",
    )
    login_failure_window: Duration = Field(
        default=900.0, gt=0, description="See `login_failure_limit`."
    )
    cors_origins: tuple[WebOrigin, ...] = Field(
        default=("http://localhost:3000", "http://127.0.0.1:3000"),
        description="Web origins whose pages may use OctoHub's paths, beside those of "
        "`hub.origins`.",
    )
    callback_allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        default=(),
        description="Networks that are not public and yet may be a `callback_url`, such as "
        '"127.0.0.0/8".',
    )
    public_status: bool | None = Field(
        default=None,
        description="Whether `/status` is told without a token; unset it is to local requests.",
    )

    @property
    def password_limits(self) -> PasswordLimits:
        """The limits of logins."""
        return PasswordLimits(
            pair=self.login_failure_limit,
            source=self.login_failure_limit_per_source,
            user=self.login_failure_limit_per_user,
            window_s=self.login_failure_window,
            setting="adapters.octohub.login_failure_limit",
        )

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        """Let own listeners take the largest message, whatever `limits.frame` says by default."""
        if self.limits.frame < self.max_message_bytes:
            wider = self.limits.model_copy(update={"frame": self.max_message_bytes})
            object.__setattr__(self, "limits", wider)
        return self

    @property
    def frame_bytes(self) -> int:
        """The largest message of a WebSocket."""
        return self.max_message_bytes

    @property
    def sent_bytes(self) -> int:
        """The largest thing that a client may send at once."""
        return self.max_message_bytes
