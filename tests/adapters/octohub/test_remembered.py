"""What is remembered over a restart, and for how long: nonces, addresses, and nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from websockets.exceptions import InvalidStatus

from hubbub.testing import FakeClock
from hubbub_octohub.housekeeping import EVERY_S
from tests.adapters.octohub.serving import SETTINGS, WAIT_S, Octohub, octohub, signed

DAY_S = 86_400.0


async def status_of(hub: Octohub, url: str) -> int:
    """Return how a handshake ends: 101 when the peer is let in."""
    try:
        async with hub.peer(url):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def rows(hub: Octohub, table: str) -> list[Any]:
    """Return what a table holds."""
    return await hub.core.read(
        lambda s: list(s.connection().execute(text(f"SELECT * FROM {table}")))
    )


async def until(hub: Octohub, table: str, holds: Callable[[list[Any]], bool]) -> list[Any]:
    """Return the rows of a table once they are as they shall be."""
    async with asyncio.timeout(WAIT_S):
        while not holds(found := await rows(hub, table)):  # noqa: ASYNC110  # another task's doing
            await asyncio.sleep(0.01)
    return found


async def test_a_request_is_good_once_over_a_restart(tmp_path: Path) -> None:
    """Somebody who has listened cannot send it again to the hub that comes up."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub:
        headers = signed("/node/ws", {"pc_id": "n"}, now_s=hub.now_s)
        assert (await hub.http.get("/node/ws?pc_id=n", headers=headers)).status_code == 200
    async with octohub(tmp_path, clock=clock) as hub:
        assert (await hub.http.get("/node/ws?pc_id=n", headers=headers)).status_code == 401
        other = signed("/node/ws", {"pc_id": "n"}, now_s=hub.now_s)
        assert (await hub.http.get("/node/ws?pc_id=n", headers=other)).status_code == 200


async def test_an_address_is_good_once_over_a_restart(tmp_path: Path) -> None:
    """Used before it or after it; and the id gets another second than before."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub:
        port = hub.hub.main.url.rpartition(":")[2]
        used, unused = await hub.url(), await hub.url()
        assert await status_of(hub, used) == 101
    async with octohub(tmp_path, clock=clock) as hub:
        there = hub.hub.main.url.rpartition(":")[2]
        used, unused = (url.replace(f":{port}/", f":{there}/") for url in (used, unused))
        assert await status_of(hub, used) == 401
        assert await status_of(hub, unused) == 101
        assert await status_of(hub, unused) == 401
        assert await hub.url() not in (used, unused)


async def test_what_could_be_good_no_more_is_forgotten(tmp_path: Path) -> None:
    """In the store too."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub:
        await hub.url()
        assert {row.kind for row in await rows(hub, "octohub_once")} == {"nonce", "node"}
        await clock.advance(EVERY_S - 500)
        await hub.url("node_2")
        await clock.advance(500)
        left = await until(hub, "octohub_once", lambda found: len(found) == 2)
        assert {row.name for row in left if row.kind == "node"} == {"node_2"}


async def test_nodes_that_are_not_seen_any_more_are_forgotten(tmp_path: Path) -> None:
    """What was said of single ones; not of many, nor of those that are here, nor what bars one."""
    clock = FakeClock()
    said: dict[str, dict[str, Any]] = {
        "gone": {"labels": {"a": "b"}},
        "here": {"labels": {"a": "b"}},
        "came": {"labels": {"a": "b"}},
        "barred": {"enabled": False},
        "many*": {"labels": {"a": "b"}},
    }
    async with octohub(tmp_path, clock=clock) as hub:
        for pc_id, rule in said.items():
            path = f"/api/octohub/nodes/{pc_id}"
            answer = await hub.http.put(path, json=rule, headers=hub.admin)
            assert answer.status_code == 200, answer.text
        async with hub.peer(await hub.url("gone")):
            pass
        async with hub.peer(await hub.url("here")):
            for day in range(8):
                if day == 3:
                    async with hub.peer(await hub.url("came")):
                        pass
                    await until(
                        hub, "octohub_seen", lambda found: any(r.pc_id == "came" for r in found)
                    )
                await clock.advance(DAY_S)
            left = await until(hub, "octohub_node", lambda found: len(found) < len(said))
            assert {row.pc_id for row in left} == said.keys() - {"gone"}
            await until(hub, "octohub_seen", lambda found: len(found) == 2)
            shown = (await hub.http.get("/api/octohub/nodes", headers=hub.admin)).json()
            assert {one["pc_id"] for one in shown["items"]} == said.keys() - {"gone"}


@pytest.mark.parametrize(("days", "left"), [("0", 1), ("2d", 0)])
async def test_how_long_nodes_are_remembered_is_said(tmp_path: Path, days: str, left: int) -> None:
    """Or that they are for ever."""
    clock = FakeClock()
    async with octohub(tmp_path, f'{SETTINGS}node_retention = "{days}"\n', clock=clock) as hub:
        answer = await hub.http.put(
            "/api/octohub/nodes/one", json={"labels": {"a": "b"}}, headers=hub.admin
        )
        assert answer.status_code == 200
        await hub.url()
        await clock.advance(2 * DAY_S + EVERY_S)
        await until(hub, "octohub_once", lambda found: not found)
        await until(hub, "octohub_node", lambda found: len(found) == left)


async def test_a_far_jump_of_the_clock_forgets_nothing(tmp_path: Path) -> None:
    """A nonce that is forgotten could be used again once the clock is set right."""
    clock = FakeClock()
    async with octohub(tmp_path, f'{SETTINGS}node_retention = "2d"\n', clock=clock) as hub:
        answer = await hub.http.put(
            "/api/octohub/nodes/one", json={"labels": {"a": "b"}}, headers=hub.admin
        )
        assert answer.status_code == 200
        await hub.url()
        tables = ("octohub_once", "octohub_node")
        before = [await rows(hub, table) for table in tables]
        assert all(before)
        clock.jump(30 * DAY_S)
        await clock.advance(EVERY_S)
        await hub.core.journal.flush()
        assert [await rows(hub, table) for table in tables] == before
        await hub.core.hold.confirm(clock.now_us())
        await clock.advance(EVERY_S)
        for table in tables:
            await until(hub, table, lambda found: not found)
