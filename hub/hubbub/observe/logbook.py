"""The last log lines in memory, and all of them in a file that is turned over.

Lines are rendered once, as JSON, where they are logged; the file is written on a thread of its own,
so that no message waits for a disk.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from io import TextIOWrapper
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from hubbub.file_modes import make_folder, open_binary

__all__ = ["LEVELS", "MAX_LINE", "RING_LINES", "TELLING", "Line", "LogBook", "level_of"]

RING_LINES: Final = 5000
"""Lines kept in memory."""

MAX_LINE: Final = 16 * 1024
"""Characters of a line in memory; a longer one is cut there, not in the file."""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line.

    Attributes:
        number: Counts up from the start of the process.
        time_us: Microseconds since the epoch.
        level: As a number of `logging`.
        text: The line as JSON.
        echo: Logged because of a line that was told; it is not told itself.
    """

    number: int
    time_us: int
    level: int
    logger: str
    text: str
    echo: bool


TELLING: Final[ContextVar[bool]] = ContextVar("telling", default=False)
"""Set by who tells lines to others, so that telling one does not make the next."""


def level_of(name: str) -> int:
    """Return the number of a level that is one of `LEVELS`."""
    return logging.getLevelNamesMapping()[name.upper()]


class _LogFile(RotatingFileHandler):
    """The file: 600 from the moment it is made; what is turned over keeps its mode."""

    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open_binary(Path(self.baseFilename), "ab"), encoding="utf-8")


class LogBook(logging.Handler):
    """A handler that remembers, tells whoever watches, and writes the file."""

    def __init__(self, size: int = RING_LINES) -> None:
        super().__init__()
        self._lines: deque[Line] = deque(maxlen=size)
        self._count = 0
        self._watchers: list[Callable[[], None]] = []
        self._queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._writer: QueueListener | None = None
        self._chosen: dict[str, str] = {}

    # Lines

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a line; called on any thread, under the lock of the handler."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  # as every handler: logging must not break what logs
            self.handleError(record)
            return
        self._count += 1
        time_us = int(record.created * 1e6)
        line = Line(
            self._count, time_us, record.levelno, record.name, text[:MAX_LINE], TELLING.get()
        )
        self._lines.append(line)
        if self._writer is not None:
            self._queue.put(logging.makeLogRecord({"msg": text, "levelno": record.levelno}))
        for watcher in tuple(self._watchers):
            watcher()

    def newest_first(self, before: int | None = None) -> Iterator[Line]:
        """Yield the lines that are remembered, or those before a number."""
        for line in reversed(tuple(self._lines)):
            if before is None or line.number < before:
                yield line

    def after(self, number: int) -> list[Line]:
        """Return the lines after a number, oldest first."""
        return [line for line in tuple(self._lines) if line.number > number]

    @property
    def newest(self) -> int:
        """The number of the last line."""
        return self._count

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call this for each line, on the thread that logs it; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # The file

    def write_to(self, path: Path, *, files: int, max_bytes: int) -> None:
        """Write lines to a file, and keep so many files of that size, the newest included.

        Args:
            files: At least 2; the newest goes on in an empty one when it is full.
        """
        self.stop_writing()
        make_folder(path.parent)
        file = _LogFile(
            path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True
        )
        writer = QueueListener(self._queue, file)
        writer.start()
        self._writer = writer

    def stop_writing(self) -> None:
        """Write what waits, and close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
            for handler in writer.handlers:
                handler.close()

    # Levels

    @property
    def levels(self) -> dict[str, str]:
        """What was chosen for a logger and all below it, by its name; `root` for all."""
        root = logging.getLevelName(logging.getLogger().level).lower()
        return {"root": root, **dict(sorted(self._chosen.items()))}

    def choose(self, level: str, logger: str = "root") -> None:
        """Log a logger, and all below it, from a level on."""
        name = "" if logger == "root" else logger
        logging.getLogger(name).setLevel(level_of(level))
        if name:
            self._chosen[name] = level

    def undo_choices(self) -> None:
        """Let every logger log what the one above it logs, as before the first choice."""
        for name in self._chosen:
            logging.getLogger(name).setLevel(logging.NOTSET)
        self._chosen.clear()
