"""Fixtures of the whole suite.

What uses `core` runs on SQLite and on PostgreSQL. Everything else that runs a hub by the test kit
does so with `HUBBUB_TEST_STORE=postgres`: one more run of the suite, not twice as many tests.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from hubbub.core import Core
from hubbub.testing import FakeClock, running_hub
from hubbub.testing.stores import postgres_problem, shared_server

STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a PostgreSQL where there is none."""
    everything = os.environ.get("HUBBUB_TEST_STORE") == "postgres"
    marked = [item for item in items if everything or item.get_closest_marker("postgres")]
    if marked and (problem := postgres_problem()) is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="session", autouse=True)
def _drop_databases() -> Iterator[None]:
    """Leave no database behind."""
    yield
    if shared_server.cache_info().currsize:
        shared_server().drop()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that is moved by hand."""
    return FakeClock()


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], str]]:
    """The database of a data directory, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield lambda folder: f"sqlite:///{folder / 'hub.db'}"
        return
    url = shared_server().database()
    yield lambda _: url
    shared_server().drop(url)


@pytest.fixture
async def core(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> AsyncIterator[Core]:
    """A hub without sockets, on the fake clock."""
    folder = tmp_path / "hub"
    async with running_hub(folder, clock=clock, store_url=store_url(folder)) as running:
        yield running
