"""A node as a process: logs, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import sys

from hubbub_node.deadline import GRACE_S, Deadline
from hubbub_node.handlers import load
from hubbub_node.node import Node
from hubbub_node.settings import NodeSettings

__all__ = ["run_node"]


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
        Deadline(settings.grace_s + GRACE_S).take(node.stop)
        await node.run()

    asyncio.run(run())
    return 0
