"""The log of SQLite: it grows while somebody reads an old state, and is short again after that."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.store.connections import LOG_BYTES
from hubbub.testing import running_hub

ROUTE = '[[routes]]\nname = "kept"\nmatch = "orders.>"\nto = ["stream.later"]\nhold = "1h"\n'
LARGE = 7_000_000


@pytest.fixture(autouse=True)
def _on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBBUB_TEST_STORE", raising=False)


async def write(core: Core, number: int, size: int = LARGE) -> None:
    """Publish what is stored."""
    for _ in range(number):
        await core.publish(
            Envelope.new(
                source="test", subject="orders.eu", type="t", data="x" * size, durable=True
            )
        )


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Be another process that reads, and keeps what it saw."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM envelope").fetchall()
        yield


async def shown(core: Core) -> float | None:
    """Return what the gauge says."""
    await core.metrics.refresh()
    return core.metrics.registry.get_sample_value("hubbub_store_log_bytes")


async def test_the_log_is_cut_once_its_reader_has_left(tmp_path: Path) -> None:
    """By the next commits; until then it waits for nobody, and nothing is refused."""
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        path = tmp_path / "hub" / "hub.db"
        with reading(path):
            await write(core, 11)
            await core.database.shorten_log()
            await write(core, 1)
            assert core.database.log_bytes > LOG_BYTES
            assert await shown(core) == core.database.log_bytes
        await write(core, 2, size=1)
        assert 0 < core.database.log_bytes <= LOG_BYTES
        assert await shown(core) == core.database.log_bytes


async def test_the_log_is_cut_also_when_nothing_is_written_any_more(tmp_path: Path) -> None:
    """Upkeep does it, and what was in it is in the file."""
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        path = tmp_path / "hub" / "hub.db"
        with reading(path):
            await write(core, 10)
            assert core.database.log_bytes > LOG_BYTES
        await core._rarely()
        assert core.database.log_bytes == 0
        await write(core, 1, size=1)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert other.execute("SELECT count(*) FROM envelope").fetchone() == (11,)
