"""The hub without sockets: all rooms below the web, built, started and stopped in order.

It is what plugins and adapters see (`ports.HubApi`), what the web serves, and what the test kit
runs.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
import structlog
from sqlalchemy import insert
from sqlmodel import Session

from hubbub.adapters import Adapters
from hubbub.attachments import Attachment, Attachments
from hubbub.clock import Ids, SystemClock
from hubbub.config import (
    Address,
    Config,
    HubSettings,
    LimitSettings,
    Settings,
    TlsSettings,
)
from hubbub.contributions import Contributions
from hubbub.conversion import Conversions
from hubbub.delivery.room import DeliveryRoom
from hubbub.delivery.rules import DeliveryPolicy
from hubbub.delivery.work import WorkDesk
from hubbub.directory import Directory
from hubbub.engines.local import LocalEngine
from hubbub.envelope import PRESENCE, Envelope
from hubbub.errors import (
    ConfigError,
    ConflictError,
    DrainingError,
    HubError,
    NotFoundError,
    RouteError,
    UnavailableError,
)
from hubbub.extensions import Extensions
from hubbub.intake import Limits
from hubbub.listeners import Connection, Datagrams, Listeners, TcpListener, UdpListener
from hubbub.logtelling import LogTelling
from hubbub.meter import Meter
from hubbub.observe.logbook import LogBook
from hubbub.observe.metrics import Metrics, total_of
from hubbub.observe.tracing import Tracer
from hubbub.planning import Planner, TryHard
from hubbub.plugins import Plugin, Plugins
from hubbub.ports import Clock, HubApi, Kept, Record
from hubbub.preparing import Preparer
from hubbub.recovery import recover
from hubbub.retention import Retention
from hubbub.router import Router, RowsOf
from hubbub.routes import Routes
from hubbub.routing import RoutingTable
from hubbub.sources import Sources
from hubbub.store import sizes
from hubbub.store.database import Database
from hubbub.store.journal import Journal, Statement
from hubbub.store.reads import endpoints as endpoint_reads
from hubbub.store.reads import envelopes as envelope_reads
from hubbub.store.tables import AuditRow
from hubbub.subscriptions import Subscriptions
from hubbub.sweeper import Sweeper
from hubbub.tasks import read_result, request_envelope
from hubbub.tokens import ADMIN_FILE, Tokens
from hubbub.transforms import Transforms
from hubbub.values import (
    Delivery,
    Endpoint,
    Presence,
    PresenceState,
    Principal,
    Receipt,
    Route,
    Submission,
)
from hubbub.watchdog import Watchdog

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Core", "defaults_of", "limits_of", "policy_of"]

T = TypeVar("T")
S = TypeVar("S", bound=Settings)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TASKS_ROUTE: Final = Route(
    name="tasks: to any worker",
    match="tasks.*.request",
    to=(">",),
    deliver="one",
    fallback=True,
    origin="plugin",
)
"""Where a task goes when nobody said where: to any endpoint that takes it."""


def policy_of(hub: HubSettings) -> DeliveryPolicy:
    """Return how hard to try, and what mailboxes hold, as `[hub]` says."""
    return DeliveryPolicy(
        mailbox_limit=hub.mailbox_limit,
        overflow=hub.overflow,
        backoff_s=hub.backoff,
        backoff_max_s=hub.backoff_max,
        task_backoff_s=hub.task_backoff,
        timeout_s=hub.timeout,
        slot_grace_s=hub.slot_grace,
    )


def defaults_of(hub: HubSettings) -> TryHard:
    """Return what holds where neither asker, route nor adapter says, as `[hub]` says."""
    return TryHard(attempts=hub.attempts, timeout_s=hub.timeout, queue_ttl_s=hub.queue_ttl)


def limits_of(hub: HubSettings) -> Limits:
    """Return the limits of an envelope, as `[hub]` says."""
    return Limits(data_bytes=hub.max_body, data_depth=hub.data_depth)


class Core:
    """One hub: its rooms, and what plugins and adapters may do with them."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        safe: bool = False,
        environ: Mapping[str, str] = os.environ,
        book: LogBook | None = None,
    ) -> None:
        self.config = config
        self.book: Final = book or LogBook()
        self._environ = environ
        self.clock: Clock = clock or SystemClock()
        self.metrics: Final = Metrics()
        self.tracer: Final = Tracer()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended_observers: list[Callable[[Delivery], None]] = []
        hub = config.hub
        self.extensions: Final = Extensions(self)
        self.watchdog: Final = Watchdog(
            limit_s=hub.hook_limit, remember=self.extensions.remember_stuck
        )
        self.plugins: Final = Plugins(
            self.metrics,
            order=hub.plugins,
            safe=safe,
            budget_s=hub.hook_budget,
            watchdog=self.watchdog,
            off=self.extensions.plugin_off,
        )
        self.conversions: Final = Conversions()
        self.transforms: Final = Transforms(
            incomplete=lambda: any(plugin.state != "up" for plugin in self.plugins)
        )
        self.preparer: Final = Preparer(self.conversions, self.transforms)
        self.directory: Final = Directory(self.conversions)
        self.table: Final = RoutingTable(self.conversions.accepts, transforms=self.transforms)
        self.database: Final = Database(config.store_url, sync=config.store.sync, owner=hub.name)
        self.ids: Final = Ids(self.clock)
        self.journal: Final = Journal(self.database, metrics=self.metrics, settled=self._settled)
        self.engine: Final = LocalEngine(self.database, self.journal)
        self.adapters: Final = Adapters(
            clock=self.clock,
            metrics=self.metrics,
            spawn=self.spawn,
            stop_timeout_s=hub.drain_timeout,
            close_listeners=self._close_listeners,
        )
        self.listeners: Final = Listeners(
            clock=self.clock,
            spawn=self.spawn,
            told=self.adapters.lack,
            stop_timeout_s=hub.drain_timeout,
        )
        self.contributions: Final = Contributions(
            self.plugins,
            conversions=self.conversions,
            transforms=self.transforms,
            table=self.table,
            adapters=self.adapters,
            hub=self,
        )
        self.changed: Final[list[Callable[[], Awaitable[None]]]] = []
        self.accepted: Final = Meter()
        self.started_us: Final = self.clock.now_us()
        self.accepted.note(self.started_us, 0)
        self.reloading: Final = asyncio.Lock()
        self.subscriptions: Final = Subscriptions(self.table)
        self.tokens: Final = Tokens(self.database, self.journal, self.clock, self.ids)
        self.routes: Final = Routes(self.table, self.database, self.journal, self.clock)
        self.room: Final = DeliveryRoom(
            engine=self.engine,
            clock=self.clock,
            directory=self.directory,
            conversions=self.conversions,
            preparer=self.preparer,
            metrics=self.metrics,
            tracer=self.tracer,
            policy=policy_of(hub),
            spawn=self.spawn,
            after_delivery=self._after_delivery,
        )
        self.room.guard([entry.rule() for entry in config.guards.endpoint])
        self.attachments: Final = Attachments(
            directory=self.directory,
            room=self.room,
            subscriptions=self.subscriptions,
            journal=self.journal,
            clock=self.clock,
        )
        self.planner: Final = Planner(
            table=self.table,
            directory=self.directory,
            conversions=self.conversions,
            preparer=self.preparer,
            clock=self.clock,
            ids=self.ids,
            defaults=defaults_of(hub),
        )
        self.router: Final = Router(
            engine=self.engine,
            database=self.database,
            clock=self.clock,
            ids=self.ids,
            table=self.table,
            planner=self.planner,
            room=self.room,
            metrics=self.metrics,
            tracer=self.tracer,
            limits=limits_of(hub),
            sources=Sources(hub.publish_rate, [entry.rule() for entry in config.guards.source]),
        )
        self.work: Final = WorkDesk(self.room, self.database)
        self.retention: Final = Retention(
            config.store,
            dedupe_window_s=hub.dedupe_window,
            database=self.database,
            journal=self.journal,
            clock=self.clock,
        )
        self.sweeper: Final = Sweeper(
            room=self.room,
            database=self.database,
            clock=self.clock,
            spawn=self.spawn,
            rarely=self._rarely,
        )
        self.telling: Final = LogTelling(self.book, self)
        self.app: ASGIApp | None = None
        self.new_admin_token: str | None = None
        self.finished: Final[Counter[str]] = Counter()
        self.state: str = "starting"
        self.directory.watch(self._presence)

    # Life

    async def start(self) -> None:
        """Load, open, recover and begin; nothing is accepted from outside before this returns.

        Raises:
            ConfigError: plugins' tables or routes of hub.toml are not valid.
            StoreOwnedError: another hub runs on the database.
        """
        self.watchdog.start()
        self.load(self.extensions.remembered())
        self.database.open()
        self.make_tables()
        self.ids.continue_after(self.database.read_now(envelope_reads.newest_seq))
        self.tokens.load()
        self.new_admin_token = self.tokens.admin(self.config.hub.data_dir, self._environ)
        await self.engine.start()
        self.routes.load()
        for endpoint, patterns in self.database.read_now(endpoint_reads.retained):
            self.attachments.away(self.directory.put(endpoint, PresenceState.OFFLINE))
            for pattern in patterns:
                self.subscriptions.add(endpoint.address, pattern, limit=len(patterns))
        await recover(self.room, self.database, self.engine, self.journal)
        self.router.before_route = self.plugins.before_route
        self.sweeper.start()
        await self.plugins.startup(self.hub_for)
        self.telling.start()
        await self.adapters.start()
        await self.listeners.begin()
        self.state = "ready"

    def load(self, states: Mapping[str, tuple[str, str]] | None = None) -> None:
        """Load plugins and all that hub.toml and they say, without touching the store.

        Args:
            states: State and reason of plugins that shall stay off.

        Raises:
            ConfigError: a table or a route is not valid.
        """
        self.plugins.load(states=states)
        problems = self.contributions.read_adapters(self.config)
        problems = self.contributions.check_sections(self.config) + problems
        if problems:
            raise ConfigError(problems)
        self.contributions.read_converters()
        self.contributions.read_transforms()
        self._read_routes()

    async def drain(self) -> None:
        """Take nothing new; wait for what is in flight, up to `drain_timeout`."""
        self.state = "draining"
        self.listeners.close()
        self.router.draining = True
        self.work.close()
        self.sweeper.stop()
        await self.adapters.pause_peers()
        await self.room.lifecycle.drain(self.config.hub.drain_timeout)
        await self.adapters.close_peers()

    async def stop(self) -> None:
        """End all rooms in order; what was acknowledged is written."""
        if self.state not in ("draining", "stopped"):
            await self.drain()
        await self.adapters.stop()
        await self.listeners.stop()
        await self.extensions.ended()
        await self.plugins.shutdown(self.hub_for)
        self.telling.stop()
        self.room.timers.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.stop()
        self.database.close()
        self.watchdog.stop()
        self.state = "stopped"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; it is ended when the hub stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task.failed", error=f"{type(error).__name__}: {error}", exc_info=error)

    # What plugins and adapters may do (ports.HubApi)

    def attach(self, endpoint: Endpoint) -> Attachment:
        """Bring an endpoint here; attaching its address again closes the older link."""
        return self.attachments.attach(endpoint)

    async def attach_for_good(self, endpoint: Endpoint) -> Attachment:
        """Attach an endpoint that is remembered over a restart, away until it is attached again."""
        return await self.attachments.attach_for_good(endpoint)

    async def subscribe(self, endpoint: Endpoint, pattern: str, *, limit: int = 1000) -> None:
        """Give an endpoint a private route, which goes when the endpoint is gone."""
        await self.attachments.subscribe(endpoint, pattern, limit=limit)

    async def unsubscribe(self, endpoint: Endpoint, pattern: str) -> None:
        """Take a private route back."""
        await self.attachments.unsubscribe(endpoint, pattern)

    async def take_result(self, envelope: Envelope, *, by: str) -> Receipt:
        """Take the result of a task from the endpoint that was given it.

        Raises:
            NotFoundError: no such task.
            ConflictError: it was never given to this endpoint.
        """
        result = read_result(envelope)
        finished = await self.work.finish(result, by=by)
        if finished.task is None:
            raise NotFoundError(f"no task {result.task_id!r}")
        if finished.verdict == "stranger":
            raise ConflictError(f"task {result.task_id!r} was not given to {by!r}")
        return Receipt(
            id=envelope.id or self.ids.ulid(),
            trace_id=finished.task.trace_id,
            outcome="accepted",
            deliveries=1,
            duplicate=finished.verdict == "late",
            task_id=result.task_id,
        )

    async def publish(
        self,
        envelope: Envelope,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put an envelope into the routing table; returns when it is safe."""
        return await self.router.publish(envelope, principal=principal, rows=rows)

    async def submit(
        self,
        work: Submission,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put a task into the routing table; returns when it is safe."""
        return await self.router.publish(request_envelope(work), principal=principal, rows=rows)

    def task_defaults(
        self, adapter: str, *, attempts: int, timeout_s: float, queue_ttl_s: float
    ) -> None:
        """Say how hard to try with tasks for an adapter's endpoints, also while there are none."""
        self.planner.task_defaults[adapter] = TryHard(
            attempts=attempts, timeout_s=timeout_s, queue_ttl_s=queue_ttl_s
        )

    async def request(self, envelope: Envelope, *, timeout_s: float) -> Envelope:
        """Publish and wait for one answer; nothing is stored."""
        return await self.router.request(envelope, timeout_s=timeout_s)

    async def keep(self, record: Record) -> Kept:
        """Keep rows of an adapter's own, or a task that nobody asked for."""
        if self.router.draining:
            raise DrainingError
        return await self.engine.keep(record)

    async def execute(self, *statements: Statement) -> None:
        """Run statements on an adapter's own tables, off the path of messages."""
        await self.journal.execute(*statements)

    async def read(self, query: Callable[[Session], T]) -> T:
        """Read from the store, on a thread of its own."""
        return await self.database.read(query)

    async def audit(self, principal: str, act: str, target: str, detail: str = "") -> None:
        """Note an administrative act."""
        row = {
            "at_us": self.clock.now_us(),
            "principal": principal,
            "act": act,
            "target": target,
            "detail": detail,
        }
        await self.journal.execute((insert(AuditRow), [row]))

    def known(self, pattern: str) -> Sequence[Endpoint]:
        """Return all known endpoints an address or pattern covers, present or away."""
        return [known.endpoint for known in self.directory.members(pattern)]

    def authenticate(self, token: str) -> Principal:
        """Return who an API token belongs to.

        Raises:
            UnauthorizedError: unknown, expired or revoked.
        """
        return self.tokens.authenticate(token)

    def settings(self, name: str, model: type[S]) -> S:
        """Return the `[adapters.<name>]` table."""
        return self.config.section("adapters", name, model)

    def plugin_settings(self, name: str, model: type[S]) -> S:
        """Return the `[plugins.<name>]` table."""
        return self.config.section("plugins", name, model)

    async def listen_tcp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Connection],
        *,
        limits: LimitSettings | None = None,
        tls: TlsSettings | Literal[False] | None = None,
    ) -> TcpListener:
        """Open a TCP address for an adapter; while it is taken the adapter is degraded."""
        settings = self.adapters.get(name).settings
        listener = TcpListener(
            address,
            make,
            name=name,
            limits=limits or settings.limits,
            tls=settings.tls if tls is None else tls or None,
            clock=self.clock,
            metrics=self.metrics,
            spawn=self.spawn,
        )
        await self.listeners.open(
            name,
            listener,
            listener.serve,
            own_limits=limits is not None,
            own_tls=tls is not None,
        )
        return listener

    async def listen_udp(
        self,
        name: str,
        address: Address,
        make: Callable[[], Datagrams],
        *,
        limits: LimitSettings | None = None,
    ) -> UdpListener:
        """Open a UDP address for an adapter; while it is taken the adapter is degraded."""
        listener = UdpListener(
            address,
            make,
            name=name,
            limits=limits or self.adapters.get(name).settings.limits,
            clock=self.clock,
            metrics=self.metrics,
        )
        await self.listeners.open(name, listener, listener.serve, own_limits=limits is not None)
        return listener

    async def _close_listeners(self, name: str) -> None:
        await self.listeners.stop(name)

    @property
    def data_dir(self) -> Path:
        """The folder of the hub's files."""
        return self.config.hub.data_dir

    @property
    def private_files(self) -> frozenset[Path]:
        """Files that nobody may be shown: the database, tokens, secrets, hub.toml."""
        kept = {self.data_dir / ADMIN_FILE, *self.config.private_files}
        if named := self._environ.get("HUBBUB_ADMIN_TOKEN_FILE"):
            kept.add(Path(named))
        if self.database.path is not None:
            kept.add(self.database.path)
        return frozenset(path.resolve() for path in kept)

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live wants what is published there."""
        return self.state == "ready" and self.router.wanted(subject, envelope_type)

    def observe(
        self,
        *,
        accepted: Callable[[Envelope], None],
        ended: Callable[[Delivery], None],
    ) -> Callable[[], None]:
        """Look at every envelope that was accepted, and every delivery that has ended."""
        self._ended_observers.append(ended)
        forget = self.router.tap(accepted, quiet=True)

        def end() -> None:
            self._ended_observers.remove(ended)
            forget()

        return end

    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Return a text in a language, by the first plugin that has it; None when none has."""
        return self.plugins.translate(key, args, locale)

    async def database_bytes(self) -> int:
        """Return what the database takes on disk."""
        return await self.read(sizes.database_bytes)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the one port does."""
        if self.app is None:
            raise UnavailableError("the hub serves no paths yet; try again when it is ready")
        await self.app(scope, receive, send)

    @property
    def loopback(self) -> bool:
        """Whether the one port is reachable from this machine only."""
        return self.config.hub.host in ("127.0.0.1", "::1", "localhost")

    def hub_for(self, plugin: Plugin) -> HubApi:
        """Return the hub as one plugin sees it."""
        return self.contributions.hub_for(plugin)

    def keep_config(self, config: Config) -> None:
        """Go on with another configuration; whoever reads settings at every use has it now."""
        self.config = config

    async def say_changed(self) -> None:
        """Tell whoever serves them that plugins, adapters or their tables have changed."""
        for changed in tuple(self.changed):
            await changed()

    # Inside

    def _settled(self, ids: Sequence[int]) -> None:
        self.engine.settled(ids)

    def _after_delivery(self, delivery: Delivery) -> None:
        if delivery.task is not None and delivery.task.state.final:
            self.finished[delivery.task.state] += 1
        for observer in self._ended_observers:
            observer(delivery)
        hook = self.plugins.after_delivery
        if hook is not None:
            hook(delivery)

    def _presence(self, presence: Presence) -> None:
        """Publish a change of presence, if anybody wants to know."""
        subject = f"presence.{presence.endpoint}"
        if self.state != "ready" or not self.router.wanted(subject, PRESENCE):
            return
        envelope = Envelope.new(
            source="hub.directory",
            subject=subject,
            type=PRESENCE,
            data=msgspec.to_builtins(presence),
            durable=False,
        )
        self.spawn(self._say(envelope))

    async def _say(self, envelope: Envelope) -> None:
        try:
            await self.router.publish(envelope)
        except HubError as error:
            log.warning("hub.unsaid", subject=envelope.subject, error=str(error))

    def _read_routes(self) -> None:
        problems: list[str] = []
        for index, settings in enumerate(self.config.routes):
            try:
                self.table.put(settings.route())
            except RouteError as error:
                problems.append(f"{self.config.place('routes', index)}: {error}")
        if problems:
            raise ConfigError(problems)
        self.contributions.read_routes()
        self.table.put(TASKS_ROUTE)

    def make_tables(self, *, only: Plugin | None = None) -> None:
        """Make the tables that plugins bring, or one of them, where they are missing."""
        for plugin, models in self.plugins.collect("tables", only=only):
            foreign = [m for m in models if not str(m.__tablename__).startswith(plugin.name + "_")]
            if foreign:
                self.plugins.fail(plugin, f"table {foreign[0].__tablename__!r} is not its own")
            else:
                self.database.create(models)

    async def _rarely(self) -> None:
        self.accepted.note(self.clock.now_us(), total_of(self.metrics.envelopes_accepted))
        await self.retention.sweep()
        self.contributions.forget_owners(lambda address: self.directory.get(address) is not None)
        self.room.boxes.forget_idle(needed=lambda name: self.directory.get(name) is not None)
