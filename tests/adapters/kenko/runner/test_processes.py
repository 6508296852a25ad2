"""Real processes: limits, output, restarts with pauses, an end for all they have started."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hubbub.testing import FakeClock
from hubbub_kenko.runner import processes as running
from hubbub_kenko.runner.output import FILE_BYTES, LINES, MAX_LINE, Output
from hubbub_kenko.runner.processes import LIMITS, MAX_QUICK, Processes, Status
from tests.adapters.kenko.admin.serving import package


@dataclass
class Watched:
    """A runner, and what it told of its one process."""

    processes: Processes
    clock: FakeClock
    folder: Path
    told: list[Status] = field(default_factory=list[Status])
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, code: str, **env: str) -> None:
        """Run a program."""
        path = self.folder / "package.zip"
        path.write_bytes(package(code))
        await self.processes.start("dep", path, entry="app.py", env=env, changed=self.changed)

    def changed(self, status: Status) -> None:
        """Note how it is."""
        self.told.append(status)
        self.woken.set()

    async def until(self, actual: str, number: int = 1) -> Status:
        """Return a status once it was told so often."""
        async with asyncio.timeout(20):
            while True:
                found = [status for status in self.told if status.actual == actual]
                if len(found) >= number:
                    return found[number - 1]
                self.woken.clear()
                await self.woken.wait()

    def lines(self) -> list[str]:
        """Return its output."""
        return [line.text for line in self.processes.output_of("dep").after(0, 10_000)]

    async def until_line(self, wanted: Callable[[str], bool]) -> str:
        """Return the first line that is wanted."""
        async with asyncio.timeout(20):
            while True:
                found = next(filter(wanted, self.lines()), None)
                if found is not None:
                    return found
                await asyncio.sleep(0.01)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[Watched]:
    """A runner without processes."""
    clock = FakeClock()
    one = Watched(Processes(tmp_path / "deployments", clock), clock, tmp_path)
    yield one
    await one.processes.stop_all()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b"State:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_program_runs_and_ends(watched: Watched) -> None:
    """In its folder, with both outputs as lines; well ended, it is done."""
    await watched.run(
        "import sys, os\nprint(os.getcwd())\nprint('err', file=sys.stderr)\nprint('no end', end='')"
    )
    status = await watched.until("stopped")
    assert (status.exit_code, status.pid, status.restarts) == (0, None, 0)
    assert [one.actual for one in watched.told] == ["starting", "running", "stopped"]
    lines = watched.lines()
    assert lines[:3] == [str(watched.folder / "deployments" / "dep" / "app"), "err", "no end"]
    await watched.clock.advance(600)
    assert len(watched.told) == 3


async def test_its_variables_are_its_own(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the hub's, which may be secrets; what it was given, and a few basics."""
    monkeypatch.setenv("HUBBUB_ADMIN_TOKEN", "secret")
    await watched.run("import os\nprint(sorted(os.environ.items()))", MINE="yes")
    await watched.until("stopped")
    (line, *_) = watched.lines()
    assert "'MINE', 'yes'" in line
    assert "HUBBUB" not in line
    assert "secret" not in line


async def test_limits_are_on_the_process(watched: Watched) -> None:
    """As they are named; what is over one fails in the program, not in the hub."""
    names = sorted(LIMITS)
    await watched.run(
        "import resource\n"
        f"print([resource.getrlimit(getattr(resource, n))[0] for n in {names}])\n"
        "try:\n    bytearray(2 * 1024**3)\nexcept MemoryError:\n    print('no memory')\n"
        "open('small', 'wb').write(b'x' * 1000)\n"
    )
    await watched.until("stopped")
    assert watched.lines()[:2] == [str([LIMITS[name] for name in names]), "no memory"]


async def test_a_failing_program_runs_again_after_growing_pauses(watched: Watched) -> None:
    """1, 2, 4 seconds, each restart counted; half a second too early there is none."""
    await watched.run("raise SystemExit(3)")
    for number, pause_s in enumerate((1, 2, 4), start=1):
        status = await watched.until("backoff", number)
        assert (status.exit_code, status.restarts) == (3, number)
        await watched.clock.advance(pause_s - 0.5)  # a quick program ends while the clock moves
        assert len([one for one in watched.told if one.actual == "running"]) == number
        await watched.clock.advance(0.6)
        await watched.until("running", number + 1)


async def test_too_many_quick_ends_are_a_failure(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last restart is allowed, one more is not."""
    monkeypatch.setattr(running, "PAUSE_MAX_S", 1.0)
    await watched.run("raise SystemExit(1)")
    for number in range(1, MAX_QUICK + 1):
        await watched.until("backoff", number)
        await watched.clock.advance(1.1)
    status = await watched.until("failed")
    assert (status.restarts, status.exit_code) == (MAX_QUICK, 1)
    assert f"{MAX_QUICK + 1} times" in status.reason


async def test_a_long_run_earns_a_short_pause(watched: Watched) -> None:
    """After a minute an end counts as the first one again."""
    await watched.run("import sys\nprint('up', flush=True)\nsys.stdin.read()\nraise SystemExit(1)")
    await watched.until("backoff", 1)
    await watched.clock.advance(1.1)
    await watched.until("backoff", 2)
    process = watched.processes.find("dep")
    assert process is not None
    assert process.quick == 2
    (process.folder / "app.py").write_text("import time\ntime.sleep(3600)")
    await watched.clock.advance(2.1)
    await watched.until("running", 3)
    await watched.clock.advance(61)
    assert process.running is not None
    process.running.kill()
    status = await watched.until("backoff", 3)
    assert "again in 1 s" in status.reason


async def test_stopping_ends_all_it_has_started(watched: Watched) -> None:
    """Its children too, politely; and it does not run again."""
    await watched.run(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "print('child', child.pid, flush=True)\ntime.sleep(3600)"
    )
    line = await watched.until_line(lambda line: line.startswith("child"))
    child = int(line.split()[1])
    status = await watched.until("running")
    assert status.pid is not None
    await watched.processes.stop("dep")
    assert not is_alive(status.pid)
    async with asyncio.timeout(20):
        # Told to end, and nobody's child here: no event tells of it.
        while is_alive(child):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert watched.told[-1].actual == "stopped"
    await watched.clock.advance(600)
    assert watched.told[-1].actual == "stopped"


async def test_who_does_not_end_is_killed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while."""
    monkeypatch.setattr(running, "STOP_S", 0.2)
    await watched.run(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\ntime.sleep(3600)"
    )
    await watched.until_line(lambda line: line == "deaf")
    await watched.processes.stop("dep")
    assert watched.told[-1].exit_code == -9


async def test_stopping_while_it_waits_for_its_next_start(watched: Watched) -> None:
    """It does not start any more."""
    await watched.run("raise SystemExit(1)")
    await watched.until("backoff")
    await watched.processes.stop("dep")
    await watched.clock.advance(600)
    assert [one.actual for one in watched.told].count("running") == 1


async def test_starting_twice_is_starting_once(watched: Watched) -> None:
    """The one that runs goes on."""
    await watched.run("import time\ntime.sleep(3600)")
    await watched.run("print('never')")
    assert [one.actual for one in watched.told] == ["starting", "running"]


async def test_a_flood_of_output_is_bounded(watched: Watched) -> None:
    """In memory by lines, on disk by bytes; and the hub goes on."""
    await watched.run("for n in range(300_000):\n    print('line', n, 'x' * 60)\n")
    await watched.until("stopped")
    lines = watched.lines()
    assert len(lines) == LINES
    assert any(line.startswith("line 299999 ") for line in lines)
    folder = watched.folder / "deployments" / "dep"
    sizes = {file.name: file.stat().st_size for file in folder.glob("output*")}
    assert set(sizes) == {"output.log", "output.log.1"}
    assert max(sizes.values()) <= FILE_BYTES


def test_lines_are_cut_and_put_together(tmp_path: Path) -> None:
    """However the bytes come: in parts, without an end, too long, not UTF-8."""
    output = Output(tmp_path / "o" / "output.log")
    output.add(b"he", 1)
    output.add(b"llo\r\nwor", 2)
    output.add(b"ld\n\n" + b"\xff\n" + b"x" * (MAX_LINE + 1) + b"\nend", 3)
    assert [line.text for line in output.after(0, 100)] == [
        "hello", "world", "", "\ufffd", "x" * MAX_LINE, "x",
    ]  # fmt: skip
    output.end(4)
    output.end(5)
    assert [line.text for line in output.after(6, 100)] == ["end"]
    assert [line.number for line in output.after(2, 2)] == [3, 4]


async def test_what_it_writes_is_private(watched: Watched) -> None:
    """As is its output; the umask of the hub does not count."""
    before = os.umask(0o000)
    try:
        await watched.run("open('made', 'w').close()\nprint('done')")
        await watched.until("stopped")
    finally:
        os.umask(before)
    folder = watched.folder / "deployments"
    for path in (folder, *folder.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert (folder / "dep" / "app" / "made").exists()
    assert (folder / "dep" / "output.log").exists()
