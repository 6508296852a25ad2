"""Logs, the database and lists of traces over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from hubbub import Envelope, Reject
from hubbub.core import Core
from hubbub.store import backups
from hubbub.store.pruning import STEP
from hubbub.store.tables import AuditRow, MetaRow, table_of
from hubbub.testing import RecordingEndpoint
from hubbub.values import Route
from tests.hub.web.conftest import FAST, Served, serving

of_the_file = pytest.mark.skipif(
    os.environ.get("HUBBUB_TEST_STORE") == "postgres", reason="about the file of SQLite"
)

API = "/api/v1"
DAY_US = 86_400_000_000


# Logs


async def test_lines_are_found_by_level_logger_text_and_time(served: Served) -> None:
    """Newest first, in pages."""
    book = served.core.book
    log = logging.getLogger("test.upkeep")
    other = logging.getLogger("test.upkeeper")
    book.setFormatter(logging.Formatter('{"event": "%(message)s", "level": "warning"}'))
    for one in (log, other):
        one.addHandler(book)
        one.setLevel("INFO")
    try:
        for number in range(3):
            log.info("Line %d", number)
        other.error("another line")
        logging.getLogger("test.upkeep.part").warning("of a part")
    finally:
        for one in (log, other):
            one.removeHandler(book)

    async def found(**query: Any) -> list[str]:
        return [line["event"] for line in await served.pages(f"{API}/logs", **query)]

    assert await found() == ["of a part", "another line", "Line 2", "Line 1", "Line 0"]
    assert await found(limit=2) == await found()
    assert await found(level="warning") == ["of a part", "another line"]
    assert await found(logger="test.upkeep") == ["of a part", "Line 2", "Line 1", "Line 0"]
    assert await found(q="LINE", level="error") == ["another line"]
    assert await found(since="1h") == await found()
    assert await found(since="2100-01-01T00:00:00Z") == []
    assert (await served.client.get(f"{API}/logs", params={"level": "loud"})).status_code == 422
    headers = await served.token("read")
    assert (await served.client.get(f"{API}/logs", headers=headers)).status_code == 403


async def test_levels_are_chosen_over_http(served: Served) -> None:
    """Of one logger or all; what is no level or logger is refused; the act is in the audit."""
    before = logging.getLogger().level
    try:
        body = {"level": "debug", "logger": "hubbub.test"}
        put = await served.client.put(f"{API}/logs/level", json=body)
        assert put.json()["levels"]["hubbub.test"] == "debug"
        assert logging.getLogger("hubbub.test.below").isEnabledFor(logging.DEBUG)
        put = await served.client.put(f"{API}/logs/level", json={"level": "error"})
        assert put.json()["levels"]["root"] == "error"
        assert (await served.get(f"{API}/logs/level")) == put.json()
        for bad in ({"level": "loud"}, {}, {"level": "info", "logger": "a b"}):
            assert (await served.client.put(f"{API}/logs/level", json=bad)).status_code == 422
        acts = (await served.get(f"{API}/audit", limit=1))["items"]
        assert (acts[0]["act"], acts[0]["detail"]) == ("logs.level", "error")
    finally:
        served.core.book.undo_choices()
        logging.getLogger().setLevel(before)


# The database


async def table_of_name(served: Served, name: str) -> Any:
    items = (await served.get(f"{API}/database/tables"))["items"]
    return next(item for item in items if item["name"] == name)


@of_the_file
async def test_tables_are_counted(served: Served) -> None:
    """Rows and bytes of the hub's own and of plugins'."""
    before = await table_of_name(served, "envelope")
    await served.publish("a.b", "x" * 100_000)
    after = await table_of_name(served, "envelope")
    assert after["rows"] == before["rows"] + 1
    assert after["prunable"] is True
    assert after["bytes"] >= before["bytes"] + 100_000
    assert (await table_of_name(served, "stat_bucket"))["prunable"] is True
    assert (await table_of_name(served, "token"))["prunable"] is False
    assert (await served.get(f"{API}/database/tables"))["bytes"] > 100_000


async def add_audits(core: Core, number: int, age_us: int) -> None:
    at_us = core.clock.now_us() - age_us
    row = {"at_us": at_us, "principal": "p", "act": "old", "target": "t", "detail": ""}
    await core.execute((insert(table_of(AuditRow)), [row] * number))


async def test_old_rows_are_counted_then_removed(served: Served) -> None:
    """A dry run changes nothing; over one step's worth goes too; what is newer stays."""
    await add_audits(served.core, STEP + 1, 3 * DAY_US)
    await add_audits(served.core, 2, DAY_US)
    body = {"table": "audit", "older_than": "2d", "dry_run": True}
    dry = (await served.client.post(f"{API}/database/prune", json=body)).json()
    assert (dry["matched"], dry["removed"]) == (STEP + 1, 0)
    assert (await table_of_name(served, "audit"))["rows"] == STEP + 3
    body["dry_run"] = False
    done = (await served.client.post(f"{API}/database/prune", json=body)).json()
    assert (done["matched"], done["removed"]) == (STEP + 1, STEP + 1)
    assert (await table_of_name(served, "audit"))["rows"] == 3  # and the act itself
    newest = (await served.get(f"{API}/audit", limit=1))["items"][0]
    assert (newest["act"], newest["target"]) == ("database.prune", "audit")


async def test_envelopes_go_with_all_that_is_theirs(served: Served) -> None:
    """But not while something of them waits."""
    core = served.core
    core.attach(RecordingEndpoint("plugin.desk"))
    core.table.put(Route(name="desk", match="done.>", to=("plugin.desk",), durable=True))
    core.table.put(Route(name="hold", match="held.>", to=("plugin.away",), hold_s=3600))
    await served.publish("done.a")
    await served.publish("held.a")
    await served.publish("lost.a")
    await core.journal.flush()
    later = "9999-01-01T00:00:00Z"
    body = {"table": "envelope", "older_than": later, "dry_run": True}
    dry = (await served.client.post(f"{API}/database/prune", json=body)).json()
    assert dry["matched"] == 2
    done = await served.client.post(
        f"{API}/database/prune", json={"table": "envelope", "older_than": later}
    )
    assert done.json()["removed"] == 2
    items = (await served.get(f"{API}/envelopes"))["items"]
    assert [item["subject"] for item in items] == ["held.a"]
    assert (await table_of_name(served, "delivery"))["rows"] == 1


@pytest.mark.parametrize("table", ["token", "meta", "no_such", "audit; DROP TABLE token", ""])
async def test_other_tables_are_refused(served: Served, table: str) -> None:
    """Only those that say how they grow old; and only a time is a time."""
    body = {"table": table, "older_than": "1d"}
    assert (await served.client.post(f"{API}/database/prune", json=body)).status_code == 422
    body = {"table": "audit", "older_than": "soon"}
    assert (await served.client.post(f"{API}/database/prune", json=body)).status_code == 422


@of_the_file
async def test_vacuum_gives_room_back(served: Served) -> None:
    """The file is smaller, and the hub goes on."""
    core = served.core
    rows = [{"name": f"fill{number}", "value": "x" * 10_000} for number in range(200)]
    await core.execute((insert(table_of(MetaRow)), rows))
    await core.execute((table_of(MetaRow).delete().where(MetaRow.name.like("fill%")), []))  # type: ignore[attr-defined]
    answer = await served.client.post(f"{API}/database/vacuum")
    assert answer.status_code == 200
    assert answer.json()["bytes"] < answer.json()["bytes_before"] - 1_000_000
    await served.publish("still.there")


@of_the_file
async def test_backups_are_made_listed_and_restored(tmp_path: Path) -> None:
    """Each a plain database, for nobody else to read; `db restore` takes it."""
    folder = tmp_path / "hub"
    async with serving(folder, FAST) as served:
        await served.publish("kept.a")
        made = await served.client.post(f"{API}/database/backup")
        again = await served.client.post(f"{API}/database/backup")
        assert (made.status_code, again.status_code) == (201, 201)
        assert made.json()["name"] != again.json()["name"]
        await served.publish("lost.a")
        items = (await served.get(f"{API}/database/backups"))["items"]
        assert {item["name"] for item in items} == {made.json()["name"], again.json()["name"]}
    file = Path(made.json()["file"])
    assert (await asyncio.to_thread(file.stat)).st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(file)) as copy:
        assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
    backups.restore(f"sqlite:///{folder / 'hub.db'}", file)
    async with serving(folder, FAST) as served:
        items = (await served.get(f"{API}/envelopes"))["items"]
        assert [item["subject"] for item in items] == ["kept.a"]


async def test_migrations_are_listed(served: Served) -> None:
    """All of them applied, with what they say."""
    items = (await served.get(f"{API}/database/migrations"))["items"]
    assert items[-1]["revision"] == "0001"
    assert all(item["applied"] and item["says"] for item in items)


# Traces


async def test_traces_are_listed_by_endpoint_user_and_status(served: Served) -> None:
    """Durable and volatile ones, newest first, in pages."""
    core = served.core
    desk = RecordingEndpoint("plugin.desk")
    core.attach(desk)
    core.table.put(Route(name="desk", match="desk.>", to=("plugin.desk",), attempts=1))
    await served.publish("desk.durable", {"sender": {"id": "815"}})
    await served.publish("nobody.there")
    await desk.wait_for(1)
    await core.publish(
        Envelope.new(source="kenko.app.x", subject="desk.volatile", data=1, durable=False)
    )
    await desk.wait_for(2)
    desk.answers = [Reject("no")]
    await served.publish("desk.refused")
    await desk.wait_for(3)
    await core.journal.flush()

    async def found(**query: Any) -> list[str]:
        return [one["subject"] for one in await served.pages(f"{API}/traces", **query)]

    everything = ["desk.refused", "desk.volatile", "nobody.there", "desk.durable"]
    assert await found() == everything
    assert sorted(await found(limit=1)) == sorted(everything)
    assert await found(status="unrouted") == ["nobody.there"]
    assert await found(status="failed") == ["desk.refused"]
    assert await found(user="815") == ["desk.durable"]
    assert await found(endpoint="kenko.app.*") == ["desk.volatile"]
    assert len(await found(endpoint="plugin.desk")) == 3
    assert await found(since="2100-01-01T00:00:00Z") == []
    (one,) = (await served.get(f"{API}/traces", user="815"))["items"]
    assert (one["status"], one["endpoints"], one["envelopes"]) == (
        "delivered", ["plugin.desk"], 1,
    )  # fmt: skip
    shown = await served.get(f"{API}/traces/{one['trace_id']}")
    assert shown["trace_id"] == one["trace_id"]
    assert (await served.client.get(f"{API}/traces", params={"status": "x"})).status_code == 422


async def test_upkeep_on_both_databases(core: Core, store_url: Callable[[Path], str]) -> None:
    """Sizes, old rows and vacuum, without HTTP."""
    from hubbub.store import pruning, sizes, upkeep

    await add_audits(core, 3, 3 * DAY_US)
    found = {one.name: one for one in await core.read(sizes.table_sizes)}
    assert found["audit"].rows == 3
    assert await core.database_bytes() > 10_000
    table = (await core.read(pruning.prunable))["audit"]
    before_us = core.clock.now_us() - 2 * DAY_US
    count = await core.read(lambda session: pruning.count_old(session, table, before_us=before_us))
    assert count == 3
    await core.execute(pruning.removing(table, before_us=before_us))
    await asyncio.to_thread(upkeep.vacuum, core.database.engine)
    assert all(one.applied for one in core.database.read_now(upkeep.migrations))
