"""The seams between the rooms, and between the hub and its plugins, as protocols."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from hubbub.envelope import Envelope
from hubbub.values import (
    Attempt,
    Delivery,
    Endpoint,
    Presence,
    Principal,
    Receipt,
    Requirement,
    Submission,
    Task,
    TaskResult,
)

if TYPE_CHECKING:
    from sqlalchemy import Executable, Table
    from sqlmodel import Session
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from hubbub.config import Address, LimitSettings, Settings, TlsSettings
    from hubbub.listeners import Connection, Datagrams
    from hubbub.observe.metrics import Metrics

T = TypeVar("T")
S = TypeVar("S", bound="Settings")

__all__ = [
    "Adapter",
    "Change",
    "Claim",
    "ClaimKind",
    "Clock",
    "Engine",
    "EngineLimits",
    "Finished",
    "HubApi",
    "Kept",
    "Leased",
    "Link",
    "Listener",
    "Planned",
    "Record",
    "Row",
    "Stored",
    "Timer",
    "Verdict",
    "Work",
]


class Timer(Protocol):
    """A call that has been asked for."""

    def cancel(self) -> None:
        """Take it back."""
        ...


class Clock(Protocol):
    """Where the hub's time comes from."""

    def now_us(self) -> int:
        """Return microseconds since the epoch; never steps back."""
        ...

    def call_at(self, time_us: int, callback: Callable[[], None]) -> Timer:
        """Call back once that time has come."""
        ...


Row = tuple["Table", tuple[object, ...]]
"""A row of an adapter's own table: all columns in order, but without an automatic key."""


ClaimKind = Literal["id", "key"]


class Claim(msgspec.Struct, frozen=True):
    """A caller's own id or idempotency key: the same one twice is the same act.

    Attributes:
        kind: `id` or `key`; a claim on the same name with another body is an error of that kind.
        body_hash: What was said, so that another body is noticed.
        answer: Receipt to give again, as JSON.
    """

    principal: str
    kind: ClaimKind
    name: str
    body_hash: bytes
    answer: bytes
    at_us: int


class Stored(msgspec.Struct, frozen=True):
    """An envelope with its place in the journal, and what came of it at publish."""

    envelope: Envelope
    seq: int
    reason: str | None = None
    """Why it is `unrouted`; None when it was routed."""


class Record(msgspec.Struct):
    """What must be kept whole or not at all.

    Attributes:
        tasks: New tasks; one that exists already refuses the whole record.
        reruns: Finished tasks that run again; kept only while their run is the one before.
        rows: Rows of adapters' own tables.
    """

    envelopes: list[Stored] = msgspec.field(default_factory=list[Stored])
    deliveries: list[Delivery] = msgspec.field(default_factory=list[Delivery])
    tasks: list[Task] = msgspec.field(default_factory=list[Task])
    reruns: list[Task] = msgspec.field(default_factory=list[Task])
    rows: list[Any] = msgspec.field(default_factory=list[Any])
    claims: tuple[Claim, ...] = ()

    def merge(self, other: Record) -> None:
        """Take in what another record holds, to be kept in the same commit."""
        self.envelopes += other.envelopes
        self.deliveries += other.deliveries
        self.tasks += other.tasks
        self.reruns += other.reruns
        self.rows += other.rows
        self.claims += other.claims


class Change(msgspec.Struct):
    """A new state of one delivery, counted only while it is not done.

    Attributes:
        delivery: As it shall be; copied when the change is handed over.
        attempt_is: Counts only while this is its attempt (a lease that is still mine).
        task: Its task as it shall be.
        attempt: Hand-over to add to the task's history.
        ended: How the attempt that was under way ended, for the task's history.
        error: Why, in the words of whoever said so.
        follows: Kept in the same commit, if the change counted.
        otherwise: Kept in the same commit, if it did not.
    """

    delivery: Delivery
    attempt_is: int | None = None
    task: Task | None = None
    attempt: Attempt | None = None
    ended: str | None = None
    error: str | None = None
    follows: Record | None = None
    otherwise: Record | None = None


class Planned(msgspec.Struct):
    """What the router made of one envelope.

    Attributes:
        record: To be kept before anybody is told.
        deliveries: To be put into mailboxes after that, volatile ones included.
        receipt: What the publisher gets.
    """

    record: Record
    deliveries: list[Delivery]
    receipt: Receipt


Verdict = Literal["kept", "known", "exists"]


class Kept(msgspec.Struct, frozen=True):
    """What came of a record: `kept`; `known` with the first answer; or its task `exists`."""

    verdict: Verdict
    claim: Claim | None = None


class EngineLimits(msgspec.Struct, frozen=True):
    """What an engine can do; `hubbub check` compares it with the configuration."""

    atomic_rows: bool = True
    by_rank: bool = True
    skip_keys: bool = True
    filters: bool = True


class Engine(Protocol):
    """Keeps what waits, knows who is here, wakes other hubs.

    Knows no route, no attempt policy, no protocol.
    """

    limits: EngineLimits

    def keep(
        self, record: Record, then: Callable[[Kept | None], None] | None = None
    ) -> Awaitable[Kept]:
        """Keep a record whole or not at all; safe on return.

        Args:
            then: Called after the commit, also when nobody waits any more; with None when
                nothing was kept.

        Raises:
            StoreUnavailableError: its fate is unknown and may be asked again.
        """
        ...

    async def take(
        self,
        box: str,
        *,
        limit: int,
        now_us: int,
        skip_keys: frozenset[str] = frozenset(),
        where: Requirement | None = None,
    ) -> Sequence[Delivery]:
        """Return waiting deliveries that are due, lowest rank first, and hold them."""
        ...

    def hold(self, delivery: Delivery) -> None:
        """This hub has it in memory: `take` gives it to nobody until it is settled or let go."""
        ...

    def holds(self, delivery_id: int) -> bool:
        """Tell whether this hub has a delivery in memory, or its end on the way to the store."""
        ...

    def let_go(self, delivery: Delivery) -> None:
        """This hub has it no longer in memory; it waits in the store."""
        ...

    async def settle(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Write changes; True for each one that counted."""
        ...

    def note(self, change: Change, then: Callable[[bool], None] | None = None) -> None:
        """Write a change that nobody waits for, with a next commit; kept until that succeeds.

        Args:
            then: Called after the commit, with whether the change counted.
        """
        ...

    def on_waiting(self, woken: Callable[[str], None]) -> None:
        """Call `woken(box)` soon after another hub kept something in that mailbox."""
        ...

    async def announce(self, presence: Presence) -> None:
        """Tell other hubs who is here."""
        ...

    def directory(self) -> AsyncIterator[Presence]:
        """Yield all that is known of other hubs' endpoints, then every change."""
        ...

    async def pass_on(self, hub: str, frame: bytes) -> bool:
        """Give a volatile frame to another hub; False when it is not there."""
        ...

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """Write what is left and end."""
        ...


class Leased(msgspec.Struct, frozen=True):
    """A task request that a pull worker took, and until when it is its own."""

    envelope: Envelope
    task_id: str
    attempt: int
    lease_until_us: int


class Finished(msgspec.Struct, frozen=True):
    """What became of a result.

    Attributes:
        verdict: `done`: it is the result. `late`: another one was first. `again`: the worker
            failed and the task waits for its next attempt. `unknown`: nobody asked for it.
            `stranger`: it comes from an endpoint that was never given the task.
        task: The task as it is now; None when it is unknown.
    """

    verdict: Literal["done", "late", "again", "unknown", "stranger"]
    task: Task | None


class Work(Protocol):
    """What workers and askers do with tasks."""

    async def lease(
        self,
        patterns: Sequence[str],
        *,
        worker: str,
        limit: int,
        lease_us: int,
        task_types: frozenset[str] | None = None,
        wait_us: int = 0,
    ) -> list[Leased]:
        """Take up to `limit` tasks that wait for pull endpoints, lowest rank first."""
        ...

    async def renew(self, task_id: str, *, worker: str | None, lease_us: int) -> int:
        """Move the end of a lease; returns it, microseconds since the epoch."""
        ...

    async def begin(self, task_id: str, *, worker: str, lease_us: int) -> bool:
        """Note that a worker does a task that waits, and that it has not taken; False if not."""
        ...

    async def finish(
        self,
        result: TaskResult,
        *,
        by: str,
        anyone: bool = False,
        rows: Sequence[Row] = (),
        late_rows: Sequence[Row] = (),
    ) -> Finished:
        """Take a result. The first final one counts; whoever comes later is told so."""
        ...

    async def cancel(self, task_id: str) -> Task:
        """Take a task back."""
        ...

    async def rerun(self, task_id: str, *, attempts: int | None = 1) -> Task:
        """Let a task that has ended run once more.

        Args:
            attempts: How many; None for as many as at first.
        """
        ...

    async def find(self, task_id: str) -> Task | None:
        """Return a task as it is now."""
        ...


class Link(Protocol):
    """One living attachment of an endpoint."""

    @property
    def slots(self) -> int:
        """Envelopes it takes at once; 0 pauses it."""
        ...

    @slots.setter
    def slots(self, slots: int) -> None: ...

    def refresh(self) -> None:
        """Its endpoint's labels or task types have changed: give it what is for it now."""
        ...

    @property
    def waiting(self) -> int:
        """Deliveries that wait for it in its own mailbox."""
        ...

    def close(self) -> None:
        """End this attachment only; a newer one of the same address stays."""
        ...


class Listener(Protocol):
    """An address that is listened on, or will be as soon as it can be had."""

    @property
    def kind(self) -> str:
        """`tcp`, `udp` or `http`."""
        ...

    @property
    def address(self) -> Address:
        """Where it listens; with its real port once it is bound."""
        ...

    @property
    def url(self) -> str:
        """Where it listens, as a URL."""
        ...

    def bind(self) -> None:
        """Take the address, without answering yet.

        Raises:
            HubError: it cannot be had, or its certificate cannot be used.
        """
        ...

    def change_limits(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on; who is inside stays."""
        ...

    def renew(self, tls: TlsSettings | None) -> bool:
        """Read the certificate again; False where only a new listener can do as `tls` says.

        Raises:
            HubError: its files cannot be used; the old ones still are.
        """
        ...

    def close(self) -> None:
        """Give the address free; connections stay."""
        ...

    async def stop(self, timeout_s: float) -> None:
        """Close, and end the connections: politely until then, at once after that."""
        ...


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
    def data_dir(self) -> Path:
        """The folder of the hub's files; an adapter keeps its own below its name."""
        ...

    @property
    def private_files(self) -> frozenset[Path]:
        """Files that nobody may be shown: the database, tokens, secrets, hub.toml."""
        ...

    @property
    def loopback(self) -> bool:
        """Whether the one port is reachable from this machine only."""
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
        rows: Callable[[Sequence[Delivery]], Iterable[Row]] | None = None,
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

    def authenticate(self, token: str) -> Principal:
        """Return who an API token belongs to.

        Raises:
            UnauthorizedError: unknown, expired or revoked.
        """
        ...

    async def publish(
        self,
        envelope: Envelope,
        *,
        principal: Principal | None = None,
        rows: Callable[[Sequence[Delivery]], Iterable[Row]] | None = None,
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

    async def execute(self, *statements: tuple[Executable, list[dict[str, Any]]]) -> None:
        """Run statements on the adapter's own tables, off the path of messages."""
        ...

    async def read(self, query: Callable[[Session], T]) -> T:
        """Read from the store, on a thread of its own."""
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

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; it is ended when the hub stops."""
        ...


class Adapter(Protocol):
    """A plugin object that speaks one protocol.

    Attributes:
        name: Its table in hub.toml, its label in metrics, the first token of its addresses.
    """

    name: str

    @property
    def Config(self) -> type[Settings]:  # noqa: N802  # a class; any subclass may stand there
        """Model of `[adapters.<name>]`."""
        ...

    async def start(self, hub: HubApi) -> None:
        """Begin; raises when it cannot, and is tried again."""
        ...

    async def stop(self) -> None:
        """End within the drain timeout."""
        ...


class PeerAdapter(Adapter, Protocol):
    """An adapter whose peers want to be told that the hub stops."""

    async def pause_peers(self) -> None:
        """The hub takes nothing new: tell peers that nothing more will come; acks still count."""
        ...

    async def close_peers(self) -> None:
        """What was under way has ended or was given back: close the connections."""
        ...


class HttpAdapter(Adapter, Protocol):
    """An adapter with paths of its own on the one port and on its listeners."""

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return its Starlette routes."""
        ...
