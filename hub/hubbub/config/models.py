"""The tables of hub.toml that belong to the core."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from hubbub.config.guards import GuardsSettings
from hubbub.config.origins import HostName, Network, PublicUrl, WebOrigin
from hubbub.config.routes import Pattern, RouteSettings
from hubbub.config.settings import LimitSettings, Settings, TlsSettings
from hubbub.config.units import Duration, Secret, Size
from hubbub.values import Overflow

__all__ = [
    "CoreSettings",
    "EngineSettings",
    "HubSettings",
    "LogSettings",
    "PortLimits",
    "RetentionRule",
    "StoreSettings",
]

_MIB: Final = 1024**2
_DAY_S: Final = 86_400.0
_STORE_URL: Final = re.compile(r"(sqlite|postgresql)(\+[a-z0-9]+)?://.*", re.DOTALL)


def _one_token(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError("should be 1 to 64 letters, digits, '-' or '_', such as \"hub-1\"")
    return name


class PortLimits(LimitSettings):
    """What the one port takes."""

    connections: int = Field(
        default=10_000, ge=1, description="Open connections of the one port at once."
    )


class HubSettings(Settings):
    """The hub itself: where it listens, and the limits of everything."""

    name: Annotated[str, AfterValidator(_one_token)] = Field(
        default="hub-1", description="Name of this hub; unique among hubs that share a store."
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of the one port; 0.0.0.0 opens it to every network.",
    )
    port: int = Field(
        default=17680,
        ge=0,
        le=65535,
        description="The one port: HTTP, WebSocket and Socket.IO of every adapter; 0 takes any "
        "free one.",
    )
    data_dir: Path = Field(
        default=Path("var"),
        description="Folder of the database, the admin token and logs; relative to the working "
        "directory.",
    )
    drain_timeout: Duration = Field(
        default=10.0, description="How long a stopping hub waits for results and acknowledgements."
    )
    plugins: tuple[str, ...] = Field(
        default=(),
        description="Third-party plugins to load, in this order; all that are installed when "
        "empty.",
    )
    origins: tuple[WebOrigin, ...] = Field(
        default=(),
        description="Web origins whose pages may call the hub beside its own, such as "
        "`https://app.example`; `null`, `file://` and `*` may be written. Any other `Origin` is "
        "refused with 403.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Further names in `Host` on listeners that are bound to loopback, else 421; "
        "loopback names and IP addresses always pass.",
    )
    public_url: PublicUrl = Field(
        default="",
        description="Where clients reach the hub, such as `https://hub.example.org`: its host is "
        "the hub's own. Set it behind a proxy: then nothing is open without a secret.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Addresses and networks of proxies whose forwarding headers name the client; "
        "what comes from them is never local.",
    )
    max_body: Size = Field(
        default=_MIB, ge=1, description="Largest body of a request and largest envelope."
    )
    memory: Size | None = Field(
        default=None,
        ge=_MIB,
        description="What messages may take that wait in memory, each counted once; unset it is "
        "512 MiB, or half of what the container allows if that is less. Over it slow readers miss "
        "something, then publishes are 503.",
    )
    batch_limit: int = Field(
        default=1000, ge=1, le=100_000, description="Members of one published batch."
    )
    data_depth: int = Field(
        default=64, ge=1, le=500, description="How deeply the data of an envelope may be nested."
    )
    publish_rate: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Envelopes one principal may publish per second; 0 is no limit.",
    )
    auth_failure_limit: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Tokens, keys and signatures of one source that may be wrong within "
        "`auth_failure_window`; then wrong ones are answered 429, valid ones are always taken. 0 "
        "is no limit.",
    )
    auth_failure_window: Duration = Field(
        default=300.0, gt=0, description="See `auth_failure_limit`."
    )
    dedupe_window: Duration = Field(
        default=_DAY_S,
        description="How long a given id or idempotency key means the same envelope.",
    )
    mailbox_limit: int = Field(
        default=100_000, ge=1, description="Deliveries that may wait in one mailbox."
    )
    overflow: Overflow = Field(
        default="refuse", description="What a full mailbox does with one delivery more."
    )
    attempts: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="Attempts of one delivery where neither route nor adapter says.",
    )
    timeout: Duration = Field(
        default=30.0,
        gt=0,
        description="How long one attempt may take where neither route nor adapter says.",
    )
    backoff: Duration = Field(
        default=1.0, gt=0, description="Wait before the second attempt; it doubles each time."
    )
    task_backoff: Duration = Field(
        default=2.0,
        gt=0,
        description="The same for a task: after a timeout, or a failure that is to be retried.",
    )
    backoff_max: Duration = Field(default=60.0, gt=0, description="Longest wait between attempts.")
    queue_ttl: Duration = Field(
        default=3600.0, description="How long a task waits for a worker; 0 is without end."
    )
    slot_grace: Duration = Field(
        default=60.0, description="How long a worker's slot stays taken after a task timed out."
    )
    stream_ttl: Duration = Field(
        default=_DAY_S,
        description="How long a durable stream keeps its mailbox while nobody is connected.",
    )
    hook_budget: Duration = Field(
        default=0.05, gt=0, description="How long one call of a plugin's hook may take."
    )
    hook_limit: Duration = Field(
        default=30.0,
        description="How long a plugin may hold the whole hub up before the process ends, to start "
        "again without that plugin; 0 is for ever.",
    )

    limits: PortLimits = Field(default=PortLimits(), description="What the one port takes.")
    tls: TlsSettings | None = Field(
        default=None, description="TLS on the one port; none when it is not there."
    )

    @model_validator(mode="after")
    def _backoff_is_in_order(self) -> Self:
        if self.backoff > self.backoff_max:
            raise ValueError("backoff is longer than backoff_max; lower it, or raise backoff_max")
        return self


class LogSettings(Settings):
    """What the hub writes to standard error and to `logs/hub.jsonl` of the data directory."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important level that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description='"auto" is "console" on a terminal, else "json".'
    )
    files: int = Field(
        default=7,
        ge=0,
        le=100,
        description="Files of JSON lines that are kept, the newest included; 0 writes none.",
    )
    file_size: Size = Field(
        default=20 * _MIB, ge=4096, description="Bytes of one such file; then a new one begins."
    )

    @field_validator("files")
    @classmethod
    def _one_is_too_few(cls, files: int) -> int:
        if files == 1:
            raise ValueError("should be 0 or at least 2: one is written while another is kept")
        return files


class RetentionRule(Settings):
    """What is kept of some subjects; the first rule whose pattern covers a subject holds."""

    subject: Pattern = Field(description="Subject pattern it is for.")
    age: Duration | None = Field(
        default=None, gt=0, description="How long; without it, `store.retention`."
    )
    count: int | None = Field(default=None, ge=1, description="How many envelopes at most.")
    bytes: Size | None = Field(default=None, ge=1, description="How many bytes at most.")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.age is None and self.count is None and self.bytes is None:
            raise ValueError("limits nothing; give age, count or bytes")
        return self


class StoreSettings(Settings):
    """Where messages are kept, and how long."""

    url: Secret = Field(
        default=Secret("sqlite:///{data_dir}/hub.db"),
        description="Database: SQLite, or `postgresql+psycopg://user:password@host/db`; "
        "`{data_dir}` is `hub.data_dir`. May be a secret file.",
    )
    sync: Literal["full", "normal"] = Field(
        default="full",
        description='"full" survives loss of power; "normal" a crash of the hub, and is faster.',
    )
    timeout: Duration = Field(
        default=3.0,
        ge=0.1,
        description="How long a statement of the journal or of a request may take; migrations, "
        "retention, VACUUM and backups take as long as they take.",
    )
    check: bool = Field(
        default=True,
        description="Look at all pages of a SQLite file at start, and do not start when some are "
        "damaged: 1 GiB takes 1 s from memory, 3 s from a slow disk.",
    )
    retention: Duration = Field(
        default=30 * _DAY_S, description="How long finished envelopes are kept; 0 is for ever."
    )
    retention_max_envelopes: int = Field(
        default=0, ge=0, description="How many finished envelopes are kept; 0 is no limit."
    )
    retention_max_bytes: Size = Field(
        default=0, description="How many bytes of finished envelopes are kept; 0 is no limit."
    )
    retention_rules: tuple[RetentionRule, ...] = Field(
        default=(), description="Other limits for some subjects; the first that covers one holds."
    )

    @field_validator("url")
    @classmethod
    def _is_a_database(cls, url: Secret) -> Secret:
        if not _STORE_URL.fullmatch(url.reveal()):
            raise ValueError(
                "is not a database URL; write sqlite:///path or "
                "postgresql+psycopg://user:password@host/database"
            )
        return url


class EngineSettings(Settings):
    """What keeps waiting messages and knows who is here."""

    kind: Literal["local", "nats"] = Field(
        default="local",
        description='"local": one hub; "nats", many hubs with one database, is still to come.',
    )
    url: Secret | None = Field(
        default=None, description='NATS server, `nats://host:4222`; for "nats" only.'
    )

    @model_validator(mode="after")
    def _knows_its_server(self) -> Self:
        if self.kind == "nats" and not self.url:
            raise ValueError('kind "nats" needs url, such as "nats://127.0.0.1:4222"')
        if self.kind == "local" and self.url is not None:
            raise ValueError('url is for kind = "nats" only; take it out, or set kind')
        return self


class CoreSettings(Settings):
    """hub.toml as a whole; tables of adapters and plugins unread."""

    hub: HubSettings = Field(default=HubSettings(), description="The hub itself.")
    log: LogSettings = Field(default=LogSettings(), description="What is logged, and how.")
    store: StoreSettings = Field(default=StoreSettings(), description="What is kept, and where.")
    engine: EngineSettings = Field(default=EngineSettings(), description="One hub or many.")
    guards: GuardsSettings = Field(
        default=GuardsSettings(),
        description="How much, how fast, and when to leave somebody alone.",
    )
    routes: tuple[RouteSettings, ...] = Field(
        default=(), description="The routing table of the file, in order."
    )
    adapters: dict[str, dict[str, object]] = Field(
        default_factory=dict[str, dict[str, object]],
        repr=False,
        description="Tables of adapters, each read when its adapter is loaded.",
    )
    plugins: dict[str, dict[str, object]] = Field(
        default_factory=dict[str, dict[str, object]],
        repr=False,
        description="Tables of plugins, each read when its plugin is loaded.",
    )
