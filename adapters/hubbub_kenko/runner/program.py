"""A runner as a process: logs and signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Final

from hubbub_kenko.runner.runner import Runner
from hubbub_kenko.runner.settings import RunnerSettings

__all__ = ["run_runner"]

INTERRUPTED: Final = 130
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _end(number: int, frame: object) -> None:
    """End at once; the kernel ends what runs here."""
    del number, frame
    os._exit(INTERRUPTED)


def run_runner(settings: RunnerSettings) -> None:
    """Run a runner until a signal, and all it runs has ended.

    Raises:
        FolderError: its folder cannot be used.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    for noisy in ("httpx2", "httpcore2", "websockets", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    runner = Runner(settings)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            runner.stop()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, _end)

        for number in SIGNALS:
            loop.add_signal_handler(number, stop)
        await runner.run()

    asyncio.run(run())
