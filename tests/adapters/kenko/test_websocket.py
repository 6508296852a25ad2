"""Family W: registration, states, liveness, order, close codes. Source: seed README; page 2, 3."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from hubbub.testing import FakeClock, counted
from tests.adapters.kenko.serving import REGISTER, Kenko, registration, running_kenko, until


@pytest.mark.parametrize("path", ["/", "/ws"])
async def test_a_client_of_the_seed_registers_and_is_started(kenko: Kenko, path: str) -> None:
    """The reply has an id, and the start follows it at once."""
    async with kenko.client(path) as app:
        await app.send(REGISTER)
        said = await app.next("register")
        assert said["success"] is True
        assert said["id"].startswith("app_")
        assert len(said["id"]) == len("app_") + 32
        assert await app.frame() == {"type": "start"}


async def test_names_repeat_and_ids_do_not(kenko: Kenko) -> None:
    """Two applications of one name are two."""
    async with kenko.app() as one, kenko.app() as other:
        assert one.id != other.id
        answer = await kenko.http.get("/api/kenko/apps")
        assert {item["id"] for item in answer.json()["items"]} == {one.id, other.id}
        assert {item["name"] for item in answer.json()["items"]} == {"weather-bot"}


async def test_a_second_registration_is_ignored(kenko: Kenko) -> None:
    """Whatever it says, nothing is written."""
    async with kenko.app() as app:
        await app.send(REGISTER, registration(name="other"), {"type": "register"})
        await app.silence()
    async with kenko.client() as quick:
        await quick.send(REGISTER, REGISTER, REGISTER)
        assert (await quick.next("register"))["success"]
        await quick.next("start")
        await quick.silence()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "invalid_data"),
        ("weather-bot", "invalid_data"),
        ({}, "invalid_name"),
        ({"name": ""}, "invalid_name"),
        ({"name": "  "}, "invalid_name"),
        ({"name": 7}, "invalid_name"),
        ({"name": "x" * 129}, "invalid_name"),
        ({"name": "a\x00b"}, "invalid_name"),
        ({"name": "x", "version": 1}, "invalid_data"),
        ({"name": "x", "description": "x" * 4097}, "invalid_data"),
        ({"name": "x", "subscribe": ["a..b"]}, "invalid_data"),
        ({"name": "x", "subscribe": ["a"] * 101}, "invalid_data"),
        ({"name": "x", "concurrency": 0}, "invalid_data"),
        ({"name": "x", "concurrency": 1001}, "invalid_data"),
        ({"name": "x", "capabilities": ["runner"]}, "unauthorized"),
    ],
)
async def test_a_bad_registration_is_refused_and_another_allowed(
    kenko: Kenko, data: object, code: str
) -> None:
    """The client stays CONNECTED."""
    async with kenko.client() as app:
        await app.send({"type": "register", "data": data})
        said = await app.next("register")
        assert (said["success"], said["code"]) == (False, code)
        assert said["message"]
        await app.register(name="x" * 128, description="y" * 4096, capabilities=["future"])


async def test_pings_and_heartbeats_in_every_form(kenko: Kenko) -> None:
    """A JSON ping is answered in JSON, a bare one barely, a heartbeat not at all."""
    async with kenko.client() as app:
        await app.send({"type": "heartbeat"}, {"type": "ping"})
        assert await app.frame() == {"type": "pong"}
        await app.send("ping")
        assert await app.socket.recv() == "pong"
        await app.send(b'{"type":"ping"}')
        assert await app.frame() == {"type": "pong"}
        await (await app.socket.ping())


async def test_a_heartbeat_is_answered_if_asked_for(tmp_path: Path) -> None:
    """`heartbeat_reply` is for clients that want to hear something."""
    async with running_kenko(tmp_path, "heartbeat_reply = true") as kenko, kenko.client() as app:
        await app.send({"type": "heartbeat"})
        assert await app.frame() == {"type": "heartbeat"}


async def test_unknown_types_are_ignored_and_counted(kenko: Kenko) -> None:
    """Newer clients do not break."""
    async with kenko.app() as app:
        await app.send({"type": "dance", "data": [1]})
        await app.silence()
        frames = counted(kenko.core, "hubbub_kenko_frames_total", direction="in", type="unknown")
        assert frames == 1


async def test_who_does_not_register_is_closed_whatever_it_sends(tmp_path: Path) -> None:
    """The time runs from accept; heartbeats do not restart it. 4001."""
    clock = FakeClock()
    async with running_kenko(tmp_path, clock=clock) as kenko, kenko.client() as app:
        await clock.advance(29)
        await app.silence()
        await clock.advance(0.9)
        await app.silence()
        await clock.advance(0.2)
        assert await app.closed() == 4001


async def test_a_silent_application_is_closed_after_the_grace(tmp_path: Path) -> None:
    """Any text or binary frame restarts the 45 seconds, garbage too. 4002."""
    clock = FakeClock()
    async with running_kenko(tmp_path, clock=clock) as kenko, kenko.app() as app:
        await clock.advance(44)
        await app.silence()
        await clock.advance(44)
        await app.send("{")
        await app.next("error")
        await clock.advance(44.9)
        await app.socket.ping()
        assert len(kenko.desk.apps) == 1
        await clock.advance(0.2)
        assert await app.closed() == 4002
        assert counted(kenko.core, "hubbub_kenko_heartbeat_timeouts_total") == 1
        assert len(kenko.desk.apps) == 0
        shown = (await kenko.http.get(f"/api/kenko/apps/{app.id}")).json()
        assert (shown["state"], shown["state_name"]) == (0, "DISCONNECTED")
        await until_left(kenko, app.id, 4002)


async def test_messages_alone_keep_an_application_alive(tmp_path: Path) -> None:
    """Those that are taken without waiting too; 45 seconds after the last one it is closed."""
    clock = FakeClock()
    async with running_kenko(tmp_path, clock=clock) as kenko, kenko.app() as app, kenko.app():
        for number in range(3):
            await app.say(f"{number}")  # the other application takes it
            await until(lambda: kenko.desk.metrics.frames["in", "message"].value == number + 1)  # noqa: B023
            await clock.advance(44.9)
        assert kenko.desk.apps.find(app.id) is not None
        await clock.advance(0.2)
        assert await app.closed() == 4002


async def until_left(kenko: Kenko, app_id: str, code: int) -> None:
    """Check that the history says how it ended."""
    async with asyncio.timeout(10):
        while True:
            shown = (await kenko.http.get(f"/api/kenko/apps/{app_id}")).json()
            if shown["close_code"] == code and shown["disconnected_at"]:
                return
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_is_remembered(kenko: Kenko) -> None:
    """Its close code is kept."""
    async with kenko.app() as app:
        await app.socket.close(1000)
    await until_left(kenko, app.id, 1000)


async def test_an_operator_pauses_starts_and_kicks(kenko: Kenko) -> None:
    """409 where the state does not allow it; 4004 at the end."""
    async with kenko.app() as app:
        path = f"/api/kenko/apps/{app.id}"
        assert (await kenko.http.post(f"{path}/start")).status_code == 409
        paused = await kenko.http.post(f"{path}/pause")
        assert paused.json()["state_name"] == "IDLE"
        assert await app.next("pause") == {"reason": "admin"}
        refused = await kenko.http.post(f"{path}/pause")
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "conflict"
        await app.say("too early", reply_to="m1")
        error = await app.next("error")
        assert (error["code"], error["ref"]) == ("not_running", "m1")
        assert (await kenko.http.post(f"{path}/start")).json()["state"] == 3
        await app.next("start")
        assert (await kenko.http.post(f"{path}/kick")).status_code == 200
        assert await app.closed() == 4004
        assert (await kenko.http.post(f"{path}/kick")).status_code == 404


async def test_without_auto_start_an_operator_starts(tmp_path: Path) -> None:
    """IDLE until then; a durable message waits, and follows the start."""
    route = '[[routes]]\nname = "r"\nmatch = "to.apps"\nto = ["kenko.app.*"]\n'
    async with (
        running_kenko(tmp_path, "auto_start = false", more=route) as kenko,
        kenko.client() as app,
    ):
        await app.send(REGISTER)
        app.id = (await app.next("register"))["id"]
        await kenko.ask("one", "to.apps")
        await kenko.ask("two", "to.apps")
        await app.silence()
        await kenko.http.post(f"/api/kenko/apps/{app.id}/start")
        await app.next("start")
        assert [(await app.next("message"))["content"] for _ in range(2)] == ["one", "two"]


async def test_quick_pauses_and_starts_keep_their_order(kenko: Kenko) -> None:
    """Between a pause and the next start there is no message, however quick they come."""
    async with kenko.app(subscribe=["chat.>"]) as app:
        operated = kenko.desk.apps.get(app.id)
        for number in range(50):
            await kenko.ask(f"{number}", "chat.x")
            operated.pause()
            operated.start()
        may_come, got = True, 0
        while got < 50:
            frame = await app.frame()
            if frame["type"] == "message":
                assert may_come
                got += 1
            else:
                may_come = frame["type"] == "start"


async def test_a_token_is_asked_for_if_there_is_one(tmp_path: Path) -> None:
    """Header or query; 401 else."""
    async with running_kenko(tmp_path, 'access_token = "s3cret"') as kenko:
        for path in (
            "/", "/?access_token=wrong", "/?access_token=s3cret&access_token=x",
            "/?access_token=s3cret&x=%FF",
        ):  # fmt: skip
            with pytest.raises(InvalidStatus) as failed:
                async with kenko.client(path):
                    pass
            assert failed.value.response.status_code == 401
        async with kenko.client("/?access_token=s3cret") as app:
            await app.register()
        headers = {"Authorization": "Bearer s3cret"}
        async with kenko.client("/ws", additional_headers=headers) as app:
            await app.register()


async def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    """`max_clients`, registered or not; 503 for one more, and a place again when one leaves."""
    async with (
        running_kenko(tmp_path, "max_clients = 2") as kenko,
        kenko.client(),
        kenko.client() as second,
    ):
        with pytest.raises(InvalidStatus) as failed:
            async with kenko.client():
                pass
        assert failed.value.response.status_code == 503
        await second.socket.close()
        await until(lambda: len(kenko.desk.connections) == 1)
        async with kenko.client() as third:
            await third.register()


async def test_a_stopping_hub_pauses_then_closes(tmp_path: Path) -> None:
    """`pause` with reason `shutdown`, then 1001; who registers meanwhile is told."""
    async with running_kenko(tmp_path) as kenko, kenko.app() as app, kenko.client() as late:
        await kenko.adapter.pause_peers()
        assert await app.next("pause") == {"reason": "shutdown"}
        await late.send(REGISTER)
        assert (await late.next("register"))["code"] == "shutting_down"
        await kenko.hub.stop()
        assert await app.closed() == 1001
        assert await late.closed() == 1001


async def test_clients_are_gauged(kenko: Kenko) -> None:
    """By state and transport."""
    async with kenko.client() as client, kenko.app():
        await client.silence()
        await kenko.core.metrics.refresh()
        for state in ("connected", "running"):
            clients = counted(
                kenko.core, "hubbub_kenko_clients", state=state, transport="websocket"
            )
            assert clients == 1
        registered = counted(kenko.core, "hubbub_kenko_registers_total", result="success")
        assert registered == 1


async def test_no_more_applications_than_there_may_be(tmp_path: Path) -> None:
    """The last one comes in, one more is told so and stays; when one has left it may try again."""
    async with running_kenko(tmp_path / "hub", "max_apps = 2") as kenko:
        async with kenko.app(), kenko.client() as late:
            async with kenko.app():
                for _ in range(2):
                    await late.send(registration())
                    said = await late.next("register")
                    assert (said["success"], said["code"]) == (False, "too_many_apps")
            await until(lambda: len(kenko.desk.apps) == 1)
            await late.register()
        await until(lambda: len(kenko.desk.apps) == 0)
        async with AsyncExitStack() as stack:
            apps = [await stack.enter_async_context(kenko.client()) for _ in range(6)]
            await asyncio.gather(*(app.send(registration()) for app in apps))
            answers = [await app.next("register") for app in apps]
            assert sorted(one["success"] for one in answers) == [False] * 4 + [True] * 2


FEW = 'auth_failure_limit = 2\nauth_failure_window = "60s"\n'


async def test_wrong_tokens_are_slowed_down_and_the_right_one_is_taken(tmp_path: Path) -> None:
    """The handshake is denied with 429, as wrong tokens of Socket.IO are told to wait."""
    async with running_kenko(tmp_path, 'access_token = "s3cret"', hub=FEW) as kenko:
        responses: list[Response] = []
        for path in ("/", "/?access_token=wrong", "/ws?access_token=wrong", "/?access_token=x"):
            with pytest.raises(InvalidStatus) as failed:
                async with kenko.client(path):
                    pass
            responses.append(failed.value.response)
        assert [one.status_code for one in responses] == [401, 401, 401, 429]
        assert int(responses[-1].headers["retry-after"]) >= 1
        async with kenko.client("/?access_token=s3cret") as app:
            await app.register()
        async with kenko.event_client() as app:
            await app.emit("auth", "wrong")
            assert await app.next("auth") is False
            told = await app.next("register")
            assert (told["code"], "too many" in told["message"]) == ("unauthorized", True)
            await app.emit("auth", "s3cret")
            assert await app.next("auth") is True


async def test_wrong_join_tokens_are_slowed_down(tmp_path: Path) -> None:
    """Of runners, on one connection as on many."""
    async with running_kenko(tmp_path, "runners = true", hub=FEW) as kenko, kenko.client() as app:
        messages: list[str] = []
        for _ in range(3):
            await app.send(registration(capabilities=["runner"], join_token="wrong"))
            told = await app.next("register")
            assert told["code"] == "unauthorized"
            messages.append(told["message"])
        assert ["too many" in message for message in messages] == [False, False, True]
