"""The output of a deployment on a remote runner, as far as the hub has been told."""

from __future__ import annotations

from typing import Final

from hubbub_kenko.runner.output import Output
from hubbub_kenko.wire import RunnerOutput

__all__ = ["RemoteOutput"]


class RemoteOutput:
    """Its last lines, in memory; the runner keeps all of them in a file.

    A runner tells lines again after it was away; those that are known are passed over, and those
    that are missing are named.
    """

    def __init__(self) -> None:
        self.lines: Final = Output(None)
        self._life = ""
        self._last = 0

    def take(self, told: RunnerOutput, now_us: int) -> None:
        """Take lines of the runner."""
        if told.life != self._life:
            self._life, self._last = told.life, 0
        for line in told.lines:
            if line.number <= self._last:
                continue
            missing = line.number - self._last - 1
            if missing and self._last:
                self.lines.note(f"{missing} lines were lost on the way", now_us)
            self._last = line.number
            self.lines.line(line.text, line.at_us)
