"""A file that cannot be written: full, locked, damaged. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hubbub.envelope import Envelope
from hubbub.errors import StoreUnavailableError
from hubbub.store.database import Database
from hubbub.store.outages import StoreDamagedError
from hubbub.testing import running_hub
from tests.hub.store.health import mended

ROUTE = '[[routes]]\nname = "kept"\nmatch = "orders.>"\nto = ["stream.later"]\nhold = "1h"\n'


@pytest.fixture(autouse=True)
def _on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBBUB_TEST_STORE", raising=False)


def order(number: int, size: int = 0) -> Envelope:
    return Envelope.new(
        source="test", subject="orders.eu", type="t", data={"n": number, "fill": "x" * size},
        idempotency_key=str(number), durable=True,
    )  # fmt: skip


def stored(path: Path) -> list[str]:
    """Return the ids of what is stored, in order."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row[0] for row in connection.execute("SELECT id FROM envelope ORDER BY seq")]


@contextmanager
def small_disk(folder: Path) -> Generator[Callable[[], None]]:
    """Mount a file system of 3 MiB; yields what makes it large."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small disk")

    def enlarge() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)

    try:
        yield enlarge
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def small_files(folder: Path) -> Generator[Callable[[], None]]:
    """Let no file of this process grow over 1 MiB; yields what ends that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def end() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield end
    finally:
        end()


@pytest.fixture(params=[small_disk, small_files], ids=["disk", "limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A `hub` folder that is soon full."""
    with request.param(tmp_path / "hub") as make_room:
        yield make_room


async def test_a_full_disk_refuses_and_comes_back(tmp_path: Path, full: Callable[[], None]) -> None:
    """Publishers hear the reason, and all goes on by itself when there is room."""
    acknowledged: list[str] = []
    async with running_hub(tmp_path / "hub", ROUTE) as core:

        async def until_refused() -> None:
            for number in range(1000):
                acknowledged.append((await core.publish(order(number, 20_000))).id)  # noqa: PERF401  # one by one, until it raises

        with pytest.raises(StoreUnavailableError, match="full"):
            await until_refused()
        number = len(acknowledged)
        with pytest.raises(StoreUnavailableError):
            await core.publish(order(number, 20_000))
        assert "full" in str(core.journal.problem)
        full()
        await mended(core)
        acknowledged.append((await core.publish(order(number, 20_000))).id)
    assert stored(tmp_path / "hub" / "hub.db") == acknowledged


async def test_a_locked_file_refuses_and_comes_back(tmp_path: Path) -> None:
    """Another process holds the file for some seconds."""
    path = tmp_path / "hub" / "hub.db"
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        first = await core.publish(order(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnavailableError, match="another process holds the file"):
                await core.publish(order(2))
            assert "locked" in str(core.journal.problem)
            with pytest.raises(StoreUnavailableError):
                async with asyncio.timeout(0.2):
                    await core.publish(order(2))
            other.execute("ROLLBACK")
        await mended(core)
        second = await core.publish(order(2))
    assert stored(path) == [first.id, second.id]


async def test_a_short_lock_is_not_noticed(tmp_path: Path) -> None:
    """A lock that ends within the patience of the hub only makes a publisher wait."""
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        with closing(sqlite3.connect(tmp_path / "hub" / "hub.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            publishing = asyncio.ensure_future(core.publish(order(1)))
            await asyncio.sleep(0.2)
            other.execute("ROLLBACK")
        assert not (await publishing).duplicate


def garbage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"this is no database at all".ljust(200))


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 4096):
        data[place : place + 512] = bytes(byte ^ 0xFF for byte in data[place : place + 512])
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [garbage, truncated, flipped])
async def test_a_damaged_file_is_named_at_start(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """The hub does not start, says what to do, and leaves the file as it is."""
    folder = tmp_path / "hub"
    async with running_hub(folder, ROUTE) as core:
        for number in range(50):
            await core.publish(order(number, 2000))
    path = folder / "hub.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError, match="hubbub db restore FILE"):
        async with running_hub(folder, ROUTE):
            pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [garbage, truncated])
def test_run_ends_with_1_and_no_traceback(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """`hubbub run` on a damaged file says one thing, and that is all."""
    (tmp_path / "var").mkdir()
    path = tmp_path / "var" / "hub.db"
    Database(f"sqlite:///{path}").migrate()
    damage(path)
    command = [sys.executable, "-m", "hubbub.cli", "run", "--set", "hub.port=0"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "is damaged" in ended.stderr
    assert "hubbub db restore FILE" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


async def test_damage_under_a_running_hub_is_refused_and_named(tmp_path: Path) -> None:
    """A file that is damaged while it is open: publishers are refused, what to do is said."""
    path = tmp_path / "hub" / "hub.db"
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        await core.publish(order(1))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        garbage(path)
        core.journal._disconnect()  # what it has in its cache is still good
        with pytest.raises(StoreUnavailableError, match="hubbub db restore FILE"):
            await core.publish(order(2))
        assert "damaged" in str(core.journal.problem)
