"""The mirror file, and a worker that reads it as the original's does."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hubbub_relay.mirror import last_id
from tests.adapters.relay.serving import BOSS, SETTINGS, Relay, RunRelay


class SeedWorker:
    """What the original's worker does: it reads the file, and posts callbacks until they are 200.

    Source: relay protocol page, 5.1.
    """

    def __init__(self, file: Path, relay: Relay) -> None:
        self._file = file
        self._relay = relay
        self.processed: set[str] = set()
        self.runs: list[str] = []

    async def look(self) -> None:
        """One turn of its loop."""
        if not self._file.exists():
            return
        for line in self._file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if (
                record["event"] == "send"
                and record["to"] == "child"
                and record["type"] == "task"
                and record.get("task_id")
                and record["task_id"] not in self.processed
            ):
                await self._work(record)

    async def _work(self, record: dict[str, Any]) -> None:
        self.runs.append(record["task_id"])
        body = {
            "task_id": record["task_id"],
            "child_id": "child_bazi",
            "status": "done",
            "result": {"echo": record.get("payload")},
        }
        answer = await self._relay.client.post("/callback", json=body)
        if answer.status_code == 200:
            self.processed.add(record["task_id"])


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


async def lines(file: Path, number: int) -> list[dict[str, Any]]:
    """Return the records of a file once it has that many."""
    async with asyncio.timeout(10):
        while True:
            text = text_of(file)
            if text.count("\n") >= number:
                return [json.loads(line) for line in text.splitlines()]
            await asyncio.sleep(0.02)


@pytest.fixture
def mirrored(tmp_path: Path) -> tuple[str, Path]:
    """Settings with a mirror, and its file."""
    file = tmp_path / "work" / "conversation_log.jsonl"
    return SETTINGS + f'mirror_file = "{file}"\n', file


async def test_the_original_worker_runs_unmodified(
    run_relay: RunRelay, mirrored: tuple[str, Path]
) -> None:
    """It finds tasks in the file, calls back, and the state is `completed`."""
    toml, file = mirrored
    async with run_relay(toml) as relay:
        task_id = await relay.task(payload={"user_id": "u77"})
        await relay.send(type="message", text="no task")
        await relay.task(to="child_bazi")
        await lines(file, 3)
        worker = SeedWorker(file, relay)
        await worker.look()
        await worker.look()
        assert worker.runs == [task_id]
        assert await relay.state(task_id) == "completed"
        records = await lines(file, 4)
        assert records == await relay.logs()
        assert records[-1]["child_id"] == "child_bazi"


async def test_the_file_goes_on_after_a_restart(
    run_relay: RunRelay, mirrored: tuple[str, Path]
) -> None:
    """Nothing twice, nothing left out, and a line that was cut off is written again."""
    toml, file = mirrored
    async with run_relay(toml) as relay:
        for _ in range(3):
            await relay.task()
        await lines(file, 3)
    file.write_bytes(file.read_bytes()[:-10])
    async with run_relay(toml) as relay:
        await relay.task()
        records = await lines(file, 4)
        assert [record["id"] for record in records] == [1, 2, 3, 4]


async def test_clear_gives_a_fresh_file(run_relay: RunRelay, mirrored: tuple[str, Path]) -> None:
    """The old one is put aside."""
    toml, file = mirrored
    async with run_relay(toml) as relay:
        await relay.task()
        [first] = await lines(file, 1)
        await relay.client.post("/clear", headers={"X-Relay-API-Key": BOSS})
        assert file.read_bytes() == b""
        [aside] = [other for other in file.parent.iterdir() if other != file]
        assert json.loads(aside.read_text()) == first
    async with run_relay(toml) as relay:
        await relay.task()
        assert [record["id"] for record in await lines(file, 1)] == [2]


async def test_tasks_that_a_route_moved_are_left_out(
    run_relay: RunRelay, mirrored: tuple[str, Path]
) -> None:
    """So that nobody does them twice."""
    toml, file = mirrored
    route = '[[routes]]\nname = "r"\nmatch = "relay.child.task.render"\nto = ["plugin.other"]\n'
    async with run_relay(toml + route) as relay:
        await relay.task(cmd="render")
        await relay.task(cmd="verify")
        assert [record["cmd"] for record in await lines(file, 1)] == ["verify"]
        assert len(await relay.logs()) == 2


@pytest.mark.parametrize(
    ("content", "number", "left"),
    [
        (b"", 0, b""),
        (b'{"id":3}\n', 3, b'{"id":3}\n'),
        (b'{"id":3}\n{"id":', 3, b'{"id":3}\n'),
        (b'{"id":', 0, b""),
        (b'{"event":"send"}\n', 0, b'{"event":"send"}\n'),
        (b"nonsense\n", 0, b"nonsense\n"),
        (b'{"id":true}\n', 0, b'{"id":true}\n'),
    ],
)
def test_the_last_line_says_where_to_go_on(
    tmp_path: Path, content: bytes, number: int, left: bytes
) -> None:
    """A file of the original has no ids: all that is not cleared follows."""
    file = tmp_path / "log.jsonl"
    file.write_bytes(content)
    assert last_id(file) == number
    assert file.read_bytes() == left
    assert last_id(tmp_path / "missing") == 0


async def test_the_mirror_keeps_the_umask(run_relay: RunRelay, tmp_path: Path) -> None:
    """Unmodified workers of other users read it, also when it was cleared and made anew."""
    file = tmp_path / "work" / "conversation_log.jsonl"
    before = os.umask(0o022)
    try:
        async with run_relay(SETTINGS + f'mirror_file = "{file}"\n') as relay:
            await relay.send(type="message")
            await lines(file, 1)
            assert (mode_of(file.parent), mode_of(file)) == (0o755, 0o644)
            await relay.client.post("/clear", headers={"X-Relay-API-Key": BOSS})
            assert mode_of(file) == 0o644
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def state_of(relay: Relay, state: str) -> str:
    """Return why the adapter is as it is, once it is so."""
    adapter = relay.core.adapters.get("relay")
    async with asyncio.timeout(10):
        while adapter.state != state:  # noqa: ASYNC110  # the state of an adapter is only looked at
            await asyncio.sleep(0.01)
    return adapter.reason


async def test_a_file_that_cannot_be_written_is_said(
    run_relay: RunRelay, mirrored: tuple[str, Path]
) -> None:
    """The adapter is `degraded` and names it; once it can be written nothing is left out."""
    toml, file = mirrored
    file.parent.mkdir(parents=True, exist_ok=True)
    file.mkdir()
    async with run_relay(toml) as relay:
        reason = await state_of(relay, "degraded")
        assert reason.startswith(f"mirror file: {file} cannot be used (Is a directory)")
        assert "adapters.relay.mirror_file" in reason
        await relay.task()
        file.rmdir()
        assert await state_of(relay, "up") == ""
        assert len(await lines(file, 1)) == 1
        file.rename(file.with_suffix(".aside"))
        file.mkdir()
        await relay.task()
        await state_of(relay, "degraded")
        file.rmdir()
        file.with_suffix(".aside").rename(file)
        await state_of(relay, "up")
        assert [record["id"] for record in await lines(file, 2)] == [1, 2]


async def test_what_stands_in_a_file_that_was_away_is_not_written_again(
    run_relay: RunRelay, mirrored: tuple[str, Path]
) -> None:
    """Workers would do it again: nothing is written before it is known where the file ends."""
    toml, file = mirrored
    async with run_relay(toml) as relay:
        await relay.task()
        await lines(file, 1)
    aside = file.with_suffix(".aside")
    file.rename(aside)
    file.mkdir()
    async with run_relay(toml) as relay:
        await state_of(relay, "degraded")
        file.rmdir()
        aside.rename(file)
        await relay.task()
        assert [record["id"] for record in await lines(file, 2)] == [1, 2]
        assert await state_of(relay, "up") == ""
