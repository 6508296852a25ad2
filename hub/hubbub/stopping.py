"""How long a stop may take, and what did not end in time.

From the signal on there are `hub.drain_timeout` and a few seconds more. Each step has a share of
them: it may take as long as it likes, but for what is kept for the steps after it. A step that is
late is left behind, so that the next ones, the journal and the database among them, come to their
turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Final

import structlog

from hubbub.time_limit import CANCEL_S, within

__all__ = ["STOP_GRACE_S", "StopTime", "on_thread"]

STOP_GRACE_S: Final = 5.0
"""Seconds beyond `hub.drain_timeout` in which a stop ends, whatever does not."""

LAST_WORDS_S: Final = 0.6
"""What is left of them when the process is ended from outside the event loop."""

KEEP_S: Final = {
    "drain": 3.15,
    "connections": 2.6,
    "adapters": 1.9,
    "listeners": 1.7,
    "writing": 1.5,
    "plugins switched off": 1.4,
    "plugins": 1.1,
    "tasks": 0.9,
    "journal": 0.6,
    "database": 0.35,
}
"""Seconds that each step, in their order, leaves for those after it, once it is late."""

STEP: Final = "stop: "
"""How names of their tasks begin."""

SHARE_S: Final = 0.05
"""The least that a step gets, however late it is."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class StopTime:
    """The time of one stop.

    Attributes:
        at: The step that is under way.
        late: Steps that did not end in time.
    """

    def __init__(self, drain_s: float) -> None:
        self._drained = monotonic() + drain_s
        self._ends = self._drained + STOP_GRACE_S - LAST_WORDS_S
        self.at = ""
        self.late: list[str] = []

    def inner_s(self, step: str) -> float:
        """Return how long parts of a step may take, so that it is they who are named as late."""
        return max(SHARE_S, self._left_s(step) - 2 * CANCEL_S)

    def drain_s(self) -> float:
        """Return what is left of `hub.drain_timeout`."""
        return max(0.0, self._drained - monotonic())

    async def step(self, name: str, work: Awaitable[object]) -> None:
        """Do one of the steps; what it raises is logged, one that is late is left behind."""
        self.at = name
        try:
            await within(work, self._left_s(name), name=f"{STEP}{name}")
        except TimeoutError:
            self.late.append(name)
            log.warning("hub.stop_step_late", step=name)
        except Exception:
            log.exception("hub.stop_step_failed", step=name)

    def _left_s(self, step: str) -> float:
        return max(SHARE_S, self._ends - monotonic() - KEEP_S[step] - CANCEL_S)


async def on_thread(work: Any, *, name: str) -> None:  # noqa: ANN401  # any call without arguments
    """Call something on a thread of its own that keeps nobody: what waits for a disk may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def answer(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001  # raised again, where it is waited for
            error = raised
        try:
            loop.call_soon_threadsafe(answer, error)
        except RuntimeError:  # nobody waits any more
            return

    threading.Thread(target=run, name=name, daemon=True).start()
    await done
