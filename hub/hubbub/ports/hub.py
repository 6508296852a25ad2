"""What plugins and adapters see of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from hubbub.envelope import Envelope
from hubbub.errors import HubError
from hubbub.ports.credentials import Credentials
from hubbub.ports.engine import Kept
from hubbub.ports.peers import Link, Listener
from hubbub.ports.records import Record, RowsOf
from hubbub.ports.time import Clock
from hubbub.ports.work import Work
from hubbub.values import Delivery, Endpoint, Principal, Receipt, Submission

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlmodel import Session
    from starlette.types import ASGIApp, Receive, Scope, Send

    from hubbub.config import Address, ClientTlsSettings, LimitSettings, Settings, TlsSettings
    from hubbub.failure_guards import CredentialGuard
    from hubbub.guards import GuardRule
    from hubbub.listeners import Connection, Datagrams
    from hubbub.net import Dial, DialPolicy, HeadersOf, WebSocketConnection
    from hubbub.observe.metrics import Metrics

T = TypeVar("T")
S = TypeVar("S", bound="Settings")

__all__ = ["HubApi"]


class HubApi(Protocol):
    """What plugins and adapters see of the hub."""

    @property
    def clock(self) -> Clock:
        """The hub's time."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The hub's metrics; an adapter adds its own, named `<adapter>_...`."""
        ...

    @property
    def work(self) -> Work:
        """The tasks."""
        ...

    @property
    def credentials(self) -> Credentials:
        """What is open by means of a credential, and ends with it."""
        ...

    @property
    def data_dir(self) -> Path:
        """The folder of the hub's files; an adapter keeps its own below its name."""
        ...

    @property
    def private_files(self) -> frozenset[Path]:
        """Files that nobody may be shown: the database, tokens, secrets, hub.toml."""
        ...

    def is_on_loopback(self, adapter: str) -> bool:
        """Tell whether all HTTP listeners that serve an adapter are bound to loopback.

        For what an adapter does not even start with elsewhere. Who calls is a question about each
        request: `hubbub.web.is_local`.
        """
        ...

    def settings(self, name: str, model: type[S]) -> S:
        """Return the `[adapters.<name>]` table, validated."""
        ...

    def plugin_settings(self, name: str, model: type[S]) -> S:
        """Return the `[plugins.<name>]` table, validated."""
        ...

    def attach(self, endpoint: Endpoint) -> Link:
        """Bring an endpoint here; attaching its address again closes the older link."""
        ...

    async def attach_for_good(self, endpoint: Endpoint) -> Link:
        """Attach an endpoint that is remembered over a restart, away until attached again."""
        ...

    def on_demand(
        self,
        prefix: str,
        make: Callable[[str], Endpoint | None],
        came: Callable[[Endpoint], None],
    ) -> Callable[[], None]:
        """Let addresses come into being when they are named: by a route, by `to`, for an answer.

        Only addresses that are named literally do, a pattern covers those that are there.

        Args:
            prefix: What they begin with, such as `relay.`.
            make: Gives the endpoint of an address: a new one, one that is known, or None. It
                bounds how many there are; it changes nothing, because dry runs ask it too.
            came: Told soon after it came into being, and attaches it; it is paused until then.

        Returns:
            What ends it.
        """
        ...

    def waiting(self, pattern: str) -> Sequence[str]:
        """Return the addresses a pattern covers for which something waits, also unknown ones."""
        ...

    def guard(self, rule: GuardRule) -> None:
        """Guard the endpoints a pattern covers, where hub.toml says nothing of them."""
        ...

    def task_defaults(
        self, adapter: str, *, attempts: int, timeout_s: float, queue_ttl_s: float
    ) -> None:
        """Say how hard to try with tasks for an adapter's endpoints, also while there are none.

        It holds where neither the asker, nor the route, nor the endpoint says.
        """
        ...

    async def submit(
        self,
        work: Submission,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put a task into the routing table; the same for all who ask, by whatever protocol.

        Args:
            principal: Who asks; None for the adapter itself, which may do everything.
            rows: Rows of the adapter's own tables to keep in the same commit.

        Returns:
            The receipt, when the task is safe; `task_id` is its name, `duplicate` says that it
            was submitted before.

        Raises:
            HubError: refused.
        """
        ...

    async def subscribe(self, endpoint: Endpoint, pattern: str, *, limit: int = 1000) -> None:
        """Give an endpoint a private route, which goes when the endpoint is gone.

        Args:
            limit: How many it may have.

        Raises:
            SubjectError: no pattern.
            ConflictError: it has too many already.
        """
        ...

    async def unsubscribe(self, endpoint: Endpoint, pattern: str) -> None:
        """Take a private route back.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def known(self, pattern: str) -> Sequence[Endpoint]:
        """Return all known endpoints an address or pattern covers, present or away."""
        ...

    @property
    def auth_failures(self) -> CredentialGuard:
        """What counts credentials that are not valid, and slows down who tries many."""
        ...

    def authenticate(self, token: str) -> Principal:
        """Return who an API token belongs to.

        Who is asked for one over a network tells `auth_failures` of each that is not known.

        Raises:
            UnauthorizedError: unknown, expired or revoked.
        """
        ...

    async def publish(
        self,
        envelope: Envelope,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put an envelope into the routing table; returns when it is safe.

        Args:
            principal: Who publishes; None for the adapter itself, which may do everything.
            rows: Rows of the adapter's own tables to keep in the same commit, given what was
                planned.

        Raises:
            HubError: refused.
        """
        ...

    def publish_soon(
        self,
        envelope: Envelope,
        *,
        principal: Principal,
        done: Callable[[Receipt | HubError], None],
    ) -> asyncio.Future[Any] | None:
        """Put an envelope into the routing table as `publish` does, without a coroutine.

        For what comes in great numbers from sockets.

        Args:
            done: Told the receipt once the envelope is safe, or why it was refused.

        Returns:
            What is under way; None when `done` was told before this returned.
        """
        ...

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live wants what is published there.

        For what is told again and again: without anybody who wants it, it need not be made.
        """
        ...

    def observe(
        self,
        *,
        accepted: Callable[[Envelope], None],
        ended: Callable[[Delivery], None],
    ) -> Callable[[], None]:
        """Look at every envelope that was accepted, and every delivery that has ended.

        For figures. Unlike the hooks these calls are on the path of messages without a fence: they
        take less than a microsecond and never raise.

        Returns:
            What ends it.
        """
        ...

    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Return a text in a language, by the first plugin that has it; None when none has."""
        ...

    async def request(self, envelope: Envelope, *, timeout_s: float) -> Envelope:
        """Publish and wait for one answer; nothing is stored.

        Raises:
            NoEndpointError: nobody is there.
            DeadlineError: no answer in time.
        """
        ...

    async def keep(self, record: Record) -> Kept:
        """Keep rows of the adapter's own, or a task that nobody asked for, in one commit.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        ...

    async def execute(
        self, *statements: tuple[Executable, list[dict[str, Any]]], patient: bool = False
    ) -> None:
        """Run statements on the adapter's own tables, off the path of messages.

        Args:
            patient: They may take longer than `store.timeout`, as clearing up does.
        """
        ...

    async def read(self, query: Callable[[Session], T], *, patient: bool = False) -> T:
        """Read from the store, on a thread of its own.

        Args:
            patient: It may take longer than `store.timeout`, as clearing up does.

        Raises:
            StoreUnavailableError: it cannot be read, or not in time.
        """
        ...

    async def database_bytes(self) -> int:
        """Return what the database takes on disk."""
        ...

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the one port does: for a path that an adapter calls otherwise.

        Raises:
            UnavailableError: the one port is not served yet.
        """
        ...

    async def audit(self, principal: str, act: str, target: str, detail: str = "") -> None:
        """Note an administrative act."""
        ...

    async def listen_tcp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Connection],
        *,
        limits: LimitSettings | None = None,
        tls: TlsSettings | Literal[False] | None = None,
    ) -> Listener:
        """Open a TCP address for an adapter, bound now and served once the hub is ready.

        While it cannot be had the adapter is `degraded`, and it is tried again. It is closed when
        the adapter has stopped.

        Args:
            name: Name of the adapter.
            make: Called for each connection.
            limits: None for those of the adapter's table.
            tls: None for that of the adapter's table, False for none.
        """
        ...

    async def listen_udp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Datagrams],
        *,
        limits: LimitSettings | None = None,
    ) -> Listener:
        """Open a UDP address for an adapter, in the same way."""
        ...

    async def listen_http(
        self,
        name: str,
        address: Address,
        app: ASGIApp,
        *,
        limits: LimitSettings | None = None,
        tls: TlsSettings | Literal[False] | None = None,
        retry: bool = True,
    ) -> Listener:
        """Open an HTTP address for an adapter, beside those of its `listen`.

        It is bound when this returns and served once the hub is ready. Requests of pages of other
        origins and by foreign names do not reach `app`, as everywhere. Closing the listener forgets
        it.

        Args:
            name: Name of the adapter.
            app: An ASGI application, given HTTP requests and WebSockets.
            limits: None for those of the adapter's table.
            tls: None for that of the adapter's table, False for none.
            retry: Whether an address that cannot be had is tried again, with the adapter
                `degraded` meanwhile; else this raises, and nothing is left.

        Raises:
            PortTakenError: it cannot be had, and is not to be tried again.
            TlsError: nor can its certificate be used.
        """
        ...

    def dial_websocket(
        self,
        name: str,
        url: str,
        make: Callable[[], WebSocketConnection],
        *,
        headers: HeadersOf | None = None,
        subprotocols: Sequence[str] = (),
        tls: ClientTlsSettings | None = None,
        frame: int | None = None,
        policy: DialPolicy | None = None,
    ) -> Dial:
        """Dial a WebSocket, again and again until it is closed or what asked for it has stopped.

        It begins once the hub is ready. What is secret in `url` (its query, user and password) and
        in headers is in no log. Nothing is compressed.

        Args:
            name: Name of the adapter or plugin.
            make: Called for each connection.
            headers: More headers of the handshake, or what gives them at each attempt, awaited
                where it has to be.
            subprotocols: Those that are offered.
            tls: Authorities and certificate for wss; None for the authorities of the system.
            frame: Largest message of the peer; None for that of the adapter's limits.
            policy: Backoff, deadlines, and who is told of changes; None for the usual.

        Raises:
            InvalidError: the URL or a header cannot be used.
            NotFoundError: no adapter or plugin has that name.
        """
        ...

    def dial_tcp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Connection],
        *,
        source: str | None = None,
        tls: ClientTlsSettings | None = None,
        limits: LimitSettings | None = None,
        policy: DialPolicy | None = None,
    ) -> Dial:
        """Dial a TCP address, in the same way.

        Args:
            source: Own address that connections come from.
            tls: None for no encryption.
            limits: None for those of the adapter's table; `frame` and `idle` count.
        """
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; it is ended when the hub stops."""
        ...
