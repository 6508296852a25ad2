"""Plugins: found, loaded, fenced, quarantined. Bundled ones come through the same door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from time import perf_counter
from typing import Any, Final, Literal, TypeVar, cast

import pluggy
import structlog

from hubbub.envelope import Envelope
from hubbub.hookspecs import PROJECT, Hooks
from hubbub.observe.metrics import Metrics
from hubbub.values import Delivery

__all__ = ["FAULTS_IN_A_ROW", "Plugin", "PluginState", "Plugins"]

FAULTS_IN_A_ROW: Final = 3
"""Faults after each other that switch a plugin off."""

PluginState = Literal["up", "failed", "quarantined", "disabled"]

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Plugin:
    """One plugin that was found."""

    name: str
    distribution: str
    version: str
    state: PluginState = "up"
    reason: str = ""
    faults: int = 0
    object: Any = None

    @property
    def bundled(self) -> bool:
        """Whether it came with the hub."""
        return self.distribution == PROJECT


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
        quarantined: Callable[[Plugin], None] = lambda _: None,
    ) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        self._metrics = metrics
        self._order = tuple(order)
        self._safe = safe
        self._budget_s = budget_s
        self._quarantined = quarantined
        self._plugins: dict[str, Plugin] = {}
        self._before_route = Prepared()
        self._after_delivery = Prepared()

    def __iter__(self) -> Iterator[Plugin]:
        return iter(list(self._plugins.values()))

    def get(self, name: str) -> Plugin | None:
        """Return a plugin by its entry-point name."""
        return self._plugins.get(name)

    def load(self, found: Sequence[EntryPoint] | None = None) -> None:
        """Find and import plugins; one that cannot be imported is `failed`, the others go on."""
        points = list(found if found is not None else entry_points(group=PROJECT))
        if self._order:
            places = {name: place for place, name in enumerate(self._order)}
            bundled = [p for p in points if _distribution(p)[0] == PROJECT]
            named = [p for p in points if p.name in places and p not in bundled]
            points = bundled + sorted(named, key=lambda p: places[p.name])
        for point in points:
            self._load(point)
        self._prepare()

    def add(self, name: str, implementation: object) -> Plugin:
        """Register a plugin object that is in hand already (tests, embedding)."""
        plugin = Plugin(name, "", "", object=implementation)
        self._register(plugin)
        self._prepare()
        return plugin

    def _load(self, point: EntryPoint) -> None:
        distribution, version = _distribution(point)
        plugin = Plugin(point.name, distribution, version)
        if point.name in self._plugins:
            log.error("plugin.name_taken", plugin=point.name, distribution=distribution)
            return
        self._plugins[point.name] = plugin
        if self._safe and not plugin.bundled:
            plugin.state, plugin.reason = "disabled", "started with --safe"
            return
        try:
            plugin.object = point.load()
        except (Exception, SystemExit) as error:
            self.fail(plugin, f"import failed: {type(error).__name__}: {error}")
            return
        self._register(plugin)

    def _register(self, plugin: Plugin) -> None:
        self._plugins[plugin.name] = plugin
        try:
            self._manager.register(plugin.object, plugin.name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            self.fail(plugin, f"its hooks do not fit: {error}")

    def fail(self, plugin: Plugin, reason: str) -> None:
        """Note that a plugin cannot be used, and take its hooks out."""
        plugin.state, plugin.reason = "failed", reason
        log.error("plugin.failed", plugin=plugin.name, reason=reason)
        self._take_out(plugin)

    def collect(self, hook: str, *args: object) -> list[tuple[Plugin, Any]]:
        """Call a life-cycle hook of each plugin; one that raises is `failed`."""
        results: list[tuple[Plugin, Any]] = []
        for plugin, call in self._implementations(hook):
            try:
                results.append((plugin, call(*args)))
            except (Exception, SystemExit) as error:
                self.fail(plugin, f"{hook}: {type(error).__name__}: {error}")
        return results

    async def call(self, hook: str, *args: object, last_first: bool = False) -> None:
        """Call a life-cycle hook that may be a coroutine, one plugin after the other."""
        implementations = self._implementations(hook)
        for plugin, call in reversed(implementations) if last_first else implementations:
            try:
                waiting = call(*args)
                if isinstance(waiting, Awaitable):
                    await cast("Awaitable[object]", waiting)
            except (Exception, SystemExit) as error:
                self.fail(plugin, f"{hook}: {type(error).__name__}: {error}")

    @property
    def before_route(self) -> Callable[[Envelope], Envelope] | None:
        """The `before_route` of all plugins as one call; None when no plugin has it."""
        return self._run_before_route if self._before_route.calls else None

    @property
    def after_delivery(self) -> Callable[[Delivery], None] | None:
        """The `after_delivery` of all plugins as one call; None when no plugin has it."""
        return self._run_after_delivery if self._after_delivery.calls else None

    def fence(self, plugin: Plugin, hook: str, call: Callable[[], T]) -> T | None:
        """Call into a plugin: an exception or an overrun is counted and logged, never passed on."""
        began = perf_counter()
        try:
            result = call()
        except Exception as error:
            log.exception("plugin.raised", plugin=plugin.name, hook=hook)
            self._fault(plugin, hook, f"{hook} raised {type(error).__name__}")
            return None
        took_s = perf_counter() - began
        if took_s > self._budget_s:
            log.warning("plugin.slow", plugin=plugin.name, hook=hook, took_s=round(took_s, 3))
            self._fault(plugin, hook, f"{hook} took {took_s:.2f} s")
        else:
            plugin.faults = 0
        return result

    def _fault(self, plugin: Plugin, hook: str, reason: str) -> None:
        self._metrics.plugin_errors[plugin.name, hook].inc()
        plugin.faults += 1
        if plugin.faults >= FAULTS_IN_A_ROW and plugin.state == "up":
            plugin.state = "quarantined"
            plugin.reason = f"{plugin.faults} faults in a row, the last: {reason}"
            log.error("plugin.quarantined", plugin=plugin.name, reason=plugin.reason)
            self._take_out(plugin)
            self._quarantined(plugin)

    def _take_out(self, plugin: Plugin) -> None:
        if self._manager.is_registered(plugin.object):
            self._manager.unregister(plugin.object)
        self._prepare()

    def _prepare(self) -> None:
        self._before_route = Prepared(self._implementations("before_route"))
        self._after_delivery = Prepared(self._implementations("after_delivery"))

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

    def _run_before_route(self, envelope: Envelope) -> Envelope:
        for plugin, call in self._before_route.calls:
            changed = self.fence(plugin, "before_route", partial(call, envelope))
            if isinstance(changed, Envelope):
                envelope = changed
            elif changed is not None:
                self._fault(plugin, "before_route", "before_route gave no envelope")
        return envelope

    def _run_after_delivery(self, delivery: Delivery) -> None:
        for plugin, call in self._after_delivery.calls:
            self.fence(plugin, "after_delivery", partial(call, delivery))


def _taking(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Return the function as one that takes all arguments of its hook; it may want fewer."""
    return function if names else lambda *_: function()


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    return point.dist.name, point.dist.version
