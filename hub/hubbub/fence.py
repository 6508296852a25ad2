"""The fence around plugins: every call into one is measured, and what it raises stays inside.

Three faults in a row, an exception or an overrun each, put a plugin in quarantine. A call that
never returns is the watchdog's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from time import perf_counter
from typing import Any, Final, Literal, Protocol, TypeVar, cast

import msgspec
import structlog

from hubbub.conversion import Converter
from hubbub.culprits import BUNDLED
from hubbub.envelope import Envelope
from hubbub.errors import NotJsonError, Reject
from hubbub.observe.metrics import Metrics
from hubbub.time_limit import within
from hubbub.watchdog import Inside, Watchdog

__all__ = ["BUNDLED", "FAULTS_IN_A_ROW", "LIFE_S", "Fence", "Loads", "Plugin", "PluginState"]

FAULTS_IN_A_ROW: Final = 3
"""Faults after each other that switch a plugin off."""

LIFE_S: Final = 60.0
"""Seconds that one `startup` or `shutdown` may wait."""

PluginState = Literal["up", "failed", "quarantined", "disabled"]

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Loads(Protocol):
    """Told of each call that loads a plugin: before it, and when it came back."""

    def write(self, plugin: str, where: str) -> None:
        """Note that a plugin is about to be called."""

    def clear(self) -> None:
        """Note that the call came back."""


@dataclass(slots=True, eq=False)
class Plugin:
    """One plugin that was found.

    Attributes:
        faults_of: Faults by hook since it last went well: one that works hides none that fails.
        object: Module or instance with its hooks; None until it is imported.
        point: Where it was found; None for one that was in hand already.
    """

    name: str
    distribution: str
    version: str
    state: PluginState = "up"
    reason: str = ""
    faults_of: Counter[str] = field(default_factory=Counter[str])
    object: Any = None
    point: EntryPoint | None = None

    @property
    def faults(self) -> int:
        """Faults in a row of its worst hook."""
        return max(self.faults_of.values(), default=0)

    @property
    def bundled(self) -> bool:
        """Whether it came with the hub."""
        return self.distribution == BUNDLED


class Fence:
    """Calls into plugins.

    Attributes:
        budget_s: How long one synchronous call on the path of messages may take.
        loads: Told which plugin is at work while it is loaded.
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
        self.loads: Loads | None = None
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(limit_s=0, remember=_forget)
        self._quarantine = quarantine
        self._trying = False

    def call(self, plugin: Plugin, hook: str, call: Callable[[], T]) -> T | None:
        """Call into a plugin: an exception or an overrun is counted and logged, never passed on."""
        began = perf_counter()
        try:
            with self.watched(plugin, hook):
                result = call()
        except NotJsonError:  # whoever publishes may say what is not JSON: no fault of the plugin
            log.debug("plugin.not_json", plugin=plugin.name, hook=hook)
            return None
        except (Exception, SystemExit) as error:
            log.exception("plugin.raised", plugin=plugin.name, hook=hook)
            self.fault(plugin, hook, f"{hook} raised {type(error).__name__}")
            return None
        self.measure(plugin, hook, perf_counter() - began)
        return result

    def around(self, plugin: Plugin, converter: Converter) -> Converter:
        """Return a converter whose calls are checked and measured."""
        function = self.checked(plugin, "converters", converter.function, gives=converter.to_type)
        return replace(converter, function=function)

    def checked(
        self,
        plugin: Plugin,
        hook: str,
        function: Callable[..., Envelope | None],
        *,
        gives: str | None = None,
    ) -> Callable[..., Envelope | None]:
        """Return a function from envelope to envelope whose calls are checked and measured.

        What it raises, an overrun and an answer that is no envelope are faults, and fail the
        attempt; `Reject` is a word of its own. What says which message it is cannot be changed.

        Args:
            gives: The type its envelopes must have; None for any.
        """

        def call(envelope: Envelope, *more: object) -> Envelope | None:
            began = perf_counter()
            try:
                with self.watched(plugin, hook):
                    given = function(envelope, *more)
                if given is not None:
                    given = _same_message(envelope, given, gives)
            except (Reject, NotJsonError):
                raise
            except Exception as error:
                self.fault(plugin, hook, f"{hook} raised {type(error).__name__}")
                raise
            self.measure(plugin, hook, perf_counter() - began)
            return given

        return call

    async def live(
        self,
        plugin: Plugin,
        hook: str,
        call: Callable[..., Any],
        hub: object,
        *,
        limit_s: float = LIFE_S,
    ) -> str | None:
        """Call `startup` or `shutdown`, wait for it up to a limit; returns what went wrong."""
        try:
            with self._noted(plugin, hook) if hook == "startup" else nullcontext():
                with self.watched(plugin, hook):
                    waiting = call(hub)
                if isinstance(waiting, Awaitable):
                    name = f"{hook} of plugin {plugin.name!r}"
                    await within(cast("Awaitable[object]", waiting), limit_s, name=name)
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

    @contextmanager
    def loading(self, plugin: Plugin, what: str) -> Generator[None]:
        """Watch a call that loads a plugin, and let the next start know where it never came back.

        `os._exit` and a crash leave no other trace, nor does a call that keeps the interpreter.
        """
        with self._noted(plugin, what), self.watched(plugin, what):
            yield

    @contextmanager
    def _noted(self, plugin: Plugin, what: str) -> Generator[None]:
        if self.loads is not None:
            self.loads.write(plugin.name, what)
        try:
            yield
        finally:
            if self.loads is not None:
                self.loads.clear()

    @contextmanager
    def trying(self) -> Generator[None]:
        """Call something to see what it does (a dry run): what it does wrong is not counted."""
        self._trying = True
        try:
            yield
        finally:
            self._trying = False

    def fault(self, plugin: Plugin, hook: str, reason: str) -> None:
        """Count a fault; the third in a row is one too many."""
        if self._trying:
            return
        self._metrics.plugin_errors[plugin.name, hook].inc()
        plugin.faults_of[hook] += 1
        if plugin.faults_of[hook] >= FAULTS_IN_A_ROW and plugin.state == "up":
            self._quarantine(
                plugin, f"{plugin.faults_of[hook]} faults in a row, the last: {reason}"
            )

    def measure(self, plugin: Plugin, hook: str, took_s: float) -> None:
        """Count a call that went well, or that held the loop for too long."""
        if took_s > self.budget_s:
            log.warning("plugin.slow", plugin=plugin.name, hook=hook, took_s=round(took_s, 3))
            self.fault(plugin, hook, f"{hook} took {took_s:.2f} s")
        else:
            plugin.faults_of.pop(hook, None)


def _same_message(before: Envelope, after: object, gives: str | None) -> Envelope:
    """Return what a plugin made of an envelope, as the same message.

    Raises:
        TypeError: it is no envelope, or not of the type that was promised.
    """
    if not isinstance(after, Envelope):
        raise TypeError(f"gave a {type(after).__name__}, no envelope")
    if gives is not None and after.type != gives:
        raise TypeError(f"gave an envelope of type {after.type!r}, not {gives!r} as it says")
    after = after.with_data_of(before)
    if (after.id, after.source, after.time_us, after.traceparent, after.hops) == (
        before.id, before.source, before.time_us, before.traceparent, before.hops,
    ):  # fmt: skip
        return after
    return msgspec.structs.replace(
        after,
        id=before.id,
        source=before.source,
        time_us=before.time_us,
        traceparent=before.traceparent,
        hops=before.hops,
    )


def _forget(plugin: str, reason: str) -> None:
    """Remember nothing: for calls that no watchdog looks at."""
    del plugin, reason
