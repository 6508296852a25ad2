"""A plugin's hook that never returns: noticed from a thread of its own, named, and ended with.

Python cannot leave a call from outside. While the event loop is inside a plugin, nothing of the
hub runs: no health check, no signal, no drain. So the process ends with an exit code of its own,
the service manager starts it again, and that plugin is in quarantine then. Nothing acknowledged
is lost by it: it is like any other crash.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

__all__ = ["EXIT_CODE", "TICK_S", "Inside", "Watchdog"]

EXIT_CODE: Final = 70
"""Exit code of a hub whose event loop was stuck in a plugin."""

TICK_S: Final = 1.0
"""How often the watchdog looks. Looks are counted, not seconds: a stopped process has none."""

STACK_LIMIT: Final = 20
"""Innermost calls of the stack that are logged."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """One call of the event loop into a plugin."""

    plugin: str
    hook: str


class Watchdog:
    """Ends the process when the event loop stays inside one call of a plugin.

    Attributes:
        inside: The call under way, set by the fence.
        limit_s: How long a call may take; 0 for any time.
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
        self._remember = remember
        self._end = end
        self._seen: Inside | None = None
        self._looks = 0
        self._watched: int | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch the thread that calls this."""
        self._watched = threading.get_ident()
        threading.Thread(target=self._run, name="hubbub-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def look(self) -> None:
        """Compare with the last look; a call that is still under way comes nearer to its limit."""
        inside = self.inside
        if inside is None or inside is not self._seen:
            self._seen, self._looks = inside, 0
            return
        self._looks += 1
        if self.limit_s and self._looks * TICK_S >= self.limit_s:
            self._bite(inside)

    def _run(self) -> None:
        while not self._stopped.wait(TICK_S):
            self.look()

    def _bite(self, inside: Inside) -> None:
        reason = f"{inside.hook} did not return for {self.limit_s:g} s; the hub was ended for it"
        try:
            log.critical(
                "plugin.stuck",
                plugin=inside.plugin,
                hook=inside.hook,
                limit_s=self.limit_s,
                stack=self._stack(),
                exit_code=EXIT_CODE,
            )
            self._remember(inside.plugin, reason)
        except Exception as error:
            log.exception("plugin.unremembered", plugin=inside.plugin, error=type(error).__name__)
        finally:
            self._end(EXIT_CODE)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched or 0)  # noqa: SLF001  # the only way there
        if frame is None:
            return ""
        return "".join(traceback.format_stack(frame)[-STACK_LIMIT:])
