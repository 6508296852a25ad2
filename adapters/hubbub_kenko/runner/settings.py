"""What a runner is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

__all__ = ["RunnerSettings"]

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_FETCHED = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Where the hub is, who this is, and how patient it shall be. Times in seconds.

    Attributes:
        url: The hub, such as `https://hub.example.org`; with the path of its KenkoGo applications
            where that is not `/`.
        token: What `POST /api/kenko/runners/join-token` gave.
        folder: Where packages, processes and their output lie; of one runner only.
        access_token: What `access_token` of the hub's kenko adapter says; empty for none.
        backoff_s: Wait after a first failure to connect; doubles each time.
        backoff_max_s: Longest such wait.
        stable_s: A connection that lasted so long was a good one: waits begin anew.
        beat_s: How often it tells its load, which is also its heartbeat.
        gather_s: How long output is gathered before it is sent.
        fetch_s: How long a package may take.
        flush_s: How long a stop waits until the last output is sent.
    """

    url: str
    token: str = field(repr=False)
    folder: Path = Path("hubbub-runner")
    access_token: str = field(default="", repr=False)
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    stable_s: float = 10.0
    beat_s: float = 20.0
    gather_s: float = 0.1
    fetch_s: float = 300.0
    flush_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: a value, and what to write instead.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(
                f"url {self.url!r} is no address of a hub; write http://HOST:PORT or https://HOST"
            )
        if not self.token:
            raise ValueError(
                "a runner needs the token that POST /api/kenko/runners/join-token gave"
            )

    @property
    def socket_url(self) -> str:
        """Where applications connect."""
        parts = urlsplit(self.url)
        return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path or "/", "", ""))

    def url_of(self, path: str) -> str:
        """Return the URL of a path on the hub."""
        parts = urlsplit(self.socket_url)
        return f"{_FETCHED[parts.scheme]}://{parts.netloc}{path}"
