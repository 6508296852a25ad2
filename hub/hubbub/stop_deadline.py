"""The end of a hub that was told to stop, from a thread of its own: it comes in any case.

Signals are taken by Python itself and not by the event loop, which may be held. The handler writes
a byte into a pipe and nothing else, as it may run in the middle of anything; all the rest is done
by the thread that reads it. What is left at the deadline is named in one line, and the process
ends: with 0 if the event loop still answers or is done, with 70 if it is held.

A call that keeps the interpreter's lock keeps this thread too; that is the watchdog's matter.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from types import FrameType
from typing import Any, Final

import structlog

from hubbub.leftovers import plugin_in, tasks_left, threads_left
from hubbub.stopping import LAST_WORDS_S, STOP_GRACE_S

__all__ = ["HELD", "StopDeadline"]

HELD: Final = 70
"""Exit code of a hub whose event loop was held until the deadline."""

INTERRUPTED: Final = 1
"""Exit code after a second signal."""

PROBE_S: Final = 0.2
"""How long the event loop may take to answer; that is how one that is held is known."""

SAY_S: Final = LAST_WORDS_S - PROBE_S
"""How long writing the last line may take: whoever reads the log may have stopped to."""

STACK_LIMIT: Final = 20
"""Innermost calls of the stack that are logged."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class StopDeadline:
    """Takes SIGTERM and SIGINT, and ends the process when its stop takes too long.

    Attributes:
        drain_s: Returns `hub.drain_timeout` as it is now.
        step: Returns the step of the stop that is under way.
        modules: Returns plugins by the top module of each, to name them.
    """

    def __init__(
        self,
        *,
        flush: Callable[[], None] = lambda: None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Take nothing yet.

        Args:
            flush: Writes what waits to be written into the log.
        """
        self.drain_s: Callable[[], float] = lambda: 0.0
        self.step: Callable[[], str] = lambda: ""
        self.modules: Callable[[], Mapping[str, str]] = dict
        self._flush = flush
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: Callable[[], None] = lambda: None
        self._is_told = False
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._before: dict[signal.Signals, Any] = {}
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="hubbub-stop", daemon=True)

    def take(self) -> None:
        """Take the signals; called on the main thread."""
        self._thread.start()
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._signalled)

    def leave(self) -> None:
        """Give the signals back: the hub has ended, the process has not."""
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._write_fd)
        self._thread.join()
        os.close(self._read_fd)

    def tell(self, told: Callable[[], None]) -> None:
        """Call this on the running loop at the first signal; at once if that was before."""
        self._loop, self._told = asyncio.get_running_loop(), told
        if self._is_told:
            told()

    def end_now(self, left: Mapping[str, object]) -> None:
        """End the process with 0, though something is left; it is named."""
        self._say("hub.stop_cut_short", {**left, "exit_code": 0})
        self._end(0)

    # Inside

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        try:
            os.write(self._write_fd, b"!")
        except OSError:  # as many signals as a pipe has room for
            return

    def _run(self) -> None:
        if not os.read(self._read_fd, 1):
            return
        ends = monotonic() + self.drain_s() + STOP_GRACE_S - LAST_WORDS_S
        self._is_told = True
        self._call(self._told_now)
        while (left_s := ends - monotonic()) > 0:
            if not select.select([self._read_fd], [], [], left_s)[0]:
                break
            if not os.read(self._read_fd, 1):
                return
            self._say("hub.second_signal", {"exit_code": INTERRUPTED})
            self._end(INTERRUPTED)
        self._end_late()

    def _told_now(self) -> None:
        self._told()

    def _call(self, callback: Callable[[], object]) -> bool:
        """Call something on the loop; False where there is none, or none any more."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _end_late(self) -> None:
        answered = threading.Event()
        held = self._call(answered.set) and not answered.wait(PROBE_S)
        code = HELD if held else 0
        modules = self.modules()
        main = sys._current_frames().get(self._main)  # noqa: SLF001  # the only way there
        left: dict[str, object] = {
            "step": self.step(),
            "tasks": tasks_left(self._loop, modules),
            "threads": threads_left(modules),
            "plugin": plugin_in(main, modules),
            "held": held,
            "exit_code": code,
        }
        if held and main is not None:
            left["stack"] = "".join(traceback.format_stack(main)[-STACK_LIMIT:])
        self._say("hub.stop_cut_short", left)
        self._end(code)

    def _say(self, event: str, what: Mapping[str, object]) -> None:
        """Write a line, and what waits for the log; not longer than that may take."""

        def say() -> None:
            log.error(event, **what)
            self._flush()
            sys.stderr.flush()

        speaker = threading.Thread(target=say, name="hubbub-last-words", daemon=True)
        try:
            speaker.start()
        except RuntimeError:  # the interpreter is about to end
            say()
        else:
            speaker.join(SAY_S)
