"""The watchdog's second: a small process beside the hub, for calls that keep the interpreter.

While such a call runs, no thread of Python does, the watchdog's neither. The process beside has
an interpreter of its own (`watcher.py`). It reads from a pipe that the watchdog still looks. Once
that does not, it has the stack written by a signal that C code answers (`faulthandler`), writes
what happened to the log and to the file of stuck plugins, and has the hub ended (`native_exit`).
It ends itself with the hub, whose end of the pipe is closed then.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from hubbub.native_exit import NativeExitError, open_native_exit
from hubbub.watchdog import EXIT_CODE, TICK_S, Watchdog

__all__ = ["GRACE_LOOKS", "watched_from_outside"]

GRACE_LOOKS: Final = 3
"""Looks that the watchdog's own thread has before, should it only be late."""

END_S: Final = 2.0
"""How long the process beside may take to end with the hub."""

PROGRAM: Final = Path(__file__).with_name("watcher.py")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@contextmanager
def watched_from_outside(
    watchdog: Watchdog, data_dir: Path, *, log_format: str = "auto"
) -> Generator[None]:
    """Have a process beside watch the loop that this watchdog watches.

    Where that cannot be (no Linux, no processes left), it is logged and done without.
    """
    with ExitStack() as opened:
        try:
            pulse = _start(opened, data_dir, log_format)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            opened.close()
            log.warning("watchdog.alone", error=str(error))
        else:
            watchdog.on_look = pulse.send
            opened.callback(setattr, watchdog, "on_look", None)
        yield


class _Pulse:
    """The hub's end of the pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def send(self, limit_s: float) -> None:
        """Say that threads run, and how long they may not from now on."""
        with suppress(OSError):  # full, or nobody reads: the hub goes on without
            os.write(self._pipe, f"{limit_s:g}\n".encode())


def _start(opened: ExitStack, data_dir: Path, log_format: str) -> _Pulse:
    """Start the process beside.

    Raises:
        OSError, ValueError, SubprocessError: it cannot be started.
    """
    if not sys.executable or not Path("/proc/self/stat").exists():
        raise OSError("there is no /proc, which tells whether a process is stopped")
    dump_signal = signal.SIGRTMAX - 1
    reads, writes = os.pipe()
    opened.callback(os.close, writes)
    opened.callback(os.close, reads)
    faulthandler.register(dump_signal, file=writes, all_threads=False, chain=False)
    opened.callback(faulthandler.unregister, dump_signal)
    try:
        ending = open_native_exit(EXIT_CODE)
        opened.callback(os.close, ending)
    except NativeExitError as error:
        log.info("watchdog.kills", error=str(error), hint="a held hub ends by SIGKILL then")
        ending = -1
    numbers = (dump_signal, reads, ending, GRACE_LOOKS, round(TICK_S * 1000))
    report = [sys.executable, "-P", "-m", "hubbub.held_loop", str(data_dir.absolute()), log_format]
    process = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-I", "-S", str(PROGRAM), ",".join(map(str, numbers)), *report],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[reads] if ending < 0 else [reads, ending],
        process_group=0,  # Ctrl-C is for the hub; the process beside ends with it
    )
    opened.callback(_end, process)
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return _Pulse(process.stdin.fileno())


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
