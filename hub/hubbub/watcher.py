"""The process beside the hub: sees when its interpreter is kept (see `outside_watchdog`).

A program of its own, run with nothing but the standard library, and with little of that, so that
it is small: what only the end needs is imported then. It lives as long as its standard input, into
which the hub's watchdog writes a line at each look: the limit in seconds.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

__all__ = ["Watcher"]

DUMP_S = 1.0
"""How long the stack may take to come."""

REPORT_S = 10.0
"""How long log and memory may take."""

EXIT_S = 2.0
"""How long the hub may take to end once it is asked to; then it is killed."""

READ_BYTES = 65536


class Watcher:
    """Looks at one hub, its parent.

    Args:
        dump_signal: Has the hub write its stack.
        dumps: Descriptor into which it does.
        ending: Descriptor of `native_exit`; -1 for none.
        grace_looks: Looks beyond the limit.
        tick_s: Seconds between two looks.
        report: Program that logs what happened.
    """

    def __init__(
        self,
        *,
        dump_signal: int,
        dumps: int,
        ending: int,
        grace_looks: int,
        tick_s: float,
        report: list[str],
    ) -> None:
        self.dump_signal = dump_signal
        self.dumps = dumps
        self.ending = ending
        self.grace_looks = grace_looks
        self.tick_s = tick_s
        self.report = report
        self.hub = os.getppid()
        self.limit_s = 0.0
        self.looks = 0

    def watch(self) -> None:
        """Look again and again, until the hub has ended."""
        due = time.monotonic() + self.tick_s
        while self.is_there():
            readable, _, _ = select.select([0], [], [], max(0.0, due - time.monotonic()))
            if readable and not self.read():
                return
            if time.monotonic() >= due:
                due = time.monotonic() + self.tick_s
                self.look()

    def read(self) -> bool:
        """Take in what the hub says; False when it says nothing any more."""
        said = os.read(0, READ_BYTES)
        lines = said.split(b"\n")
        if len(lines) > 1:
            self.limit_s = float(lines[-2])
        self.looks = 0
        return bool(said)

    def look(self) -> None:
        """A look without a line brings the hub nearer to its end, unless it is stopped."""
        self.looks = 0 if self.is_stopped() else self.looks + 1
        if self.limit_s and (self.looks - self.grace_looks) * self.tick_s >= self.limit_s:
            self.bite()

    def is_there(self) -> bool:
        """Tell whether the hub lives."""
        return os.getppid() == self.hub

    def is_stopped(self) -> bool:
        """Tell whether a signal or a debugger has stopped the hub."""
        try:
            with open(f"/proc/{self.hub}/stat", "rb") as file:  # noqa: PTH123  # pathlib is large
                return file.read().rpartition(b")")[2].split()[0] in b"Tt"
        except OSError:
            return True

    def bite(self) -> None:
        """Say where the hub is, and end it."""
        import json  # noqa: PLC0415  # see above
        import subprocess  # noqa: PLC0415

        stack = self.stack()
        if select.select([0], [], [], 0)[0]:  # it runs again
            self.looks = 0
            return
        words = json.dumps({"limit_s": self.limit_s, "stack": stack})
        try:
            subprocess.run(  # noqa: S603  # our own program
                self.report, input=words, text=True, timeout=REPORT_S, check=False, stdout=2
            )
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"hubbub: the event loop is held ({error})\n{stack}\n")
        self.end()

    def stack(self) -> str:
        """Return where the hub is; C code of its own writes that."""
        os.kill(self.hub, self.dump_signal)
        parts: list[bytes] = []
        until = time.monotonic() + DUMP_S
        while select.select([self.dumps], [], [], max(0.0, until - time.monotonic()))[0]:
            parts.append(os.read(self.dumps, READ_BYTES))
            until = time.monotonic() + DUMP_S / 10
        return b"".join(parts).decode(errors="replace")

    def end(self) -> None:
        """Have the hub ended, with its exit code where the system lets it."""
        if self.ending >= 0:
            import ctypes  # noqa: PLC0415  # see above

            ctypes.CDLL(None).mq_send(self.ending, b"1", ctypes.c_size_t(1), 1)
            until = time.monotonic() + EXIT_S
            while self.is_there() and time.monotonic() < until:
                time.sleep(0.02)
        if self.is_there():
            os.kill(self.hub, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes when the hub has gone
    first, *report = sys.argv[1:]
    numbers = [int(number) for number in first.split(",")]
    Watcher(
        dump_signal=numbers[0],
        dumps=numbers[1],
        ending=numbers[2],
        grace_looks=numbers[3],
        tick_s=numbers[4] / 1000,
        report=report,
    ).watch()
