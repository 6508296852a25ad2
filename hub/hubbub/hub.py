"""The hub with its sockets: starts the rooms, serves them, stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import Final

import structlog
import uvloop

from hubbub.adapters import RunningAdapter
from hubbub.config import Address, Config
from hubbub.core import Core
from hubbub.errors import ConfigError, HubError
from hubbub.listeners import HttpListener, PortTakenError
from hubbub.observe.logs import configure_logs
from hubbub.web.app import build_adapter_app, build_app

__all__ = ["Hub", "run"]

SWITCH_INTERVAL_S: Final = 0.0005
"""How long the journal's thread may keep the interpreter from the event loop, and it from that."""

RETRY_LISTEN_S: Final = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def run(config: Config, *, safe: bool = False) -> int:
    """Run a hub until it is told to stop; returns the exit code."""
    configure_logs(config.log.level, config.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return uvloop.run(Hub(config, safe=safe).serve())
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
    except HubError as error:
        sys.stderr.write(f"{error}\n")
    return 1


class Hub:
    """One hub process."""

    def __init__(self, config: Config, *, safe: bool = False) -> None:
        self.config: Final = config
        self.core: Final = Core(config, safe=safe)
        self.main: Final = HttpListener(config.hub.host, config.hub.port)
        self._listeners: list[tuple[str, HttpListener]] = []
        self._stop = asyncio.Event()

    async def serve(self) -> int:
        """Start, serve until SIGTERM or SIGINT, drain, stop.

        Raises:
            HubError: it cannot start.
        """
        self.main.bind()
        self._on_signals()
        try:
            await self.core.start()
            await self._listen()
            self._announce()
            await self._stop.wait()
        finally:
            await self._end()
        return 0

    async def _listen(self) -> None:
        """Listeners last: nothing is accepted before all that must not lose it runs."""
        # What was loaded by now stays for good: no need to look at it in every collection.
        gc.collect()
        gc.freeze()
        drain_s = self.config.hub.drain_timeout
        await self.main.serve(build_app(self.core), drain_timeout_s=drain_s)
        for running in self.core.adapters:
            for address in running.settings.listen:
                await self._listen_for(running, address)

    async def _listen_for(self, running: RunningAdapter, address: Address) -> None:
        """Open one of an adapter's own addresses; one that is taken is tried again."""
        listener = HttpListener(address.host, address.port)
        try:
            listener.bind()
        except PortTakenError as error:
            log.warning("listener.taken", adapter=running.name, error=str(error))
            self.core.adapters.degrade(running.name, str(error))
            due_us = self.core.clock.now_us() + int(RETRY_LISTEN_S * 1e6)
            self.core.clock.call_at(due_us, lambda: self._listen_again(running, address))
            return
        app = build_adapter_app(self.core, running.name)
        await listener.serve(app, drain_timeout_s=self.config.hub.drain_timeout)
        self._listeners.append((running.name, listener))
        if running.state == "degraded":
            self.core.adapters.mend(running.name)

    def _listen_again(self, running: RunningAdapter, address: Address) -> None:
        if not self._stop.is_set():
            self.core.spawn(self._listen_for(running, address))

    def _announce(self) -> None:
        """Print the one line that says everything is bound."""
        if self.core.new_admin_token is not None:
            print(  # noqa: T201
                f"admin token, shown once (kept in {self.config.hub.data_dir}/admin.token): "
                f"{self.core.new_admin_token}",
                flush=True,
            )
        others = "".join(f" {name}={listener.url}" for name, listener in self._listeners)
        print(f"{self.config.hub.name} ready {self.main.url}{others}", flush=True)  # noqa: T201

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self._stop.is_set():
            log.warning("hub.second_signal")
            os._exit(1)
        self._stop.set()

    async def _end(self) -> None:
        """Take nothing new, wait for what is under way, close, write what is left."""
        if self.core.state == "ready":
            log.info("hub.draining")
            await self.core.drain()
        await asyncio.gather(
            self.main.stop(), *(listener.stop() for _, listener in self._listeners)
        )
        await self.core.stop()
        log.info("hub.stopped")
