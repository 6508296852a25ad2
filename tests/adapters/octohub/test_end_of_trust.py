"""Connections of users and nodes end with what has let them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import delete, insert
from websockets.exceptions import InvalidStatus

from hubbub.reload import Reloads
from hubbub.store.tables import table_of
from hubbub.testing import FakeClock
from hubbub_octohub.records import OctohubUserRow
from tests.adapters.octohub.serving import SETTINGS, Octohub, Peer, octohub
from tests.adapters.octohub.test_users import EMAIL, SECRET, WITH_SECRET, bearer, token

SOON_S = 2.0


@asynccontextmanager
async def soon() -> AsyncGenerator[None]:
    """Fail where something takes longer than two seconds."""
    began = monotonic()
    async with asyncio.timeout(10):
        yield
    assert monotonic() - began < SOON_S


async def user_url(hub: Octohub, headers: dict[str, str]) -> str:
    """Return the address of a user who is logged in."""
    answer = await hub.http.get("/user/ws", headers=headers)
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["data"]["wsUrl"]
    return url


async def denied(hub: Octohub, url: str) -> int:
    """Return the status that a handshake is denied with."""
    with pytest.raises(InvalidStatus) as refusal:
        async with hub.peer(url):
            pass
    return refusal.value.response.status_code


async def reload(hub: Octohub, toml: str) -> None:
    """Write hub.toml and read it again; all of it holds at once."""
    file = hub.core.config.file
    assert file is not None
    text = f'[hub]\ndrain_timeout = "1s"\n{toml}'
    file.write_text(text, encoding="utf-8")
    assert (await Reloads(hub.core).reload(by="test")).needs_restart == ()


async def test_a_user_is_out_when_the_login_is_over(tmp_path: Path) -> None:
    """By the hub's clock, at the moment that the token says, not that of the address."""
    clock = FakeClock()
    async with octohub(tmp_path, f"{WITH_SECRET}jwt_ttl = 600\n", clock=clock) as hub:
        headers = await bearer(hub)
        await clock.advance(500)
        async with hub.peer(await user_url(hub, headers)) as user:
            await user.until(action="connected")
            await clock.advance(99)
            assert (await user.ask("ping"))["request_id"] == "r1"
            late = await user_url(hub, headers)
            async with soon():
                await clock.advance(1.5)
                assert await user.closed() == 4401
        assert await denied(hub, late) == 401


async def test_a_user_who_is_removed_is_out(tmp_path: Path) -> None:
    """With all connections, and with addresses that nobody has come with yet."""
    async with octohub(tmp_path, WITH_SECRET) as hub:
        headers = await bearer(hub)
        async with hub.peer(await user_url(hub, headers)) as user:
            await user.until(action="connected")
            unused = await user_url(hub, headers)
            async with soon():
                gone = await hub.http.delete(f"/api/octohub/users/{EMAIL}", headers=hub.admin)
                assert gone.status_code == 204
                assert await user.closed() == 4401
        assert await denied(hub, unused) == 401
    async with octohub(tmp_path, WITH_SECRET) as hub:
        assert await denied(hub, unused.replace(_host(unused), _host(hub.signed_url("1")))) == 401


def _host(url: str) -> str:
    return url.split("/")[2]


async def test_a_login_is_not_the_next_users(tmp_path: Path) -> None:
    """SQLite gives the number of a user who is gone to the next one; a login stays what it was."""
    clock = FakeClock()
    users = table_of(OctohubUserRow)
    async with octohub(tmp_path, WITH_SECRET, clock=clock) as hub:
        headers = await bearer(hub)
        await hub.core.execute((delete(users), []))
        await clock.advance(2)
        now_us = clock.now_us()
        row: dict[str, Any] = {"id": 1, "email": "next@example.org", "password": "-"}
        row |= {"created_us": now_us, "updated_us": now_us}
        await hub.core.execute((insert(users), [row]))
        assert (await hub.http.get("/user/info", headers=headers)).status_code == 401
        now_s = clock.now_us() // 1_000_000
        good = token({"sub": "1", "iat": now_s, "exp": now_s + 60})
        answer = await hub.http.get("/user/info", headers={"Authorization": f"Bearer {good}"})
        assert answer.json()["data"]["email"] == "next@example.org"


@pytest.mark.parametrize("act", ["disabled", "kicked"])
async def test_a_node_that_does_not_read_is_out_too(tmp_path: Path, act: str) -> None:
    """Its work goes to another node, and what it says afterwards does not count."""
    async with octohub(tmp_path, f"{SETTINGS}queue_size = 100000\n") as hub:  # noqa: SIM117
        async with hub.node("node_1", task_types=["work"], max_concurrency=50) as node:
            node.socket.transport.pause_reading()
            big = "x" * 900_000
            first = await hub.submit("work", node="node_1", data={"big": big})
            for _ in range(20):
                await hub.submit("work", node="node_1", data={"big": big})
            async with hub.node("node_2", task_types=["work"]), soon():
                if act == "disabled":
                    rule: dict[str, Any] = {"labels": {}, "enabled": False}
                    changed = await hub.http.put(
                        "/api/octohub/nodes/node_1", json=rule, headers=hub.admin
                    )
                else:
                    changed = await hub.http.post(
                        "/api/octohub/nodes/node_1/kick", headers=hub.admin
                    )
                assert changed.status_code == 200
                await node.done({"task_id": first})
                while hub.core.room.link_of("octohub.node.node_1") is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await hub.get(first))["state"] in ("queued", "dispatched")
            node.socket.transport.abort()


@pytest.mark.parametrize("key", ["ws_signature_key", "signature_key", "jwt_secret"])
async def test_connections_end_when_their_key_changes(tmp_path: Path, key: str) -> None:
    """A reload takes it over; whom the key has nothing to do with, stays."""
    async with octohub(tmp_path, WITH_SECRET) as hub:
        headers = await bearer(hub)
        async with (
            hub.node("node_1") as node,
            hub.peer(await user_url(hub, headers)) as user,
        ):
            await user.until(action="connected")
            other = "k" * 32
            toml = f'{SETTINGS}jwt_secret = "{SECRET}"\n{key} = "{other}"\n'
            if key == "jwt_secret":
                toml = f'{SETTINGS}jwt_secret = "{other}"\n'
            async with soon():
                await reload(hub, toml)
                peers: list[Peer] = []
                if key != "jwt_secret":
                    peers.append(node)
                if key != "signature_key":
                    peers.append(user)
                assert {await peer.closed() for peer in peers} == {4401}
            if key == "jwt_secret":
                assert (await hub.http.get("/user/info", headers=headers)).status_code == 401
                assert hub.core.room.link_of("octohub.node.node_1") is not None
            if key == "signature_key":
                assert (await hub.asked("node_1")).status_code == 401
                assert (await user.ask("ping"))["request_id"] == "r1"
            if key == "ws_signature_key":
                assert await denied(hub, hub.signed_url("7")) == 401
