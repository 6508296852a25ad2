"""Which plugin a command waits for: it is named, and not waited for without end."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hubbub.cli.output import clean, note

if TYPE_CHECKING:
    from hubbub.plugins import Plugins

__all__ = ["EXIT_CODE", "LIMIT_S", "NOTICE_S", "named_while_loading"]

NOTICE_S: Final = 3.0
"""A call that loads a plugin and takes longer is told."""

LIMIT_S: Final = 30.0
"""One that takes longer ends the command."""

EXIT_CODE: Final = 70
"""Exit code of a command that a plugin held up, as that of a hub."""


@contextmanager
def named_while_loading(
    plugins: Plugins, *, notice_s: float = NOTICE_S, limit_s: float = LIMIT_S
) -> Generator[None]:
    """Say which plugin is being loaded when that takes long, when it takes too long, at Ctrl-C."""
    loads = _Loads(notice_s, limit_s)
    before, plugins.fence.loads = plugins.fence.loads, loads
    try:
        yield
    except KeyboardInterrupt:
        if loads.last:
            note(f"hubbub: given up while plugin {loads.last} was under way")
        raise
    finally:
        plugins.fence.loads = before
        loads.stop()


class _Loads:
    """Watches the calls that load plugins, from a thread.

    Attributes:
        last: The call that began last, in words.
    """

    def __init__(self, notice_s: float, limit_s: float) -> None:
        self.last = ""
        self._steps = ((notice_s, False), (limit_s - notice_s, True))
        self._changed = threading.Condition()
        self._count = 0
        self._inside = 0
        self._stopped = False
        threading.Thread(target=self._run, name="hubbub-loading", daemon=True).start()

    def write(self, plugin: str, where: str) -> None:
        """Note that a plugin is about to be called."""
        self.last = f"{clean(plugin)!r}: {clean(where)}"
        self._set(1)

    def clear(self) -> None:
        """Note that the call came back."""
        self._set(0)

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped = True
        self._set(0)

    def _set(self, inside: int) -> None:
        with self._changed:
            self._inside = inside
            self._count += 1
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                if not self._inside:
                    self._changed.wait()
                elif not self._returned():
                    os._exit(EXIT_CODE)

    def _returned(self) -> bool:
        """Wait for the end of one call; False when it takes too long."""
        count = self._count
        for wait_s, is_last in self._steps:
            if self._changed.wait_for(lambda: self._count != count, wait_s):
                return True
            if is_last:
                note(f"hubbub: plugin {self.last} does not return; uninstall it, or mend it")
            else:
                note(f"hubbub: waits for plugin {self.last} (Ctrl-C gives up)")
        return False
