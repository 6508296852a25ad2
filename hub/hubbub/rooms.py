"""The rooms of a hub, built and wired: who is given what of whom."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from hubbub.adapters import Adapters
from hubbub.asking import Asking
from hubbub.attachments import Attachments
from hubbub.clock import Ids, SystemClock
from hubbub.config import AdapterSettings, Config, HubSettings
from hubbub.conversion import Conversions
from hubbub.credentials import CredentialRegistry
from hubbub.delivery.room import DeliveryRoom
from hubbub.delivery.rules import DeliveryPolicy
from hubbub.delivery.work import WorkDesk
from hubbub.directory import Directory
from hubbub.engines.local import LocalEngine
from hubbub.envelope import PRESENCE, Envelope
from hubbub.errors import HubError
from hubbub.intake import Limits
from hubbub.listeners import Listeners
from hubbub.meter import Meter
from hubbub.net.dials import Dials
from hubbub.observe.logbook import LogBook
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer
from hubbub.planning import Planner, TryHard
from hubbub.plugins import Plugin, Plugins, Shutdown
from hubbub.ports import Clock
from hubbub.preparing import Preparer
from hubbub.recovery import take_up
from hubbub.retention import Retention
from hubbub.rights import Rights
from hubbub.router import Router
from hubbub.routes import Routes
from hubbub.routing import RoutingTable
from hubbub.sources import Sources
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.subscriptions import Subscriptions
from hubbub.sweeper import Sweeper
from hubbub.tokens import Tokens
from hubbub.transforms import Transforms
from hubbub.values import Delivery, Presence
from hubbub.watchdog import Watchdog
from hubbub.workers import Workers

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Rooms", "defaults_of", "limits_of", "policy_of"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


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


def limits_of(hub: HubSettings, adapters: Iterable[AdapterSettings] = ()) -> Limits:
    """Return the limits of an envelope, as `[hub]` and the tables of adapters say."""
    sent_bytes = max(hub.max_body, hub.limits.frame, *(one.sent_bytes for one in adapters))
    return Limits(sent_bytes=sent_bytes, data_depth=hub.data_depth)


class Rooms:
    """All rooms of one hub, below the web, not yet started.

    Attributes:
        changed: Called when plugins, adapters or their tables have changed.
        finished: Tasks that ended since the start, by state.
        app: What the one port serves; None before it does.
        app_guard: Puts the rule of `request_trust` before an application of an adapter, given the
            adapter and whether its listener is bound to loopback; None in a hub without sockets.
        state: `starting`, `ready`, `draining` or `stopped`.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None,
        safe: bool,
        environ: Mapping[str, str] = os.environ,
        book: LogBook | None,
        plugin_off: Callable[[Plugin, Shutdown | None], None],
        remember_stuck: Callable[[str, str], None],
        rarely: Callable[[], Awaitable[None]],
    ) -> None:
        """Build them, the lower ones first.

        Args:
            safe: Leave out plugins of third parties.
            plugin_off: Called when a plugin is switched off.
            remember_stuck: Called on the watchdog's thread when a plugin holds the hub up.
            rarely: Called now and then, to clear up.
        """
        self.config = config
        self._environ = environ
        self.state: str = "starting"
        self.app: ASGIApp | None = None
        self.book: Final = book or LogBook()
        self.clock: Clock = clock or SystemClock()
        self.credentials: Final = CredentialRegistry(self.clock)
        self.metrics: Final = Metrics()
        self.tracer: Final = Tracer()
        self.changed: Final[list[Callable[[], Awaitable[None]]]] = []
        self.finished: Final[Counter[str]] = Counter()
        self.accepted: Final = Meter()
        self.started_us: Final = self.clock.now_us()
        self.accepted.note(self.started_us, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended_observers: list[Callable[[Delivery], None]] = []
        # Extensions
        hub = config.hub
        self.watchdog: Final = Watchdog(limit_s=hub.hook_limit, remember=remember_stuck)
        self.plugins: Final = Plugins(
            self.metrics,
            order=hub.plugins,
            safe=safe,
            budget_s=hub.hook_budget,
            watchdog=self.watchdog,
            off=plugin_off,
        )
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
        self.dials: Final = Dials(stop_timeout_s=hub.drain_timeout)
        self.app_guard: Callable[[str, ASGIApp, bool], ASGIApp] | None = None
        # Values and the store
        self.conversions: Final = Conversions()
        self.transforms: Final = Transforms(
            incomplete=lambda: any(plugin.state != "up" for plugin in self.plugins)
        )
        self.preparer: Final = Preparer(self.conversions, self.transforms)
        self.directory: Final = Directory(self.conversions)
        self.table: Final = RoutingTable(
            self.conversions.accepts,
            transforms=self.transforms,
            too_costly=self.metrics.conditions_skipped.inc,
        )
        self.subscriptions: Final = Subscriptions(self.table)
        self.database: Final = Database(
            config.store_url,
            sync=config.store.sync,
            owner=hub.name,
            timeout_s=config.store.timeout,
            check=config.store.check,
        )
        self.ids: Final = Ids(self.clock)
        self.journal: Final = Journal(
            self.database, metrics=self.metrics, settled=self._settled, unseen=self._unseen
        )
        self.engine: Final = LocalEngine(self.database, self.journal)
        self.tokens: Final = Tokens(
            self.database, self.journal, self.clock, self.ids, self.credentials
        )
        self.routes: Final = Routes(self.table, self.database, self.journal, self.clock)
        # The way of a message
        self.room: Final = self._delivery_room()
        self.attachments: Final = self._attachments()
        self.planner: Final = self._planner()
        self.work: Final = WorkDesk(self.room, self.database)
        self.workers: Final = Workers(self.work, self.database)
        self.router: Final = self._router()
        self.asking: Final = Asking(self.router, self.router.admission, self.clock, self.ids)
        # Upkeep
        self.retention: Final = self._retention()
        self.sweeper: Final = Sweeper(
            room=self.room,
            database=self.database,
            clock=self.clock,
            spawn=self.spawn,
            rarely=rarely,
        )
        self.directory.watch(self._presence)

    def _delivery_room(self) -> DeliveryRoom:
        room = DeliveryRoom(
            engine=self.engine,
            clock=self.clock,
            directory=self.directory,
            conversions=self.conversions,
            preparer=self.preparer,
            metrics=self.metrics,
            tracer=self.tracer,
            policy=policy_of(self.config.hub),
            spawn=self.spawn,
            after_delivery=self._after_delivery,
            credentials=self.credentials,
        )
        room.guard([entry.rule() for entry in self.config.guards.endpoint])
        return room

    def _attachments(self) -> Attachments:
        return Attachments(
            directory=self.directory,
            room=self.room,
            subscriptions=self.subscriptions,
            journal=self.journal,
            clock=self.clock,
        )

    def _planner(self) -> Planner:
        return Planner(
            table=self.table,
            directory=self.directory,
            conversions=self.conversions,
            preparer=self.preparer,
            clock=self.clock,
            ids=self.ids,
            defaults=defaults_of(self.config.hub),
        )

    def _router(self) -> Router:
        rules = [entry.rule() for entry in self.config.guards.source]
        return Router(
            engine=self.engine,
            database=self.database,
            clock=self.clock,
            ids=self.ids,
            table=self.table,
            planner=self.planner,
            room=self.room,
            metrics=self.metrics,
            tracer=self.tracer,
            limits=self.limits(),
            sources=Sources(self.config.hub.publish_rate, rules),
            rights=Rights(self.directory, self.planner),
            workers=self.workers,
        )

    def _retention(self) -> Retention:
        return Retention(
            self.config.store,
            dedupe_window_s=self.config.hub.dedupe_window,
            database=self.database,
            journal=self.journal,
            clock=self.clock,
        )

    def limits(self) -> Limits:
        """Return the limits of an envelope, as hub.toml says them now."""
        return limits_of(self.config.hub, (one.settings for one in self.adapters))

    # What they call

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

    async def _close_listeners(self, name: str) -> None:
        await asyncio.gather(self.listeners.stop(name), self.dials.stop(name))

    def _settled(self, ids: Sequence[int]) -> None:
        self.engine.settled(ids)

    def _unseen(self, deliveries: Sequence[Delivery]) -> None:
        """Look in the store for what nobody has in memory."""
        ids = [delivery.id for delivery in deliveries]
        self.spawn(take_up(ids, room=self.room, database=self.database, engine=self.engine))

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
