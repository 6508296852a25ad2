"""What a node is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["SHIPPED_KEY", "NodeSettings"]

SHIPPED_KEY: Final = "mySignatureKey123456789012345"
"""The key that is built into the original's node. A hub takes it on loopback only."""

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_CONCURRENCY: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Where the hub is, who this is, and how patient it shall be. Times in seconds.

    Attributes:
        url: The hub, such as `https://hub.example.org` or `http://127.0.0.1:17680`.
        key: Signature key of the hub's octohub adapter; None for the shipped one, which holds
            where the hub is on this machine.
        journal: File in which results are kept until the hub has them, and the node's id.
        name: Id of the node; None for one that is made once and kept in the journal.
        labels: What tasks may ask for.
        concurrency: Tasks done at once.
        backoff_s: Wait after a first failure to connect; doubles each time.
        backoff_max_s: Longest such wait.
        stable_s: A connection that lasted so long was a good one: waits begin anew.
        resend_s: A result that the hub has not acknowledged in that time is sent again.
        grace_s: How long a stop waits for tasks under way, and then for acknowledgements.
        max_message_bytes: Largest frame; a larger result is a failure.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    journal: Path = Path("hubbub-node.db")
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    concurrency: int = 1
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    stable_s: float = 10.0
    resend_s: float = 60.0
    grace_s: float = 30.0
    max_message_bytes: int = 1024**2
    ping_s: float = 30.0
    ping_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: a value, and what to write instead.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"url {self.url!r} is no address of a hub; write http://HOST:PORT or https://HOST"
            )
        if self.key is None and parts.hostname not in LOOPBACK:
            raise ValueError(
                f"the hub at {parts.hostname} is on another machine; give the signature_key of its "
                "octohub adapter"
            )
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ValueError(
                f"concurrency is {self.concurrency}, it must be 1 to {MAX_CONCURRENCY}"
            )

    @property
    def signature_key(self) -> bytes:
        """The key as bytes."""
        return (SHIPPED_KEY if self.key is None else self.key).encode()

    @property
    def address_url(self) -> str:
        """Where the node asks for the address of its WebSocket."""
        return self.url.rstrip("/") + "/node/ws"
