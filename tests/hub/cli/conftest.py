"""A hub as a process of its own, and the command line pointed at it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubbub.cli.app import main

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class RunningHub:
    """A hub that runs, and where its data directory is."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def token(self) -> str:
        return (self.folder / "var" / "admin.token").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on any free port, without adapters, and with the endpoints of `peers`."""
    folder = tmp_path_factory.mktemp("hub")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.cli.peers"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r" ready (http\S+)", line):
                    break
            else:
                pytest.fail(f"no ready line; {(folder / 'log').read_text(encoding='utf-8')}")
            try:
                yield RunningHub(found[1], folder, process)
            finally:
                process.terminate()
                process.wait(20)


Call = Callable[..., "Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run a command in the hub's folder, so that it finds the token by itself."""
    monkeypatch.chdir(hub.folder)
    monkeypatch.setenv("HUBBUB_URL", hub.url)

    def run(*args: str) -> Answer:
        code = main(args)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
