"""Family S: the one known Socket.IO client, on both transports. Source: page, section 4."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from socketio.exceptions import ConnectionError as RefusedError

from hubbub.testing import FakeClock
from tests.adapters.kenko.serving import Kenko, new_event_client, running_kenko, until

TRANSPORTS = pytest.mark.parametrize(
    "transports", [["polling"], ["websocket"], ["polling", "websocket"]], ids=str
)


@TRANSPORTS
async def test_auth_is_answered_and_messages_come(kenko: Kenko, transports: list[str]) -> None:
    """True once, false after that; the hub's own events follow; an answer goes back."""
    async with kenko.event_client(transports=transports) as app:
        await app.emit("auth", "a plain text")
        assert await app.next("auth") is True
        said = await app.next("register")
        assert said["success"] is True
        assert await app.next("start") is None
        await app.emit("auth", "again")
        assert await app.next("auth") is False
        asked = await kenko.ask("weather?", reply_to="kenko.app." + said["id"])
        message = await app.next("message")
        assert (message["id"], message["content"]) == (asked["id"], "weather?")
        await app.emit("message", {"content": "Rain", "reply_to": message["id"]})
        answer = await app.next("message")  # it was asked to answer itself
        assert answer["content"] == "Rain"
        assert answer["trace_id"] == message["trace_id"]
        items = (await kenko.http.get("/api/kenko/apps")).json()["items"]
        assert [item["transport"] for item in items] == ["socketio"]
        assert items[0]["name"] == f"socketio-{app.client.get_sid('/client')[:8]}"
        if transports == ["polling"]:  # the client waits 30 s for its last poll if it is who leaves
            await kenko.http.delete(f"/api/kenko/apps/{said['id']}")
            await app.gone.wait()


@pytest.mark.parametrize(
    "argument", [None, "", 7, [1], {"x": 1}, {"name": "named", "version": "2"}, b"\x00"]
)
async def test_auth_takes_any_argument(kenko: Kenko, argument: Any) -> None:
    """None too, where the original failed; an object with a name is a registration."""
    async with kenko.event_client() as app:
        await app.client.emit("auth", argument, namespace="/client")
        assert await app.next("auth") is True
        await app.next("register")
        (registered,) = kenko.desk.apps.list()
        named = isinstance(argument, dict) and "name" in argument
        assert (registered.name == "named") == named


async def test_a_registration_that_is_refused(kenko: Kenko) -> None:
    """`auth` is false, the reason follows, and the next one may succeed."""
    async with kenko.event_client() as app:
        await app.emit("auth", {"name": ""})
        assert await app.next("auth") is False
        assert (await app.next("register"))["code"] == "invalid_name"
        await app.emit("register", {"name": "by-register"})
        assert (await app.next("register"))["success"] is True
        await app.next("start")
        await app.emit("register", {"name": "ignored"})
        await app.emit("ping")
        await app.next("pong")


async def test_everything_of_family_w_is_there(kenko: Kenko) -> None:
    """Heartbeat, ping, message, ack; the unknown is ignored, the unusable told."""
    async with kenko.event_client() as app:
        await app.emit("message", {"content": "early"})
        assert (await app.next("error"))["code"] == "not_registered"
        await app.emit("auth", {"name": "acks", "capabilities": ["ack"]})
        for event in ("auth", "register", "start"):
            await app.next(event)
        await app.emit("heartbeat")
        await app.emit("dance", [1])
        await app.emit("message", {"content": 7})
        assert (await app.next("error"))["code"] == "bad_data"
        said = await kenko.ask("?")
        await app.next("message")
        await app.emit("ack", {"id": said["id"]})
        assert (await kenko.ended(said["id"]))["outcome"] == "delivered"


async def test_the_main_namespace_is_useless_and_others_are_refused(kenko: Kenko) -> None:
    """As the original does it."""
    client = new_event_client()
    await client.connect(kenko.url, namespaces=["/"])
    assert client.namespaces.keys() == {"/"}
    await client.disconnect()
    other = new_event_client()
    with pytest.raises(RefusedError):
        await other.connect(kenko.url, namespaces=["/other"], wait_timeout=5)
    await other.disconnect()


@pytest.mark.parametrize("query", ["EIO=3&transport=polling", "transport=polling"])
async def test_older_protocols_get_400(kenko: Kenko, query: str) -> None:
    """Engine.IO 4 is spoken, nothing else."""
    answer = await kenko.http.get(f"/socket.io/?{query}")
    assert answer.status_code == 400


async def test_the_handshake_is_that_of_the_original(kenko: Kenko) -> None:
    """Intervals, upgrade; its origins are the hub's business."""
    answer = await kenko.http.get("/socket.io/?EIO=4&transport=polling")
    assert answer.status_code == 200
    assert "access-control-allow-credentials" not in answer.headers
    assert '"pingInterval":25000' in answer.text
    assert '"pingTimeout":20000' in answer.text
    assert '"upgrades":["websocket"]' in answer.text


async def test_a_token_is_the_argument_or_in_the_handshake(tmp_path: Path) -> None:
    """A wrong one is answered false, and another try is allowed."""
    async with running_kenko(tmp_path, 'access_token = "s3cret"') as kenko:
        async with kenko.event_client() as app:
            for wrong in ("wrong", None):
                await app.emit("auth", wrong)
                assert await app.next("auth") is False
                assert (await app.next("register"))["code"] == "unauthorized"
            await app.emit("auth", "s3cret")
            assert await app.next("auth") is True
        headers = {"Authorization": "Bearer s3cret"}
        async with kenko.event_client(headers=headers) as app:
            await app.emit("auth", {"name": "x"})
            assert await app.next("auth") is True


async def test_states_deadlines_and_the_end(tmp_path: Path) -> None:
    """An operator pauses and kicks; who does not register is disconnected; the hub stops."""
    clock = FakeClock()
    async with running_kenko(tmp_path, "max_clients = 2", clock=clock) as kenko:
        async with kenko.event_client() as app, kenko.event_client() as silent:
            await app.emit("auth", "x")
            for event in ("auth", "register", "start"):
                await app.next(event)
            with pytest.raises(RefusedError):
                async with kenko.event_client():
                    pass
            await clock.advance(31)
            async with asyncio.timeout(10):
                await silent.gone.wait()
            await clock.advance(3600)
            (registered,) = kenko.desk.apps.list()
            registered.pause()
            assert await app.next("pause") == {"reason": "admin"}
            registered.start()
            await app.next("start")
            registered.kick()
            async with asyncio.timeout(10):
                await app.gone.wait()
            await until(lambda: not kenko.desk.connections)
        async with kenko.event_client() as last:
            await last.emit("auth", "x")
            for event in ("auth", "register", "start"):
                await last.next(event)
            await kenko.hub.stop()
            assert await last.next("pause") == {"reason": "shutdown"}
            async with asyncio.timeout(10):
                await last.gone.wait()


async def test_socketio_may_be_off(tmp_path: Path) -> None:
    """Its path is then nobody's."""
    async with running_kenko(tmp_path, "socketio = false") as kenko:
        answer = await kenko.http.get("/socket.io/?EIO=4&transport=polling")
        assert answer.status_code == 404
