"""Files that are deleted, moved, replaced or overwritten while a hub has them open.

What is acknowledged is in the file that lies at the path, or nothing is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from time import monotonic

import httpx2
import pytest
from sqlalchemy import create_engine, text

from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.errors import ConflictError, StoreUnavailableError
from hubbub.store import backups, journal, upkeep
from hubbub.store.database import Database
from hubbub.store.files import StoreMovedError
from hubbub.store.outages import StoreDamagedError
from hubbub.testing import RecordingEndpoint, running_hub, serving_hub
from hubbub.values import Receipt
from tests.hub.store.doubt import see_that_work_in_doubt_is_done_once
from tests.hub.store.health import broken, mended

ROUTE = '[[routes]]\nname = "kept"\nmatch = "orders.>"\nto = ["stream.later"]\nhold = "1h"\n'
NOTICED_S = 4.0
"""Half a second until it is seen, a second until those who wait are told; the machine is busy."""


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


async def refused(core: Core, numbers: Iterator[int], acknowledged: list[str]) -> str:
    """Publish until that is refused, which has to be soon; returns the reason."""
    began = monotonic()
    while True:
        try:
            acknowledged.append((await core.publish(order(next(numbers)))).id)
        except StoreUnavailableError as error:
            assert monotonic() - began < NOTICED_S
            return str(error)
        await asyncio.sleep(0.01)


def names(folder: Path) -> set[str]:
    """Return the files of a folder; none where there is no folder."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def renamed(path: Path) -> Callable[[], None]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)

    def back() -> None:
        aside.replace(path)

    return back


def replaced(path: Path) -> Callable[[], None]:
    """Another file with the same content lies there."""
    back = renamed(path)
    shutil.copyfile(path.with_name(path.name + ".aside"), path)
    return back


def linked(path: Path) -> Callable[[], None]:
    """A link to a copy lies there."""
    back = renamed(path)
    copy = path.with_name(path.name + ".copy")
    shutil.copyfile(path.with_name(path.name + ".aside"), copy)
    path.symlink_to(copy)
    return back


def looped(path: Path) -> Callable[[], None]:
    """A link to itself lies there."""
    back = renamed(path)
    path.symlink_to(path)
    return back


def folder_moved(path: Path) -> Callable[[], None]:
    folder, aside = path.parent, path.parent.with_name("aside")
    folder.rename(aside)

    def back() -> None:
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)

    return back


def folder_linked(path: Path) -> Callable[[], None]:
    """The folder is a link to a copy of itself."""
    back = folder_moved(path)
    aside, copy = path.parent.with_name("aside"), path.parent.with_name("copy")
    shutil.copytree(aside, copy)
    path.parent.symlink_to(copy)

    def undo() -> None:
        path.parent.unlink()
        back()

    return undo


def mounted_over(path: Path) -> Callable[[], None]:
    """Another file system is mounted over the folder."""
    options = ["-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path.parent)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount something")

    def back() -> None:
        subprocess.run(["umount", "-l", str(path.parent)], check=True)

    return back


FILES = ("hub.db", "hub.db-wal", "hub.db-shm", "hub.db.lock")
OF_A_FILE = (renamed, replaced, linked, looped)
OF_ALL = (folder_moved, folder_linked, mounted_over)


@pytest.mark.parametrize(
    ("way", "file"),
    [*product(OF_A_FILE, FILES), *product(OF_ALL, FILES[:1])],
)
async def test_a_file_that_is_not_there_is_named_until_it_is_back(
    tmp_path: Path, way: Callable[[Path], Callable[[], None]], file: str
) -> None:
    """Nothing is acknowledged meanwhile, no file is made; afterwards all goes on by itself."""
    path = tmp_path / "hub" / file
    numbers, acknowledged = iter(range(10**6)), list[str]()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        acknowledged.append((await core.publish(order(next(numbers)))).id)
        before = names(path.parent)
        back = way(path)
        after = names(path.parent)
        try:
            assert str(path) in await refused(core, numbers, acknowledged)
            assert str(path) in str(core.journal.problem)
            with pytest.raises(StoreUnavailableError):
                async with asyncio.timeout(0.2):
                    await core.publish(order(next(numbers)))
            await asyncio.sleep(1)  # some tries of the hub to go on
            assert names(path.parent) == after
        finally:
            back()
        await mended(core)
        acknowledged.append((await core.publish(order(next(numbers)))).id)
        assert before <= names(path.parent)
    assert set(acknowledged) <= set(stored(tmp_path / "hub" / "hub.db"))


async def test_readyz_tells_without_a_message(tmp_path: Path) -> None:
    """An idle hub notices that its folder went, says which file and what to do, and recovers."""
    async with serving_hub(tmp_path / "hub", ROUTE) as hub:
        core = hub.core
        began = monotonic()
        back = folder_moved(tmp_path / "hub" / "hub.db")
        await broken(core)
        assert monotonic() - began < NOTICED_S
        assert "put a backup back" in str(core.journal.problem)
        back()
        await mended(core)


async def test_what_was_refused_is_stored_once_and_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that went to a file that is away is not done again when the file is back."""
    monkeypatch.setattr(journal, "LOOKED_S", 0.0)
    path = tmp_path / "hub" / "hub.db"
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        later = RecordingEndpoint("stream.later")
        core.attach(later)
        first = await core.publish(order(1))
        await later.wait_for(1)
        back = renamed(path)
        outcomes = await asyncio.gather(
            *(core.publish(order(number)) for number in range(2, 8)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {StoreMovedError}
        back()
        await mended(core)
        for number in range(2, 12):
            await core.publish(order(number))
        await later.wait_for(11)
    ids = [envelope.id for envelope in later.taken]
    assert len(ids) == len(set(ids)) == 11
    assert ids[0] == first.id
    assert sorted(stored(path)) == sorted(ids)


async def test_work_that_went_to_a_file_that_is_away_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease and a result that were refused and written hold when the file is back."""
    monkeypatch.setattr(journal, "LOOKED_S", 0.0)
    path = tmp_path / "hub" / "hub.db"
    aside = path.with_name("aside.db")
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        await see_that_work_in_doubt_is_done_once(
            core, away=lambda: path.rename(aside), back=lambda: aside.replace(path)
        )


async def test_reads_never_come_from_another_database(tmp_path: Path) -> None:
    """A connection that is opened while another file lies there is refused."""
    other, path = tmp_path / "other.db", tmp_path / "hub" / "hub.db"
    Database(f"sqlite:///{other}").migrate()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        kept = (await core.publish(order(1))).id
        path.rename(tmp_path / "aside.db")
        shutil.copyfile(other, path)
        ids = text("SELECT id FROM envelope")
        found: list[str] = []
        for _ in range(2):  # from a connection that is open, then from a new one
            with suppress(StoreMovedError):
                found += await core.read(lambda s: s.connection().scalars(ids).all())
            core.database.engine.dispose()
        assert found == [kept]
        (tmp_path / "aside.db").replace(path)


@pytest.mark.parametrize("file", FILES[1:])
async def test_without_the_files_beside_it_nothing_is_lost(tmp_path: Path, file: str) -> None:
    """What stood in the log alone is in the database: at once in a copy, and after a start."""
    path = tmp_path / "hub" / "hub.db"
    numbers, acknowledged = iter(range(10**6)), list[str]()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        acknowledged.append((await core.publish(order(next(numbers)))).id)
        (tmp_path / "hub" / file).unlink()
        await refused(core, numbers, acknowledged)
        copy = tmp_path / "copy.db"
        shutil.copyfile(path, copy)  # as after a kill
        assert set(acknowledged) <= set(stored(copy))
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        acknowledged.append((await core.publish(order(next(numbers)))).id)
    assert set(acknowledged) <= set(stored(path))


async def test_a_file_that_was_moved_is_whole_where_it_is(tmp_path: Path) -> None:
    """The hub stops while its file is away: what it acknowledged is there."""
    path, aside = tmp_path / "hub" / "hub.db", tmp_path / "aside.db"
    numbers, acknowledged = iter(range(10**6)), list[str]()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        path.rename(aside)
        await refused(core, numbers, acknowledged)
    assert not path.exists()
    assert set(acknowledged) <= set(stored(aside))


async def test_a_log_without_its_database_is_not_thrown_away(tmp_path: Path) -> None:
    """SQLite removes it when it makes a new database there; the hub does not start instead."""
    folder = tmp_path / "hub"
    async with running_hub(folder, ROUTE) as core:
        kept = (await core.publish(order(1))).id
        killed = tmp_path / "killed"
        shutil.copytree(folder, killed)
    (killed / "hub.db").rename(tmp_path / "aside.db")
    for is_empty in (False, True):
        if is_empty:
            (killed / "hub.db").touch()
        with pytest.raises(StoreDamagedError, match="put the main file back"):
            async with running_hub(killed, ROUTE):
                pass
    (tmp_path / "aside.db").replace(killed / "hub.db")
    async with running_hub(killed, ROUTE):
        pass
    assert stored(killed / "hub.db") == [kept]


async def test_a_second_hub_cannot_come_in_by_a_lost_lock(tmp_path: Path) -> None:
    """A hub whose lock was deleted acknowledges nothing beside the one that took the database."""
    numbers, acknowledged = iter(range(10**6)), list[str]()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        (tmp_path / "hub" / "hub.db.lock").unlink()
        async with running_hub(tmp_path / "hub", ROUTE) as second:
            assert "hub.db.lock" in await refused(core, numbers, acknowledged)
            await second.publish(order(10**6))


# In place


def copied_over(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def emptied(path: Path, _: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path, _: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def halved(path: Path, _: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("file", "way"),
    [
        ("hub.db", copied_over),
        ("hub.db", emptied),
        ("hub.db", zeroed),
        ("hub.db", halved),
        ("hub.db-wal", emptied),
        ("hub.db-wal", zeroed),
        ("hub.db-wal", halved),
        ("hub.db-wal", copied_over),
    ],
)
async def test_a_file_that_is_overwritten_is_damaged(
    tmp_path: Path, way: Callable[[Path, Path], None], file: str
) -> None:
    """The file is the same, what is in it is not: nothing is acknowledged any more."""
    other = tmp_path / "other.db"
    Database(f"sqlite:///{other}").migrate()
    numbers, acknowledged = iter(range(10**6)), list[str]()
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        for _ in range(5):
            acknowledged.append((await core.publish(order(next(numbers)))).id)
        way(tmp_path / "hub" / file, other)
        assert "hubbub db restore FILE" in await refused(core, numbers, acknowledged)
        with pytest.raises(StoreDamagedError):
            await core.publish(order(next(numbers)))


async def test_a_log_that_is_cut_short_as_it_should_be_is_no_damage(tmp_path: Path) -> None:
    """VACUUM, and a checkpoint of another process, leave the hub as it is."""
    path = tmp_path / "hub" / "hub.db"
    async with running_hub(tmp_path / "hub", ROUTE) as core:
        for number in range(30):
            await core.publish(order(number, 2000))
            if number % 10 == 3:
                await asyncio.to_thread(upkeep.vacuum, core.database.engine)
            if number % 10 == 6:
                with closing(sqlite3.connect(path)) as another:
                    another.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            core.database.check_files()
    assert len(stored(path)) == 30


# At start


def overwrite(path: Path, *, first: int, pages: int) -> None:
    """Overwrite a run of pages of a file."""
    with path.open("r+b") as file:
        file.seek(first * 4096)
        file.write(b"\xa5" * (pages * 4096))


async def filled(folder: Path) -> Path:
    """Return the file of a stopped hub with some hundred pages."""
    async with running_hub(folder, ROUTE) as core:
        await asyncio.gather(*(core.publish(order(number, 2000)) for number in range(300)))
    return folder / "hub.db"


async def test_a_run_of_overwritten_pages_is_refused_at_start(tmp_path: Path) -> None:
    """Wherever they lie; the file is left as it is, and so is a backup that would be damaged."""
    path = await filled(tmp_path / "hub")
    whole = path.read_bytes()
    pages = len(whole) // 4096
    assert pages > 100
    for first in range(2, pages - 3, pages // 9):
        path.write_bytes(whole)
        overwrite(path, first=first, pages=3)
        before = path.read_bytes()
        with pytest.raises(StoreDamagedError, match="hubbub db restore FILE"):
            async with running_hub(tmp_path / "hub", ROUTE):
                pass
        assert path.read_bytes() == before
        with pytest.raises(backups.BackupError, match="damaged"):
            backups.back_up(f"sqlite:///{path}", tmp_path / "copy.db")
        assert not (tmp_path / "copy.db").exists()


async def test_run_says_one_line_of_overwritten_pages(tmp_path: Path) -> None:
    """`hubbub run` ends with 1 and `hubbub doctor` finds it, unless the settings say otherwise."""
    path = await filled(tmp_path / "var")
    (tmp_path / "var" / "hub.toml").unlink()
    overwrite(path, first=path.stat().st_size // 8192, pages=4)
    ended = command(tmp_path, "run", "--set", "hub.port=0")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "hub.db is damaged" in line
    assert "hubbub db restore FILE" in line
    assert ended.stdout == ""
    looked = command(tmp_path, "doctor")
    assert looked.returncode == 1
    assert "hub.db is damaged" in looked.stdout
    database = Database(f"sqlite:///{path}", check=False)
    database.open()
    database.close()


async def test_run_says_one_line_where_it_cannot_start(tmp_path: Path) -> None:
    """Whatever fails before the journal writes ends `hubbub run` at once."""
    async with running_hub(tmp_path / "var", ROUTE):
        (tmp_path / "var" / "hub.toml").unlink()
        second = await asyncio.to_thread(command, tmp_path, "run", "--set", "hub.port=0")
    assert (second.returncode, second.stdout) == (1, "")
    (line,) = second.stderr.splitlines()
    assert "another hub" in line
    unknown = await asyncio.to_thread(command, tmp_path, "run", "--set", 'engine.kind="nats"')
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "engine.kind" in unknown.stderr


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub.cli", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=25,
    )  # fmt: skip


async def test_damage_that_a_read_meets_is_named(tmp_path: Path) -> None:
    """A page that is damaged while the hub runs is 503 `store_damaged` to who reads it."""
    path = await filled(tmp_path / "hub")
    async with serving_hub(tmp_path / "hub", ROUTE) as hub:
        overwrite(path, first=20, pages=path.stat().st_size // 4096 - 40)
        token = (tmp_path / "hub" / "admin.token").read_text().strip()
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
            answer = await client.get(f"{hub.main.url}/api/v1/envelopes?limit=1000")
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "store_damaged"


# Tables


@pytest.mark.parametrize("table", ["envelope", "claim", "meta"])
async def test_a_table_that_goes_is_an_outage(
    tmp_path: Path, store_url: Callable[[Path], str], table: str
) -> None:
    """Publishers are refused, also of one by one; all goes on when it is back."""
    url = store_url(tmp_path / "hub")
    engine = create_engine(url)
    async with running_hub(tmp_path / "hub", ROUTE, store_url=url) as core:
        first = await core.publish(order(1))
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} RENAME TO away"))
        await broken(core)
        for number in (2, 3):
            with pytest.raises(StoreUnavailableError, match=table):
                await core.publish(order(number))
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE away RENAME TO {table}"))
        await mended(core)
        assert (await core.publish(order(1))).id == first.id
        await core.publish(order(2))
    engine.dispose()


async def test_a_statement_on_a_table_that_never_was_is_refused_alone(
    tmp_path: Path, store_url: Callable[[Path], str]
) -> None:
    """A plugin's mistake is no outage of the store."""
    async with running_hub(tmp_path / "hub", ROUTE, store_url=store_url(tmp_path / "hub")) as core:
        wrong = core.execute((text("DELETE FROM stat_never_made"), []))
        outcomes = await asyncio.gather(wrong, core.publish(order(1)), return_exceptions=True)
        assert isinstance(outcomes[0], ConflictError)
        assert isinstance(outcomes[1], Receipt)
        assert core.journal.problem is None
