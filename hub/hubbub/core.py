"""The hub without sockets: its rooms loaded, started, stopped in order.

It is what plugins and adapters see (`facade`), what the web serves, and what the test kit runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from hubbub.config import Config
from hubbub.contributions import Contributions
from hubbub.errors import ConfigError, RouteError
from hubbub.extensions import Extensions
from hubbub.facade import Facade
from hubbub.logtelling import LogTelling
from hubbub.observe.labels import total_of
from hubbub.observe.logbook import LogBook
from hubbub.planning import TASKS_ROUTE
from hubbub.plugins import Plugin
from hubbub.ports import Clock, HubApi
from hubbub.recovery import recover
from hubbub.store.reads import endpoints as endpoint_reads
from hubbub.store.reads import envelopes as envelope_reads
from hubbub.values import PresenceState

__all__ = ["Core"]


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
        self.telling: Final = LogTelling(self.book, self)
        self.reloading: Final = asyncio.Lock()
        self.new_admin_token: str | None = None

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
        if self.config.engine.kind != "local":
            place = self.config.place("engine", "kind")
            problems.append(
                f'{place}: engine.kind: only "local" is there yet; several hubs on one database '
                "are still to come"
            )
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
