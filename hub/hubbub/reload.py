"""hub.toml read again while the hub runs: all of it is valid and holds, or nothing changes.

What is read at every use takes effect at once, and so do the routes of the file, addresses, limits
and certificates of listeners, and what adapters say they can take over. Everything else keeps its
old value and is named as needing a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable

import structlog
from pydantic import BaseModel

from hubbub.adapters import speaks_http
from hubbub.config import AdapterSettings, Config, Settings
from hubbub.config.problems import dotted
from hubbub.contributions import Offered, tls_problems
from hubbub.core import Core
from hubbub.errors import ConfigError, DrainingError, RouteError
from hubbub.listeners.tls import is_renewal
from hubbub.observe.logs import configure_logs
from hubbub.rooms import defaults_of, policy_of
from hubbub.values import Route

__all__ = ["AT_ONCE", "Reloadable", "Reloaded", "Reloads"]

AT_ONCE: Final = frozenset(
    {
        "guards.endpoint",
        "guards.source",
        "hub.attempts",
        "hub.auth_failure_limit",
        "hub.auth_failure_window",
        "hub.backoff",
        "hub.backoff_max",
        "hub.task_backoff",
        "hub.batch_limit",
        "hub.data_depth",
        "hub.dedupe_window",
        "hub.drain_timeout",
        "hub.hook_budget",
        "hub.hook_limit",
        "hub.hosts",
        "hub.limits",
        "hub.mailbox_limit",
        "hub.max_body",
        "hub.origins",
        "hub.overflow",
        "hub.public_url",
        "hub.publish_rate",
        "hub.queue_ttl",
        "hub.slot_grace",
        "hub.stream_ttl",
        "hub.timeout",
        "hub.trusted_proxies",
        "log.format",
        "log.level",
        "store.retention",
        "store.retention_max_bytes",
        "store.retention_max_envelopes",
        "store.retention_rules",
    }
)
"""Settings of the core that hold from the reload on."""

OF_EVERY_ADAPTER: Final = ("enabled", "limits", "required", "tls")
"""Settings of an adapter that the hub itself applies; `listen` too where it opens those."""

S = TypeVar("S", bound=Settings)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@runtime_checkable
class Reloadable(Protocol):
    """An adapter that can take over another table while it runs.

    Where it has an attribute `reloads`, a set of names, it takes over no other settings than those:
    what it is given has the old values of all others.
    """

    async def reload(self, settings: Settings) -> None:
        """Take the whole table over, or raise and stay as it was."""
        ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did, as dotted keys."""

    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Adapter:
    """One adapter as it was and as hub.toml has it now.

    Attributes:
        keys: Those that differ.
        own: Those of them that the adapter itself has to take over.
        fixed: Those of them that a running adapter keeps.
    """

    before: Offered
    after: Offered
    keys: tuple[str, ...]
    own: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def taken(self) -> tuple[str, ...]:
        """Keys that the adapter takes over while it runs."""
        adapter = self.before.adapter
        if not isinstance(adapter, Reloadable):
            return ()
        some: Container[str] | None = getattr(adapter, "reloads", None)
        return self.own if some is None else tuple(key for key in self.own if key in some)

    @property
    def stays(self) -> bool:
        return self.before.enabled and self.after.enabled

    @property
    def takes_over(self) -> bool:
        return self.stays and bool(self.taken)

    @property
    def later(self) -> tuple[str, ...]:
        """Keys that keep their old value until the adapter is restarted."""
        if not self.stays:
            return ()
        return (*self.fixed, *(key for key in self.own if key not in self.taken))

    @property
    def kept(self) -> Offered:
        """The adapter with what holds from now on."""
        settings = _with(self.before.settings, self.after.settings, self.keys, self.later)
        return replace(self.after, settings=settings)


class Reloads:
    """Reloads of one hub; one at a time, whoever asks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def reload(self, *, by: str) -> Reloaded:
        """Read hub.toml again and apply what can be applied.

        Raises:
            ConfigError: with every problem; everything is as it was.
            DrainingError: the hub is stopping.
        """
        core = self._core
        async with core.reloading:
            if core.state != "ready":
                raise DrainingError
            config = await asyncio.to_thread(core.config.read_again)
            adapters, problems = self._adapters(config)
            problems = core.contributions.check_sections(config) + problems
            problems += tls_problems(config, ("hub",), config.hub.tls)
            routes = [settings.route() for settings in config.routes]
            changed_routes = self._changed_routes(routes)
            if problems:
                raise ConfigError(problems)
            await self._take_over(adapters)
            try:
                core.table.replace_all("file", routes)
            except RouteError as error:
                await self._take_back(adapters)
                raise ConfigError([str(error)]) from error
            applied, waiting = self._settle_core(config)
            more, rest = await self._settle_adapters(adapters)
            done = Reloaded(
                tuple(sorted({*applied, *more, *changed_routes})),
                tuple(sorted({*waiting, *rest, *self._changed_plugins(config)})),
            )
            core.keep_config(_mixed(core.config, config))
            self._apply_core()
            await core.say_changed()
        await self._tell(done, by)
        return done

    # What is different

    def _adapters(self, config: Config) -> tuple[list[_Adapter], list[str]]:
        found: list[_Adapter] = []
        problems: list[str] = []
        for name, offered in self._core.contributions.offered.items():
            try:
                settings = config.section("adapters", name, offered.adapter.Config)
            except ConfigError as error:
                problems += error.problems
                continue
            after = replace(offered, settings=settings)
            if isinstance(settings, AdapterSettings) and settings.enabled:
                problems += tls_problems(config, ("adapters", name), settings.tls)
            keys = tuple(_differing(offered.settings, settings))
            if keys:
                hubs = [*OF_EVERY_ADAPTER, *(["listen"] if speaks_http(offered.adapter) else [])]
                if isinstance(settings, AdapterSettings) and settings.ORIGINS_KEY:
                    hubs.append(settings.ORIGINS_KEY)
                own = tuple(key for key in keys if key not in hubs)
                fixed = ("tls",) if "tls" in keys and not _renews(offered, after) else ()
                found.append(_Adapter(offered, after, keys, own, fixed))
        return found, problems

    def _changed_routes(self, routes: list[Route]) -> list[str]:
        before = {route.name: route for route in self._core.table if route.origin == "file"}
        after = {route.name: route for route in routes}
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if not names and list(before) != list(after):
            names = list(after)  # only their order
        return [dotted(("routes", name)) for name in names]

    def _changed_plugins(self, config: Config) -> Iterator[str]:
        before = self._core.config
        for name in {*before.names("plugins"), *config.names("plugins")}:
            old, new = before.table("plugins", name), config.table("plugins", name)
            for key in {*old, *new}:
                if old.get(key) != new.get(key):
                    yield dotted(("plugins", name, key))

    # Adapters

    async def _take_over(self, adapters: list[_Adapter]) -> None:
        """Let running adapters take their tables over; if one cannot, all go back."""
        done: list[_Adapter] = []
        for one in adapters:
            if not one.takes_over:
                continue
            try:
                await _reload(one.before, one.kept.settings)
            except Exception as error:
                await self._take_back(done)
                name = one.before.adapter.name
                raise ConfigError(
                    [f"adapters.{name}: it cannot take this over: {type(error).__name__}: {error}"]
                ) from error
            done.append(one)

    async def _take_back(self, adapters: list[_Adapter]) -> None:
        for one in adapters:
            if one.takes_over:
                try:
                    await _reload(one.before, one.before.settings)
                except Exception:
                    log.exception("reload.not_taken_back", adapter=one.before.adapter.name)

    async def _settle_adapters(self, adapters: list[_Adapter]) -> tuple[list[str], list[str]]:
        """Start, stop and change adapters; returns keys that hold now, and keys that do not."""
        core = self._core
        applied: list[str] = []
        waiting: list[str] = []
        for one in adapters:
            name = one.before.adapter.name
            later = one.later
            applied += [dotted(("adapters", name, key)) for key in one.keys if key not in later]
            waiting += [dotted(("adapters", name, key)) for key in later]
            core.contributions.offered[name] = one.kept
            await core.extensions.change_adapter(name, one.kept)
        return applied, waiting

    # The core

    def _settle_core(self, config: Config) -> tuple[list[str], list[str]]:
        """Return keys of the core that will hold now, and keys that will not."""
        before = self._core.config
        keys = [
            f"{table}.{key}"
            for table in ("hub", "log", "store", "engine", "guards")
            for key in _differing(getattr(before, table), getattr(config, table))
        ]
        waiting = [key for key in keys if _waits(key, before, config)]
        return [key for key in keys if key not in waiting], waiting

    def _apply_core(self) -> None:
        core = self._core
        hub = core.config.hub
        configure_logs(core.config.log.level, core.config.log.format, core.book)
        core.router.limit(core.limits())
        guards = core.config.guards
        core.router.sources.change(hub.publish_rate, [entry.rule() for entry in guards.source])
        core.auth_failures.change(hub.auth_failure_limit, hub.auth_failure_window)
        core.room.guard([entry.rule() for entry in guards.endpoint])
        core.planner.try_hard(defaults_of(hub))
        core.room.change(policy_of(hub))
        core.adapters.stop_timeout_s = core.listeners.stop_timeout_s = hub.drain_timeout
        core.dials.stop_timeout_s = hub.drain_timeout
        core.plugins.fence.budget_s = hub.hook_budget
        core.watchdog.limit_s = hub.hook_limit
        core.retention.change(core.config.store, dedupe_window_s=hub.dedupe_window)

    async def _tell(self, done: Reloaded, by: str) -> None:
        log.info(
            "hub.reloaded",
            by=by,
            applied=list(done.applied),
            needs_restart=list(done.needs_restart),
        )
        detail = f"applied: {', '.join(done.applied) or 'nothing'}"
        if done.needs_restart:
            detail += f"; needs a restart: {', '.join(done.needs_restart)}"
        await self._core.audit(by, "reload", str(self._core.config.file or "defaults"), detail)


async def _reload(offered: Offered, settings: Settings) -> None:
    adapter: object = offered.adapter
    assert isinstance(adapter, Reloadable)
    await adapter.reload(settings)


def _differing(before: Settings, after: Settings) -> list[str]:
    """Return the names of settings that differ."""
    old, new = cast("BaseModel", before), cast("BaseModel", after)
    return [
        field.alias or name
        for name, field in type(new).model_fields.items()
        if getattr(old, name) != getattr(new, name)
    ]


def _renews(before: Offered, after: Offered) -> bool:
    """Tell whether the listeners of an adapter can take its new certificate while they are open."""
    old, new = before.settings, after.settings
    assert isinstance(old, AdapterSettings)
    assert isinstance(new, AdapterSettings)
    return is_renewal(old.tls, new.tls)


def _waits(key: str, before: Config, after: Config) -> bool:
    """Tell whether a key of the core that differs keeps its old value until a restart."""
    if key == "hub.tls":
        return not is_renewal(before.hub.tls, after.hub.tls)
    return key not in AT_ONCE


def _with(before: S, after: Settings, keys: Iterable[str], later: tuple[str, ...]) -> S:
    """Return settings as they were, with the changed ones that hold now."""
    now: Mapping[str, Any] = {key: getattr(after, key) for key in keys if key not in later}
    return before.model_copy(update=now)


def _mixed(before: Config, after: Config) -> Config:
    """Return the new configuration with the old values of what needs a restart."""

    def table(name: str) -> Any:  # noqa: ANN401  # one of five models
        old: Settings = getattr(before, name)
        new: Settings = getattr(after, name)
        keys = _differing(old, new)
        later = tuple(key for key in keys if _waits(f"{name}.{key}", before, after))
        return _with(old, new, keys, later)

    return replace(
        after,
        hub=table("hub"),
        log=table("log"),
        store=table("store"),
        engine=table("engine"),
        guards=table("guards"),
    )
