"""An event loop that is held: seen, named, ended with; and one that only seems to be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hubbub.culprits import plugin_in
from hubbub.native_exit import open_native_exit
from hubbub.outside_watchdog import GRACE_LOOKS
from hubbub.stuck_plugin import FILE_NAME, StuckPluginFile
from hubbub.watchdog import EXIT_CODE, TICK_S
from tests.hub.test_plugins import write_package

LIMIT_S = 2.0

HELD_S = LIMIT_S + (GRACE_LOOKS + 2) * TICK_S + 15
"""Time for a held hub to end, with plenty for a busy machine."""

PLUGIN = """
    import asyncio, ctypes, os, re, time
    from hubbub import Endpoint, Envelope, hookimpl

    WAYS = {
        "sleeps": lambda: time.sleep(1000),
        "searches": lambda: re.match("(a+)+$", "a" * 40 + "b"),
        "reads": lambda: ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1),
        "nothing": lambda: None,
    }
    hold = WAYS[os.environ["WAY"]]

    class Busy(Endpoint):
        async def deliver(self, envelope):
            await asyncio.sleep(0)
            print("held", flush=True)
            hold()

    class BusyNow(Endpoint):
        def deliver_now(self, envelopes):
            print("held", flush=True)
            hold()
            return len(envelopes)

    def tick():
        print("held", flush=True)
        hold()

    @hookimpl
    async def startup(hub):
        kind = os.environ["PLACE"]
        loop = asyncio.get_running_loop()
        if kind == "timer":
            loop.call_later(0.5, tick)
            return
        hub.attach((Busy if kind == "deliver" else BusyNow)(address="plugin.busy"))
        said = Envelope.new(source="plugin.busy", subject="x", to=["plugin.busy"], durable=False)
        loop.call_later(0.5, lambda: loop.create_task(hub.publish(said)))
"""


@contextmanager
def hub_of(folder: Path, place: str, way: str) -> Generator[subprocess.Popen[str]]:
    """Run `hubbub run` with the plugin above; yields it once it is ready."""
    site = folder / "site"
    if not site.exists():
        site.mkdir()
        write_package(site, "hubbub_busy", PLUGIN, plugin="busy")
    settings = ("hub.port=0", f"hub.data_dir={folder}/var", f"hub.hook_limit={LIMIT_S:g}s")
    command = [sys.executable, "-m", "hubbub.cli", "run"]
    for setting in settings:
        command += ["--set", setting]
    environ = {name: value for name, value in os.environ.items() if name != "HUBBUB_TEST_STORE"}
    environ |= {"PYTHONPATH": str(site), "PLACE": place, "WAY": way}
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            while "ready http://" not in (line := process.stdout.readline()):
                assert line, process.stderr.read() if process.stderr else ""
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Read what a hub prints up to a word."""
    assert process.stdout is not None
    while word not in (line := process.stdout.readline()):
        assert line, "the hub has ended"


HELD = {
    "deliver": "sleeps",
    "deliver_now": "reads",
    "timer": "searches",
}
"""What of a plugin holds the loop, and how: without the interpreter's lock, or with it."""


def test_a_held_loop_ends_the_hub(tmp_path: Path) -> None:
    """Whatever of a plugin holds it, told to stop or not; the plugin is off afterwards."""
    with ExitStack() as running:  # side by side: what takes time is waiting
        hubs: dict[str, subprocess.Popen[str]] = {}
        for place, way in HELD.items():
            (tmp_path / place).mkdir()
            hubs[place] = running.enter_context(hub_of(tmp_path / place, place, way))
        wait_for(hubs["deliver_now"], "held")
        hubs["deliver_now"].terminate()  # SIGTERM cannot be heard now
        for place, process in hubs.items():
            _, said = process.communicate(timeout=HELD_S)
            assert process.returncode == EXIT_CODE, said
            line = next(json.loads(line) for line in said.splitlines() if "plugin.stuck" in line)
            assert (line["plugin"], line["exit_code"]) == ("busy", EXIT_CODE)
            assert "hubbub_busy.py" in line["stack"]
            off = StuckPluginFile(tmp_path / place / "var" / FILE_NAME).off()
            assert list(off) == ["busy"]
    with hub_of(tmp_path / "timer", "timer", "searches") as process:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert '"state": "quarantined"' in said


def test_a_hub_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """SIGSTOP for longer than the limit, such as a debugger's, holds no loop."""
    with hub_of(tmp_path, "timer", "nothing") as process:
        wait_for(process, "held")
        process.send_signal(signal.SIGSTOP)
        time.sleep(LIMIT_S + (GRACE_LOOKS + 1) * TICK_S)  # real time is what is tested
        process.send_signal(signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5 * TICK_S)
        process.terminate()
        assert process.wait(20) == 0


def test_the_process_beside_ends_with_the_hub(tmp_path: Path) -> None:
    """Also when the hub is killed."""
    with hub_of(tmp_path, "timer", "nothing") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (beside,) = children.read_text().split()
        process.kill()
        process.wait(20)
    until = time.monotonic() + 10
    while Path(f"/proc/{beside}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_message_ends_a_process_that_keeps_the_interpreter() -> None:
    """With the code it was told; no thread of Python takes part."""
    pid = os.fork()
    if pid == 0:  # the child runs this and nothing else of pytest
        import ctypes

        queue = open_native_exit(EXIT_CODE)
        if os.fork() == 0:
            ctypes.CDLL(None).mq_send(queue, b"1", ctypes.c_size_t(1), 1)
            os._exit(0)
        ctypes.PyDLL(None).sleep(20)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_CODE


def test_the_innermost_call_of_hub_or_plugin_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library is of the plugin that calls it; a plugin that waits for the hub holds nothing."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").touch()
    write_package(tmp_path, "single", "", plugin="one")
    write_package(tmp_path, "more", "", plugin="unused")
    (tmp_path / "more-1.0.dist-info" / "entry_points.txt").write_text(
        "[hubbub]\nshop = acme.shop\nmail = acme.mail\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    hub = str(Path(plugin_in.__code__.co_filename).with_name("router.py"))
    kenko = str(Path(hub).parents[2] / "adapters" / "hubbub_kenko" / "app.py")
    single, acme = str(tmp_path / "single.py"), str(tmp_path / "acme")
    assert plugin_in([json.__file__, single, hub]) == "one"
    assert plugin_in([json.__file__, hub, single]) is None
    assert plugin_in([kenko, single]) is None
    assert plugin_in([json.__file__]) is None
    assert plugin_in([f"{acme}/mail/send.py"]) == "mail"
    assert plugin_in([f"{acme}/shop.py"]) == "shop"
    assert plugin_in([f"{acme}/common.py"]) in {"mail", "shop"}
