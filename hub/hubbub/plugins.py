"""Plugins: found, loaded, switched on and off. Bundled ones come through the same door."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

import pluggy
import structlog

from hubbub.conversion import Converter
from hubbub.envelope import Envelope
from hubbub.fence import BUNDLED, LIFE_S, Fence, Plugin, PluginState
from hubbub.hookspecs import PROJECT, Hooks
from hubbub.observe.metrics import Metrics
from hubbub.values import Delivery
from hubbub.watchdog import Watchdog

__all__ = ["Plugin", "PluginState", "Plugins", "Shutdown"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


Shutdown = Callable[..., Any]
"""The `shutdown` of a plugin, as a call with the hub."""


@dataclass(slots=True)
class Prepared:
    """Implementations of one hook, ready to be called without pluggy."""

    calls: list[tuple[Plugin, Callable[..., Any]]] = field(
        default_factory=list[tuple[Plugin, Callable[..., Any]]]
    )


class Plugins:
    """All plugins of the entry-point group `hubbub`."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        order: Sequence[str] = (),
        safe: bool = False,
        budget_s: float = 0.05,
        watchdog: Watchdog | None = None,
        off: Callable[[Plugin, Shutdown | None], None] | None = None,
    ) -> None:
        """Prepare to look for plugins.

        Args:
            off: Told of each plugin that is switched off, for whatever reason, with its
                `shutdown` if it has one.
        """
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        self._order = tuple(order)
        self._safe = safe
        self._off = off
        self.fence: Final = Fence(
            metrics,
            budget_s=budget_s,
            watchdog=watchdog,
            quarantine=lambda plugin, why: self.switch_off(plugin, "quarantined", why),
        )
        self._plugins: dict[str, Plugin] = {}
        self._before_route = Prepared()
        self._after_delivery = Prepared()
        self._translate = Prepared()

    def __iter__(self) -> Iterator[Plugin]:
        return iter(list(self._plugins.values()))

    def get(self, name: str) -> Plugin | None:
        """Return a plugin by its entry-point name."""
        return self._plugins.get(name)

    # Coming and going

    def load(
        self,
        found: Sequence[EntryPoint] | None = None,
        *,
        states: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Find and import plugins; one that cannot be imported is `failed`, the others go on.

        Args:
            states: State and reason of plugins that shall stay off, by name; they are not
                imported.
        """
        points = list(found if found is not None else entry_points(group=PROJECT))
        if self._order:
            places = {name: place for place, name in enumerate(self._order)}
            bundled = [p for p in points if _distribution(p)[0] == BUNDLED]
            named = [p for p in points if p.name in places and p not in bundled]
            points = bundled + sorted(named, key=lambda p: places[p.name])
        for point in points:
            self._load(point, *(states or {}).get(point.name, ("up", "")))
        self._prepare()

    def add(self, name: str, implementation: object) -> Plugin:
        """Register a plugin object that is in hand already (tests, embedding)."""
        plugin = Plugin(name, "", "", object=implementation)
        self._register(plugin)
        self._prepare()
        return plugin

    def switch_on(self, plugin: Plugin) -> bool:
        """Take a plugin's hooks in again, imported first where that is still to do."""
        plugin.state, plugin.reason = "up", ""
        plugin.faults_of.clear()
        if plugin.object is not None or self._import(plugin):
            self._register(plugin)
        self._prepare()
        return plugin.state == "up"

    def switch_off(self, plugin: Plugin, state: PluginState, reason: str) -> None:
        """Take a plugin's hooks out and say why; whoever is told takes out what else is of it."""
        plugin.state, plugin.reason = state, reason
        level = log.warning if state == "disabled" else log.error
        level(f"plugin.{state}", plugin=plugin.name, reason=reason)
        ends = (call for one, call in self._implementations("shutdown") if one is plugin)
        shutdown = next(ends, None)
        if self._manager.is_registered(plugin.object):
            self._manager.unregister(plugin.object)
        self._prepare()
        if self._off is not None:
            self._off(plugin, shutdown)

    def fail(self, plugin: Plugin, reason: str) -> None:
        """Note that a plugin cannot be used, and take its hooks out."""
        self.switch_off(plugin, "failed", reason)

    def _load(self, point: EntryPoint, state: str, reason: str) -> None:
        distribution, version = _distribution(point)
        plugin = Plugin(point.name, distribution, version, point=point)
        if point.name in self._plugins:
            log.error("plugin.name_taken", plugin=point.name, distribution=distribution)
            return
        self._plugins[point.name] = plugin
        if self._safe and not plugin.bundled:
            plugin.state, plugin.reason = "disabled", "started with --safe"
        elif state in ("quarantined", "disabled"):
            plugin.state, plugin.reason = cast("PluginState", state), reason
            log.warning("plugin.off", plugin=plugin.name, state=state, reason=reason)
        elif self._import(plugin):
            self._register(plugin)

    def _import(self, plugin: Plugin) -> bool:
        assert plugin.point is not None
        try:
            with self.fence.loading(plugin, "import"):
                plugin.object = plugin.point.load()
        except (Exception, SystemExit) as error:
            self.fail(plugin, f"import failed: {type(error).__name__}: {error}")
            return False
        return True

    def _register(self, plugin: Plugin) -> None:
        self._plugins[plugin.name] = plugin
        try:
            with self.fence.loading(plugin, "its hooks"):
                self._manager.register(plugin.object, plugin.name)
                self._manager.check_pending()
        except (Exception, SystemExit) as error:  # whatever an object does when it is looked at
            self.fail(plugin, f"its hooks do not fit: {error}")

    # Hooks of its life

    def collect(
        self, hook: str, *args: object, only: Plugin | None = None
    ) -> list[tuple[Plugin, Any]]:
        """Call a life-cycle hook of each plugin, or of one; one that raises is `failed`.

        What a hook gives is a list; one that gives nothing at all gives an empty one.
        """
        results: list[tuple[Plugin, Any]] = []
        for plugin, call in self._implementations(hook):
            if only is not None and plugin is not only:
                continue
            try:
                with self.fence.loading(plugin, hook):
                    results.append((plugin, _listed(call(*args))))
            except (Exception, SystemExit) as error:
                self.fail(plugin, f"{hook}: {type(error).__name__}: {error}")
        return results

    async def startup(
        self, hub_for: Callable[[Plugin], object], *, only: Plugin | None = None
    ) -> None:
        """Call `startup` of each plugin, or of one, in the order of loading."""
        for plugin, call in self._implementations("startup"):
            if only is None or plugin is only:
                wrong = await self.fence.live(plugin, "startup", call, hub_for(plugin))
                if wrong is not None:
                    self.fail(plugin, wrong)

    async def shutdown(
        self, hub_for: Callable[[Plugin], object], *, by: Callable[[], float] = lambda: LIFE_S
    ) -> None:
        """Call `shutdown` of each plugin, the last one first.

        Args:
            by: Returns how many seconds are left for all of them; each has an equal share, and
                what one does not need is for the others.
        """
        ending = self._implementations("shutdown")
        while ending:
            plugin, call = ending[-1]
            limit_s = min(LIFE_S, by() / len(ending))
            ending.pop()
            wrong = await self.fence.live(
                plugin, "shutdown", call, hub_for(plugin), limit_s=limit_s
            )
            if wrong is not None:
                log.warning("plugin.shutdown_failed", plugin=plugin.name, reason=wrong)

    def fenced(self, plugin: Plugin, converter: Converter) -> Converter:
        """Return a plugin's converter as one whose faults are counted."""
        return self.fence.around(plugin, converter)

    # Hooks on the path of messages

    @property
    def before_route(self) -> Callable[[Envelope], Envelope] | None:
        """The `before_route` of all plugins as one call; None when no plugin has it."""
        return self._run_before_route if self._before_route.calls else None

    @property
    def after_delivery(self) -> Callable[[Delivery], None] | None:
        """The `after_delivery` of all plugins as one call; None when no plugin has it."""
        return self._run_after_delivery if self._after_delivery.calls else None

    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Return a text from the first plugin that has it."""
        for plugin, call in self._translate.calls:
            said: object = self.fence.call(plugin, "translate", partial(call, key, args, locale))
            if isinstance(said, str):
                return said
        return None

    def _run_before_route(self, envelope: Envelope) -> Envelope:
        for plugin, call in self._before_route.calls:
            changed = self.fence.call(plugin, "before_route", partial(_changed, call, envelope))
            if changed is not None:
                envelope = changed
        return envelope

    def _run_after_delivery(self, delivery: Delivery) -> None:
        for plugin, call in self._after_delivery.calls:
            self.fence.call(plugin, "after_delivery", partial(call, delivery))

    def _prepare(self) -> None:
        self._before_route = Prepared(self._implementations("before_route"))
        self._after_delivery = Prepared(self._implementations("after_delivery"))
        self._translate = Prepared(self._implementations("translate"))

    def _implementations(self, hook: str) -> list[tuple[Plugin, Callable[..., Any]]]:
        """Return implementations in the order of loading; pluggy's own is the other way round."""
        caller = cast("pluggy.HookCaller", getattr(self._manager.hook, hook))
        places = {name: place for place, name in enumerate(self._plugins)}
        found: list[tuple[Plugin, Callable[..., Any]]] = []
        for one in sorted(
            caller.get_hookimpls(),
            key=lambda one: (one.trylast - one.tryfirst, places.get(one.plugin_name, 0)),
        ):
            plugin = self._plugins.get(one.plugin_name)
            if plugin is not None:
                found.append((plugin, _taking(one.function, one.argnames)))
        return found


def _changed(call: Callable[..., Any], envelope: Envelope) -> Envelope | None:
    changed = call(envelope)
    if changed is not None and not isinstance(changed, Envelope):
        raise TypeError(f"before_route gave a {type(changed).__name__}, no envelope")
    return changed


def _taking(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Return the function as one that takes all arguments of its hook; it may want fewer."""
    return function if names else lambda *_: function()


def _listed(given: Any) -> list[Any]:  # noqa: ANN401  # a plugin's
    if given is None:
        return []
    kind = type(given).__name__
    if isinstance(given, str | bytes | Mapping):
        raise TypeError(f"gives a {kind}, not a list")
    return list(given)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    return point.dist.name, point.dist.version
