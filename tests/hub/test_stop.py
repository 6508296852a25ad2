"""A stop ends in its time, whatever a plugin does, and names who is late.

Hubs of their own processes: the end of an interpreter is part of it. They run side by side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from hubbub.stop_deadline import HELD
from hubbub.stopping import STOP_GRACE_S

DRAIN_S: Final = 0.2
SLACK_S: Final = 2.0
"""For a machine that is busy: what is tested comes to an end or never does."""

BEGUN: Final = "begun"
"""Printed by a plugin that is stopped before the hub is ready."""

PLUGINS: Final = {
    "swallows": """
        import asyncio
        from hubbub import hookimpl

        async def for_ever():
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

        @hookimpl
        def startup(hub):
            hub.spawn(for_ever())
    """,
    "waits": """
        import asyncio
        from hubbub import hookimpl

        @hookimpl
        async def shutdown(hub):
            await asyncio.Event().wait()
    """,
    "thread": """
        import threading
        from hubbub import hookimpl

        @hookimpl
        def startup(hub):
            threading.Thread(target=threading.Event().wait, name="keeper").start()
    """,
    "leaves": """
        import atexit, time
        from hubbub import hookimpl

        @atexit.register
        def leave():
            while True:
                time.sleep(1)

        @hookimpl
        def startup(hub):
            pass
    """,
    "holds": """
        import time
        from hubbub import hookimpl

        @hookimpl
        def shutdown(hub):
            while True:
                time.sleep(1)
    """,
    "begins": """
        import asyncio
        from hubbub import hookimpl

        @hookimpl
        async def startup(hub):
            print("begun", flush=True)
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
    """,
    "imports": """
        import time
        print("begun", flush=True)
        while True:
            time.sleep(1)
    """,
    "fine": """
        from hubbub import hookimpl

        @hookimpl
        async def shutdown(hub):
            print("ended", flush=True)
    """,
}


@dataclass
class Stopped:
    """How a hub ended."""

    code: int
    took_s: float
    lines: list[dict[str, Any]]
    out: str

    def line(self, event: str) -> dict[str, Any]:
        """Return the one line of that event."""
        (found,) = [line for line in self.lines if line["event"] == event]
        return found


class Process:
    """A hub with plugins."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        folder.mkdir()
        for name in names:
            module = f"plugin_{name}"
            (folder / f"{module}.py").write_text(textwrap.dedent(PLUGINS[name]))
            info = folder / f"{module}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[hubbub]\n{name} = {module}\n")
        (folder / "hub.toml").write_text(
            f'[hub]\nport = 0\ndrain_timeout = "{DRAIN_S}s"\n[log]\nformat = "json"\n'
        )
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hubbub.cli", "run"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder), "HUBBUB_ADMIN_TOKEN": "t"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def begun(self, word: str) -> None:
        """Wait for a line."""
        assert self._process.stdout is not None
        assert any(word in line for line in self._process.stdout), self._errors.read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self, since: float) -> Stopped:
        """Wait for its end."""
        try:
            code = self._process.wait(60)
        finally:
            self._process.kill()
        took_s = time.monotonic() - since
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        self._process.stdout.close()
        lines = [json.loads(line) for line in self._errors.read_text().splitlines()]
        return Stopped(code, took_s, lines, out)


HUBS: Final = {
    "plain": (["fine"], "ready"),
    "tasks and shutdown": (["fine", "swallows", "waits"], "ready"),
    "thread": (["thread"], "ready"),
    "atexit": (["leaves"], "ready"),
    "held": (["holds"], "ready"),
    "before it is ready": (["begins"], BEGUN),
    "in an import": (["imports"], BEGUN),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stopped]:
    """All hubs, told to stop at the same time."""
    root = tmp_path_factory.mktemp("stop")
    processes = {name: Process(root / name.replace(" ", "-"), HUBS[name][0]) for name in HUBS}
    for name, process in processes.items():
        process.begun(HUBS[name][1])
    since = time.monotonic()
    for process in processes.values():
        process.signal()
    return {name: process.ended(since) for name, process in processes.items()}


@pytest.mark.parametrize("name", HUBS)
def test_every_stop_ends_in_its_time(stopped: dict[str, Stopped], name: str) -> None:
    """With 0, or with 70 where the event loop is held."""
    end = stopped[name]
    assert end.code == (HELD if name in ("held", "in an import") else 0), end.lines
    if name != "plain":  # those that were waited for before it took as long at most
        assert end.took_s < DRAIN_S + STOP_GRACE_S + SLACK_S


def test_a_stop_without_trouble_says_so(stopped: dict[str, Stopped]) -> None:
    """Plugins are ended, nothing is named."""
    end = stopped["plain"]
    assert [line["event"] for line in end.lines][-1] == "hub.stopped"
    assert "ended" in end.out


def test_a_task_that_swallows_its_end_is_named(stopped: dict[str, Stopped]) -> None:
    """After the database was closed."""
    line = stopped["tasks and shutdown"].line("hub.stop_cut_short")
    assert line["tasks"] == ["for_ever of plugin 'swallows'"]
    assert line["steps"] == ["tasks"]
    assert line["exit_code"] == 0


def test_a_shutdown_that_waits_leaves_time_for_the_others(stopped: dict[str, Stopped]) -> None:
    """It is named; plugins before it are ended all the same."""
    line = stopped["tasks and shutdown"].line("plugin.shutdown_failed")
    assert line["plugin"] == "waits"
    assert "TimeoutError" in line["reason"]
    assert "ended" in stopped["tasks and shutdown"].out


def test_a_thread_that_keeps_the_process_is_named(stopped: dict[str, Stopped]) -> None:
    """So is what a plugin does at the exit of the interpreter."""
    assert stopped["thread"].line("hub.stop_cut_short")["threads"] == ["keeper"]
    assert stopped["atexit"].line("hub.stop_cut_short")["plugin"] == "leaves"


def test_who_holds_the_loop_is_named_with_its_stack(stopped: dict[str, Stopped]) -> None:
    """Also in an import, before there is a loop that could be told."""
    line = stopped["held"].line("hub.stop_cut_short")
    assert (line["plugin"], line["step"], line["exit_code"]) == ("holds", "plugins", HELD)
    assert "plugin_holds.py" in line["stack"]
    line = stopped["in an import"].line("hub.stop_cut_short")
    assert (line["plugin"], line["held"]) == ("imports", True)


def test_a_hub_that_is_not_ready_stops_too(stopped: dict[str, Stopped]) -> None:
    """What it waits for is named, and so is what does not let itself be cancelled."""
    end = stopped["before it is ready"]
    assert "startup of plugin 'begins'" in end.line("hub.stopped_before_ready")["waiting"]
    assert end.line("hub.stop_cut_short")["tasks"] == ["startup of plugin 'begins'"]
    assert "ready" not in end.out


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Also while the loop is held; it may be another one (two of a kind may come as one)."""
    process = Process(tmp_path / "hub", ["imports"])
    process.begun(BEGUN)
    process.signal()
    process.signal(signal.SIGINT)
    end = process.ended(time.monotonic())
    assert end.code == 1
    assert end.line("hub.second_signal")
    assert end.took_s < STOP_GRACE_S - 1
