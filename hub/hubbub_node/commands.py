"""A node as a process: logs, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Final

from hubbub_node.handlers import load
from hubbub_node.node import Node
from hubbub_node.settings import NodeSettings

__all__ = ["run_node"]

INTERRUPTED: Final = 130


def _end(number: int, frame: object) -> None:
    """End at once: threads of handlers would keep the process."""
    del number, frame
    os._exit(INTERRUPTED)


def run_node(settings: NodeSettings, handlers: str) -> int:
    """Run a node until a signal; returns its exit code.

    Args:
        handlers: `module:attribute`.

    Raises:
        HandlersError: there are none.
        JournalError: the journal cannot be used.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    for noisy in ("httpx2", "httpcore2", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    found = load(handlers)

    async def run() -> None:
        node = Node(settings, found)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            node.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
                signal.signal(number, _end)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await node.run()

    asyncio.run(run())
    return 0
