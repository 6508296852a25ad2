"""A PostgreSQL whose connections break: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.errors import StoreUnavailableError
from hubbub.store.database import Database
from hubbub.store.ownership import StoreOwnedError
from hubbub.testing import RecordingEndpoint, running_hub
from hubbub.testing.stores import shared_server
from tests.hub.store.health import broken, mended
from tests.hub.store.proxy import Proxy, running_proxy

pytestmark = pytest.mark.postgres
SEED = int(os.environ.get("HUBBUB_SEED", "20260102"))
SECONDS = float(os.environ.get("HUBBUB_CUT_SECONDS", "4"))
ROUTE = '[[routes]]\nname = "kept"\nmatch = "orders.>"\nto = ["stream.later"]\nhold = "1h"\n'


@asynccontextmanager
async def behind_proxy(folder: Path, url: str) -> AsyncGenerator[tuple[Core, Proxy]]:
    """Run a hub whose database is behind a proxy."""
    there = make_url(url)
    with running_proxy(there.host or "127.0.0.1", there.port or 5432) as proxy:
        through = there.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
        seen = through.render_as_string(hide_password=False)
        async with running_hub(folder, ROUTE, store_url=seen) as core:
            yield core, proxy
            proxy.refusing = False


class Slow(RecordingEndpoint):
    """Takes some, then the database goes for a while, unseen by the writer's patience."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__("stream.later", concurrency=8)
        self._proxy = proxy

    async def deliver(self, envelope: Envelope) -> None:
        await super().deliver(envelope)
        if len(self.taken) == 100:
            self._proxy.refusing = True
            self._proxy.cut()
        if len(self.taken) == 200:
            asyncio.get_running_loop().call_later(0.5, self._back)

    def _back(self) -> None:
        self._proxy.refusing = False


def order(key: str) -> Envelope:
    return Envelope.new(
        source="test", subject="orders.eu", type="t", data={"key": key}, idempotency_key=key,
        durable=True,
    )  # fmt: skip


def stored(url: str) -> Counter[str]:
    """Return how often each key is stored."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT convert_from(data, 'UTF8') FROM envelope")).all()
        loose = connection.scalar(
            text(
                "SELECT count(*) FROM envelope e WHERE (SELECT count(*) FROM delivery d "
                "WHERE d.envelope_seq = e.seq) <> 1"
            )
        )
    engine.dispose()
    assert loose == 0
    return Counter(row[0] for row in found)


async def insist(core: Core, key: str) -> str:
    """Publish, under the same key until it is acknowledged; returns the id."""
    async with asyncio.timeout(30):
        while True:
            try:
                return (await core.publish(order(key))).id
            except StoreUnavailableError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("where", ["cut_at", "swallow_at"])
async def test_a_commit_that_is_cut_off_is_told_rightly(tmp_path: Path, where: str) -> None:
    """The answer of a commit is lost on the way: its publisher hears what really happened."""
    url = shared_server().database()
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):
        first = await core.publish(order("before"))
        setattr(proxy, where, proxy.commits + 1)
        second = await core.publish(order("cut off"))
        again = await core.publish(order("cut off"))
        assert proxy.cuts == 1
        assert (first.duplicate, second.duplicate, again.duplicate) == (False, False, True)
        assert again.id == second.id
    assert set(stored(url).values()) == {1}


@pytest.mark.timeout(60)
async def test_cuts_at_any_moment_lose_and_double_nothing(tmp_path: Path) -> None:
    """Publishers who insist under their key get each message in, once."""
    chance = random.Random(SEED)
    url = shared_server().database()
    ids: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):

        async def publisher(name: int) -> None:
            for number in count():
                if loop.time() > until:
                    return
                key = f"{name}-{number}"
                ids[key] = await insist(core, key)

        async def trouble() -> None:
            while loop.time() < until:
                await asyncio.sleep(chance.uniform(0.01, 0.25))
                proxy.cut_at = proxy.swallow_at = 0  # it may have fallen on nothing
                how = chance.choice(("cut", "commit", "swallow", "refuse"))
                if how == "commit":
                    proxy.cut_at = proxy.commits + 1
                elif how == "swallow":
                    proxy.swallow_at = proxy.commits + 1
                else:
                    proxy.refusing = how == "refuse"
                    proxy.cut()
                    await asyncio.sleep(chance.uniform(0, 0.1))
                    proxy.refusing = False

        cutting = asyncio.create_task(trouble())
        await asyncio.gather(*(publisher(name) for name in range(8)))
        await cutting
        proxy.cut_at = proxy.swallow_at = 0
        for key, first in ids.items():
            assert await insist(core, key) == first
        assert proxy.cuts > 5
    found = stored(url)
    assert len(found) == len(ids) > 100
    assert set(found.values()) == {1}


async def test_a_database_that_goes_away_is_named_and_comes_back(tmp_path: Path) -> None:
    """Who waits is refused with the reason, at once after a while; then all goes on by itself."""
    url = shared_server().database()
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):
        kept = await core.publish(order("before"))
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(StoreUnavailableError) as refused:
            await core.publish(order("while away"))
        assert "cannot be written" in str(core.journal.problem)
        assert str(core.journal.problem) == str(refused.value)
        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(0.5):
                await core.publish(order("at once"))
        proxy.refusing = False
        await mended(core)
        assert (await core.publish(order("before"))).id == kept.id
        await core.publish(order("while away"))
    assert set(stored(url).values()) == {1}


async def test_a_mailbox_goes_on_after_a_read_that_failed(tmp_path: Path) -> None:
    """More waits than memory holds; the database is away just when more is to be read."""
    url = shared_server().database()
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):
        await asyncio.gather(*(core.publish(order(str(number))) for number in range(700)))
        later = Slow(proxy)
        core.attach(later)
        await later.wait_for(700, timeout_s=30)
    assert len({envelope.id for envelope in later.taken}) == 700


async def test_an_idle_hub_notices_too(tmp_path: Path) -> None:
    """Without any message the hub finds out that its database went, and that it is back."""
    url = shared_server().database()
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):
        proxy.refusing = True
        proxy.cut()
        await broken(core)
        proxy.refusing = False
        await mended(core)


async def test_a_second_hub_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    """A database belongs to one hub, until that ends."""
    url = shared_server().database()
    async with running_hub(tmp_path / "one", '[hub]\nname = "first"\n', store_url=url):
        second = Database(url, owner="second")
        with pytest.raises(StoreOwnedError, match=r'belongs to "first" \(process \d+ on '):
            second.open()
        second.close()
    Database(url, owner="second").migrate()


async def test_a_hub_whose_database_was_taken_stays_out(tmp_path: Path) -> None:
    """A hub that finds another one's mark after a lost connection writes nothing more."""
    url = shared_server().database()
    async with behind_proxy(tmp_path / "hub", url) as (core, proxy):
        await core.publish(order("mine"))
        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(0.3)
        thief = Database(url, owner="thief")
        thief.migrate()
        proxy.refusing = False
        with pytest.raises(StoreUnavailableError, match='was taken by "thief"'):
            await core.publish(order("after"))
    assert stored(url).keys() == {'{"key":"mine"}'}


async def test_values_of_enumerations_are_stored_as_their_values(tmp_path: Path) -> None:
    """By COPY, by arrays and by statements."""
    url = shared_server().database()
    async with running_hub(tmp_path / "hub", ROUTE, store_url=url) as core:
        await core.publish(order("one"))
        await core.publish(
            Envelope.new(
                source="test", subject="tasks.echo.request", type="hubbub.task.request.v1",
                data={"task_type": "echo", "params": {}}, durable=True,
            )
        )  # fmt: skip
    engine = create_engine(url)
    with engine.connect() as connection:
        states = connection.execute(text("SELECT DISTINCT state FROM delivery")).all()
        tasks = connection.execute(text("SELECT state FROM task")).all()
    engine.dispose()
    assert [tuple(row) for row in states] == [("pending",)]
    assert [tuple(row) for row in tasks] == [("queued",)]
