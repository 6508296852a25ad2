"""The end of a node that was told to stop, from a thread of its own: it comes in any case.

A handler may swallow its cancellation, hold the event loop, or leave a thread that keeps the
process. Signals are taken by Python itself, as the loop may be held; their handler only writes a
byte into a pipe, and a thread reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

__all__ = ["GRACE_S", "HELD", "INTERRUPTED", "Deadline"]

GRACE_S: Final = 10.0
"""Seconds beyond `--grace` in which a node ends: half of them for acknowledgements."""

INTERRUPTED: Final = 130
"""Exit code after a second signal."""

HELD: Final = 70
"""Exit code of a node whose event loop was held until the deadline."""

PROBE_S: Final = 0.25
"""How long the event loop may take to answer; that is how one that is held is known."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


class Deadline:
    """Takes SIGTERM and SIGINT, and ends the process when its stop takes too long."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)

    def take(self, told: Callable[[], None]) -> None:
        """Take the signals; call this on the running loop at the first. On the main thread."""
        threading.Thread(
            target=self._run,
            args=(asyncio.get_running_loop(), told),
            name="hubbub-node-deadline",
            daemon=True,
        ).start()
        for number in SIGNALS:
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        try:
            os.write(self._write_fd, b"!")
        except OSError:  # as many signals as a pipe has room for
            return

    def _run(self, loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
        os.read(self._read_fd, 1)
        _call(loop, told)
        if select.select([self._read_fd], [], [], self._limit_s)[0]:
            os._exit(INTERRUPTED)
        answered = threading.Event()
        held = _call(loop, answered.set) and not answered.wait(PROBE_S)
        tasks = [] if loop.is_closed() else [_name(task) for task in asyncio.all_tasks(loop)]
        main = threading.main_thread()
        threads = [
            each.name for each in threading.enumerate() if not each.daemon and each is not main
        ]
        log.error(
            "did not end within %g s%s; tasks: %s; threads: %s",
            self._limit_s,
            ", its event loop is held" if held else "",
            ", ".join(sorted(tasks)) or "none",
            ", ".join(sorted(threads)) or "none",
        )
        sys.stderr.flush()
        os._exit(HELD if held else 0)


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    """Call something on a loop; False where it has ended."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


def _name(task: asyncio.Task[object]) -> str:
    work = task.get_coro()
    return f"{getattr(work, '__qualname__', '?')} ({task.get_name()})"
