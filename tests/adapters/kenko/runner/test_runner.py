"""The runner against a real hub: real processes, output, restarts, lost connections, an end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from hubbub.testing import FakeClock
from hubbub_kenko.adapter import KenkoAdapter
from hubbub_kenko.admin.deployments import Deployments
from hubbub_kenko.runner.runner import FolderError, Runner
from hubbub_kenko.runner.settings import RunnerSettings
from tests.adapters.kenko.admin.serving import (
    MANIFEST,
    RUNNERS,
    Kenko,
    package,
    running_kenko,
)

WAIT_S = 20.0
FOREVER = "import os, time\nprint('up', os.getpid(), flush=True)\ntime.sleep(3600)"


def settings(url: str, token: str, folder: Path, **how: Any) -> RunnerSettings:
    quick: dict[str, Any] = {"backoff_s": 0.02, "backoff_max_s": 0.1, "gather_s": 0.01}
    return RunnerSettings(url=url, token=token, folder=folder / "runner", **{**quick, **how})


@asynccontextmanager
async def running(
    url: str, token: str, folder: Path, *, clock: FakeClock | None = None, **how: Any
) -> AsyncGenerator[Runner]:
    """Run a runner; it is stopped in order."""
    runner = Runner(settings(url, token, folder, **how), clock=clock)
    run = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        async with asyncio.timeout(WAIT_S):
            await run


async def until(what: Callable[[], object]) -> None:
    """Return once something holds that no event tells."""
    async with asyncio.timeout(WAIT_S):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def cut(runner: Runner) -> ClientConnection:
    """Break the connection of a runner, and return it."""
    connection = runner._socket
    assert connection is not None
    connection.transport.abort()
    return connection


def again(runner: Runner, gone: ClientConnection) -> bool:
    """Tell whether a runner has another connection."""
    return runner._socket not in (None, gone)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b"State:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def invited(kenko: Kenko) -> dict[str, Any]:
    """Make a runner that may join."""
    found: dict[str, Any] = await kenko.post("/runners/join-token", {"name": "r1"}, status=201)
    return found


async def deployed(
    kenko: Kenko, runner_id: str, code: str, *, manifest: str = MANIFEST, **more: Any
) -> str:
    """Put a program on a runner; returns the id of the deployment."""
    answer = await kenko.upload(package(code, manifest))
    assert answer.status_code == 201, answer.text
    body = {"package_id": answer.json()["id"], "runner_id": runner_id, **more}
    return str((await kenko.post("/deployments", body, status=201))["id"])


async def lines_of(kenko: Kenko, deployment: str, text: str) -> list[str]:
    """Return all lines that the hub remembers of a deployment, once one has this text."""
    async with asyncio.timeout(WAIT_S):
        while True:
            page = await kenko.get(f"/deployments/{deployment}/log", limit=1000)
            lines = [item["text"] for item in page["items"]]
            if any(text in line for line in lines):
                return lines
            await asyncio.sleep(0.02)


async def joined(kenko: Kenko) -> None:
    """Return once the one runner is connected."""
    async with asyncio.timeout(WAIT_S):
        while not (await kenko.get("/runners"))["items"][1]["connected"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def pid_of(kenko: Kenko, deployment: str) -> int:
    """Return the process of a deployment, once it says that it is up."""
    lines = await kenko.log_of(deployment, "up")
    return int(next(line for line in reversed(lines) if line.startswith("up ")).split()[1])


async def test_it_runs_and_tells_what_its_programs_write(runners: Kenko, tmp_path: Path) -> None:
    """Fetched, started with its variables, shown as a local one is; stopped and removed."""
    invitation = await invited(runners)
    code = "import os\nprint('it is', os.environ['WHAT'], flush=True)\n" + FOREVER
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], code, env={"WHAT": "here"}, autostart=True)
        shown = await runners.get(f"/deployments/{made}")
        assert (shown["desired"], shown["actual"]) == ("running", "running")
        pid = await pid_of(runners, made)
        assert shown["pid"] == pid
        page = await runners.get(f"/deployments/{made}/log", limit=1)
        assert [item["text"] for item in page["items"]] == ["it is here"]
        assert set(page["items"][0]) == {"number", "time", "text"}
        rest = await runners.get(f"/deployments/{made}/log", cursor=page["next"])
        assert [item["text"] for item in rest["items"]] == [f"up {pid}"]
        (_, listed) = (await runners.get("/runners"))["items"]
        assert (listed["connected"], listed["deployments"]) == (True, 1)
        assert listed["memory_total"] > 0
        stopped = await runners.post(f"/deployments/{made}/stop")
        assert (stopped["desired"], stopped["actual"], stopped["pid"]) == (
            "stopped", "stopped", None,
        )  # fmt: skip
        assert not is_alive(pid)
        await runners.log_of(made, "[hub] stopped")
        again = await runners.post(f"/deployments/{made}/start")
        assert again["actual"] == "running"
        assert (await runners.client.delete(f"/deployments/{made}")).status_code == 204
        assert not is_alive(again["pid"])
        assert list((tmp_path / "runner" / "deployments").iterdir()) == []
        assert list((tmp_path / "runner" / "packages").iterdir()) == []


def deployments_of(kenko: Kenko) -> Deployments:
    """Return what the hub has of deployments."""
    adapter = kenko.core.adapters.get("kenko").adapter
    assert isinstance(adapter, KenkoAdapter)
    features = adapter._admin._features
    assert features is not None
    return features.deployments


async def test_a_failing_program_runs_again(runners: Kenko, tmp_path: Path) -> None:
    """After a pause; the hub hears of it, and of the end of one that ended well."""
    invitation = await invited(runners)
    clock = FakeClock()
    async with running(runners.url, invitation["token"], tmp_path, clock=clock) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], "raise SystemExit(3)", autostart=True)
        path = f"/deployments/{made}"
        shown = await runners.until(path, actual="backoff", restarts=1)
        assert shown["exit_code"] == 3
        await clock.advance(1.1)
        await runners.until(path, actual="backoff", restarts=2)
        await runners.log_of(made, "[hub] it ended with 3; again in 2 s")
        well = await deployed(runners, invitation["id"], "print('done')", autostart=True)
        shown = await runners.until(f"/deployments/{well}", actual="stopped")
        assert (shown["exit_code"], shown["desired"]) == (0, "stopped")


async def test_a_program_that_cannot_be_had_is_told(runners: Kenko, tmp_path: Path) -> None:
    """A package that is not what was promised is not run, and nothing is left of it."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], FOREVER)
        (file,) = (runners.core.data_dir / "kenko" / "packages").iterdir()
        file.write_bytes(package("print('changed')"))
        error = (await runners.post(f"/deployments/{made}/start", status=503))["error"]
        assert "not the package it promised" in error["message"]
        assert list((tmp_path / "runner" / "packages").iterdir()) == []


CHATTY = (
    "import os, sys, time\nfrom pathlib import Path\nprint('up', os.getpid(), flush=True)\n"
    "n = 0\nwhile not Path('end').exists():\n"
    "    n += 1\n    print('line', n, flush=True)\n    time.sleep(0.01)\n"
    "print('last', n, flush=True)\n"
)


async def test_no_line_is_lost_or_doubled_over_lost_connections(
    runners: Kenko, tmp_path: Path
) -> None:
    """The program goes on meanwhile: the same process, every line once."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], CHATTY, autostart=True)
        pid = await pid_of(runners, made)
        for number in (20, 50, 80):
            await lines_of(runners, made, f"line {number}")
            gone = cut(runner)
            await until(partial(again, runner, gone))
        shown = await runners.until(f"/deployments/{made}", actual="running")
        assert shown["pid"] == pid
        (tmp_path / "runner" / "deployments" / made / "app" / "end").touch()
        lines = await lines_of(runners, made, "last")
        count = int(next(line for line in lines if line.startswith("last")).split()[1])
        wanted = [f"up {pid}", *(f"line {n}" for n in range(1, count + 1)), f"last {count}"]
        assert [line for line in lines if not line.startswith("[hub]")] == wanted


async def test_what_is_decided_while_it_is_away_holds_when_it_is_back(
    runners: Kenko, tmp_path: Path
) -> None:
    """Halted meanwhile: it is stopped. Ended by itself meanwhile: it is not run again."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        halted = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, halted)
        ending = await deployed(runners, invitation["id"], CHATTY, autostart=True)
        await runners.log_of(ending, "line 1")
        lost = runner._talk

        async def away(socket: ClientConnection) -> None:
            await socket.close()

        runner._talk = away  # type: ignore[method-assign]  # the hub cannot be had
        cut(runner)
        await runners.until(f"/deployments/{halted}", actual="unknown")
        await runners.post(f"/deployments/{halted}/stop", status=503)
        (tmp_path / "runner" / "deployments" / ending / "app" / "end").touch()
        await until(lambda: runner._bench.statuses()[ending].actual == "stopped")
        assert is_alive(pid)
        runner._talk = lost  # type: ignore[method-assign]
        shown = await runners.until(f"/deployments/{halted}", actual="stopped")
        assert shown["desired"] == "stopped"
        await until(lambda: not is_alive(pid))
        shown = await runners.until(f"/deployments/{ending}", actual="stopped")
        assert (shown["desired"], shown["exit_code"]) == ("stopped", 0)
        lines = await lines_of(runners, ending, "last")
        assert len([line for line in lines if line.startswith("up")]) == 1


async def test_what_shall_run_runs_again_with_the_runner(runners: Kenko, tmp_path: Path) -> None:
    """Its processes end with it and begin with it; lines that are shown stay."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, made)
    assert not is_alive(pid)
    await runners.until(f"/deployments/{made}", actual="unknown", desired="running")
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        shown = await runners.until(f"/deployments/{made}", actual="running")
        await lines_of(runners, made, f"up {shown['pid']}")
        lines = await lines_of(runners, made, f"up {pid}")
        assert "[hub] stopped" in lines


async def test_what_runs_goes_on_while_the_hub_restarts(tmp_path: Path) -> None:
    """The same process; and the new hub shows what it wrote before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listening = f'{RUNNERS}listen = ["127.0.0.1:{port}"]\n'
    async with running_kenko(tmp_path / "hub", listening) as first:
        invitation = await invited(first)
        runner = Runner(settings(f"http://127.0.0.1:{port}", invitation["token"], tmp_path))
        run = asyncio.create_task(runner.run())
        await until(lambda: runner.connected)
        made = await deployed(first, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(first, made)
    async with running_kenko(tmp_path / "hub", listening) as second:
        shown = await second.until(f"/deployments/{made}", actual="running")
        assert shown["pid"] == await pid_of(second, made) == pid
        runner.stop()
        await run
    assert not is_alive(pid)


async def test_one_that_is_not_wanted_any_more_ends_what_it_runs(
    runners: Kenko, tmp_path: Path
) -> None:
    """Nobody could end it otherwise; it goes on asking."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, made)
        gone = await runners.client.delete(f"/runners/{invitation['id']}")
        assert gone.status_code == 204
        await until(lambda: not is_alive(pid))
        assert not runner.connected


async def test_the_newest_of_a_token_works_and_the_older_waits_for_its_end(
    runners: Kenko, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs is moved, once: neither displaces the other again, however often it tries."""
    invitation = await invited(runners)
    token = invitation["token"]
    async with running(runners.url, token, tmp_path / "older") as older:
        await until(lambda: older.connected)
        made = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, made)
        async with running(runners.url, token, tmp_path / "newer") as newer:
            await until(lambda: newer.connected)
            joined = newer._socket
            await until(lambda: not is_alive(pid))
            await until(lambda: caplog.text.count("runner_connected") >= 3)
            assert newer._socket is joined
            assert not older.connected
            assert "give each a token of its own" in caplog.text
        await until(lambda: older.connected)


async def test_what_the_hub_does_not_know_is_removed(runners: Kenko, tmp_path: Path) -> None:
    """A deployment that is gone from the hub is ended when the runner tells of it."""
    invitation = await invited(runners)
    async with running(runners.url, invitation["token"], tmp_path) as runner:
        await until(lambda: runner.connected)
        made = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, made)
        deployments_of(runners)._rows.clear()  # as after a restore of the database
        cut(runner)
        await until(lambda: not is_alive(pid))
        await until(lambda: not runner._bench.statuses())


async def test_a_folder_has_one_runner(tmp_path: Path) -> None:
    """The second one is refused; after the first is gone it is free."""
    given = settings("http://127.0.0.1:9", "t", tmp_path)
    first = Runner(given)
    with pytest.raises(FolderError, match="another runner"):
        Runner(given)
    first.stop()
    await first.run()
    last = Runner(given)
    last.stop()
    await last.run()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_ends_what_it_runs(
    runners: Kenko, tmp_path: Path, how: signal.Signals
) -> None:
    """`hubbub runner run` in a process of its own: exit code 0, and no process left."""
    invitation = await invited(runners)
    token = tmp_path / "token"
    token.write_text(invitation["token"] + "\n")
    command = ("-m", "hubbub.cli", "runner", "run", runners.url, "--token-file", str(token))
    program = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--dir", str(tmp_path / "runner"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await joined(runners)
        code = f"import atexit\natexit.register(lambda: print('bye', flush=True))\n{FOREVER}"
        code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n" + code
        made = await deployed(runners, invitation["id"], code, autostart=True)
        pid = await pid_of(runners, made)
        program.send_signal(how)
        assert program.stderr is not None
        said = (await program.stderr.read()).decode()
        assert await program.wait() == 0, said
        assert f"joined {runners.url}" in said
        assert not is_alive(pid)
        await runners.log_of(made, "bye")
        shown = await runners.until(f"/deployments/{made}", actual="unknown")
        assert shown["desired"] == "running"
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_its_processes_end_when_it_is_killed(runners: Kenko, tmp_path: Path) -> None:
    """The kernel sees to that."""
    invitation = await invited(runners)
    environ = {**os.environ, "HUBBUB_RUNNER_TOKEN": invitation["token"]}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hubbub.cli", "runner", "run", runners.url,
        "--dir", str(tmp_path / "runner"), env=environ, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await joined(runners)
        made = await deployed(runners, invitation["id"], FOREVER, autostart=True)
        pid = await pid_of(runners, made)
    finally:
        program.kill()
        await program.wait()
    await until(lambda: not is_alive(pid))


@pytest.mark.parametrize("url", ["hub.example.org", "ftp://hub", "http://"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    """With what to write instead; so is a missing token."""
    with pytest.raises(ValueError, match="is no address of a hub"):
        RunnerSettings(url=url, token="t")
    with pytest.raises(ValueError, match="join-token"):
        RunnerSettings(url="http://hub", token="")


def test_where_the_hub_is() -> None:
    """With the scheme of each use; a path is that of the applications alone."""
    given = RunnerSettings(url="https://hub:1/ws", token="t")
    assert given.socket_url == "wss://hub:1/ws"
    assert given.url_of("/api/x?y") == "https://hub:1/api/x?y"
    assert RunnerSettings(url="http://hub", token="t").socket_url == "ws://hub/"
