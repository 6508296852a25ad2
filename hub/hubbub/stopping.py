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
        self._drain_s = drain_s
        self._ends = monotonic() + drain_s + STOP_GRACE_S
        self.at = ""
        self.late: list[str] = []

    def left_s(self, *, keep_s: float = 0.0) -> float:
        """Return how long a step may take that leaves so many seconds for those after it."""
        return max(SHARE_S, self._ends - monotonic() - keep_s)

    def drain_s(self) -> float:
        """Return what is left of `hub.drain_timeout`."""
        return max(0.0, self._ends - monotonic() - STOP_GRACE_S)

    async def step(self, name: str, work: Awaitable[object], *, keep_s: float) -> bool:
        """Do one step; what it raises is logged, one that is late is left behind.

        Args:
            keep_s: Seconds that are kept for the steps after it.

        Returns:
            Whether it went well.
        """
        self.at = name
        try:
            limit_s = max(SHARE_S, self.left_s(keep_s=keep_s) - CANCEL_S)
            await within(work, limit_s, name=f"stop: {name}")
        except TimeoutError:
            self.late.append(name)
            log.warning("hub.stop_step_late", step=name)
        except Exception:
            log.exception("hub.stop_step_failed", step=name)
        else:
            return True
        return False


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
