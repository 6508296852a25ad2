"""Which plugin is at work while a hub starts, kept in a file: it may never come back from there.

An import that blocks, or that ends the process, leaves no word in the database: there may be none
yet. So the plugin and what is called of it stand in a small file before the call, and are taken
out after it. What still stands there at the next start is how the last process ended. A plugin
that the watchdog named goes into quarantine at once. One that was merely at work may have been
ended with by chance (`kill -9`, a loss of power), so it is tried once more first.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import msgspec
import structlog

from hubbub.file_modes import make_folder, write_text

__all__ = ["FILE_NAME", "MAX_BYTES", "MAX_ENDED_STARTS", "StuckPluginFile"]

FILE_NAME: Final = "stuck-plugin.json"
"""Name of the file in the data directory."""

MAX_ENDED_STARTS: Final = 2
"""Starts after each other that may end inside one plugin; the last of them is its quarantine."""

MAX_BYTES: Final = 64 * 1024
"""Size of the file; what is larger is none of ours."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _At(msgspec.Struct):
    """A call that is under way."""

    plugin: str
    where: str


class _Content(msgspec.Struct, omit_defaults=True):
    """The file.

    Attributes:
        at: The call under way.
        ended: How many starts ended inside a plugin, by name, since the last one that went well.
        off: Plugins that shall stay off, and why, until the database says so.
    """

    at: _At | None = None
    ended: dict[str, int] = {}
    off: dict[str, str] = {}


class StuckPluginFile:
    """The file; nothing is kept in memory, so that another process or thread may write it too.

    It is a help, no duty: a file that cannot be read counts as none, and one that cannot be
    written is only logged.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def write(self, plugin: str, where: str) -> None:
        """Note that a plugin is about to be called."""
        content = self._content()
        content.at = _At(plugin, where)
        self._save(content)

    def read(self) -> tuple[str, str] | None:
        """Return the plugin that is being called, and what of it; None where none is."""
        at = self._content().at
        return None if at is None else (at.plugin, at.where)

    def clear(self) -> None:
        """Note that the call came back."""
        content = self._content()
        if content.at is not None:
            content.at = None
            self._save(content)

    def condemn(self, plugin: str, reason: str) -> bool:
        """Note the watchdog's verdict: this plugin holds the process, which ends now.

        Returns:
            Whether it was written.
        """
        content = self._content()
        content.off[plugin] = reason
        content.at = None  # the one who holds it is known
        return self._save(content)

    def judge(self) -> dict[str, str]:
        """Return plugins that shall not be imported, and why: called once at each start."""
        content = self._content()
        at = content.at
        if at is not None:
            ended = content.ended[at.plugin] = content.ended.get(at.plugin, 0) + 1
            log.warning("plugin.ended_there", plugin=at.plugin, hook=at.where, starts=ended)
            if ended >= MAX_ENDED_STARTS:
                content.off[at.plugin] = (
                    f"{ended} starts in a row ended while its {at.where} was under way"
                )
            content.at = None
            self._save(content)
        return content.off

    def off(self) -> dict[str, str]:
        """Return plugins that shall stay off, and why, as far as the database may not know it."""
        return self._content().off

    def hand_over(self) -> None:
        """Forget who shall stay off: the database knows."""
        content = self._content()
        if content.off:
            content.off = {}
            self._save(content)

    def settle(self) -> None:
        """Forget how earlier starts ended: this one went well."""
        content = self._content()
        if content.ended:
            content.ended = {}
            self._save(content)

    # Inside

    def _content(self) -> _Content:
        try:
            text = _text_of(self.path)
            return _Content() if text is None else msgspec.json.decode(text, type=_Content)
        except (OSError, ValueError) as error:  # cut short by a crash, or not ours
            log.warning("plugin.file_unreadable", path=str(self.path), error=str(error))
            return _Content()

    def _save(self, content: _Content) -> bool:
        try:
            if content == _Content():
                self.path.unlink(missing_ok=True)
            else:
                make_folder(self.path.parent)
                write_text(self.path, msgspec.json.encode(content).decode())
        except OSError as error:
            log.warning("plugin.file_unwritable", path=str(self.path), error=str(error))
            return False
        return True


def _text_of(path: Path) -> bytes | None:
    """Return what stands in a file; None where there is none.

    Raises:
        OSError: it cannot be read, is a link, or is no plain file.
        ValueError: it is too large.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError("it is no plain file")
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return text
