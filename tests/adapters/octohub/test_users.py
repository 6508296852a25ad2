"""Users: logins, the other dialect, orders, what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bcrypt
import httpx2
import jwt
import pytest

from hubbub.testing import FakeClock
from hubbub_octohub import records
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub

EMAIL, PASSWORD = "a@example.org", "correct horse"
SECRET = "s" * 32
WITH_SECRET = f'{SETTINGS}jwt_secret = "{SECRET}"\n'


def token(claims: dict[str, Any], key: str | None = SECRET, algorithm: str = "HS256") -> str:
    """Return a signed token."""
    return jwt.encode(claims, key, algorithm=algorithm)  # pyright: ignore[reportUnknownMemberType]


def claims_of(signed: str) -> dict[str, Any]:
    """Return what a token says."""
    return jwt.decode(signed, SECRET, algorithms=["HS256"])  # pyright: ignore[reportUnknownMemberType]


async def add(hub: Octohub, email: str = EMAIL, password: str = PASSWORD) -> httpx2.Response:
    """Add a user."""
    body = {"email": email, "password": password}
    return await hub.http.post("/api/octohub/users", json=body, headers=hub.admin)


async def log_in(hub: Octohub, email: str = EMAIL, password: str = PASSWORD) -> httpx2.Response:
    """Log in."""
    return await hub.http.post("/login/login", json={"email": email, "password": password})


async def bearer(hub: Octohub) -> dict[str, str]:
    """Return the header of somebody who is logged in."""
    await add(hub)
    return {"Authorization": f"Bearer {(await log_in(hub)).json()['data']['token']}"}


async def test_a_user_logs_in(tmp_path: Path) -> None:
    """In any case of letters; the token says who it is, for a day."""
    async with octohub(tmp_path, WITH_SECRET) as hub:
        assert (await add(hub)).json()["email"] == EMAIL
        answer = (await log_in(hub, "A@Example.org")).json()
        assert answer["errcode"] == 0
        assert (answer["data"]["type"], answer["data"]["id"]) == ("Bearer", 1)
        claims = claims_of(answer["data"]["token"])
        assert claims["sub"] == "1"
        assert claims["exp"] - claims["iat"] == 86_400
        headers = {"Authorization": f"Bearer {answer['data']['token']}"}
        for prefix in ("", "/api"):
            info = (await hub.http.get(f"{prefix}/user/info", headers=headers)).json()["data"]
            assert (info["id"], info["email"]) == (1, EMAIL)
            assert len(info["createdAt"]) == len("2025-01-01T00:00:00")


async def test_a_short_secret_keeps_logins_on_this_machine(tmp_path: Path) -> None:
    """It is made longer, in the same way after a restart."""
    short = f'{SETTINGS}jwt_secret = "short"\n'
    async with octohub(tmp_path, short) as hub:
        headers = await bearer(hub)
    async with octohub(tmp_path, short) as hub:
        assert (await hub.http.get("/user/info", headers=headers)).json()["errcode"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"email":1,"password":"x"}', b'{"email":"a@example.org"}'], ids=str
)
async def test_a_login_that_is_none_fails(tmp_path: Path, body: bytes) -> None:
    """As one with a wrong password does."""
    async with octohub(tmp_path) as hub:
        await add(hub)
        failed = {"errcode": 1001, "errmsg": "登录失败"}
        answers = [
            await hub.http.post("/login/login", content=body),
            await log_in(hub, password="wrong horse"),
            await log_in(hub, email="nobody@example.org"),
        ]
        assert [(one.status_code, one.json()) for one in answers] == [(400, failed)] * 3


@pytest.mark.parametrize(
    "given",
    [
        "a.b.c",
        "abc",
        token({"sub": "1", "exp": 2**40}, "t" * 32),
        token({"sub": "1", "exp": 2**40}, None, "none"),
        token({"sub": "1"}),
        token({"sub": "x", "exp": 2**40}),
        token({"sub": "7", "exp": 2**40}),
        token({"sub": "1", "exp": 1}),
    ],
    ids=["garbage", "no parts", "other key", "no key", "for ever", "no id", "nobody", "over"],
)
async def test_a_token_that_is_not_good_is_refused(tmp_path: Path, given: str) -> None:
    """On the original's paths as the front end knows it, on ours as a problem."""
    async with octohub(tmp_path, WITH_SECRET) as hub:
        await add(hub)
        headers = {"Authorization": f"Bearer {given}"}
        answer = await hub.http.get("/user/info", headers=headers)
        assert (answer.status_code, answer.json()["errcode"]) == (401, 401)
        assert answer.json()["errmsg"].startswith("认证失败：")
        ours = await hub.http.get("/api/octohub/tasks", headers=headers)
        assert ours.status_code == 401
        assert ours.headers["content-type"] == "application/problem+json"


async def test_a_login_ends(tmp_path: Path) -> None:
    """With its time, and with its user."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub:
        headers = await bearer(hub)
        assert (await hub.http.get("/user/info", headers=headers)).status_code == 200
        gone = await hub.http.delete(f"/api/octohub/users/{EMAIL}", headers=hub.admin)
        assert gone.status_code == 204
        assert (await hub.http.get("/user/info", headers=headers)).status_code == 401
        headers = await bearer(hub)
        await clock.advance(86_401)
        assert (await hub.http.get("/user/info", headers=headers)).status_code == 401


@pytest.mark.parametrize("name", ["7", "9" * 18, "9" * 19, "9" * 400, "nobody@example.org", "%00"])
async def test_a_user_who_is_not_there_cannot_be_removed(tmp_path: Path, name: str) -> None:
    """Whatever number it is."""
    async with octohub(tmp_path) as hub:
        answer = await hub.http.delete(f"/api/octohub/users/{name}", headers=hub.admin)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_old_hashes_are_taken_and_renewed(tmp_path: Path) -> None:
    """bcrypt, as the original's database has them."""
    async with octohub(tmp_path) as hub:
        old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        await hub.core.execute(records.add_user(EMAIL, old, now_us=1))
        assert (await log_in(hub, password="wrong horse")).status_code == 400
        assert (await log_in(hub)).status_code == 200
        user = await hub.core.read(lambda session: records.user_by_email(session, EMAIL))
        assert user is not None
        assert user.password.startswith("$argon2id$")
        assert (await log_in(hub)).status_code == 200


@pytest.mark.parametrize(
    ("email", "password", "status"),
    [
        ("a@example.org", "1234567", 400),
        ("a@example.org", "12345678", 201),
        ("a@example.org", "x" * 1025, 400),
        ("no address", PASSWORD, 400),
        ("@example.org", PASSWORD, 400),
        ("a b@example.org", PASSWORD, 400),
        ("x" * 243 + "@example.org", PASSWORD, 400),
        ("x" * 242 + "@example.org", PASSWORD, 201),
    ],
)
async def test_users_are_checked(tmp_path: Path, email: str, password: str, status: int) -> None:
    """At the edges of what a password and an address may be; nobody twice."""
    async with octohub(tmp_path) as hub:
        assert (await add(hub, email, password)).status_code == status
        if status == 201:
            assert (await add(hub, email.upper(), password)).status_code == 409


async def test_browsers_of_known_pages_may_ask(tmp_path: Path) -> None:
    """Those of the original's front end; others are not told so."""
    async with octohub(tmp_path) as hub:
        asks = {"Access-Control-Request-Method": "POST"}
        known = {"Origin": "http://localhost:3000", **asks}
        answer = await hub.http.options("/login/login", headers=known)
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        other = {"Origin": "http://evil.example", **asks}
        answer = await hub.http.options("/login/login", headers=other)
        assert "access-control-allow-origin" not in answer.headers


# WebSocket


async def test_a_user_connects_with_the_address_it_got(tmp_path: Path) -> None:
    """And is greeted by its id."""
    async with octohub(tmp_path) as hub:
        headers = await bearer(hub)
        url = (await hub.http.get("/user/ws", headers=headers)).json()["data"]["wsUrl"]
        async with hub.peer(url) as user:
            greeting = await user.read()
            assert greeting["action"] == "connected"
            assert greeting["data"]["user_id"] == "1"


async def test_actions_are_answered(tmp_path: Path) -> None:
    """Protocol page, 3.3; the request id comes back."""
    async with octohub(tmp_path) as hub, hub.user() as user:
        pong = await user.ask("ping", timestamp=1_700_000_000_123)
        assert (pong["action"], pong["data"]["sender_id"]) == ("pong", "42")
        echo = await user.ask("echo", {"a": 1})
        assert echo["data"] == {
            "original_message": {"a": 1}, "echoed_by": "server", "sender_id": "42",
        }  # fmt: skip
        status = await user.ask("status")
        assert status["data"]["online"] is True
        assert status["data"]["connection_info"]["client_id"] == "42"
        for action, code in (("dance", 1002), ("broadcast", 1003), ("notification", 1003)):
            refused = await user.ask(action)
            assert refused["action"] == "error"
            assert (refused["data"]["code"], refused["data"]["details"]) == (code, action)
        await user.say("{")
        broken = await user.until(action="error")
        assert (broken["data"]["code"], broken["from"]) == (1001, "system")


async def test_a_user_orders_a_task(tmp_path: Path) -> None:
    """Submitted over the socket, done by a node, told as a notification."""
    async with octohub(tmp_path) as hub, hub.node() as node, hub.user() as user:
        done = await user.command("task.submit", task_type="echo", data={"k": "v"})
        assert (done["status"], done["result"]["state"]) == ("executed", "queued")
        task_id = done["result"]["task_id"]
        await node.done(await node.task(), {"echo": 1})
        told = (await user.until(action="notification"))["data"]
        assert (told["event"], told["task_id"]) == ("task.completed", task_id)
        assert (told["result"], told["node"]) == ({"echo": 1}, "node_1")
        assert told["trace_id"] == done["result"]["trace_id"]
        assert (await user.command("task.get", task_id=task_id))["result"]["state"] == "completed"
        nodes = (await user.command("node.list"))["result"]["items"]
        assert [one["pc_id"] for one in nodes] == ["node_1"]


async def test_orders_that_cannot_be_followed(tmp_path: Path) -> None:
    """Are answered with a reason."""
    async with octohub(tmp_path) as hub, hub.user() as user:
        for command, args, code in (
            ("dance", {}, "not_found"),
            ("task.get", {}, "malformed"),
            ("task.get", {"task_id": "none"}, "not_found"),
            ("task.submit", {}, "malformed"),
            ("task.submit", {"task_type": "echo", "colour": 1}, "malformed"),
            ("task.submit", {"task_type": "echo", "node": "nobody"}, "not_found"),
        ):
            answer = await user.command(command, **args)
            assert (answer["status"], answer["error"]["code"]) == ("failed", code), command
        waiting = await user.command("task.submit", task_type="echo")
        task_id = waiting["result"]["task_id"]
        cancelled = await user.command("task.cancel", task_id=task_id)
        assert cancelled["result"]["state"] == "cancelled"
        again = await user.command("task.retry", task_id=task_id)
        assert (again["result"]["state"], again["result"]["run"]) == ("queued", 2)


async def test_a_user_changes_only_what_the_user_asked_for(tmp_path: Path) -> None:
    """Tasks of others are seen, and neither cancelled nor run again."""
    async with octohub(tmp_path) as hub, hub.user() as user, hub.user("7") as other:
        mine = (await user.command("task.submit", task_type="echo"))["result"]["task_id"]
        for task_id in (mine, await hub.submit("echo")):
            for command in ("task.cancel", "task.retry"):
                answer = await other.command(command, task_id=task_id)
                assert (answer["status"], answer["error"]["code"]) == ("failed", "forbidden")
            seen = await other.command("task.get", task_id=task_id)
            assert seen["result"]["state"] == "queued"
        answer = await user.command("task.cancel", task_id=mine)
        assert answer["result"]["state"] == "cancelled"


async def test_a_user_watches_tasks_of_others(tmp_path: Path) -> None:
    """All of them, those of a type, or a single one; nothing any more after `unsubscribe`."""
    async with octohub(tmp_path) as hub, hub.node() as node, hub.user() as user:
        await user.ask("subscribe", {"task_type": "echo"})
        echo = await hub.submit("echo")
        await node.done(await node.task())
        told = [(await user.until(action="notification"))["data"] for _ in range(3)]
        assert [(one["event"], one["task_id"], one["task_type"]) for one in told] == [
            (event, echo, "echo") for event in ("task.queued", "task.dispatched", "task.completed")
        ]

        assert (await user.ask("unsubscribe"))["data"]["task_types"] == []
        unwatched = await hub.submit("default")
        await node.done(await node.task())
        await hub.ended(unwatched)
        await user.ask("subscribe")
        last = await hub.submit("sleep")
        first = (await user.until(action="notification"))["data"]
        assert (first["event"], first["task_id"]) == ("task.queued", last)


async def test_users_write_to_each_other(tmp_path: Path) -> None:
    """`private` reaches one user; `chat` is a message of the hub."""
    async with octohub(tmp_path) as hub, hub.user("1") as one, hub.user("2") as two:
        sent = await one.ask("private", {"text": "hi"}, to="2")
        assert sent["data"]["status"] == "sent"
        got = await two.until(action="private")
        assert (got["from"], got["data"]) == ("1", {"text": "hi"})
        nobody = await one.ask("private", {"text": "hi"}, to="3")
        assert (nobody["action"], nobody["data"]["code"]) == ("error", 1001)
        assert (await one.ask("chat", {"text": "hello"}))["data"]["status"] == "sent"


async def test_a_newer_connection_of_a_user_wins(tmp_path: Path) -> None:
    """With 1000, so that the front end does not come back."""
    async with octohub(tmp_path) as hub, hub.user() as older, hub.user() as newer:
        assert (await older.until(action="disconnected"))["reason"] == "新连接建立"
        assert await older.closed() == 1000
        assert (await newer.ask("ping"))["action"] == "pong"


async def test_nodes_may_speak_the_other_dialect(tmp_path: Path) -> None:
    """But give no orders."""
    async with octohub(tmp_path) as hub, hub.node() as node:
        assert (await node.ask("ping"))["action"] == "pong"
        assert (await node.ask("status"))["data"]["connection_info"]["client_id"] == "node_1"
        for action in ("command", "subscribe", "private"):
            refused = await node.ask(action, {"command": "node.list", "to": "1"})
            assert refused["data"]["code"] == 1003, action
