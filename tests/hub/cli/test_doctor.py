"""`hubbub doctor` finds what is wrong, and says how to mend it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hubbub.cli import doctor
from hubbub.cli.app import main
from hubbub.store.connections import LOG_BYTES
from hubbub.testing import running_hub
from tests.hub.cli.conftest import RunningHub

CHECKS = {"python", "clock", "config", "plugins", "port", "proxy", "data_dir", "disk", "token",
          "database"}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", "--set", "hub.port=0", *args])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (code == 0)
    return code, {one["check"]: one for one in told["checks"]}


def test_all_is_well_where_nothing_is_yet(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Every check says so, and nothing was made."""
    code, found = run(capsys)
    assert code == 0, found
    assert found.keys() == CHECKS
    assert list(folder.iterdir()) == []


async def test_the_database_of_a_hub_is_looked_at(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """Its revision is the one of this version; its token is for the owner only."""
    url = f"sqlite:///{folder / 'var' / 'hub.db'}"  # what doctor finds without a configuration
    async with running_hub(folder / "var", store_url=url):
        pass
    (folder / "var" / "hub.toml").unlink()
    _, found = run(capsys)
    assert "revision" in found["database"]["says"]
    assert found["token"]["ok"]
    (folder / "var" / "admin.token").chmod(0o644)
    code, found = run(capsys)
    assert code == 1
    assert "chmod 600" in found["token"]["mend"]


async def test_a_log_that_something_keeps_long_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """Twice what it is cut to is still all right."""
    path = folder / "var" / "hub.db"
    async with running_hub(folder / "var", store_url=f"sqlite:///{path}"):
        pass
    (folder / "var" / "hub.toml").unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM envelope").fetchall()
        log = path.with_name("hub.db-wal")
        os.truncate(log, 2 * LOG_BYTES)
        assert run(capsys)[1]["database"]["ok"]
        os.truncate(log, 2 * LOG_BYTES + 1)
        found = run(capsys)[1]["database"]
    assert not found["ok"]
    assert "sqlite3" in found["mend"]


def test_what_others_may_use_is_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Files of the data directory, secret files elsewhere; what the group may do is no problem."""
    (folder / "var" / "logs").mkdir(parents=True)
    log = folder / "var" / "logs" / "hub.jsonl"
    log.write_text("")
    for path, mode in ((folder / "var", 0o750), (log.parent, 0o750), (log, 0o640)):
        path.chmod(mode)
    secret = folder / "relay.key"
    secret.write_text("x" * 32)
    secret.chmod(0o600)
    key = f'adapters.octohub.signature_key={{file="{secret}"}}'
    assert run(capsys, "--set", key)[1]["data_dir"]["ok"]
    log.chmod(0o644)
    _, found = run(capsys, "--set", key)
    assert "var/logs/hub.jsonl (644)" in found["data_dir"]["says"]
    assert "chmod -R o-rwx var" in found["data_dir"]["mend"]
    log.chmod(0o640)
    secret.chmod(0o604)
    _, found = run(capsys, "--set", key)
    assert f"{secret} (604)" in found["data_dir"]["says"]
    assert found["data_dir"]["mend"] == f"chmod o-rwx {secret}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to other users")
def test_a_folder_of_another_user_that_all_may_enter_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the admin token comes from elsewhere."""
    (folder / "var").mkdir(mode=0o755)
    (folder / "var").chmod(0o755)
    os.chown(folder / "var", 12345, 12345)
    _, found = run(capsys)
    assert not found["data_dir"]["ok"]
    assert "HUBBUB_ADMIN_TOKEN" in found["data_dir"]["mend"]
    monkeypatch.setenv("HUBBUB_ADMIN_TOKEN", "x" * 40)
    assert run(capsys)[1]["data_dir"]["ok"]


def test_each_problem_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taken port, a data directory that is a file, no database there, no room."""
    (folder / "var").write_text("a file")
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**63)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, found = run(capsys, "--set", f"hub.port={port}")
    assert code == 1
    assert {name for name, one in found.items() if not one["ok"]} >= {"port", "data_dir", "disk"}
    assert all(one["mend"] for one in found.values() if not one["ok"])


def test_a_running_hub_is_no_problem(
    capsys: pytest.CaptureFixture[str], hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is its port taken; for another data directory it is."""
    port = hub.url.rpartition(":")[2]
    monkeypatch.chdir(hub.folder)
    monkeypatch.delenv("HUBBUB_ADMIN_TOKEN", raising=False)
    _, found = run(capsys, "--set", f"hub.port={port}")
    assert (found["port"]["ok"], found["port"]["mend"]) == (True, "")
    assert "runs" in found["port"]["says"]
    _, found = run(capsys, "--set", f"hub.port={port}", "--set", "hub.data_dir=other")
    assert not found["port"]["ok"]


def test_a_broken_file_ends_it_there(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """What needs settings is not looked at without them."""
    (folder / "hub.toml").write_text("[hub]\nprot = 1\n")
    code, found = run(capsys)
    assert code == 1
    assert "did you mean 'port'" in found["config"]["says"]
    assert "database" not in found


def test_a_person_reads_a_line_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    """`ok` or `problem`, what was looked at, and what to do."""
    assert main(["doctor", "--set", "hub.port=0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert all(line.startswith("ok ") for line in lines)
