"""`hubbub db` on both databases: a copy while a hub runs, put back while none does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hubbub.cli.app import main
from hubbub.envelope import Envelope
from hubbub.testing import running_hub


def named(name: str) -> Envelope:
    return Envelope.new(source="test", subject="a.b", type="t", data=name, durable=True)


def stored(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            bytes(row[0]).decode() for row in connection.execute(text("SELECT data FROM envelope"))
        }
    engine.dispose()
    return found


def size_of(path: str) -> int:
    return Path(path).stat().st_size


async def test_a_backup_of_a_running_hub_can_be_put_back(
    tmp_path: Path, store_url: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What was there at the backup is there again; what came later is kept beside."""
    folder = tmp_path / "var"
    url = store_url(folder)
    copy = tmp_path / "copy"
    where = ["--set", f'store.url="{url}"']
    async with running_hub(folder, store_url=url) as core:
        await core.publish(named("before"))
        assert main(["db", "backup", str(copy), *where]) == 0
        await core.publish(named("after"))
        assert main(["db", "restore", str(copy), *where]) == 1
        assert main(["db", "upgrade", *where]) == 1
        assert capsys.readouterr().err.count('belongs to "hub-1"') == 2
    assert stored(url) == {'"before"', '"after"'}
    assert main(["db", "backup", str(copy), *where]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["db", "restore", str(copy), *where]) == 0
    assert stored(url) == {'"before"'}
    kept = capsys.readouterr().out.split()[-1]
    assert size_of(kept) > 1000
    async with running_hub(folder, store_url=url) as core:
        await core.publish(named("again"))
    assert stored(url) == {'"before"', '"again"'}


def test_a_damaged_database_is_replaced_and_kept(tmp_path: Path) -> None:
    """What a hub refuses to start on is moved aside, with its log."""
    where = ["--set", f'hub.data_dir="{tmp_path}"']
    assert main(["db", "upgrade", *where]) == 0
    assert main(["db", "backup", str(tmp_path / "copy"), *where]) == 0
    (tmp_path / "hub.db").write_bytes(b"garbage " * 1000)
    assert main(["db", "upgrade", *where]) == 1
    assert main(["db", "restore", str(tmp_path / "copy"), *where]) == 0
    assert main(["db", "upgrade", *where]) == 0
    (kept,) = tmp_path.glob("hub.db.before-*Z")
    assert kept.read_bytes().startswith(b"garbage")


@pytest.mark.parametrize("wrong", ["missing", "no database", "another database"])
def test_what_is_no_backup_changes_nothing(
    tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is looked at before the database is touched."""
    where = ["--set", f'hub.data_dir="{tmp_path}"']
    assert main(["db", "upgrade", *where]) == 0
    before = (tmp_path / "hub.db").read_bytes()
    copy = tmp_path / "copy"
    if wrong == "no database":
        copy.write_bytes(b"x" * 5000)
    elif wrong == "another database":
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE t (x)")
    capsys.readouterr()
    assert main(["db", "restore", str(copy), *where]) == 1
    assert str(copy) in capsys.readouterr().err
    assert (tmp_path / "hub.db").read_bytes() == before


@pytest.mark.postgres
def test_without_pg_dump_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that is not there is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    where = ["--set", 'store.url="postgresql+psycopg://hub@127.0.0.1/hub"']
    assert main(["db", "backup", str(tmp_path / "copy"), *where]) == 1
    assert "pg_dump is not installed" in capsys.readouterr().err
