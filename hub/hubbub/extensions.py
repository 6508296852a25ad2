"""Plugins and adapters that come and go while the hub runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hubbub.config import AdapterSettings
from hubbub.contributions import Offered
from hubbub.errors import StoreUnavailableError
from hubbub.plugins import Plugin, Shutdown
from hubbub.store.journal import Statement
from hubbub.store.reads import plugins as plugin_reads

if TYPE_CHECKING:
    from hubbub.core import Core

__all__ = ["Extensions"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Extensions:
    """Starts, changes and ends what extends a running hub."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ending: set[asyncio.Task[None]] = set()

    async def start_adapter(self, name: str) -> None:
        """Start an adapter that was taken in while the hub runs; its paths come with it."""
        if any(one.name == name for one in self._core.adapters):
            await self._core.adapters.start_one(name)
            await self._core.say_changed()

    async def restart_adapter(self, name: str) -> None:
        """Stop one adapter and start it again, with its table as it is in hub.toml now.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        offered = self._core.contributions.offered.get(name)
        if offered is not None:
            settings = self._core.config.section("adapters", name, offered.adapter.Config)
            self._core.contributions.offered[name] = replace(offered, settings=settings)
            if isinstance(settings, AdapterSettings):
                self._core.adapters.get(name).settings = settings
        await self._core.adapters.restart(name)
        await self._core.say_changed()

    async def change_adapter(self, name: str, offered: Offered) -> None:
        """Start an adapter that is enabled now, stop one that is not any more."""
        settings = offered.settings
        running = next((one for one in self._core.adapters if one.name == name), None)
        if not isinstance(settings, AdapterSettings):
            return
        if running is not None and settings.enabled:
            running.settings = settings
        elif running is not None:
            await self._core.adapters.stop_one(name)
            self._core.adapters.remove(name)
        elif settings.enabled:
            self._core.adapters.add(offered.adapter, settings, self._core.hub_for(offered.plugin))
            await self._core.adapters.start_one(name)
        await self._core.say_changed()

    def remembering(self, plugin: Plugin) -> tuple[Statement, ...]:
        """Return the statements that keep a plugin in its state over a restart."""
        now_us = self._core.clock.now_us()
        row = plugin_reads.remembering(plugin.name, plugin.state, plugin.reason, now_us)
        return plugin_reads.forgetting(plugin.name), row

    async def ended(self) -> None:
        """Wait until plugins that were switched off have ended."""
        await asyncio.gather(*self._ending, return_exceptions=True)

    def plugin_off(self, plugin: Plugin, shutdown: Shutdown | None) -> None:
        """Take out what a plugin brought that is switched off."""
        addresses = self._core.contributions.take_out(plugin)
        adapters = self._core.contributions.adapters_of(plugin)
        self._core.router.before_route = self._core.plugins.before_route
        if self._core.state != "ready":
            for name in adapters:
                self._core.adapters.fail(
                    name, f"plugin {plugin.name!r} is {plugin.state}: {plugin.reason}"
                )
            for dial in self._core.dials.of(plugin.name):
                dial.close()
            return
        ending = self._core.spawn(self._end_plugin(plugin, addresses, adapters, shutdown))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end_plugin(
        self,
        plugin: Plugin,
        addresses: Sequence[str],
        adapters: Sequence[str],
        shutdown: Shutdown | None,
    ) -> None:
        for name in adapters:
            if any(one.name == name for one in self._core.adapters):
                await self._core.adapters.stop_one(name)
                self._core.adapters.fail(
                    name, f"plugin {plugin.name!r} is {plugin.state}: {plugin.reason}"
                )
        if shutdown is not None:
            wrong = await self._core.plugins.fence.live(
                plugin, "shutdown", shutdown, self._core.hub_for(plugin)
            )
            if wrong is not None:
                log.warning("plugin.shutdown_failed", plugin=plugin.name, reason=wrong)
        await self._core.dials.stop(plugin.name)
        for address in addresses:
            link = self._core.room.link_of(address)
            if link is not None:
                self._core.attachments.detach(link)
        await self._core.say_changed()
        if plugin.state == "quarantined":
            await self._core.journal.execute(*self.remembering(plugin))

    def remembered(self) -> dict[str, tuple[str, str]]:
        """Return what is remembered of plugins; nothing where there is no database yet."""
        path = self._core.database.path
        if path is not None and not path.exists():
            return {}
        try:
            return self._core.database.read_now(plugin_reads.remembered)
        except (SQLAlchemyError, StoreUnavailableError):
            return {}

    def remember_stuck(self, name: str, reason: str) -> None:
        """Keep a plugin off at the next start; called on the watchdog's thread."""
        row = plugin_reads.remembering(name, "quarantined", reason, self._core.clock.now_us())
        self._core.database.write_now((plugin_reads.forgetting(name), row))
