"""The hub with its sockets: starts the rooms, serves them, stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import structlog
import uvloop

from hubbub.config import Config
from hubbub.core import Core
from hubbub.doors import Doors
from hubbub.errors import ConfigError, HubError
from hubbub.listeners import HttpListener
from hubbub.observe.logbook import LogBook
from hubbub.observe.logs import configure_logs
from hubbub.open_access import open_access
from hubbub.outside_watchdog import watched_from_outside
from hubbub.ports import Clock
from hubbub.reload import Reloads

__all__ = ["Hub", "run"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def run(config: Config, *, safe: bool = False) -> int:
    """Run a hub until it is told to stop; returns the exit code."""
    book = LogBook()
    configure_logs(config.log.level, config.log.format, book)
    try:
        if config.log.files:
            path = config.hub.data_dir / "logs" / "hub.jsonl"
            book.write_to(path, files=config.log.files, max_bytes=config.log.file_size)
        hub = Hub(config, safe=safe, book=book)
        watchdog = hub.core.watchdog
        watchdog.to_the_end = True
        with watched_from_outside(watchdog, config.hub.data_dir, log_format=config.log.format):
            return uvloop.run(hub.serve())
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
    except HubError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"cannot write the log: {error}\n")
    finally:
        book.stop_writing()
    return 1


class Hub:
    """One hub process.

    Attributes:
        core: The hub without its sockets.
        doors: Its HTTP listeners.
    """

    def __init__(
        self,
        config: Config,
        *,
        safe: bool = False,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
        book: LogBook | None = None,
    ) -> None:
        self.config: Final = config
        self.core: Final = Core(config, safe=safe, clock=clock, environ=environ, book=book)
        self.doors: Final = Doors(self.core)
        self._stop = asyncio.Event()

    @property
    def main(self) -> HttpListener:
        """The one port."""
        return self.doors.main

    async def serve(self) -> int:
        """Start, serve until SIGTERM or SIGINT, drain, stop.

        Raises:
            HubError: it cannot start.
        """
        self.main.bind()
        self._on_signals()
        # What is loaded at start stays for good: it is looked at once, not in every collection.
        gc.disable()
        try:
            await self.core.start()
            gc.collect()
            gc.freeze()
            gc.enable()
            await self.doors.open()
            self.core.extensions.all_loaded()
            self._announce()
            await self._stop.wait()
        finally:
            gc.enable()
            await self.stop()
        return 0

    async def start(self) -> None:
        """Start and serve, without signals and announcements; for tests and for programs.

        Raises:
            HubError: it cannot start.
        """
        self.main.bind()
        try:
            await self.core.start()
            await self.doors.open()
            self.core.extensions.all_loaded()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take nothing new, wait for what is under way, close, write what is left."""
        if self.core.state == "stopped":
            return
        began = self.core.state != "starting"
        if self.core.state == "ready":
            log.info("hub.draining")
            await self.core.drain()
        await self.main.stop(self.core.config.hub.drain_timeout)
        await self.core.stop()
        if began:  # else the error says all
            log.info("hub.stopped")

    def _announce(self) -> None:
        """Print the one line that says everything is bound."""
        if self.core.new_admin_token is not None:
            print(  # noqa: T201
                f"admin token, shown once (kept in {self.config.hub.data_dir}/admin.token): "
                f"{self.core.new_admin_token}",
                flush=True,
            )
        others = "".join(
            f" {opened.owner}={opened.listener.url}"
            for opened in self.core.listeners
            if opened.state == "up"
        )
        print(f"{self.config.hub.name} ready {self.main.url}{others}", flush=True)  # noqa: T201
        told = open_access(self.core, loopback=self.main.is_loopback)
        if told:
            print(told, flush=True)  # noqa: T201

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.core.spawn(self._reload()))

    async def _reload(self) -> None:
        """Read hub.toml again; a mistake in it is logged, and everything stays as it was."""
        try:
            await Reloads(self.core).reload(by="SIGHUP")
        except ConfigError as error:
            log.error("hub.not_reloaded", problems=error.problems)  # noqa: TRY400  # no stack
        except HubError as error:
            log.warning("hub.not_reloaded", error=str(error))

    def _signalled(self) -> None:
        if self._stop.is_set():
            log.warning("hub.second_signal")
            os._exit(1)
        self._stop.set()
