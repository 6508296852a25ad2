"""A PostgreSQL that does not answer any more: stopped, or behind a network that is gone.

Its connections stay open and the kernel acknowledges what is sent, so only a deadline of the hub
tells. The server itself is never stopped here: a proxy before it passes nothing on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from time import monotonic

import httpx2
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlmodel import Session

from hubbub.core import Core
from hubbub.errors import StoreUnavailableError
from hubbub.store.connections import READ_THREADS
from hubbub.store.database import Database
from hubbub.testing import RecordingEndpoint, running_hub, serving_hub
from hubbub.testing.stores import shared_server
from tests.hub.store.doubt import see_that_work_in_doubt_is_done_once
from tests.hub.store.health import broken, mended
from tests.hub.store.proxy import Proxy, running_proxy
from tests.hub.store.test_postgres import ROUTE, insist, order, stored

TIMEOUT_S = 0.6
STORE = f'[store]\ntimeout = "{TIMEOUT_S}s"\n'
SLACK_S = 1.0
"""How much later than `store.timeout` everybody knows."""

postgres = pytest.mark.postgres


@asynccontextmanager
async def behind(
    folder: Path, url: str, toml: str = STORE + ROUTE
) -> AsyncGenerator[tuple[Core, Proxy]]:
    """Run a hub whose database is behind a proxy, which passes on at the end."""
    there = make_url(url)
    with running_proxy(there.host or "127.0.0.1", there.port or 5432) as proxy:
        through = there.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
        seen = through.render_as_string(hide_password=False)
        async with running_hub(folder, toml, store_url=seen) as core:
            try:
                yield core, proxy
            finally:
                proxy.thaw()


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = monotonic()

    @property
    def s(self) -> float:
        return monotonic() - self._began


@postgres
async def test_publishers_and_readyz_know_in_time(tmp_path: Path) -> None:
    """All who wait are refused at the deadline, with the reason; then it goes on by itself."""
    url = shared_server().database()
    keys = [str(number) for number in range(50)]
    async with behind(tmp_path / "hub", url) as (core, proxy):
        first = await core.publish(order("before"))
        proxy.freeze()
        watch = Watch()
        outcomes = await asyncio.gather(
            *(core.publish(order(key)) for key in keys), return_exceptions=True
        )
        assert watch.s < TIMEOUT_S + SLACK_S
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
        assert "no answer within 0.6 s (store.timeout)" in str(core.journal.problem)
        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(TIMEOUT_S + SLACK_S):
                await core.publish(order("later"))
        await asyncio.sleep(1)
        proxy.thaw()
        watch = Watch()
        await mended(core)
        assert watch.s < 4
        assert (await core.publish(order("before"))).id == first.id
        for key in keys:
            await insist(core, key)
    found = stored(url)
    assert set(found) == {f'{{"key":"{key}"}}' for key in ("before", *keys)}
    assert set(found.values()) == {1}


@postgres
async def test_an_idle_hub_knows_in_time(tmp_path: Path) -> None:
    """Without a message, `/readyz` says 503 with the reason soon after the deadline."""
    async with behind(tmp_path / "hub", shared_server().database()) as (core, proxy):
        for _ in range(2):
            proxy.freeze()
            watch = Watch()
            await broken(core)
            assert watch.s < TIMEOUT_S + 1.0 + SLACK_S
            proxy.thaw()
            await mended(core)


@postgres
async def test_reads_are_answered_at_the_deadline_and_free_their_threads(tmp_path: Path) -> None:
    """Many more reads than threads hang; after the thaw each one works at once."""
    one = text("SELECT 1")

    def ask(session: Session) -> int:
        return int(session.connection().scalar(one) or 0)

    async with behind(tmp_path / "hub", shared_server().database()) as (core, proxy):
        assert await core.read(ask) == 1
        proxy.freeze()
        watch = Watch()
        outcomes = await asyncio.gather(
            *(core.read(ask) for _ in range(5 * READ_THREADS)), return_exceptions=True
        )
        assert watch.s < TIMEOUT_S + SLACK_S
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
        await asyncio.sleep(TIMEOUT_S)
        proxy.thaw()
        await mended(core)
        assert await asyncio.gather(*(core.read(ask) for _ in range(20))) == [1] * 20


@postgres
@pytest.mark.parametrize("part", ["statement", "commit"])
async def test_the_fate_of_what_was_under_way_is_told_rightly(tmp_path: Path, part: str) -> None:
    """Frozen before or in the commit: stored once, and delivered once, whatever was told."""
    url = shared_server().database()
    async with behind(tmp_path / "hub", url) as (core, proxy):
        later = RecordingEndpoint("stream.later")
        core.attach(later)
        await core.publish(order("before"))
        if part == "commit":
            proxy.freeze_at = proxy.commits + 1
        else:
            proxy.freeze()
        with pytest.raises(StoreUnavailableError):
            await core.publish(order("under way"))
        proxy.thaw()
        await mended(core)
        told = await insist(core, "under way")
        await later.wait_for(2)
        await core.publish(order("after"))
        await later.wait_for(3)
    assert [envelope.id for envelope in later.taken].count(told) == 1
    assert set(stored(url).values()) == {1}


@postgres
async def test_work_whose_commit_was_under_way_is_done_once(tmp_path: Path) -> None:
    """A lease and a result that were refused and written hold after the thaw."""
    async with behind(tmp_path / "hub", shared_server().database()) as (core, proxy):

        def away() -> None:
            proxy.freeze_at = proxy.commits + 1

        await see_that_work_in_doubt_is_done_once(core, away=away, back=proxy.thaw)


@postgres
async def test_connections_that_were_forgotten_are_replaced(tmp_path: Path) -> None:
    """Half open: the server still believes in the one that has the lock, and is told not to."""
    url = shared_server().database()
    async with behind(tmp_path / "hub", url) as (core, proxy):
        for number in range(3):
            await core.publish(order(f"before {number}"))
            proxy.lose()
            watch = Watch()
            await insist(core, f"lost {number}")
            assert watch.s < 4 * TIMEOUT_S + SLACK_S
            await mended(core)
    found = stored(url)
    assert len(found) == 6
    assert set(found.values()) == {1}


@postgres
@pytest.mark.timeout(90)
async def test_freezes_at_any_moment_lose_and_double_nothing(tmp_path: Path) -> None:
    """Publishers who insist under their key get each message in, once."""
    url = shared_server().database()
    ids: dict[str, str] = {}
    running = True
    async with behind(tmp_path / "hub", url) as (core, proxy):

        async def publisher(name: int) -> None:
            number = 0
            while running:
                key = f"{name}-{number}"
                ids[key] = await insist(core, key)
                number += 1

        publishers = [asyncio.create_task(publisher(name)) for name in range(4)]
        for step in range(6):
            await asyncio.sleep(0.1 + 0.07 * step)
            proxy.freeze_at = proxy.commits + 1 if step % 2 else 0
            if not step % 2:
                proxy.freeze()
            await broken(core)
            if step % 3 == 2:
                proxy.lose()
            proxy.thaw()
            await mended(core)
        running = False
        await asyncio.gather(*publishers)
        for key, first in ids.items():
            assert await insist(core, key) == first
    found = stored(url)
    assert len(found) == len(ids) > 10
    assert set(found.values()) == {1}


@postgres
async def test_a_start_on_a_frozen_server_ends_in_time(tmp_path: Path) -> None:
    """It says why, and does not hang: at the connection, and at the first statement."""
    there = make_url(shared_server().database())
    with running_proxy(there.host or "127.0.0.1", there.port or 5432) as proxy:
        through = there.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
        url = through.render_as_string(hide_password=False)
        proxy.freeze()
        watch = Watch()
        with pytest.raises(StoreUnavailableError):
            await asyncio.to_thread(Database(url, timeout_s=TIMEOUT_S).open)
        assert watch.s < 5
        proxy.thaw()
        database = Database(url, timeout_s=TIMEOUT_S)
        database.own()
        proxy.freeze()
        watch = Watch()
        with pytest.raises(StoreUnavailableError):
            await asyncio.to_thread(database.open)
        assert watch.s < 5
        database.close()
        proxy.thaw()


@postgres
async def test_a_table_that_is_locked_does_not_hold_publishers(tmp_path: Path) -> None:
    """Another session locks a table: the server itself says so at the deadline."""
    url = shared_server().database()
    engine = create_engine(url)
    async with running_hub(tmp_path / "hub", STORE + ROUTE, store_url=url) as core:
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE envelope IN ACCESS EXCLUSIVE MODE"))
            watch = Watch()
            with pytest.raises(StoreUnavailableError, match="timeout"):
                await core.publish(order("locked out"))
            assert watch.s < TIMEOUT_S + SLACK_S + 1
            await broken(core)
        await mended(core)
        await insist(core, "locked out")
    engine.dispose()


@postgres
async def test_upkeep_has_no_deadline(tmp_path: Path) -> None:
    """Statements and reads that say that they are patient take as long as they take."""
    url = shared_server().database()
    slow = text(f"SELECT pg_sleep({3 * TIMEOUT_S})")
    async with running_hub(tmp_path / "hub", STORE + ROUTE, store_url=url) as core:
        await core.read(lambda session: session.connection().execute(slow).all(), patient=True)
        with pytest.raises(StoreUnavailableError):
            await core.read(lambda session: session.connection().execute(slow).all())
        await core.execute((slow, []), patient=True)
        await mended(core)
        await core.publish(order("afterwards"))
    assert len(stored(url)) == 1


@postgres
async def test_readyz_over_http(tmp_path: Path) -> None:
    """What a load balancer sees: 200, then 503 with the culprit, then 200."""
    there = make_url(shared_server().database())
    with running_proxy(there.host or "127.0.0.1", there.port or 5432) as proxy:
        through = there.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
        store = (
            f'[store]\nurl = "{through.render_as_string(hide_password=False)}"\ntimeout = "1s"\n'
        )
        async with serving_hub(tmp_path / "hub", store) as hub, httpx2.AsyncClient() as client:

            async def told(status: int, within_s: float) -> str:
                """Return what it says as soon as it has this status."""
                async with asyncio.timeout(within_s):
                    while True:
                        answer = await client.get(f"{hub.main.url}/readyz")
                        if answer.status_code == status:
                            return answer.text
                        await asyncio.sleep(0.05)

            await told(200, within_s=1)
            proxy.freeze()
            assert "gave no answer within 1 s (store.timeout)" in await told(503, within_s=3.5)
            proxy.thaw()
            await told(200, within_s=5)


async def test_a_slow_read_of_a_file_is_ended(tmp_path: Path) -> None:
    """SQLite: who asked is answered at the deadline, and the thread is free again."""
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    async with running_hub(tmp_path / "hub", STORE + ROUTE, store_url=url) as core:
        for _ in range(2):
            watch = Watch()
            outcomes = await asyncio.gather(
                *(
                    core.read(lambda session: session.connection().execute(endless).all())
                    for _ in range(2 * READ_THREADS)
                ),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
            assert watch.s < TIMEOUT_S + 5 * SLACK_S  # processors that are busy with it
        await core.publish(order("afterwards"))


async def test_a_locked_file_is_refused_within_a_short_timeout(tmp_path: Path) -> None:
    """SQLite waits no longer for another process than `store.timeout` says."""
    path = tmp_path / "hub.db"
    toml = STORE.replace("0.6", "0.2") + ROUTE
    async with running_hub(tmp_path / "hub", toml, store_url=f"sqlite:///{path}") as core:
        await core.publish(order("before"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            watch = Watch()
            await core.journal.flush()
            with pytest.raises(StoreUnavailableError, match="another process holds the file"):
                await core.publish(order("locked out"))
            assert watch.s < 0.2 + SLACK_S + 0.5
            other.execute("ROLLBACK")
        await mended(core)


@contextmanager
def a_disk(folder: Path) -> Generator[Path]:
    """Mount a file system of its own, which can be frozen; not a file of it is open afterwards."""
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    try:
        run("mkfs.ext4", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(mounted))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a disk")
    try:
        yield mounted
    finally:
        run("umount", "-l", str(mounted))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def test_a_disk_that_hangs_does_not_hold_publishers(tmp_path: Path) -> None:
    """Nothing ends a write there: who waits is told, and it goes on when the disk does."""
    with a_disk(tmp_path) as disk:
        url = f"sqlite:///{disk / 'hub.db'}"
        async with running_hub(tmp_path / "hub", STORE + ROUTE, store_url=url) as core:
            await core.publish(order("before"))
            run("fsfreeze", "-f", str(disk))
            try:
                watch = Watch()
                for key in ("hangs", "waits"):
                    with pytest.raises(StoreUnavailableError, match="no answer within"):
                        await core.publish(order(key))
                assert watch.s < TIMEOUT_S + SLACK_S
                assert "no answer within 0.6 s" in str(core.journal.problem)
            finally:
                await asyncio.to_thread(run, "fsfreeze", "-u", str(disk))
            await mended(core)
            first = await insist(core, "hangs")
            assert await insist(core, "hangs") == first
            await insist(core, "waits")
        with closing(sqlite3.connect(disk / "hub.db")) as file:
            rows = file.execute("SELECT count(*), count(DISTINCT data) FROM envelope").fetchone()
        assert rows == (3, 3)
