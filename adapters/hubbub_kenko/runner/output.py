"""What a process writes: its last lines in memory, all of it in a file that is turned over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubbub.file_modes import make_folder, open_binary
from hubbub_kenko import wire

__all__ = ["FILE_BYTES", "LINES", "MAX_LINE", "Output", "OutputLine"]

LINES: Final = 1000
"""Lines in memory."""

MAX_LINE: Final = wire.MAX_LINE
"""Bytes of a line in memory; a longer one is several."""

FILE_BYTES: Final = 5 * 1024**2
"""Bytes of the file; then it is kept once as `.1`, and a new one begins."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line."""

    number: int
    at_us: int
    text: str


class Output:
    """The output of one deployment, over all its processes.

    Args:
        path: The file; None for one that is kept in memory alone.
        grown: Called when there may be more lines.
    """

    def __init__(self, path: Path | None, *, grown: Callable[[], None] | None = None) -> None:
        self._path = path
        self._grown = grown
        self._lines: deque[OutputLine] = deque(maxlen=LINES)
        self._count = 0
        self._begun = b""

    def note(self, text: str, at_us: int) -> None:
        """Add a line about the process."""
        self.add(f"[hub] {text}\n".encode(), at_us)

    def add(self, chunk: bytes, at_us: int) -> None:
        """Add what a process wrote."""
        self._write(chunk)
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        while len(self._begun) > MAX_LINE:
            lines.append(self._begun[:MAX_LINE])
            self._begun = self._begun[MAX_LINE:]
        for line in lines:
            self._line(line, at_us)
        self._tell()

    def line(self, text: str, at_us: int) -> None:
        """Add one line to those in memory, as somebody else has it."""
        self._count += 1
        self._lines.append(OutputLine(self._count, at_us, text))

    def end(self, at_us: int) -> None:
        """Add a last line that has no end."""
        if self._begun:
            self._line(self._begun, at_us)
            self._begun = b""
            self._tell()

    def after(self, number: int, limit: int) -> list[OutputLine]:
        """Return lines after a number, oldest first."""
        return [line for line in self._lines if line.number > number][:limit]

    def _line(self, line: bytes, at_us: int) -> None:
        for start in range(0, max(1, len(line)), MAX_LINE):
            text = line[start : start + MAX_LINE].decode("utf-8", "replace").rstrip("\r")
            self.line(text, at_us)

    def _tell(self) -> None:
        if self._grown is not None:
            self._grown()

    def _write(self, chunk: bytes) -> None:
        if self._path is None:
            return
        make_folder(self._path.parent)
        if self._path.exists() and self._path.stat().st_size + len(chunk) > FILE_BYTES:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        with open_binary(self._path, "ab") as file:
            file.write(chunk)
