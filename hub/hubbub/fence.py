"""The fence around plugins: every call into one is measured, and what it raises stays inside.

Three faults in a row, an exception or an overrun each, put a plugin in quarantine. A call that
never returns is the watchdog's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from time import perf_counter
from typing import Any, Final, Literal, TypeVar, cast

import structlog

from hubbub.conversion import Converter
from hubbub.envelope import Envelope
from hubbub.observe.metrics import Metrics
from hubbub.watchdog import Inside, Watchdog

__all__ = ["BUNDLED", "FAULTS_IN_A_ROW", "LIFE_S", "Fence", "Plugin", "PluginState"]

FAULTS_IN_A_ROW: Final = 3
"""Faults after each other that switch a plugin off."""

LIFE_S: Final = 60.0
"""Seconds that one `startup` or `shutdown` may wait."""

BUNDLED: Final = "hubbub"
"""Distribution of the plugins that come with the hub."""

PluginState = Literal["up", "failed", "quarantined", "disabled"]

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Plugin:
    """One plugin that was found.

    Attributes:
        faults: Faults since its last call that went well.
        object: Module or instance with its hooks; None until it is imported.
        point: Where it was found; None for one that was in hand already.
    """

    name: str
    distribution: str
    version: str
    state: PluginState = "up"
    reason: str = ""
    faults: int = 0
    object: Any = None
    point: EntryPoint | None = None

    @property
    def bundled(self) -> bool:
        """Whether it came with the hub."""
        return self.distribution == BUNDLED


class Fence:
    """Calls into plugins.

    Attributes:
        budget_s: How long one synchronous call on the path of messages may take.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        budget_s: float,
        watchdog: Watchdog | None,
        quarantine: Callable[[Plugin, str], None],
    ) -> None:
        self.budget_s = budget_s
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(limit_s=0, remember=_forget)
        self._quarantine = quarantine

    def call(self, plugin: Plugin, hook: str, call: Callable[[], T]) -> T | None:
        """Call into a plugin: an exception or an overrun is counted and logged, never passed on."""
        began = perf_counter()
        try:
            with self.watched(plugin, hook):
                result = call()
        except (Exception, SystemExit) as error:
            log.exception("plugin.raised", plugin=plugin.name, hook=hook)
            self.fault(plugin, hook, f"{hook} raised {type(error).__name__}")
            return None
        self._measure(plugin, hook, perf_counter() - began)
        return result

    def around(self, plugin: Plugin, converter: Converter) -> Converter:
        """Return a converter whose calls are measured; what it raises fails the attempt."""

        def convert(*given: object) -> Envelope | None:
            began = perf_counter()
            try:
                with self.watched(plugin, "converters"):
                    converted = converter.function(*given)
            except Exception as error:
                self.fault(plugin, "converters", f"a converter raised {type(error).__name__}")
                raise
            self._measure(plugin, "converters", perf_counter() - began)
            return converted

        return replace(converter, function=convert)

    async def live(
        self, plugin: Plugin, hook: str, call: Callable[..., Any], hub: object
    ) -> str | None:
        """Call `startup` or `shutdown`, wait for it up to a deadline; returns what went wrong."""
        try:
            with self.watched(plugin, hook):
                waiting = call(hub)
            if isinstance(waiting, Awaitable):
                async with asyncio.timeout(LIFE_S):
                    await cast("Awaitable[object]", waiting)
        except (Exception, SystemExit) as error:
            self._metrics.plugin_errors[plugin.name, hook].inc()
            return f"{hook}: {type(error).__name__}: {error}".rstrip(": ")
        return None

    @contextmanager
    def watched(self, plugin: Plugin, hook: str) -> Generator[None]:
        """Let the watchdog know which plugin the event loop is inside of."""
        watchdog = self._watchdog
        before, watchdog.inside = watchdog.inside, Inside(plugin.name, hook)
        try:
            yield
        finally:
            watchdog.inside = before

    def fault(self, plugin: Plugin, hook: str, reason: str) -> None:
        """Count a fault; the third in a row is one too many."""
        self._metrics.plugin_errors[plugin.name, hook].inc()
        plugin.faults += 1
        if plugin.faults >= FAULTS_IN_A_ROW and plugin.state == "up":
            self._quarantine(plugin, f"{plugin.faults} faults in a row, the last: {reason}")

    def _measure(self, plugin: Plugin, hook: str, took_s: float) -> None:
        if took_s > self.budget_s:
            log.warning("plugin.slow", plugin=plugin.name, hook=hook, took_s=round(took_s, 3))
            self.fault(plugin, hook, f"{hook} took {took_s:.2f} s")
        else:
            plugin.faults = 0


def _forget(plugin: str, reason: str) -> None:
    """Remember nothing: for calls that no watchdog looks at."""
    del plugin, reason
