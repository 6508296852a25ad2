"""The runner: keeps a connection to a hub, and runs what the hub deploys on it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from socket import gethostname
from typing import Final

import msgspec
import psutil
from filelock import FileLock, Timeout
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from hubbub.clock import SystemClock
from hubbub.errors import HubError
from hubbub.file_modes import FILE_MODE, make_folder
from hubbub.ports import Clock
from hubbub_kenko.runner import wire
from hubbub_kenko.runner.bench import Bench
from hubbub_kenko.runner.fetching import FetchError
from hubbub_kenko.runner.processes import Status
from hubbub_kenko.runner.settings import RunnerSettings
from hubbub_kenko.runner.tails import Tails
from hubbub_node.pauses import Pauses

__all__ = ["FolderError", "Runner"]

OPEN_S: Final = 10.0
MAX_FRAME: Final = 4 * 1024**2
MAX_NAME: Final = 128

log = logging.getLogger("hubbub_kenko.runner")


class FolderError(Exception):
    """The folder cannot be used."""


class RefusedError(Exception):
    """The hub does not let this runner join.

    Attributes:
        code: As in the answer to a registration.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code: Final = code
        super().__init__(f"the hub refuses this runner: {code}: {message}")


class Runner:
    """One runner. `run` returns after `stop`, and only then.

    What it runs goes on while the hub is away, and ends with it.
    """

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Take the folder.

        Raises:
            FolderError: it cannot be used, or another runner does.
        """
        self._settings = settings
        self._chance = chance
        self._lock = _locked(settings)
        self._bench = Bench(
            settings.folder.absolute(),
            clock or SystemClock(),
            url_of=settings.url_of,
            fetch_s=settings.fetch_s,
            changed=self._changed,
            wrote=self._wrote,
        )
        self._tails = Tails(self._bench.output_of)
        self._frames: deque[str] = deque()
        self._framed = asyncio.Event()
        self._written = asyncio.Event()
        self._obeying: set[asyncio.Task[None]] = set()
        self._socket: ClientConnection | None = None
        self._stop = asyncio.Event()
        self._standby = False

    @property
    def connected(self) -> bool:
        """Whether the hub has let it join on the connection it has."""
        return self._socket is not None

    def stop(self) -> None:
        """End all that runs here; `run` returns when that is done."""
        self._stop.set()

    async def run(self) -> None:
        """Connect, again and again, and do what the hub says."""
        link = asyncio.create_task(self._keep_connected())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((link, stopped), return_when=asyncio.FIRST_COMPLETED)
            if link.done():
                await link  # it never ends but by an error of ours, which must not be silent
        finally:
            await self._finish(link, stopped)

    async def _finish(self, *tasks: asyncio.Task[object]) -> None:
        for order in self._obeying:
            order.cancel()
        await asyncio.gather(*self._obeying, return_exceptions=True)
        await self._bench.end_all()
        if self._socket is not None:  # the last words of what has just ended
            with suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(self._settings.flush_s):
                    for text in self._tails.frames():
                        await self._socket.send(text)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lock.release()

    # Connecting

    async def _keep_connected(self) -> None:
        settings = self._settings
        pauses = Pauses(settings.backoff_s, settings.backoff_max_s, settings.stable_s)
        while True:
            began_s = time.monotonic()
            connected = False
            try:
                async with self._connection() as socket:
                    began_s, connected = time.monotonic(), True
                    with suppress(ConnectionClosed):  # in whatever way
                        await self._talk(socket)
                log.warning("%s has closed: %s", settings.url, socket.close_reason or "no reason")
                if socket.close_code == wire.REPLACED:
                    await self._replaced()
            except RefusedError as error:
                connected = False
                log.error("%s", error)  # noqa: TRY400  # where it comes from helps nobody
                if error.code == "unauthorized":  # nobody could end it any more
                    await self._bench.end_all()
            except (OSError, TimeoutError, WebSocketException) as error:
                why = str(error) or type(error).__name__
                log.warning("no connection to %s: %s", settings.url, why)
            pauses = pauses.after(time.monotonic() - began_s if connected else 0.0)
            await asyncio.sleep(pauses.next_s(self._chance()))

    async def _replaced(self) -> None:
        """Leave the place to the newer one: what runs here runs there by now, and nobody ends it.

        It waits until that one is gone. If each took the place back, both would for ever.
        """
        log.error(
            "this runner ends what it runs, and waits until the other one is gone; "
            "to use both, give each a token of its own (POST /api/kenko/runners/join-token)"
        )
        self._standby = True
        await self._bench.end_all()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[ClientConnection]:
        token = self._settings.access_token
        async with connect(
            self._settings.socket_url,
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            max_size=MAX_FRAME,
            open_timeout=OPEN_S,
            compression=None,
        ) as socket:
            yield socket

    async def _talk(self, socket: ClientConnection) -> None:
        """Join, and read frames until the connection ends.

        Raises:
            RefusedError: the hub does not let it join.
        """
        name = gethostname()[:MAX_NAME] or "runner"
        await socket.send(
            wire.register(name, _version(), self._settings.token, standby=self._standby)
        )
        beside: list[asyncio.Task[None]] = []
        try:
            async for text in socket:
                frame = wire.read_frame(text)
                if frame is None:
                    continue
                if frame.type == "register" and not beside:
                    _check_joined(frame)
                    self._joined(socket)
                    work = (self._write_frames, self._write_output, self._beat)
                    beside = [asyncio.create_task(one(socket)) for one in work]
                elif frame.type == "runner.exec":
                    self._take(frame)
        finally:
            self._socket = None
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _joined(self, socket: ClientConnection) -> None:
        """Tell the hub how everything is: it may have been away, or begun anew."""
        log.info("joined %s", self._settings.url)
        self._socket = socket
        self._standby = False
        self._frames.clear()
        self._tails.again()
        for deployment_id, status in self._bench.statuses().items():
            self._changed(deployment_id, status)
        self._written.set()

    # Out

    async def _write_frames(self, socket: ClientConnection) -> None:
        """Write answers and changes, in order."""
        with suppress(ConnectionClosed):
            while True:
                await self._framed.wait()
                self._framed.clear()
                while self._frames:
                    await socket.send(self._frames.popleft())

    async def _write_output(self, socket: ClientConnection) -> None:
        """Write output, gathered for a moment."""
        with suppress(ConnectionClosed):
            while True:
                await self._written.wait()
                self._written.clear()
                for text in self._tails.frames():
                    await socket.send(text)
                await asyncio.sleep(self._settings.gather_s)

    async def _beat(self, socket: ClientConnection) -> None:
        """Tell the load of this machine; the hub must hear something in every 30 seconds."""
        memory = psutil.virtual_memory().total
        psutil.cpu_percent()  # from here on it is measured
        with suppress(ConnectionClosed):
            while True:
                await socket.send(wire.figures(cpu=psutil.cpu_percent(), memory_total=memory))
                await asyncio.sleep(self._settings.beat_s)

    def _say(self, text: str) -> None:
        """Write a frame; while the hub is away it is dropped, for all is told anew afterwards."""
        if self._socket is not None:
            self._frames.append(text)
            self._framed.set()

    def _changed(self, deployment_id: str, status: Status) -> None:
        self._say(wire.told(deployment_id, wire.status_data(status)))

    def _wrote(self, deployment_id: str) -> None:
        self._tails.grown(deployment_id)
        self._written.set()

    # In

    def _take(self, frame: wire.Frame) -> None:
        """Carry out an order beside the reading: a package may take a while."""
        if self._stop.is_set():
            return
        try:
            order = wire.read_order(frame.data)
        except wire.OrderError as error:
            log.warning("%s", error)
            if error.order_id is not None:
                self._say(wire.failed(error.order_id, str(error)))
            return
        task = asyncio.create_task(self._obey(order))
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)

    async def _obey(self, order: wire.Order) -> None:
        log.info("%s %s", order.op, order.deployment_id)
        try:
            data = await self._bench.obey(order)
        except (FetchError, HubError, OSError) as error:
            log.warning("cannot %s %s: %s", order.op, order.deployment_id, error)
            self._say(wire.failed(order.id, str(error)))
            return
        if order.op == "remove":
            self._tails.forget(order.deployment_id)
        self._say(wire.answered(order.id, data))


def _check_joined(frame: wire.Frame) -> None:
    """Look at the answer to the registration.

    Raises:
        RefusedError: it is no success.
    """
    match msgspec.json.decode(frame.data):
        case {"success": True}:
            pass
        case {"code": str(code), "message": str(message)}:
            raise RefusedError(code, message)
        case _:
            raise RefusedError("internal", "its answer cannot be read")


def _locked(settings: RunnerSettings) -> FileLock:
    """Take the folder.

    Raises:
        FolderError: it cannot be had.
    """
    folder = settings.folder
    lock = FileLock(folder / "runner.lock", mode=FILE_MODE)
    try:
        make_folder(folder)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(
            f"another runner works in {folder}; give this one a --dir of its own"
        ) from error
    except OSError as error:
        raise FolderError(f"the folder {folder} cannot be used: {error.strerror}") from error
    return lock


def _version() -> str:
    try:
        return version("hubbub")
    except PackageNotFoundError:
        return ""
