"""The journal's batches: what makes one, and what goes along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlmodel import Session, col, func, select

from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.errors import StoreUnavailableError
from hubbub.store import journal
from hubbub.store.tables import DeliveryRow
from hubbub.testing import RecordingEndpoint, counted, running_hub

NEVER_S = 3600.0
PATIENCE_S = 10.0


@asynccontextmanager
async def hub_with_a_taker(folder: Path) -> AsyncGenerator[tuple[Core, RecordingEndpoint]]:
    """Run a hub with an endpoint `plugin.taker`."""
    async with running_hub(folder) as core:
        taker = RecordingEndpoint("plugin.taker")
        core.attach(taker)
        yield core, taker


async def give(core: Core, taker: RecordingEndpoint, number: int) -> None:
    """Publish the message with this number, and return when it was taken."""
    await core.publish(
        Envelope.new(
            source="plugin.test", subject="a.b", data=number, to=(taker.address,), durable=True
        )
    )
    await taker.wait_for(number)


def open_deliveries(session: Session) -> int:
    """Count the deliveries of which no row tells the outcome."""
    return session.exec(
        select(func.count()).select_from(DeliveryRow).where(col(DeliveryRow.state) != "done")
    ).one()


async def test_outcomes_stand_aside_until_a_batch_has_more_than_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three messages one after the other are three commits, not six, and none of them is longer."""
    monkeypatch.setattr(journal, "LINGER_S", NEVER_S)
    async with hub_with_a_taker(tmp_path) as (core, taker):
        await core.journal.flush()
        before = counted(core, "hubbub_journal_batch_size_count")
        for number in (1, 2, 3):
            await give(core, taker, number)
        assert counted(core, "hubbub_journal_batch_size_count") - before == 3
        assert await core.database.read(open_deliveries) == 3
        await core.journal.flush()
        assert await core.database.read(open_deliveries) == 0


async def test_an_outcome_is_written_when_nothing_else_comes(tmp_path: Path) -> None:
    """It waits a short time only."""
    async with hub_with_a_taker(tmp_path) as (core, taker), asyncio.timeout(PATIENCE_S):
        await give(core, taker, 1)
        while await core.database.read(open_deliveries):
            pass


async def test_an_outcome_is_written_at_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it may linger."""
    monkeypatch.setattr(journal, "LINGER_S", NEVER_S)
    async with hub_with_a_taker(tmp_path) as (core, taker):
        await give(core, taker, 1)
    async with running_hub(tmp_path) as core:
        assert await core.database.read(open_deliveries) == 0


async def test_who_asks_after_the_stop_is_refused(tmp_path: Path) -> None:
    """Nobody waits for a commit that never comes."""
    async with hub_with_a_taker(tmp_path) as (core, _):
        pass
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(StoreUnavailableError, match="has stopped"):
            await core.journal.flush()
