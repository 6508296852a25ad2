"""What plugins brought into the rooms: adapters, converters, routes, endpoints; and out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

import structlog
from pydantic import BaseModel

from hubbub.adapters import Adapters
from hubbub.config import AdapterSettings, Config, Settings, TlsSettings
from hubbub.config.problems import dotted, near_miss
from hubbub.conversion import Conversions, converter_of
from hubbub.errors import ConfigError, PluginError, RouteError
from hubbub.listeners.tls import problem_with
from hubbub.plugins import Plugin, Plugins
from hubbub.ports import Adapter, HubApi, Link
from hubbub.routing import RoutingTable
from hubbub.transforms import Transform, Transforms
from hubbub.values import Endpoint, Route

__all__ = ["Contributions", "Offered", "tls_problems"]

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MIN_OWNERS: Final = 1000
"""Addresses whose plugin is remembered before those that are gone are forgotten."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An adapter that a plugin brought, enabled or not."""

    adapter: Adapter
    plugin: Plugin
    settings: Settings

    @property
    def enabled(self) -> bool:
        """Whether hub.toml says so."""
        return isinstance(self.settings, AdapterSettings) and self.settings.enabled


def tls_problems(config: Config, keys: tuple[str, ...], tls: TlsSettings | None) -> list[str]:
    """Return a line for what is wrong with the certificate of a table, as its files are now."""
    problem = problem_with(tls)
    return [] if problem is None else [f"{config.place(*keys, 'tls')}: {dotted(keys)}.{problem}"]


class Contributions:
    """Puts in what plugins give, and remembers whose it is."""

    def __init__(
        self,
        plugins: Plugins,
        *,
        conversions: Conversions,
        transforms: Transforms,
        table: RoutingTable,
        adapters: Adapters,
        hub: HubApi,
    ) -> None:
        self._plugins = plugins
        self._conversions = conversions
        self._transforms = transforms
        self._table = table
        self._adapters = adapters
        self._hub = hub
        self._routes: dict[str, list[str]] = {}
        self.owners: Final[dict[str, str]] = {}
        self.offered: Final[dict[str, Offered]] = {}
        self._unreadable: set[str] = set()

    # In

    def read_adapters(self, config: Config, *, only: Plugin | None = None) -> list[str]:
        """Take in adapters and read their tables; returns what is wrong in those."""
        problems: list[str] = []
        for plugin, given in self._plugins.collect("adapters", only=only):
            for adapter in given:
                if not _is_adapter(adapter):
                    self._plugins.fail(
                        plugin,
                        f"adapters: {adapter!r} is no adapter; it needs `name`, `Config`, `start` "
                        "and `stop`",
                    )
                    break
                if (there := self.offered.get(adapter.name)) and there.plugin is not plugin:
                    self._plugins.fail(
                        plugin,
                        f"adapter {adapter.name!r} is there already, from plugin "
                        f"{there.plugin.name!r}; take one of the two out",
                    )
                    continue
                try:
                    settings = config.section("adapters", adapter.name, adapter.Config)
                except ConfigError as error:
                    problems += error.problems
                    self._unreadable.add(adapter.name)
                    continue
                self._unreadable.discard(adapter.name)
                self.offered[adapter.name] = Offered(adapter, plugin, settings)
                if isinstance(settings, AdapterSettings) and settings.enabled:
                    self._adapters.add(adapter, settings, self.hub_for(plugin, adapter))
        return problems

    def check_sections(self, config: Config) -> list[str]:
        """Return a line for each table and plugin in hub.toml that nobody is here for.

        While a plugin is off, nobody can say which adapters it would have; then tables of
        unknown adapters are only logged.
        """
        names = {plugin.name for plugin in self._plugins}
        unread = {name for name in config.names("plugins") if name not in names}
        known = {"plugins": names, "adapters": set(self.offered) | self._unreadable}
        missing = [
            f"{config.place('hub', 'plugins', place)}: hub.plugins.{place}: no plugin "
            f"{name!r} is installed{near_miss(name, names)}"
            for place, name in enumerate(config.hub.plugins)
            if name not in names
        ]
        if any(plugin.state != "up" for plugin in self._plugins):
            for name in set(config.names("adapters")) - known["adapters"]:
                log.warning("adapter.unknown", adapter=name, hint="its plugin may be off")
            del known["adapters"]
        if not unread:
            known.pop("plugins")
        try:
            config.check_sections(known)
        except ConfigError as error:
            return missing + error.problems
        return missing

    def check_tls(self, config: Config) -> list[str]:
        """Return a line for each certificate that a hub could not use."""
        problems = tls_problems(config, ("hub",), config.hub.tls)
        for one in self._adapters:
            problems += tls_problems(config, ("adapters", one.name), one.settings.tls)
        return problems

    def read_converters(self, *, only: Plugin | None = None) -> None:
        """Take in converters, each inside the fence."""
        for plugin, converters in self._plugins.collect("converters", only=only):
            try:
                for converter in converters:
                    fenced = self._plugins.fenced(plugin, converter_of(converter))
                    self._conversions.add(fenced, plugin=plugin.name)
            except PluginError as error:
                self._plugins.fail(plugin, str(error))

    def read_transforms(self, *, only: Plugin | None = None) -> None:
        """Take in kinds of transforms; what they make runs inside the fence."""
        for plugin, transforms in self._plugins.collect("transforms", only=only):
            fenced = partial(self._plugins.fence.checked, plugin, "transforms")
            try:
                for transform in transforms:
                    self._transforms.add(
                        _a(Transform, transform), plugin=plugin.name, fenced=fenced
                    )
            except PluginError as error:
                self._plugins.fail(plugin, str(error))

    def read_routes(self, *, only: Plugin | None = None) -> None:
        """Take in routes; one that cannot be used makes its plugin `failed`."""
        for plugin, routes in self._plugins.collect("routes", only=only):
            names = self._routes.setdefault(plugin.name, [])
            for route in routes:
                try:
                    self._put(_a(Route, route), names)
                except (PluginError, RouteError) as error:
                    self._plugins.fail(plugin, str(error))
                    break

    def _put(self, route: Route, names: list[str]) -> None:
        """Put one route into the table, beside those its plugin has there."""
        if route.name not in names:
            if route.name in self._table:
                raise RouteError(
                    f"route {route.name!r} is there already; give this one another name"
                )
            names.append(route.name)
        try:
            self._table.put(route)
        except RouteError:
            names.remove(route.name)
            raise

    # Out

    def take_out(self, plugin: Plugin) -> list[str]:
        """Take out what a plugin brought; returns addresses of its endpoints.

        Routes of one in quarantine stay, so that messages wait where they would have waited.
        """
        self._conversions.remove_plugin(plugin.name)
        self._transforms.remove_plugin(plugin.name)
        if plugin.state != "quarantined":
            for name in self._routes.pop(plugin.name, []):
                self._table.remove(name)
        return [address for address, owner in self.owners.items() if owner == plugin.name]

    def adapters_of(self, plugin: Plugin) -> list[str]:
        """Return the names of adapters that a plugin brought."""
        return [name for name, offered in self.offered.items() if offered.plugin is plugin]

    def forget_owners(self, known: Callable[[str], bool]) -> None:
        """Forget whose endpoints were that nobody knows any more."""
        if len(self.owners) > MIN_OWNERS:
            for address in [address for address in self.owners if not known(address)]:
                del self.owners[address]

    def hub_for(self, plugin: Plugin, adapter: Adapter | None = None) -> HubApi:
        """Return the hub as one plugin sees it, or an adapter that it brought."""
        lack = None if adapter is None else partial(self._adapters.lack_own, adapter.name)
        return cast("HubApi", _HubOf(self._hub, plugin.name, self.owners, lack=lack))


def _a(kind: type[T], given: object) -> T:
    """Return what a plugin gave, which is of that kind.

    Raises:
        PluginError: it is not.
    """
    if not isinstance(given, kind):
        raise PluginError(f"{given!r} is no {kind.__name__}")
    return given


def _is_adapter(given: object) -> bool:
    config = getattr(given, "Config", None)
    return (
        isinstance(getattr(given, "name", None), str)
        and isinstance(config, type)
        and issubclass(config, BaseModel)
        and callable(getattr(given, "start", None))
        and callable(getattr(given, "stop", None))
    )


class _HubOf:
    """The hub, with a note of whose endpoints are attached; everything else is the hub's own."""

    def __init__(
        self,
        hub: HubApi,
        plugin: str,
        owners: dict[str, str],
        *,
        lack: Callable[[str, str | None], None] | None,
    ) -> None:
        self._hub = hub
        self.lack = lack or hub.lack
        self._plugin = plugin
        self._owners = owners
        self.publish = hub.publish  # the path of messages: no detour
        self.submit = hub.submit

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as the hub has it
        return getattr(self._hub, name)

    def attach(self, endpoint: Endpoint) -> Link:
        self._owners[endpoint.address] = self._plugin
        return self._hub.attach(endpoint)

    async def attach_for_good(self, endpoint: Endpoint) -> Link:
        self._owners[endpoint.address] = self._plugin
        return await self._hub.attach_for_good(endpoint)
