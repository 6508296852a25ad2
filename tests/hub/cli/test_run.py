"""`hubbub run` says where it listens, and what is open without a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

OPEN = (
    "open without a secret to local requests: /metrics, KenkoGo, OctoHub (shipped keys), /status, "
    "relay (shipped key), relay logs and task states"
)
EVERYTHING = "".join(
    f"[adapters.{name}]\nenabled = true\n" for name in ("kenko", "octohub", "relay")
)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        (EVERYTHING, OPEN),
        ('[hub]\nhost = "0.0.0.0"\n[adapters.kenko]\nenabled = true\nopen = true\n',
         "open without a secret to everybody: KenkoGo"),
        ('[hub]\npublic_url = "https://hub.example.org"\n' + EVERYTHING, ""),
    ],
)  # fmt: skip
def test_it_says_what_is_open(tmp_path: Path, toml: str, told: str) -> None:
    """In one line behind the one with `ready`; in none where everything wants a secret."""
    (tmp_path / "hub.toml").write_text(toml, encoding="utf-8")
    command = [sys.executable, "-m", "hubbub.cli", "run", "--set", "hub.port=0"]
    environ = {**os.environ, "HUBBUB_ADMIN_TOKEN": "a-token-of-the-tests"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("hub-1 ready http://")
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert rest == (f"{told}\n" if told else "")
