"""What goes through a hub is counted, kept each minute, and forgotten in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.envelope import CHAT_MESSAGE, PRESENCE
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub
from hubbub_statistics import plugin
from hubbub_statistics.series import Series, Window
from hubbub_statistics.tables import StatBucketRow, adding
from tests.hub.web.conftest import FAST, serving


async def say(core: Core, user: str, times: int = 1) -> None:
    for _ in range(times):
        await core.publish(
            Envelope.new(
                source="plugin.test",
                subject="room.message",
                type=CHAT_MESSAGE,
                data={"text": "hi", "sender": {"id": user}},
                durable=False,
            )
        )


def listen(core: Core) -> RecordingEndpoint:
    bot = RecordingEndpoint("kenko.app.one", labels={"name": "weather-bot"}, concurrency=100)
    core.attach(bot)
    core.table.put(Route(name="all", match="room.>", to=("kenko.app.one",)))
    return bot


async def series_of(core: Core, window_s: int = 3600, bucket_s: int = 60) -> Series:
    keeper = plugin._keeper
    assert keeper is not None
    now_s = core.clock.now_us() // 1_000_000
    return await keeper.series(Window.of(now_s=now_s, window_s=window_s, bucket_s=bucket_s))


def total(points: list[tuple[int, float]]) -> float:
    return sum(value for _, value in points)


def rows(session: Session) -> int:
    return len(session.exec(select(StatBucketRow)).all())


async def test_minutes_are_counted_kept_and_shown(
    tmp_path: Path, clock: FakeClock, store_url: Callable[[Path], str]
) -> None:
    """The minute that runs at once, earlier ones from the table, both over a restart."""
    folder = tmp_path / "hub"
    url = store_url(folder)
    async with running_hub(folder, clock=clock, store_url=url) as core:
        bot = listen(core)
        await say(core, "a", 3)
        await say(core, "b")
        await bot.wait_for(4)
        series = await series_of(core)
        assert total(series.messages_in) == total(series.messages_out) == 4
        assert total(series.calls["kenko:weather-bot"]) == 4
        assert series.active_users[-1][1] == 2
        assert series.db_bytes[-1][1] > 10_000
        assert await core.read(rows) == 0
        await clock.advance(60)
        await core.journal.flush()
        await say(core, "a")
        await bot.wait_for(5)
        series = await series_of(core)
        assert [value for _, value in series.messages_in[-2:]] == [4, 1]
        assert [value for _, value in series.active_users[-2:]] == [2, 1]
        assert series.figures["active_users"] == 2
        assert await core.read(rows) > 0
    async with running_hub(folder, clock=clock, store_url=url) as core:
        await say(core, "c")
        series = await series_of(core, 7200, 3600)
        assert total(series.messages_in) == 6
        assert total(series.messages_out) == 5
        assert series.figures["active_users"] == 3


async def test_what_is_too_old_goes(tmp_path: Path, clock: FakeClock) -> None:
    """Users after their own time, everything after 90 days."""
    async with running_hub(tmp_path / "hub", clock=clock) as core:
        now_s = clock.now_us() // 1_000_000
        day_s = 86_400
        ages = {"new": 0, "user": 3 * day_s, "kept": 89 * day_s, "gone": 91 * day_s}
        await core.execute(
            adding([(now_s - age, metric, "test", 1.0) for metric, age in ages.items()])
        )

        def metrics(session: Session) -> set[str]:
            mine = select(StatBucketRow.metric).where(StatBucketRow.label == "test")
            return set(session.exec(mine).all())

        assert set(ages) <= await core.read(metrics)
        await say(core, "a")
        await clock.advance(60)
        await core.journal.flush()
        assert set(ages) & await core.read(metrics) == {"new", "kept"}


async def test_counting_ends_with_the_plugin(tmp_path: Path) -> None:
    """Nothing looks at messages any more; what was counted is kept."""
    async with running_hub(tmp_path / "hub") as core:
        await say(core, "a")
        stat = core.plugins.get("stat")
        assert stat is not None
        before = len(core._ended_observers)
        core.plugins.switch_off(stat, "disabled", "test")
        await core.extensions.ended()
        assert len(core._ended_observers) == before - 1
        assert not core.router._taps
        assert await core.read(rows) > 0


async def test_it_makes_nothing_wanted(tmp_path: Path) -> None:
    """To count is not to watch: what nobody wants is still not published."""
    async with running_hub(tmp_path / "hub") as core:
        assert not core.wanted("presence.somebody", PRESENCE)


@pytest.mark.parametrize("query", ["window=1h&bucket=10s", "window=x", "window=90d&bucket=1m"])
async def test_bad_windows_are_422(tmp_path: Path, query: str) -> None:
    """Over HTTP, with what to ask for instead."""
    async with serving(tmp_path / "hub", FAST) as served:
        answer = await served.client.get(f"/api/stats?{query}")
        assert answer.status_code == 422


async def test_series_over_http(tmp_path: Path) -> None:
    """Each a list of times and values, the running minute included."""
    async with serving(tmp_path / "hub", FAST) as served:
        await served.publish("some.thing")
        answer: Any = await served.get("/api/stats", window="1h", bucket="5m")
        assert answer["bucket_s"] == 300
        assert sum(value for _, value in answer["series"]["messages_in"]) == 1
        assert set(answer["series"]) == {
            "messages_in", "messages_out", "calls", "active_users", "db_bytes", "fs_bytes",
            "figures",
        }  # fmt: skip
        assert answer["series"]["fs_bytes"][-1][1] > 0
