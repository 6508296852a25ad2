"""Real processes of one runner: started with limits, watched, started again, ended.

A process that ends with an error is started again after a pause that doubles; one that ends well is
done. A process that runs for a while has earned a short pause again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from hubbub.errors import HubError
from hubbub.ports import Clock, Timer
from hubbub_kenko.runner import launch, packages
from hubbub_kenko.runner.output import Output

__all__ = ["LIMITS", "MAX_QUICK", "PAUSE_MAX_S", "PAUSE_S", "Process", "Processes", "Status"]

LIMITS: Final[Mapping[str, int]] = {
    "RLIMIT_AS": 1024**3,
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 64 * 1024**2,
    "RLIMIT_NOFILE": 256,
}
"""Limits of each process: memory, no core files, size of a file it writes, open files."""

PAUSE_S: Final = 1.0
"""Pause before the first restart; it doubles with each quick end."""

PAUSE_MAX_S: Final = 60.0
SETTLED_US: Final = 60_000_000
"""A process that ran so long begins again with the shortest pause."""

MAX_QUICK: Final = 10
"""Ends one after another that are all too quick; then it has failed."""

STOP_S: Final = 5.0
"""How long a process may take to end before it is killed."""

PRIVATE_UMASK: Final = 0o077
"""Mask of each process: what an application writes is no more for others than what the hub does."""

_CHUNK: Final = 64 * 1024

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """How a process is.

    Attributes:
        actual: `starting`, `running`, `backoff`, `stopped` or `failed`.
    """

    actual: str
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""


@dataclass(slots=True)
class Process:
    """One deployment as this runner has it.

    Attributes:
        wanted: It shall run, and is started again when it fails.
        done: It has ended by itself, well or for good.
    """

    folder: Path
    entry: str
    env: Mapping[str, str]
    output: Output
    changed: Callable[[Status], None]
    status: Status = field(default_factory=lambda: Status("stopped"))
    wanted: bool = False
    done: bool = False
    quick: int = 0
    running: asyncio.subprocess.Process | None = None
    watching: asyncio.Task[None] | None = None
    timer: Timer | None = None


class Processes:
    """All processes of one runner, by the id of their deployment.

    Args:
        wrote: Called with the id of a deployment that has more output.
    """

    def __init__(
        self, folder: Path, clock: Clock, *, wrote: Callable[[str], None] | None = None
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._wrote = wrote
        self._processes: dict[str, Process] = {}

    def ids(self) -> list[str]:
        """Return the deployments that are here, whether they run or not."""
        return list(self._processes)

    def find(self, deployment_id: str) -> Process | None:
        """Return what runs for a deployment."""
        return self._processes.get(deployment_id)

    def output_of(self, deployment_id: str) -> Output:
        """Return the output of a deployment; of one that is not here, an empty one."""
        process = self._processes.get(deployment_id)
        if process is not None:
            return process.output
        grown = None if self._wrote is None else partial(self._wrote, deployment_id)
        return Output(self._folder / deployment_id / "output.log", grown=grown)

    async def start(
        self,
        deployment_id: str,
        package: Path,
        *,
        entry: str,
        env: Mapping[str, str],
        changed: Callable[[Status], None],
    ) -> None:
        """Unpack a package and run it; nothing is done when it runs already.

        Args:
            changed: Told how the process is, each time that changes.

        Raises:
            PackageError: the package cannot be unpacked.
        """
        there = self._processes.get(deployment_id)
        if there is not None and there.wanted:
            return
        if there is not None:
            await self.stop(deployment_id)
        folder = self._folder / deployment_id
        await asyncio.to_thread(packages.unpack, package, folder / "app")
        output = self.output_of(deployment_id)
        process = Process(folder / "app", entry, env, output, changed, wanted=True)
        self._processes[deployment_id] = process
        await self._run(process)

    async def stop(self, deployment_id: str) -> None:
        """End a process: politely, and after a while at once."""
        process = self._processes.get(deployment_id)
        if process is None:
            return
        process.wanted = process.done = False
        if process.timer is not None:
            process.timer.cancel()
            process.timer = None
        if process.running is not None and process.watching is not None:
            _signal(process.running, signal.SIGTERM)
            done, _ = await asyncio.wait({process.watching}, timeout=STOP_S)
            if not done:
                _signal(process.running, signal.SIGKILL)
                await process.watching
        if process.status.actual != "stopped":
            self._tell(process, "stopped", process.status.exit_code, "stopped")

    async def remove(self, deployment_id: str) -> None:
        """End a process and remove its files."""
        await self.stop(deployment_id)
        self._processes.pop(deployment_id, None)
        await asyncio.to_thread(shutil.rmtree, self._folder / deployment_id, ignore_errors=True)

    async def stop_all(self) -> None:
        """End all of them; nobody is told, for they shall run again."""
        for process in self._processes.values():
            process.changed = _nobody
        await asyncio.gather(*(self.stop(one) for one in list(self._processes)))
        self._processes.clear()

    # Inside

    async def _run(self, process: Process) -> None:
        self._tell(process, "starting", process.status.exit_code)
        try:
            process.running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", launch.__file__, json.dumps(dict(LIMITS))),
                *(sys.executable, "-B", "-u", process.entry),
                cwd=process.folder,
                env=_environment(process),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )
        except OSError as error:
            process.wanted, process.done = False, True
            self._tell(process, "failed", None, f"it cannot be started: {error.strerror}")
            return
        if not process.wanted:  # it was stopped meanwhile
            _signal(process.running, signal.SIGKILL)
        began_us = self._clock.now_us()
        self._tell(process, "running", process.status.exit_code)
        process.watching = asyncio.create_task(self._watch(process, process.running, began_us))

    async def _watch(
        self, process: Process, running: asyncio.subprocess.Process, began_us: int
    ) -> None:
        assert running.stdout is not None
        while chunk := await running.stdout.read(_CHUNK):
            process.output.add(chunk, self._clock.now_us())
        code = await running.wait()
        _signal(running, signal.SIGKILL)  # what it has started and left behind
        now_us = self._clock.now_us()
        process.output.end(now_us)
        process.running = None
        if not process.wanted:
            self._tell(process, "stopped", code, "stopped")
        elif code == 0:
            process.wanted, process.done = False, True
            self._tell(process, "stopped", code, "it has ended")
        else:
            self._again(process, code, quick=now_us - began_us < SETTLED_US)

    def _again(self, process: Process, code: int, *, quick: bool) -> None:
        process.quick = process.quick + 1 if quick else 1
        if process.quick > MAX_QUICK:
            process.wanted, process.done = False, True
            why = f"it ended {process.quick} times in a row, the last time with {code}"
            self._tell(process, "failed", code, why)
            return
        pause_s = min(PAUSE_MAX_S, PAUSE_S * 2 ** (process.quick - 1))
        restarts = process.status.restarts + 1
        why = f"it ended with {code}; again in {pause_s:.0f} s"
        self._tell(process, "backoff", code, why, restarts=restarts)
        due_us = self._clock.now_us() + int(pause_s * 1e6)
        process.timer = self._clock.call_at(due_us, lambda: self._due(process))

    def _due(self, process: Process) -> None:
        process.timer = None
        if process.wanted:
            process.watching = asyncio.get_running_loop().create_task(self._run(process))

    def _tell(
        self,
        process: Process,
        actual: str,
        code: int | None,
        reason: str = "",
        *,
        restarts: int | None = None,
    ) -> None:
        pid = process.running.pid if process.running is not None else None
        count = process.status.restarts if restarts is None else restarts
        process.status = Status(actual, pid, count, code, reason)
        if reason:
            process.output.note(reason, self._clock.now_us())
        try:
            process.changed(process.status)
        except HubError as error:
            log.warning("kenko.deployment_untold", error=str(error))


def _environment(process: Process) -> dict[str, str]:
    """Return the variables of a process: none of the hub's own, which may be secrets."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(process.folder),
        "TMPDIR": str(process.folder),
        "PYTHONUNBUFFERED": "1",
        **process.env,
    }


def _signal(running: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process and all it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(running.pid, number)


def _nobody(status: Status) -> None:
    del status
