"""Says what held the event loop of a hub that cannot say it itself; run beside it.

The stack is that of `faulthandler`, on standard input; the hub ends when this program has.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Final

import structlog

from hubbub.culprits import plugin_in
from hubbub.observe.logs import LogFormat, configure_logs
from hubbub.stuck_plugin import FILE_NAME, StuckPluginFile
from hubbub.watchdog import EXIT_CODE

__all__ = ["report"]

FRAME: Final = re.compile(r'^  File "(.*)", line [0-9]+', re.MULTILINE)
"""A call in a stack of `faulthandler`; the innermost comes first."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def report(stack: str, *, limit_s: float, data_dir: Path) -> None:
    """Log where a hub is held, and let its next start leave the plugin out that holds it."""
    file = StuckPluginFile(data_dir / FILE_NAME)
    loading = file.read()
    plugin = plugin_in(FRAME.findall(stack)) or (loading and loading[0])
    log.critical(
        "plugin.stuck" if plugin else "hub.loop_held",
        plugin=plugin,
        limit_s=limit_s,
        stack=stack,
        exit_code=EXIT_CODE,
    )
    if plugin:
        file.condemn(
            plugin,
            f"a call kept the interpreter for {limit_s:g} s; the hub was ended for it",
        )


def _main(data_dir: str, log_format: LogFormat) -> None:
    configure_logs("info", log_format)
    said = json.load(sys.stdin)
    report(said["stack"], limit_s=said["limit_s"], data_dir=Path(data_dir))


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
