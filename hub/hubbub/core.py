"""The hub without sockets: its rooms loaded, started, stopped in order.

It is what plugins and adapters see (`facade`), what the web serves, and what the test kit runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import structlog

from hubbub.config import Config
from hubbub.contributions import Contributions
from hubbub.errors import ConfigError, HubError, RouteError, StoreUnavailableError
from hubbub.extensions import Extensions
from hubbub.facade import Facade
from hubbub.failure_guards import CredentialGuard
from hubbub.file_modes import narrow, narrow_tree
from hubbub.logtelling import LogTelling
from hubbub.observe.labels import total_of
from hubbub.observe.logbook import LogBook
from hubbub.planning import TASKS_ROUTE
from hubbub.plugins import Plugin
from hubbub.ports import Clock, HubApi
from hubbub.recovery import recover
from hubbub.store.reads import endpoints as endpoint_reads
from hubbub.store.reads import envelopes as envelope_reads
from hubbub.tokens import ADMIN_FILE, AdminTokenError
from hubbub.values import PresenceState

__all__ = ["Core"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Core(Facade):
    """One hub: its rooms, what plugins and adapters may do with them, and its life."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        safe: bool = False,
        environ: Mapping[str, str] = os.environ,
        book: LogBook | None = None,
    ) -> None:
        self.extensions: Final = Extensions(self)
        super().__init__(
            config,
            clock=clock,
            safe=safe,
            environ=environ,
            book=book,
            plugin_off=self.extensions.plugin_off,
            remember_stuck=self.extensions.remember_stuck,
            rarely=self._rarely,
        )
        self.contributions: Final = Contributions(
            self.plugins,
            conversions=self.conversions,
            transforms=self.transforms,
            table=self.table,
            adapters=self.adapters,
            hub=self,
        )
        hub = config.hub
        self.auth_failures: Final = CredentialGuard(
            hub.auth_failure_limit,
            hub.auth_failure_window,
            clock=self.clock,
            metrics=self.metrics,
            report=self._slowed_down,
        )
        self.telling: Final = LogTelling(self.book, self)
        self.reloading: Final = asyncio.Lock()
        self.new_admin_token: str | None = None
        self.no_admin: AdminTokenError | None = None

    async def start(self) -> None:
        """Load, open, recover and begin; nothing is accepted from outside before this returns.

        Raises:
            ConfigError: plugins' tables or routes of hub.toml are not valid.
            StoreOwnedError: another hub runs on the database.
        """
        self._narrow_files()  # before a connection has locks on the database
        self.watchdog.start()
        self.load(self.extensions.remembered())
        self.database.open()
        self.make_tables()
        self.ids.continue_after(self.database.read_now(envelope_reads.newest_seq))
        self.tokens.load()
        self._let_admin_in()
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
        self.dials.begin()
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
        if self.config.engine.kind != "local":
            place = self.config.place("engine", "kind")
            problems.append(
                f'{place}: engine.kind: only "local" is there yet; several hubs on one database '
                "are still to come"
            )
        if problems:
            raise ConfigError(problems)
        self.router.limit(self.limits())
        self.contributions.read_converters()
        self.contributions.read_transforms()
        self._read_routes()

    async def drain(self) -> None:
        """Take nothing new; wait for what is in flight, up to `drain_timeout`."""
        self.state = "draining"
        self.listeners.close()
        self.dials.hold()
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
        await asyncio.gather(self.listeners.stop(), self.dials.stop())
        with suppress(StoreUnavailableError):
            await self.journal.flush()  # plugins are told of what ended before they are ended
        await self.extensions.ended()
        await self.plugins.shutdown(self.hub_for)
        self.telling.stop()
        self.credentials.close()
        self.room.timers.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.stop()
        self.database.close()
        self.watchdog.stop()
        self.state = "stopped"

    def hub_for(self, plugin: Plugin) -> HubApi:
        """Return the hub as one plugin sees it."""
        return self.contributions.hub_for(plugin)

    def keep_config(self, config: Config) -> None:
        """Go on with another configuration; whoever reads settings at every use has it now."""
        self.config = config

    async def say_changed(self) -> None:
        """Tell whoever serves them that plugins, adapters or their tables have changed."""
        self.router.limit(self.limits())
        for changed in tuple(self.changed):
            await changed()

    # Inside

    def _narrow_files(self) -> None:
        """Take the rights of others away from what the hub keeps; failures are only logged."""
        folder, database = self.config.hub.data_dir, self.database.path
        done = narrow_tree(folder, secrets=frozenset({ADMIN_FILE}))
        failures = done.failures
        if database is not None:
            beside = ("", "-wal", "-shm", ".lock", ".owner")
            told = (narrow(database.with_name(database.name + suffix)) for suffix in beside)
            failures += filter(None, told)
        if done.changed:
            log.info("hub.files_narrowed", folder=str(folder), changed=done.changed)
        if failures or not done.complete:
            log.warning("hub.files_not_narrowed", failures=failures, complete=done.complete)

    def _let_admin_in(self) -> None:
        try:
            self.new_admin_token = self.tokens.admin(self.config.hub.data_dir, self._environ)
        except AdminTokenError as error:  # tokens that were made before, and adapters, work
            self.no_admin = error
            log.error("hub.no_admin_token", code=error.code, error=str(error))  # noqa: TRY400

    def _slowed_down(self, source: str, kind: str, detail: str) -> None:
        """Note in log and audit that a source tries too many credentials."""
        log.warning("auth.slowed_down", source=source, kind=kind, detail=detail)
        if self.state == "ready":
            self.spawn(self._note_slowed_down(source, kind, detail))

    async def _note_slowed_down(self, source: str, kind: str, detail: str) -> None:
        try:
            await self.audit(source, "auth.slowed_down", kind, detail)
        except HubError as error:
            log.warning("auth.not_audited", error=str(error))

    def _read_routes(self) -> None:
        problems: list[str] = []
        for index, settings in enumerate(self.config.routes):
            try:
                self.table.put(settings.route())
            except RouteError as error:  # conditions were compiled when they were read
                key = "name" if settings.transform is None else "transform"
                problems.append(f"{self.config.place('routes', index, key)}: {error}")
        if problems:
            raise ConfigError(problems)
        self.contributions.read_routes()
        self.table.put(TASKS_ROUTE)

    def make_tables(self, *, only: Plugin | None = None) -> None:
        """Make the tables that plugins bring, or one of them, where they are missing."""
        for plugin, models in self.plugins.collect("tables", only=only):
            names = [getattr(model, "__tablename__", None) for model in models]
            foreign = [name for name in names if not str(name).startswith(plugin.name + "_")]
            if foreign:
                self.plugins.fail(plugin, f"table {foreign[0]!r} is not its own")
            else:
                self.database.create(models)

    async def _rarely(self) -> None:
        self.accepted.note(self.clock.now_us(), total_of(self.metrics.envelopes_accepted))
        await self.retention.sweep()
        self.contributions.forget_owners(lambda address: self.directory.get(address) is not None)
        self.room.forget_idle()
