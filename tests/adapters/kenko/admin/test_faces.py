"""What the hub has anyway is below /api/kenko too, with errors in the shape of this API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from hubbub import Envelope
from hubbub.envelope import CHAT_MESSAGE
from hubbub.listeners import HttpListener
from hubbub.web.app import build_adapter_app
from tests.adapters.kenko.admin.serving import ADMIN, TOML, Kenko, application, running_kenko

LISTS = [
    "/apps", "/packages", "/deployments", "/runners", "/files", "/i18n/locales", "/traces",
    "/db/tables", "/db/backups", "/db/migrations", "/logs", "/simulate/nobody/messages",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
async def test_lists_have_items_and_next(kenko: Kenko, path: str) -> None:
    """All of them, for an administrator."""
    answer = await kenko.get(path)
    assert isinstance(answer["items"], list)
    assert answer["next"] is None


@pytest.mark.parametrize("path", [*LISTS, "/stats", "/system", "/i18n/en", "/traces/x"])
async def test_nothing_is_shown_without_a_token(kenko: Kenko, path: str) -> None:
    """401 as on every path of the hub; 403 for a token that may nothing."""
    for header in ("", "Bearer wrong", "Basic x"):
        answer = await kenko.client.get(path, headers={"authorization": header})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["content-type"] == "application/problem+json"
    _, token = await kenko.core.tokens.create("narrow", ("publish:a",), expires_us=None)
    answer = await kenko.client.get(path, headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_errors_have_the_shape_of_this_api(kenko: Kenko) -> None:
    """A code and a message, whoever refused it."""
    client = kenko.client
    answers = {
        "not_found": await client.get("/traces/nobody"),
        "outside_root": await client.get("/files", params={"path": "data/../x"}),
        "private_file": await client.get("/files/content", params={"path": "data/hub.db"}),
        "read_only": await client.put("/files/content", params={"path": "data/x"}, content=b""),
        "invalid": await client.post("/db/prune", json={"table": "token", "older_than": "1d"}),
        "malformed": await client.post("/i18n/render", content=b"{"),
        "method_not_allowed": await client.delete("/stats"),
        "runners_off": await client.post("/deployments", json={"package_id": "x"}),
    }
    for code, answer in answers.items():
        assert set(answer.json()) == {"error"}, code
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"]
        assert answer.headers["content-type"] == "application/json"
    assert answers["runners_off"].status_code == 403


async def test_the_hubs_own_features_are_there(kenko: Kenko) -> None:
    """System, texts, database, logs: each through its own path of this API."""
    assert (await kenko.get("/system"))["mem_total"] > 0
    put = await kenko.client.put("/i18n/en", json={"k": "v {n}"})
    assert put.status_code == 200
    said = await kenko.post("/i18n/render", {"key": "k", "args": {"n": 1}, "locale": "en-GB"})
    assert said == {"text": "v 1"}
    assert (await kenko.get("/i18n/en"))["k"] == "v {n}"
    backup = await kenko.post("/db/backup", status=201)
    assert (await kenko.get("/db/backups"))["items"] == [backup]
    await kenko.post("/db/vacuum")
    dry = await kenko.post("/db/prune", {"table": "audit", "older_than": "1h", "dry_run": True})
    assert (dry["matched"], dry["removed"]) == (0, 0)
    tables = {item["name"] for item in (await kenko.get("/db/tables"))["items"]}
    assert {"kenko_app", "kenko_message", "kenko_package", "i18n_entry", "stat_bucket"} <= tables
    levels = await kenko.client.put("/logs/level", json={"level": "info", "logger": "test.kenko"})
    assert levels.json()["levels"]["test.kenko"] == "info"
    kenko.core.book.undo_choices()


async def test_statistics_name_applications(kenko: Kenko) -> None:
    """Calls by the name of an application, in the minute that runs."""
    async with application(kenko, "weather-bot") as app:
        for _ in range(2):
            await kenko.post("/simulate", {"content": "x", "user_id": "u"})
            await app.receive("message")
        answer = await kenko.get("/stats", window="1h", bucket="1m")
        series = answer["series"]
        assert sum(value for _, value in series["calls_by_app"]["weather-bot"]) == 2
        assert sum(value for _, value in series["messages_in"]) == 2
        assert series["active_users"][-1][1] == 1
        assert set(series) == {
            "messages_in", "messages_out", "calls_by_app", "active_users", "db_bytes", "fs_bytes",
        }  # fmt: skip


async def test_traces_are_found_by_application_and_shown_as_hops(kenko: Kenko) -> None:
    """By its id or its name, by the user; each hop in order, with what it took."""
    async with application(kenko, "weather-bot") as app:
        said = await kenko.post("/simulate", {"content": "x", "user_id": "815"})
        message = await app.receive("message")
        await app.send("message", content="y", reply_to=message["id"])
        await kenko.until("/simulate/815/messages", next=None)
        for query in ({"app": app.id}, {"app": "weather-bot"}, {"user": "815"}):
            items = (await kenko.get("/traces", **query))["items"]
            assert said["trace_id"] in [item["trace_id"] for item in items], query
        assert (await kenko.get("/traces", app="nobody-of-that-name"))["items"] == []
        trace = await kenko.get(f"/traces/{said['trace_id']}")
        events = [hop["event"] for hop in trace["hops"]]
        assert events[0] == "received"
        assert "routed" in events
        assert [hop["seq"] for hop in trace["hops"]] == list(range(1, len(events) + 1))
        assert all(hop["latency_us"] >= 0 for hop in trace["hops"])


async def hops_of(kenko: Kenko, trace_id: str, number: int) -> list[tuple[str, str]]:
    """Return `(event, ts)` of a trace that has that many hops."""
    async with asyncio.timeout(10):
        while True:
            hops = (await kenko.get(f"/traces/{trace_id}"))["hops"]
            if len(hops) >= number:
                return [(hop["event"], hop["ts"]) for hop in hops]


@pytest.mark.parametrize("durable", [True, False])
async def test_what_cannot_acknowledge_was_sent(kenko: Kenko, durable: bool) -> None:
    """Nobody says that it acknowledged, and what happened stays."""
    async with application(kenko, "plain") as app:
        envelope = chat_to(f"kenko.app.{app.id}", durable=durable)
        receipt = await kenko.core.publish(envelope)
        await app.receive("message")
        hops = await hops_of(kenko, receipt.trace_id, 3 if durable else 2)
        routed = ["routed"] if durable else []
        assert [event for event, _ in hops] == ["received", *routed, "sent"]


@pytest.mark.parametrize("durable", [True, False])
async def test_what_is_acknowledged_was_sent_before(kenko: Kenko, durable: bool) -> None:
    """Two hops, each when it happened; the first is there before the second, and stays."""
    async with application(kenko, "careful", capabilities=["ack"]) as app:
        envelope = chat_to(f"kenko.app.{app.id}", durable=durable)
        receipt = await kenko.core.publish(envelope)
        message = await app.receive("message")
        number = 3 if durable else 2
        before = await hops_of(kenko, receipt.trace_id, number)
        assert before[-1][0] == "sent"
        await app.send("ack", id=message["id"])
        after = await hops_of(kenko, receipt.trace_id, number + 1)
        assert after[:-1] == before
        assert after[-1][0] == "acked"
        assert after[-1][1] > before[-1][1]


async def test_each_attempt_is_a_hop(kenko: Kenko) -> None:
    """Sent, lost with its connection, sent again; also when nothing of it is in memory any more."""
    async with application(kenko, "careful", capabilities=["ack"]) as first:
        to = f"kenko.app.{first.id}"
        receipt = await kenko.core.publish(chat_to(to, durable=True))
        await first.receive("message")
    assert [e for e, _ in await hops_of(kenko, receipt.trace_id, 4)] == [
        "received", "routed", "sent", "failed",
    ]  # fmt: skip
    kenko.core.tracer._ring.clear()
    assert [e for e, _ in await hops_of(kenko, receipt.trace_id, 4)] == [
        "received", "routed", "sent", "failed",
    ]  # fmt: skip


def chat_to(address: str, *, durable: bool) -> Envelope:
    """Return a chat message for one application."""
    data = {"text": "hi", "sender": {"id": "1"}, "conversation": {"id": "1", "kind": "private"}}
    return Envelope.new(
        source="test", subject="test.says", type=CHAT_MESSAGE, data=data, to=(address,),
        durable=durable,
    )  # fmt: skip


async def test_files_may_be_writable_here_alone(tmp_path: Path) -> None:
    """`adapters.kenko.files_writable` decides below /api/kenko, the plugin's setting elsewhere."""
    toml = TOML + "files_writable = true\n"
    async with running_kenko(tmp_path / "hub", toml) as kenko:
        put = await kenko.client.put("/files/content", params={"path": "data/a"}, content=b"x")
        assert put.status_code == 201
        outside = await kenko.client.put(
            f"{kenko.url}/api/files/content", params={"path": "data/b"}, content=b"x"
        )
        assert outside.status_code == 403
        got = await kenko.client.get("/files/content", params={"path": "data/a"})
        assert got.content == b"x"


async def test_only_some_roots_are_shown_here(tmp_path: Path) -> None:
    """`adapters.kenko.files_roots` names them; by no way another one is reached."""
    toml = TOML + 'files_writable = true\nfiles_roots = ["logs"]\n'
    async with running_kenko(tmp_path / "hub", toml) as kenko:
        client = kenko.client
        assert [one["name"] for one in (await kenko.get("/files"))["items"]] == ["logs"]
        await client.put("/files/content", params={"path": "logs/a"}, content=b"x")
        body = {"from": "logs/a", "to": "data/a"}
        answers = [
            await client.get("/files", params={"path": "data"}),
            await client.get("/files/content", params={"path": "data/hub.toml"}),
            await client.put("/files/content", params={"path": "data/a"}, content=b"x"),
            await client.put("/files/content", json={"path": "data/a", "content": "x"}),
            await client.post("/files/mkdir", json={"path": "data/b"}),
            await client.post("/files/move", json=body),
            await client.delete("/files", params={"path": "data/logs"}),
        ]
        assert [one.status_code for one in answers] == [404] * 7


async def test_the_faces_are_on_listeners_of_its_own_too(kenko: Kenko) -> None:
    """There the hub's own paths are not, and yet these answer."""
    listener = HttpListener("127.0.0.1", 0)
    listener.bind()
    await listener.serve(build_adapter_app(kenko.core, "kenko", loopback=True), drain_timeout_s=1)
    try:
        headers = {"authorization": f"Bearer {ADMIN}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
            answer = await client.get(f"{listener.url}/api/kenko/system")
            assert answer.status_code == 200
            assert (await client.get(f"{listener.url}/api/system")).status_code == 404
    finally:
        await listener.stop()


async def test_a_plugin_that_is_off_is_404(kenko: Kenko) -> None:
    """And comes back with it."""
    plugin = kenko.core.plugins.get("system")
    assert plugin is not None
    off = await kenko.client.post(f"{kenko.url}/api/v1/plugins/system/disable")
    assert off.status_code == 200
    answer = await kenko.client.get("/system")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    await kenko.client.post(f"{kenko.url}/api/v1/plugins/system/enable")
    assert (await kenko.client.get("/system")).status_code == 200
