"""The processes under measurement: a hub and the floor, each in a folder of its own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, Self

import httpx2
import msgspec
import psutil

from tests.bench.load import Load, Result, run_load

__all__ = [
    "RELAY_KEY",
    "DispatcherProcess",
    "FloorProcess",
    "HubProcess",
    "Sample",
    "Server",
    "cpu_s",
    "scratch",
]

RELAY_KEY: Final = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
"""The relay's default key, good on loopback only."""

READY_S: Final = 120.0
"""Seconds a start may take; a full store is counted at start."""

STOP_S: Final = 60.0

SETTINGS: Final = (
    'log.level="warning"',
    "adapters.relay.enabled=true",
    "adapters.octohub.enabled=true",
    "hub.mailbox_limit=100000000",  # senders without workers fill mailboxes: not what is measured
)


class Sample(msgspec.Struct):
    """One load on one server, and the CPU time the server took for it.

    Attributes:
        cpu_us: User and system time of all threads, microseconds an answer.
        loop_us: That of the main thread alone, where the event loop runs.
    """

    result: Result
    cpu_us: float
    loop_us: float


@contextmanager
def scratch(where: Path | None) -> Generator[Path, None, None]:
    """Give a folder that is gone afterwards; on a disk, or commits cost nothing."""
    folder = Path(tempfile.mkdtemp(prefix="hubbub-bench-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A process that says `<name> ready http://host:port` when it is.

    Attributes:
        port: Where it listens on loopback.
        ready_s: Seconds from start to that line.
    """

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        began = perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=_environment()
            )
        try:
            self._wait(began + READY_S)
        except BaseException:
            self.stop()
            raise
        self.ready_s = perf_counter() - began

    def _wait(self, until: float) -> None:
        assert self._process is not None
        out = self._process.stdout
        assert out is not None
        said = b""
        while (left := until - perf_counter()) > 0:
            if not select.select([out], [], [], left)[0]:
                break
            more = os.read(out.fileno(), 65536)
            if not more:
                break
            said += more
            for line in said.decode().splitlines():
                if " ready http://" in line and said.endswith(b"\n"):
                    self.port = int(line.split()[2].rsplit(":", 1)[1])
                    threading.Thread(target=_drain, args=(out.fileno(),), daemon=True).start()
                    return
        log = self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise RuntimeError(f"{self._command} did not become ready:\n{said.decode()}\n{log}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it by SIGTERM, and wait."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def rss_mb(self) -> float:
        """Return its resident memory in MB (10^6 bytes)."""
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def measure(self, load: Load) -> Sample:
        """Put a load on it; returns what came of it, with the CPU time it took."""
        load = msgspec.structs.replace(load, port=self.port)
        process = psutil.Process(self.pid)
        before, loop_before = cpu_s(process)
        result = run_load(load)
        after, loop_after = cpu_s(process)
        answers = max(1, result.total)
        return Sample(
            result,
            cpu_us=(after - before) / answers * 1e6,
            loop_us=(loop_after - loop_before) / answers * 1e6,
        )


class FloorProcess(Server):
    """The floor on a database of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.bench.floor", str(folder / "floor.db")]
        super().__init__(command, log=folder / "floor.log")


class DispatcherProcess(Server):
    """The bare dispatcher on a database of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        database = str(folder / "dispatcher.db")
        command = [sys.executable, "-m", "tests.bench.dispatcher", database]
        super().__init__(command, log=folder / "dispatcher.log")


class HubProcess(Server):
    """`hubbub run` on a data directory of its own.

    Attributes:
        data_dir: Where its database is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        settings: Sequence[str] = (),
        python: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = folder / "var"
        file = folder / "hub.toml"
        file.write_text(config, encoding="utf-8")
        command = [sys.executable, *python, "-m", "hubbub.cli", "run", "--config", str(file)]
        for setting in (*SETTINGS, "hub.port=0", f'hub.data_dir="{self.data_dir}"', *settings):
            command += ["--set", setting]
        super().__init__(command, log=folder / "hub.log")

    @property
    def database(self) -> Path:
        """Its SQLite file."""
        return self.data_dir / "hub.db"

    def token(self) -> dict[str, str]:
        """Return the header that says who the administrator is."""
        said = (self.data_dir / "admin.token").read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {said}"}

    def client(self) -> httpx2.Client:
        """Return a client for what is not measured, with all keys."""
        return httpx2.Client(base_url=self.url, headers={**RELAY_KEY, **self.token()}, timeout=30)


def _drain(descriptor: int) -> None:
    """Read on, so that the process never waits for somebody to read what it says."""
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:
        pass


def cpu_s(process: psutil.Process) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of its main thread alone."""
    times = process.cpu_times()
    main = [t.user_time + t.system_time for t in process.threads() if t.id == process.pid]
    return times.user + times.system, sum(main)


def _environment() -> dict[str, str]:
    """Return this environment without settings of a hub that somebody has in theirs."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HUBBUB_")}
