"""Nodes as processes of their own, to be killed; what they do is written down as they do it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from hubbub_node import Handlers, Node, NodeSettings, current_task

__all__ = ["CONCURRENCY", "NodeProcess", "Run"]

CONCURRENCY = 4
SHORTEST_S, LONGEST_S = 0.05, 0.4


@dataclass(frozen=True)
class Run:
    """One line of the log: a task was begun, or done."""

    what: str
    task_id: str
    node: str


@lru_cache
def _context() -> ForkServerContext:
    """Processes that are copies of one that has imported everything: 32 start in a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.nodes"])
    return context


def _live(url: str, name: str, journal: str, log: str) -> None:
    logging.basicConfig(filename=f"{journal}.log", level=logging.INFO)
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    handlers = Handlers()

    def note(what: str) -> None:
        os.write(written, f"{what} {current_task().id} {name}\n".encode())

    @handlers.task("work")
    async def work(data: dict[str, Any]) -> dict[str, Any]:
        note("begun")
        await asyncio.sleep(random.uniform(SHORTEST_S, LONGEST_S))
        note("done")
        return {"n": data["n"], "by": name}

    async def run() -> None:
        settings = NodeSettings(
            url=url, name=name, journal=Path(journal), concurrency=CONCURRENCY,
            backoff_s=0.1, backoff_max_s=1.0, resend_s=2.0,
        )  # fmt: skip
        node = Node(settings, handlers)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.stop)
        await node.run()

    asyncio.run(run())


class NodeProcess:
    """One node; killed, it comes back with the journal it had."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.journal = folder / f"{name}.db"
        self._log = folder / "runs.log"
        self._process: ForkServerProcess | None = None

    def start(self, url: str) -> None:
        """Start it."""
        arguments = (url, self.name, str(self.journal), str(self._log))
        self._process = _context().Process(target=_live, args=arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Ask it to finish; `join` waits for that."""
        assert self._process is not None
        self._process.terminate()

    def join(self, timeout_s: float) -> int | None:
        """Return its exit code once it has ended."""
        assert self._process is not None
        self._process.join(timeout_s)
        return self._process.exitcode

    @staticmethod
    def runs(folder: Path) -> list[Run]:
        """Return what all nodes of a folder did."""
        lines = (folder / "runs.log").read_text(encoding="utf-8").splitlines()
        return [Run(*line.split(" ")) for line in lines]
