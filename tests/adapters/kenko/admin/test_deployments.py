"""From a zip to a running application, here and on a runner that joined."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from websockets.asyncio.client import connect

from hubbub.testing import FakeClock, running_hub
from hubbub_kenko.admin.runners import ANSWER_S
from hubbub_kenko.admin.shelf import SIGNED_S, Shelf
from hubbub_kenko.admin.uploads import FORM_FIELD_BYTES, FORM_FIELDS, FORM_FILES
from hubbub_kenko.runner.packages import MAX_PACKAGE
from tests.adapters.kenko.admin.serving import (
    MANIFEST,
    RUNNERS,
    Kenko,
    PlainApp,
    application,
    package,
    running_kenko,
    zipped,
)

FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(3600)"


async def uploaded(kenko: Kenko, code: str = FOREVER, manifest: str = MANIFEST) -> str:
    answer = await kenko.upload(package(code, manifest))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


# Packages


async def test_packages_are_uploaded_shown_and_removed(kenko: Kenko) -> None:
    """As the body or as a form; the digest is that of the bytes; variables by name only."""
    manifest = MANIFEST + '[env]\nKEY = "a secret"\n[runner]\nlabels = { gpu = "yes" }\n'
    content = package(FOREVER, manifest)
    first = await kenko.upload(content)
    assert (first.status_code, first.json()["sha256"]) == (201, hashlib.sha256(content).hexdigest())
    assert (first.json()["name"], first.json()["size"]) == ("app", len(content))
    assert first.json()["manifest"]["env"] == ["KEY"]
    assert first.json()["manifest"]["labels"] == {"gpu": "yes"}
    assert "a secret" not in first.text
    files = {"file": ("app.zip", content, "application/zip")}
    second = await kenko.client.post("/packages", files=files)
    assert second.status_code == 201, second.text
    assert second.json()["id"] != first.json()["id"]
    for path in (folder := kenko.core.data_dir / "kenko", *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    page = await kenko.get("/packages", limit=1)
    rest = await kenko.get("/packages", limit=1, cursor=page["next"])
    assert [one["id"] for one in (*page["items"], *rest["items"])] == [
        second.json()["id"], first.json()["id"],
    ]  # fmt: skip
    assert rest["next"] is None
    assert await kenko.get(f"/packages/{first.json()['id']}") == first.json()
    gone = await kenko.client.delete(f"/packages/{first.json()['id']}")
    assert gone.status_code == 204
    assert (await kenko.client.get(f"/packages/{first.json()['id']}")).status_code == 404


BAD = {
    "nothing": b"",
    "no zip": b"PK\x03\x04 but not really",
    "no manifest": zipped({"app.py": "1"}),
    "leads out": zipped({"kenko-app.toml": MANIFEST, "app.py": "1", "../x": "1"}),
    "absolute": zipped({"kenko-app.toml": MANIFEST, "app.py": "1", "/etc/x": "1"}),
    "bomb": zipped(
        {"kenko-app.toml": MANIFEST, "app.py": "1", **{f"b{n}": bytes(2**20) for n in range(200)}}
    ),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
async def test_bad_packages_leave_nothing(kenko: Kenko, content: bytes) -> None:
    """Neither a row nor a file."""
    answer = await kenko.upload(content)
    assert answer.status_code in (413, 422), answer.text
    assert answer.json()["error"]["code"] in ("bad_package", "too_large")
    assert (await kenko.get("/packages"))["items"] == []
    assert list((kenko.core.data_dir / "kenko" / "packages").iterdir()) == []


async def test_a_package_over_its_limit_is_refused(kenko: Kenko) -> None:
    """As the body and as a form; what is at the limit is looked into."""
    content = bytes(MAX_PACKAGE)
    assert (await kenko.upload(content)).json()["error"]["code"] == "bad_package"
    assert (await kenko.upload(content + b"x")).status_code == 413
    form = await kenko.client.post("/packages", files={"file": ("a.zip", bytes(MAX_PACKAGE * 2))})
    assert form.status_code == 413
    for files in ({"other": ("a.zip", b"x")}, {"other": (None, "text")}):
        assert (await kenko.client.post("/packages", files=files)).status_code == 422
    headers = {"content-type": "multipart/form-data; boundary=x"}
    broken = await kenko.client.post("/packages", content=b"--y\r\n", headers=headers)
    assert broken.status_code in (400, 422)
    assert list((kenko.core.data_dir / "kenko" / "packages").iterdir()) == []


def form_of(*, files: int = 1, fields: int = 0, field_bytes: int = 1) -> list[Any]:
    """Return a form with a file that is no package, and more."""
    parts: list[Any] = [("file", ("a.zip", b"no zip"))] * files
    return parts + [(f"f{place}", (None, b"x" * field_bytes)) for place in range(fields)]


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (form_of(fields=FORM_FIELDS), "bad_package"),
        (form_of(fields=FORM_FIELDS + 1), "malformed"),
        (form_of(files=FORM_FILES + 1), "malformed"),
        (form_of(fields=1, field_bytes=FORM_FIELD_BYTES), "bad_package"),
        (form_of(fields=1, field_bytes=FORM_FIELD_BYTES + 1), "malformed"),
    ],
    ids=["fields", "many fields", "two files", "long field", "longer field"],
)
async def test_a_form_has_a_file_and_little_else(kenko: Kenko, form: list[Any], code: str) -> None:
    """What is over a limit of the parser is refused, and leaves nothing."""
    answer = await kenko.client.post("/packages", files=form)
    assert answer.json()["error"]["code"] == code, answer.text
    assert list((kenko.core.data_dir / "kenko" / "packages").iterdir()) == []


# Here


async def test_nothing_runs_unless_it_is_allowed(kenko: Kenko) -> None:
    """403 for all that would; packages may lie there."""
    package_id = await uploaded(kenko)
    body = {"package_id": package_id}
    error = (await kenko.post("/deployments", body, status=403))["error"]
    assert error["code"] == "runners_off"
    assert "adapters.kenko.runners" in error["message"]
    await kenko.post("/runners/join-token", {}, status=403)
    assert (await kenko.get("/runners"))["items"] == []


async def test_a_deployment_runs_stops_and_runs_again(runners: Kenko) -> None:
    """Started by hand, with its output; a package in use stays."""
    package_id = await uploaded(runners)
    made = await runners.post(
        "/deployments", {"package_id": package_id, "env": {"TOKEN": "a secret"}}, status=201
    )
    path = f"/deployments/{made['id']}"
    assert (made["desired"], made["actual"], made["runner_id"]) == ("stopped", "stopped", "local")
    assert made["env"] == ["TOKEN"]
    started = await runners.post(f"{path}/start")
    assert (started["desired"], started["actual"]) == ("running", "running")
    assert started["pid"] > 0
    await runners.log_of(made["id"], "up")
    assert (await runners.client.delete(f"/packages/{package_id}")).status_code == 409
    again = await runners.post(f"{path}/restart")
    assert again["pid"] != started["pid"]
    stopped = await runners.post(f"{path}/stop")
    assert (stopped["desired"], stopped["actual"], stopped["pid"]) == ("stopped", "stopped", None)
    (runner,) = (await runners.get("/runners"))["items"]
    assert (runner["id"], runner["deployments"]) == ("local", 1)
    assert (await runners.client.delete(path)).status_code == 204
    assert (await runners.client.get(path)).status_code == 404
    assert (await runners.client.delete(f"/packages/{package_id}")).status_code == 204
    folder = runners.core.data_dir / "kenko" / "deployments"
    assert list(folder.iterdir()) == []


async def test_the_deployments_variables_win(runners: Kenko) -> None:
    """Over those of the manifest."""
    code = "import os\nprint(os.environ['A'], os.environ['B'], flush=True)"
    package_id = await uploaded(runners, code, MANIFEST + '[env]\nA = "m"\nB = "m"\n')
    body = {"package_id": package_id, "env": {"B": "d"}, "autostart": True}
    made = await runners.post("/deployments", body, status=201)
    assert "m d" in await runners.log_of(made["id"], "m d")
    ended = await runners.until(f"/deployments/{made['id']}", actual="stopped")
    assert (ended["exit_code"], ended["desired"]) == (0, "stopped")


async def test_an_application_that_is_deployed_registers(runners: Kenko) -> None:
    """A real one, in a process of its own, with the seed's JSON over WebSocket."""
    code = (
        "import json, os\nfrom websockets.sync.client import connect\n"
        "with connect(os.environ['URL'], proxy=None) as ws:\n"
        "    ws.send(json.dumps({'type': 'register', 'data': {'name': 'deployed'}}))\n"
        "    for frame in ws:\n"
        "        frame = json.loads(frame)\n"
        "        if frame['type'] == 'message':\n"
        "            data = {'content': 'I am here', 'reply_to': frame['data']['id']}\n"
        "            ws.send(json.dumps({'type': 'message', 'data': data}))\n"
    )
    url = runners.url.replace("http", "ws") + "/"
    body = {"package_id": await uploaded(runners, code), "env": {"URL": url}, "autostart": True}
    await runners.post("/deployments", body, status=201)
    async with asyncio.timeout(20):
        while True:
            if any(app["state"] == 3 for app in (await runners.get("/apps"))["items"]):
                break
            await asyncio.sleep(0.05)
    await runners.post("/simulate", {"content": "hello", "user_id": "u"})
    async with asyncio.timeout(20):
        while True:
            items = (await runners.get("/simulate/u/messages"))["items"]
            if any(item["content"] == "I am here" for item in items):
                return
            await asyncio.sleep(0.05)


async def test_what_shall_run_runs_again_with_the_hub(tmp_path: Path) -> None:
    """Its process ends with the hub and begins with it; what was stopped stays so."""
    async with running_kenko(tmp_path / "hub", RUNNERS) as kenko:
        package_id = await uploaded(kenko)
        runs = await kenko.post(
            "/deployments", {"package_id": package_id, "autostart": True}, status=201
        )
        rests = await kenko.post("/deployments", {"package_id": package_id}, status=201)
    with pytest.raises(ProcessLookupError):
        os.kill(runs["pid"], 0)
    async with running_kenko(tmp_path / "hub", RUNNERS) as kenko:
        shown = await kenko.until(f"/deployments/{runs['id']}", actual="running")
        assert shown["pid"] != runs["pid"]
        assert (await kenko.get(f"/deployments/{rests['id']}"))["actual"] == "stopped"
        items = (await kenko.get("/deployments"))["items"]
        assert [item["id"] for item in items] == [rests["id"], runs["id"]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"package_id": "nobody"}, 404),
        ({"package_id": "PKG", "runner_id": "nobody"}, 404),
        ({"package_id": "PKG", "env": {"A=": "1"}}, 422),
        ({"package_id": "PKG", "env": {"LD_PRELOAD": "x"}}, 422),
        ({"package_id": "PKG", "env": {"A": 1}}, 422),
        ({"package_id": "PKG", "more": 1}, 422),
    ],
)
async def test_bad_deployments_are_refused(
    runners: Kenko, body: dict[str, Any], status: int
) -> None:
    """And none is made."""
    package_id = await uploaded(runners)
    body = {name: package_id if value == "PKG" else value for name, value in body.items()}
    await runners.post("/deployments", body, status=status)
    assert (await runners.get("/deployments"))["items"] == []


async def test_labels_are_asked_for(runners: Kenko) -> None:
    """A package for runners with a label is not run by one without."""
    package_id = await uploaded(runners, FOREVER, MANIFEST + '[runner]\nlabels = { gpu = "yes" }')
    error = await runners.post("/deployments", {"package_id": package_id}, status=409)
    assert "gpu" in error["error"]["message"]
    runner = await runners.post(
        "/runners/join-token", {"name": "big", "labels": {"gpu": "yes"}}, status=201
    )
    body = {"package_id": package_id, "runner_id": runner["id"]}
    await runners.post("/deployments", body, status=201)


# On a runner


@asynccontextmanager
async def joined(kenko: Kenko, token: str) -> AsyncGenerator[PlainApp]:
    """Join as a runner."""
    async with connect(kenko.url.replace("http", "ws") + "/", proxy=None) as socket:
        app = PlainApp(socket)
        register = {"name": "runner", "version": "9", "capabilities": ["runner"]}
        await app.send("register", **register, join_token=token)
        answer = await app.receive("register")
        assert answer["success"], answer
        app.id = answer["id"]
        yield app


async def test_a_runner_joins_fetches_and_starts(runners: Kenko) -> None:
    """By its token; the package by a signed URL, as it was uploaded; what it tells is shown."""
    content = package(FOREVER, MANIFEST + '[env]\nA = "m"\n')
    package_id = (await runners.upload(content)).json()["id"]
    invited = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    async with joined(runners, invited["token"]) as runner:
        shown = (await runners.get("/runners"))["items"][1]
        assert (shown["name"], shown["connected"], shown["app_id"]) == ("r1", True, runner.id)
        assert shown["version"] == "9"
        body = {"package_id": package_id, "runner_id": invited["id"], "env": {"B": "d"}}
        made = await runners.post("/deployments", body, status=201)
        starting = asyncio.create_task(runners.post(f"/deployments/{made['id']}/start"))
        asked = await runner.receive("runner.exec")
        assert (asked["op"], asked["deployment_id"]) == ("start", made["id"])
        assert (asked["entry"], asked["env"]) == ("app.py", {"A": "m", "B": "d"})
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as anybody:
            fetched = await anybody.get(runners.url + asked["package"]["path"])
        assert fetched.content == content
        data = {"actual": "running", "pid": 17, "cpu": 12.5, "memory_total": 10**9}
        await runner.send("runner.result", id=asked["id"], ok=True, data=data)
        started = await starting
        assert (started["actual"], started["pid"]) == ("running", 17)
        shown = (await runners.get("/runners"))["items"][1]
        assert (shown["cpu"], shown["memory_total"], shown["deployments"]) == (12.5, 10**9, 1)
        ended = {"actual": "failed", "exit_code": 3, "reason": "it broke"}
        await runner.send("runner.result", deployment_id=made["id"], data=ended)
        shown = await runners.until(f"/deployments/{made['id']}", actual="failed")
        assert (shown["exit_code"], shown["reason"]) == (3, "it broke")
        removing = asyncio.create_task(runners.client.delete(f"/deployments/{made['id']}"))
        asked = await runner.receive("runner.exec")
        assert asked["op"] == "remove"
        await runner.send("runner.result", id=asked["id"], ok=True)
        assert (await removing).status_code == 204


async def test_a_runner_that_leaves_is_known_to_be_away(runners: Kenko) -> None:
    """What it ran is unknown; when it is back, it is asked to run that again."""
    invited = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    body = {"package_id": await uploaded(runners), "runner_id": invited["id"]}
    made = await runners.post("/deployments", body, status=201)
    path = f"/deployments/{made['id']}"
    async with joined(runners, invited["token"]) as runner:
        starting = asyncio.create_task(runners.post(f"{path}/start"))
        asked = await runner.receive("runner.exec")
        await runner.send("runner.result", id=asked["id"], ok=True, data={"actual": "running"})
        await starting
    shown = await runners.until(path, actual="unknown")
    assert shown["desired"] == "running"
    error = await runners.post(f"{path}/start", status=503)
    assert "not connected" in error["error"]["message"]
    async with joined(runners, invited["token"]) as runner:
        asked = await runner.receive("runner.exec")
        assert (asked["op"], asked["deployment_id"]) == ("start", made["id"])
        await runner.send("runner.result", id=asked["id"], ok=True, data={"actual": "running"})
        await runners.until(path, actual="running")


async def test_a_runner_may_refuse_and_answer_nonsense(runners: Kenko) -> None:
    """The caller hears it; nothing else happens."""
    invited = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    body = {"package_id": await uploaded(runners), "runner_id": invited["id"]}
    made = await runners.post("/deployments", body, status=201)
    async with joined(runners, invited["token"]) as runner:
        starting = asyncio.create_task(runners.post(f"/deployments/{made['id']}/start", status=503))
        asked = await runner.receive("runner.exec")
        for nonsense in ({}, {"id": 3}, {"id": "x", "ok": True}, {"deployment_id": "x"}):
            await runner.send("runner.result", **nonsense)
        await runner.send("runner.result", deployment_id=made["id"], actual=[], pid="many", cpu={})
        await runner.send("runner.result", id=asked["id"], ok=False, error="no room")
        error = await starting
        assert "no room" in error["error"]["message"]
        assert (await runners.get(f"/deployments/{made['id']}"))["pid"] is None
    assert ANSWER_S == 30


async def test_output_is_taken_from_its_runner_only(runners: Kenko) -> None:
    """Not from an application, nor from another runner; what does not fit is refused."""
    mine = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    other = await runners.post("/runners/join-token", {"name": "r2"}, status=201)
    body = {"package_id": await uploaded(runners), "runner_id": mine["id"]}
    made = await runners.post("/deployments", body, status=201)
    line = {"number": 1, "at_us": 1_700_000_000_000_000, "text": "hello"}
    said = {"deployment_id": made["id"], "life": "l", "lines": [line]}
    async with (
        application(runners) as stranger,
        joined(runners, other["token"]) as wrong,
        joined(runners, mine["token"]) as right,
    ):
        for app in (stranger, wrong):
            await app.send("runner.output", **{**said, "lines": [{**line, "text": "not me"}]})
            await app.send("ping")
            await app.receive("pong")
        for bad in ({"number": 0}, {"at_us": 2**60}, {"text": "x" * 4097}, {"text": 1}):
            await right.send("runner.output", **{**said, "lines": [{**line, **bad}]})
            assert (await right.receive("error"))["code"] == "bad_data"
        await right.send("runner.output", **{**said, "lines": [line] * 101})
        assert (await right.receive("error"))["code"] == "bad_data"
        await right.send("runner.output", **said)
        assert await runners.log_of(made["id"], "hello") == ["hello"]
        (item,) = (await runners.get(f"/deployments/{made['id']}/log"))["items"]
        assert item["time"] == "2023-11-14T22:13:20.000000Z"


async def test_only_a_known_token_joins(runners: Kenko) -> None:
    """A wrong one, none, and that of a runner that was removed are refused."""
    invited = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    assert invited["token"] not in str(await runners.get("/runners"))
    gone = await runners.client.delete(f"/runners/{invited['id']}")
    assert gone.status_code == 204
    for token in ("", "wrong", invited["token"]):
        with pytest.raises(AssertionError, match="unauthorized"):
            async with joined(runners, token):
                pass


async def test_a_runner_that_joins_twice_is_the_newest(runners: Kenko) -> None:
    """The older connection is closed."""
    invited = await runners.post("/runners/join-token", {"name": "r1"}, status=201)
    async with joined(runners, invited["token"]) as older, joined(runners, invited["token"]) as new:
        async with asyncio.timeout(20):
            await older.socket.wait_closed()
        assert older.socket.close_code == 4009
        shown = (await runners.get("/runners"))["items"][1]
        assert (shown["app_id"], shown["connected"]) == (new.id, True)


async def test_signed_urls_hold_for_one_package_and_a_while(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Not for another package, with a changed time or signature, or afterwards."""
    async with running_hub(tmp_path / "hub", clock=clock) as core:
        shelf = Shelf(core)
        query = parse_qs(shelf.sign("pkg_1"))
        (expires,), (signature,) = query["expires"], query["signature"]
        assert shelf.may_fetch("pkg_1", expires, signature)
        assert not shelf.may_fetch("pkg_2", expires, signature)
        assert not shelf.may_fetch("pkg_1", str(int(expires) + 1), signature)
        assert not shelf.may_fetch("pkg_1", expires, signature[:-1])
        for garbage in ("", "é", "0" * 64):
            assert not shelf.may_fetch("pkg_1", expires, garbage)
            assert not shelf.may_fetch("pkg_1", garbage, signature)
        assert not Shelf(core).may_fetch("pkg_1", expires, signature)
        await clock.advance(SIGNED_S)
        assert shelf.may_fetch("pkg_1", expires, signature)
        await clock.advance(1)
        assert not shelf.may_fetch("pkg_1", expires, signature)


async def test_a_package_is_not_given_without_a_signature(kenko: Kenko) -> None:
    """Not even to an administrator; who has one needs no token (see the runner above)."""
    package_id = await uploaded(kenko)
    for query in ("", "?expires=&signature=", "?expires=99999999999&signature=00"):
        answer = await kenko.client.get(f"/packages/{package_id}/content{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "bad_signature")


async def test_wrong_signatures_of_packages_are_slowed_down(tmp_path: Path) -> None:
    """403, then 429 with a time; a good one is taken."""
    limits = "drain_timeout = 0.05\nauth_failure_limit = 2\n"
    async with running_kenko(tmp_path, RUNNERS.replace("drain_timeout = 0.05\n", limits)) as kenko:
        package_id = (await kenko.upload(package(FOREVER))).json()["id"]
        path = f"/packages/{package_id}/content"
        answers = [await kenko.client.get(path, params={"expires": "9"}) for _ in range(3)]
        assert [one.status_code for one in answers] == [403, 403, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        features: Any = kenko.core.adapters.get("kenko").adapter
        good = features._admin._features.shelf.sign(package_id)
        assert (await kenko.client.get(f"{path}?{good}")).status_code == 200
