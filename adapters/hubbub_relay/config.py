"""The table `[adapters.relay]` of hub.toml."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field

from hubbub.config import AdapterSettings, Duration, Secret, Settings, Size

__all__ = ["ALL_SCOPES", "KeySettings", "RelaySettings", "Scope"]

Scope = Literal["send", "callback", "work", "read", "admin"]

ALL_SCOPES: Final[tuple[Scope, ...]] = ("send", "callback", "work", "read")
"""What a key may do when its entry says nothing: everything but `admin`."""


def _path(prefix: str) -> str:
    if not prefix.startswith("/") or prefix.endswith("/") or "{" in prefix:
        raise ValueError('should begin with "/" and not end with it, such as "/api/relay"')
    return prefix


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


class KeySettings(Settings):
    """One API key and what it may do."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(min_length=1, max_length=64, description="Who it is for; shown in audits.")
    key: Secret = Field(description="The key itself, as clients send it.")
    scopes: tuple[Scope, ...] = Field(
        default=ALL_SCOPES,
        description="What it may do; `admin` may do everything, and is needed to clear the log.",
    )
    from_: tuple[str, ...] = Field(
        default=(),
        alias="from",
        description='Names it may speak as; all when empty. A "*" at the end covers the rest.',
    )
    to: tuple[str, ...] = Field(
        default=(), description="Names it may send to and take tasks of; all when empty."
    )
    cmd: tuple[str, ...] = Field(
        default=(), description="Commands of tasks it may send and take; all when empty."
    )
    callback_secret: Secret | None = Field(
        default=None,
        description="Signs the records posted to a `callback_url` of its tasks; without it, the "
        "key does.",
    )


class RelaySettings(AdapterSettings):
    """The relay: tasks and messages over HTTP, a log that everybody reads."""

    prefix: Annotated[str, AfterValidator(_path)] = Field(
        default="/api/relay", description="Path all its endpoints begin with."
    )
    api_keys: tuple[KeySettings, ...] = Field(
        default=(), repr=False, description="Keys of clients; two of them may be valid at once."
    )
    allow_default_key: bool = Field(
        default=False,
        description="Whether the key that the original ships with is taken from everybody; else "
        "it is from local requests, while there are no `api_keys`.",
    )
    public_read: bool | None = Field(
        default=None,
        description="Whether logs and task states are read without a key; unset they are by local "
        "requests.",
    )
    mirror_file: str = Field(
        default="",
        description="File that every log record is appended to, for workers that read "
        "`conversation_log.jsonl`; none when empty. Its mode is the umask's; in the data directory "
        "other users cannot reach it.",
    )
    max_body_bytes: Size = Field(default=1024**2, ge=1, description="Largest body of a request.")
    max_names: int = Field(
        default=10_000, ge=1, description="Distinct names in `from` and `to` that are remembered."
    )
    lease_seconds: Duration = Field(
        default=60.0, gt=0, description="How long a taken task is its worker's own."
    )
    max_attempts: int = Field(
        default=5, ge=1, le=1000, description="Leases of one task before it has failed."
    )
    stale_after: Duration = Field(
        default=86_400.0, gt=0, description="From when on a waiting task is counted as stale."
    )
    retention_days: int = Field(
        default=30, ge=0, description="Days a log record is kept; 0 is for ever."
    )
    archive_dir: str = Field(
        default="",
        description="Folder that old log records are written to, as compressed JSON lines, before "
        "they are removed; none when empty.",
    )
    callback_attempts: int = Field(
        default=8, ge=1, le=100, description="Posts of one record to its `callback_url`."
    )
    callback_allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        default=(),
        description="Networks that are not public and yet may be a `callback_url`, such as "
        '"127.0.0.0/8".',
    )

    @property
    def sent_bytes(self) -> int:
        """The largest thing that a client may send at once."""
        return self.max_body_bytes
