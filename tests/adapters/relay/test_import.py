"""Import of the original's files, and the commands."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import typer
from typer.testing import CliRunner

import hubbub_relay
from hubbub_relay.importing import fold
from hubbub_relay.simulate import master, worker
from tests.adapters.relay.serving import BOSS, KEY, Relay

LOG = [
    {"event": "send", "from": "master", "to": "child", "type": "task", "cmd": "a",
     "task_id": "t_1", "ts": "2025-01-01 12:00:00"},
    {"event": "callback", "task_id": "t_1", "child_id": "c", "status": "done",
     "result": {"x": 1}, "ts": "2025-01-01 12:00:01"},
    {"event": "send", "from": "user", "to": "master", "type": "message", "text": "你好",
     "ts": "2025-01-01 12:00:02"},
    {"event": "send", "from": "master", "to": "child", "type": "task", "cmd": "b",
     "task_id": "t_2", "ts": "2025-01-01 12:00:03"},
    {"event": "send", "from": "master", "to": "child", "type": "task", "task_id": "t_3",
     "ts": "2025-01-01 12:00:04"},
    {"event": "ack", "task_id": "t_1", "ack_by": "master", "ts": "2025-01-01 12:00:05"},
]  # fmt: skip


def log_bytes() -> bytes:
    lines = [json.dumps(record, ensure_ascii=False) for record in LOG]
    return "\n".join([lines[0], "{broken", *lines[1:], '"text"', ""]).encode()


def root() -> typer.Typer:
    """An application with the relay's commands."""
    app = typer.Typer()
    app.add_typer(typer.Typer(name="simulate"), name="simulate")
    hubbub_relay.cli_commands(app)

    @app.command()
    def other() -> None:
        """Keep the commands groups."""

    return app


async def run(*arguments: str) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, root(), list(arguments))
    return result.exit_code, result.output


def test_states_come_from_the_log_when_the_state_file_is_broken() -> None:
    """Corrupt lines are left out and counted."""
    folded = fold(log_bytes().splitlines(), b"{broken")
    assert (len(folded.lines), folded.bad_lines, folded.bad_state) == (6, 2, True)
    assert {name: ended.state for name, ended in folded.ended.items()} == {"t_1": "completed"}
    for state in (
        b'{"t_3":"failed"}',
        b'{"t_3":{"status":"failed"}}',
        b'{"t_3":{"state":"failed"}}',
    ):
        assert fold(log_bytes().splitlines(), state).ended["t_3"].state == "failed"


async def test_import(relay: Relay, tmp_path: Path) -> None:
    """Ended tasks keep their state, others wait again; a second import adds nothing."""
    log, state = tmp_path / "log.jsonl", tmp_path / "state.json"
    log.write_bytes(log_bytes())
    state.write_text('{"t_1":"completed","t_2":"pending","t_3":"failed","t_old":"completed"}')
    arguments = (
        "relay", "import", "--log", str(log), "--state", str(state), "--url", relay.url,
        "--key", BOSS,
    )  # fmt: skip
    code, output = await run(*arguments)
    assert (code, output.splitlines()[0]) == (
        0,
        "6 records imported, 0 known already, 1 tasks wait again, 2 lines not readable",
    )
    states = [await relay.state(name) for name in ("t_1", "t_2", "t_3", "t_old")]
    assert states == ["completed", "pending", "failed", "completed"]
    records = await relay.logs()
    shown = [{k: v for k, v in r.items() if k not in ("id", "ts_ms")} for r in records]
    assert shown == LOG
    assert [task["task_id"] for task in await relay.lease()] == ["t_2"]
    code, output = await run(*arguments)
    assert output.startswith("0 records imported, 6 known already, 0 tasks")
    assert len(await relay.logs()) == 6


async def test_import_needs_admin(relay: Relay, tmp_path: Path) -> None:
    """A key without that scope is refused."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(log_bytes())
    code, output = await run(
        "relay", "import", "--log", str(log), "--url", relay.url, "--key", KEY
    )  # fmt: skip
    assert code == 1
    assert "forbidden" in output


async def test_simulated_worker_and_master(relay: Relay) -> None:
    """Together they send and do tasks."""
    done: list[str] = []
    seen: list[str] = []
    await asyncio.gather(
        asyncio.to_thread(worker, relay.url, KEY, count=3, say=done.append),
        asyncio.to_thread(master, relay.url, KEY, count=3, timeout_s=30, say=seen.append),
    )
    assert [line.split()[0] for line in done] == ["done"] * 3
    assert [line.split()[0] for line in seen] == ["sent"] * 3 + ["completed"] * 3


async def test_simulation_says_what_is_wrong(relay: Relay) -> None:
    """A wrong key or role ends with a code and a sentence."""
    code, output = await run("simulate", "relay", "--url", relay.url, "--key", "wrong")
    assert code == 1
    assert "401" in output
    assert (await run("simulate", "relay", "--role", "dancer"))[0] == 2
