"""An event loop that is held: noticed from a thread of its own, its stack named, and ended with.

Python cannot leave a call from outside. While one call holds the event loop, nothing of the hub
runs: no health check, no signal, no drain. So the loop's own pulse is watched, and when it is
missing for too long, the process ends with an exit code of its own. The service manager starts it
again, and the plugin that held the loop, if one did, is in quarantine then. Nothing acknowledged
is lost by it: it is like any other crash.

A call that keeps the interpreter's lock stops this thread too. `outside_watchdog` is for that.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from hubbub.culprits import plugin_in

__all__ = ["EXIT_CODE", "PULSE_S", "TICK_S", "Inside", "Watchdog"]

EXIT_CODE: Final = 70
"""Exit code of a hub whose event loop was held."""

TICK_S: Final = 1.0
"""How often the watchdog looks. Looks are counted, not seconds: a stopped process has none."""

PULSE_S: Final = 0.4
"""How often the event loop says that it runs: at least twice between two looks."""

LAST_WORDS_S: Final = 2.0
"""How long log and memory may take: what holds the loop may hold a lock that they need."""

STACK_LIMIT: Final = 20
"""Innermost calls of the stack that are logged."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """One call of the event loop into a plugin."""

    plugin: str
    hook: str


class Watchdog:
    """Ends the process when the event loop has no pulse.

    Attributes:
        inside: The plugin call under way, set by the fence; None outside of those.
        limit_s: How long the loop may be held; 0 for any time.
        starting: Own work may hold the loop (a migration, a look at all pages); plugins may not.
        to_the_end: Watch until the loop is closed, whatever `stop` says: the process is the hub's.
        on_look: Called at each look with the limit: the interpreter lets threads run.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        remember: Callable[[str, str], None],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self.inside: Inside | None = None
        self.limit_s = limit_s
        self.starting = False
        self.to_the_end = False
        self.on_look: Callable[[float], None] | None = None
        self._remember = remember
        self._end = end
        self._pulses = 0
        self._seen: tuple[int, Inside | None] = (0, None)
        self._looks = 0
        self._long_inside: Inside | None = None
        self._watched: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch the running event loop, on whose thread this is called."""
        self._watched = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._beat()
        self._tell()
        threading.Thread(target=self._run, name="hubbub-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        if not self.to_the_end:
            self._stopped.set()

    def pulse(self) -> None:
        """The event loop runs."""
        self._pulses += 1

    def look(self) -> None:
        """Compare with the last look; a loop without a pulse since then comes nearer to its end."""
        now = (self._pulses, self.inside)
        before, self._seen = self._seen, now
        if now[0] != before[0]:
            self._looks, self._long_inside = 0, None
            return
        self._long_inside = now[1] if now[1] is before[1] else None
        self._looks += 1
        if self.limit_s and self._looks * TICK_S >= self.limit_s:
            self._judge()

    def _beat(self) -> None:
        if self._loop is not None and not self._stopped.is_set():
            self.pulse()
            self._loop.call_later(PULSE_S, self._beat)

    def _run(self) -> None:
        while not self._stopped.wait(TICK_S):
            if self._loop is None or self._loop.is_closed():
                return
            self._tell()
            if self._loop.is_running():
                self.look()
            else:  # between two runs of a loop nothing is held
                self._looks = 0

    def _tell(self) -> None:
        if self.on_look is not None:
            self.on_look(self.limit_s)

    def _judge(self) -> None:
        """End the process, unless it is the hub's own start that takes its time."""
        stack = self._stack()
        plugin = _plugin_in(stack) if self._long_inside is None else self._long_inside.plugin
        if plugin is None and self.starting:
            self._looks = 0
            return
        said = partial(self._say_why, stack, plugin)
        try:
            words = threading.Thread(target=said, name="hubbub-last-words", daemon=True)
            words.start()
            words.join(LAST_WORDS_S)
        finally:
            self._end(EXIT_CODE)

    def _say_why(self, stack: traceback.StackSummary, plugin: str | None) -> None:
        inside = self._long_inside
        try:
            log.critical(
                "hub.loop_held" if plugin is None else "plugin.stuck",
                plugin=plugin,
                hook=None if inside is None else inside.hook,
                limit_s=self.limit_s,
                stack="".join(traceback.format_list(stack[-STACK_LIMIT:])),
                exit_code=EXIT_CODE,
            )
        finally:
            if plugin is not None:
                self._remember_plugin(plugin, "a call" if inside is None else inside.hook)

    def _remember_plugin(self, plugin: str, hook: str) -> None:
        reason = f"{hook} did not return for {self.limit_s:g} s; the hub was ended for it"
        try:
            self._remember(plugin, reason)
        except Exception as error:
            log.exception("plugin.unremembered", plugin=plugin, error=type(error).__name__)

    def _stack(self) -> traceback.StackSummary:
        frame = sys._current_frames().get(self._watched or 0)  # noqa: SLF001  # the only way there
        if frame is None:
            return traceback.StackSummary()
        return traceback.extract_stack(frame)


def _plugin_in(stack: traceback.StackSummary) -> str | None:
    try:
        return plugin_in(frame.filename for frame in reversed(stack))
    except Exception:  # what is broken in an installed package must not keep the process alive
        log.exception("plugin.unknown")
        return None
