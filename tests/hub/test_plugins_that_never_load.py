"""A plugin that blocks or ends the process while it is loaded: left out at a next start."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from hubbub.stuck_plugin import FILE_NAME, MAX_ENDED_STARTS, StuckPluginFile
from hubbub.switching import enable
from hubbub.testing import running_hub
from hubbub.watchdog import EXIT_CODE
from tests.hub.test_plugins import write_package

RUN: Final = """
import asyncio, sys
from pathlib import Path
from hubbub.testing import running_hub

async def main():
    async with running_hub(Path(sys.argv[1]), '[hub]\\nhook_limit = "1s"') as core:
        print(core.plugins.get("bad").state, core.plugins.get("bad").reason, flush=True)

asyncio.run(main())
"""

BLOCKS: Final = {
    "import": "import threading\nthreading.Event().wait()\n",
    "its hooks": """
        import time

        def __getattr__(name):
            raise AttributeError(name)

        def __dir__():
            while True:
                time.sleep(1)
    """,
    "Config of": """
        import time
        from hubbub import hookimpl
        from pydantic import BaseModel, model_validator

        class Config(BaseModel):
            @model_validator(mode="before")
            @classmethod
            def read(cls, given):
                while True:
                    time.sleep(1)

        class Adapter:
            name = "bad"
            Config = Config
            async def start(self, hub): ...
            async def stop(self): ...

        @hookimpl
        def adapters():
            return [Adapter()]
    """,
}

ENDS: Final = {
    "import": "import os\nos._exit(9)\n",
    "startup": """
        import asyncio, os
        from hubbub import hookimpl

        @hookimpl
        async def startup(hub):
            await asyncio.sleep(0)
            os._exit(9)
    """,
}


def starts(folder: Path, source: str, count: int) -> list[subprocess.CompletedProcess[str]]:
    """Start a hub with that plugin so often, on a data directory that is not there yet."""
    site = folder / "site"
    site.mkdir(parents=True)
    write_package(site, "hubbub_bad", source, plugin="bad")
    environ = {name: value for name, value in os.environ.items() if name != "HUBBUB_TEST_STORE"}
    environ["PYTHONPATH"] = str(site)
    return [
        subprocess.run(
            [sys.executable, "-c", RUN, str(folder / "hub")],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for _ in range(count)
    ]


def test_one_that_blocks_is_left_out_at_the_next_start(tmp_path: Path) -> None:
    """Whatever of it blocks, and though there is no database yet."""
    with ThreadPoolExecutor() as threads:
        runs = {
            what: threads.submit(starts, tmp_path / str(number), source, 2)
            for number, (what, source) in enumerate(BLOCKS.items())
        }
        for what, waited in runs.items():
            first, second = waited.result()
            assert first.returncode == EXIT_CODE, (what, first.stderr)
            assert second.returncode == 0, (what, second.stderr)
            assert f"\nquarantined {what}" in second.stdout, (what, second.stdout)
            assert "did not return for 1 s" in second.stdout


def test_one_that_ends_the_process_is_left_out_after_two_starts(tmp_path: Path) -> None:
    """The first may have been chance."""
    with ThreadPoolExecutor() as threads:
        runs = {
            what: threads.submit(starts, tmp_path / what, source, MAX_ENDED_STARTS + 1)
            for what, source in ENDS.items()
        }
        for what, waited in runs.items():
            *before, last = waited.result()
            assert [run.returncode for run in before] == [9] * MAX_ENDED_STARTS, what
            assert "plugin.ended_there" in last.stdout + last.stderr
            assert last.returncode == 0, (what, last.stderr)
            assert "\nquarantined 2 starts in a row ended" in last.stdout, last.stdout
            assert f"its {what} was under way" in last.stdout


async def test_what_the_file_says_goes_into_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays off without the file; enabled, it is up, now and after a restart."""
    write_package(tmp_path, "hubbub_once", "", plugin="once")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    file = StuckPluginFile(tmp_path / "hub" / FILE_NAME)
    file.condemn("once", "import did not return for 30 s")
    for _ in range(2):
        async with running_hub(tmp_path / "hub") as core:
            assert not file.path.exists()
            once = core.plugins.get("once")
            assert once is not None
            assert (once.state, once.reason) == ("quarantined", "import did not return for 30 s")
            assert "hubbub_once" not in sys.modules
    async with running_hub(tmp_path / "hub") as core:
        once = core.plugins.get("once")
        assert once is not None
        await enable(core, once)
        assert once.state == "up"
    async with running_hub(tmp_path / "hub") as core:
        assert [plugin.state for plugin in core.plugins if plugin.name == "once"] == ["up"]
    assert not file.path.exists()


LIST: Final = """
import sys
from hubbub.cli import loading
limits = loading.named_while_loading.__wrapped__.__kwdefaults__
limits.update(notice_s=0.1, limit_s=float(sys.argv[1]))
from hubbub.cli.plugins import load_plugins
load_plugins()
"""


def listing(folder: Path, limit_s: float) -> subprocess.Popen[str]:
    """Begin a command that imports a plugin which blocks."""
    write_package(folder, "hubbub_bad", BLOCKS["import"], plugin="bad")
    return subprocess.Popen(
        [sys.executable, "-c", LIST, str(limit_s)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_command_does_not_wait_for_it_for_ever(tmp_path: Path) -> None:
    """It says whom it waits for, and ends."""
    with listing(tmp_path, 0.3) as command:
        _, said = command.communicate(timeout=30)
        assert command.returncode == EXIT_CODE
    first, last = said.splitlines()
    assert first == "hubbub: waits for plugin 'bad': import (Ctrl-C gives up)"
    assert last == "hubbub: plugin 'bad': import does not return; uninstall it, or mend it"


def test_a_command_that_is_interrupted_names_it(tmp_path: Path) -> None:
    """Ctrl-C says where it was."""
    with listing(tmp_path, 60) as command:
        assert command.stderr is not None
        assert "waits for plugin 'bad'" in command.stderr.readline()
        command.send_signal(signal.SIGINT)
        said = command.stderr.read()
    assert "hubbub: given up while plugin 'bad': import was under way" in said
