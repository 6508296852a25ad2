"""Rows of an adapter's own, kept with the next commit, without a coroutine."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from sqlmodel import Session, select

from hubbub.core import Core
from hubbub.errors import ConflictError, HubError, StoreUnavailableError
from hubbub.ports import Row
from hubbub.store.tables import MetaRow, table_of
from hubbub.testing import counted, running_hub
from hubbub_statistics.tables import StatBucketRow

NUMBER = 500
stat, meta = table_of(StatBucketRow), table_of(MetaRow)


def bucket(number: int) -> Row:
    return stat, (number, "soon", "", float(number))


def kept(session: Session) -> list[int]:
    """Return what is there, in the order in which it was written."""
    mine = select(StatBucketRow.ts).where(StatBucketRow.metric == "soon")
    return list(session.exec(mine.order_by(StatBucketRow.id)))  # type: ignore[arg-type]


async def told(core: Core, told_of: list[Any], number: int) -> None:
    async with asyncio.timeout(10):
        while len(told_of) < number:
            await core.journal.flush()
            await asyncio.sleep(0)


async def test_rows_are_kept_in_order_and_few_commits(core: Core) -> None:
    """Those of one turn of the loop are in a commit or two; `done` comes after it, in order."""
    before = counted(core, "hubbub_journal_batch_size_count")
    told_of: list[tuple[int, HubError | None]] = []

    def note(number: int, error: HubError | None) -> None:
        told_of.append((number, error))

    for number in range(NUMBER):
        core.keep_soon([bucket(number)], done=partial(note, number))
    assert told_of == []
    await told(core, told_of, NUMBER)
    assert told_of == [(number, None) for number in range(NUMBER)]
    assert await core.read(kept) == list(range(NUMBER))
    assert counted(core, "hubbub_journal_batch_size_count") - before < NUMBER / 10


async def test_it_stands_in_line_with_what_is_waited_for(core: Core) -> None:
    """What is executed afterwards finds the rows; several rows are one act."""
    core.keep_soon([bucket(1), bucket(2)])
    await core.execute((stat.delete().where(stat.c.ts == 1), []))
    assert await core.read(kept) == [2]


async def test_rows_that_are_refused_are_said_and_harm_no_others(core: Core) -> None:
    """All rows of the call, and none of its neighbours."""
    told_of: list[HubError | None] = []
    core.keep_soon([(meta, ("here", "1"))], done=told_of.append)
    core.keep_soon([bucket(1), (meta, ("here", "2"))], done=told_of.append)
    core.keep_soon([bucket(2)], done=told_of.append)
    core.keep_soon([(meta, ("here", "3"))])  # which is only logged
    await told(core, told_of, 3)
    assert [type(error) for error in told_of] == [type(None), ConflictError, type(None)]
    assert await core.read(kept) == [2]


async def test_what_was_asked_for_before_the_stop_is_kept(tmp_path: Path) -> None:
    """And told; who comes afterwards is refused."""
    told_of: list[HubError | None] = []
    async with running_hub(tmp_path / "hub") as core:
        await core.drain()
        core.keep_soon([bucket(1)], done=told_of.append)
        assert told_of == []
    assert told_of == [None]
    core.keep_soon([bucket(2)], done=told_of.append)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert isinstance(told_of[1], StoreUnavailableError)
    async with running_hub(tmp_path / "hub") as core:
        assert await core.read(kept) == [1]
