"""The tables of the protocol page, row by row, against a real port."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from hubbub import Route
from hubbub.testing import FakeClock, RecordingEndpoint
from tests.adapters.relay.serving import BOSS, KEY, SETTINGS, Relay, RunRelay, encoded

UNAUTHORIZED = '{"status":"error","msg":"Unauthorized: Invalid or missing API key"}'
TASK = {"from": "master", "to": "child", "type": "task"}
OWN_ID = re.compile(r"t_[0-9]{13}[0-9]{6}")


def refused(message: str) -> str:
    return f'{{"status":"error","msg":"{message}"}}'


BAD_SENDS: dict[str, tuple[Any, int, str]] = {
    "no from": ({"to": "b"}, 400, "missing from/to"),
    "no to": ({"from": "a"}, 400, "missing from/to"),
    "empty from": ({"from": "", "to": "b"}, 400, "missing from/to"),
    "empty object": ({}, 400, "missing from/to"),
    "empty array": ([], 400, "missing from/to"),
    "broken": (b"{", 400, "invalid JSON"),
    "no body": (b"", 400, "invalid JSON"),
    "no UTF-8": (b'{"from":"\xff","to":"b"}', 400, "invalid JSON"),
    "too deep": (b"[" * 100_000, 400, "invalid JSON"),
    "array": ([1], 400, "body must be an object"),
    "string": ("hi", 400, "body must be an object"),
    "number": (5, 400, "body must be an object"),
    "id is an object": ({**TASK, "task_id": {"a": 1}}, 400, "invalid task_id"),
    "id is an empty object": ({**TASK, "task_id": {}}, 400, "invalid task_id"),
    "name with a line end": ({"from": "a", "to": "b\n"}, 400, "invalid to"),
    "name with an escape": ({"from": "a\x1b[2J", "to": "b"}, 400, "invalid from"),
    "cmd with a control character": ({**TASK, "cmd": "c\x7f"}, 400, "invalid cmd"),
    "id is a list": ({**TASK, "task_id": [1]}, 400, "invalid task_id"),
    "id has a slash": ({**TASK, "task_id": "a/b"}, 400, "invalid task_id"),
    "id of 129": ({**TASK, "task_id": "a" * 129}, 400, "invalid task_id"),
    "from is a list": ({"from": ["a"], "to": "b"}, 400, "invalid from"),
    "name of 129": ({"from": "a" * 129, "to": "b"}, 400, "invalid from"),
    "priority 10": ({**TASK, "priority": 10}, 400, "invalid priority"),
    "not_before": ({**TASK, "not_before": "soon"}, 400, "invalid not_before"),
    "NUL": ({**TASK, "text": "a\0b"}, 400, "NUL character in a text"),
    "loopback callback": (
        {**TASK, "callback_url": "ftp://example.com/"},
        400,
        "callback_url is refused: a URL must begin with http:// or https:// and name a host",
    ),
}


@pytest.mark.parametrize(("body", "status", "message"), BAD_SENDS.values(), ids=BAD_SENDS)
async def test_bad_sends(relay: Relay, body: Any, status: int, message: str) -> None:
    """Each is refused with JSON, and nothing is stored."""
    answer = await relay.client.post("/send", content=encoded(body))
    assert (answer.status_code, answer.text) == (status, refused(message))
    assert answer.headers["content-type"] == "application/json"
    assert await relay.logs() == []


@pytest.mark.parametrize("path", ["/send", "/callback", "/ack", "/clear", "/tasks/t_1/renew"])
async def test_a_bad_key_comes_before_a_bad_body(relay: Relay, path: str) -> None:
    """401 whatever the body; byte for byte as recorded."""
    for key in (None, "", "wrong", KEY[:-1], "\xff"):
        headers = {} if key is None else {b"X-Relay-API-Key": key.encode("latin-1")}
        answer = await relay.anybody.post(path, content=b"{", headers=headers)
        assert (answer.status_code, answer.text) == (401, UNAUTHORIZED)


@pytest.mark.parametrize(
    ("header", "query", "status"),
    [
        (KEY, None, 200),
        (None, KEY, 200),
        ("", KEY, 200),
        ("wrong", KEY, 401),
        (KEY, "wrong", 200),
        (None, "wrong", 401),
    ],
)
async def test_where_the_key_may_stand(
    relay: Relay, header: str | None, query: str | None, status: int
) -> None:
    """A wrong header is not rescued by a right query; an empty one is."""
    headers = {} if header is None else {"X-Relay-API-Key": header}
    params = {} if query is None else {"api_key": query}
    body = {"from": "a", "to": "b"}
    answer = await relay.anybody.post("/send", json=body, headers=headers, params=params)
    assert answer.status_code == status


async def test_send_of_a_task(relay: Relay) -> None:
    """The server makes an id: `t_`, 13 digits of milliseconds, 6 digits that count."""
    answer = await relay.client.post("/send", json={**TASK, "cmd": "verify_chart"})
    task_id = answer.json()["task_id"]
    assert answer.text == f'{{"status":"ok","task_id":"{task_id}"}}'
    assert OWN_ID.fullmatch(task_id)
    status = await relay.anybody.get(f"/task-status/{task_id}")
    assert status.text == f'{{"status":"ok","task_id":"{task_id}","task_status":"pending"}}'


async def test_send_of_a_message(relay: Relay) -> None:
    """The id is null or echoed, and makes no state."""
    for said, echoed in (({}, None), ({"task_id": "mine"}, "mine"), ({"task_id": 5}, "5")):
        answer = await relay.send(type="message", text="hi", **said)
        assert answer == {"status": "ok", "task_id": echoed}
    assert await relay.state("mine") is None


async def test_a_numeric_task_id_is_text(relay: Relay) -> None:
    """Accepted, and echoed as text."""
    assert await relay.task(task_id=123) == "123"
    assert await relay.state("123") == "pending"
    assert (await relay.logs())[0]["task_id"] == "123"


async def test_any_content_type_is_json(relay: Relay) -> None:
    """As the README's own example sends it."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await relay.client.post(
        "/send", content=b'{"from":"a","to":"b","text":"\xe4\xbd\xa0"}', headers=headers
    )
    assert answer.status_code == 200
    assert (await relay.logs())[0]["text"] == "你"


async def test_the_same_id_again(relay: Relay) -> None:
    """The state is unchanged, unless the task had failed: then it is queued again."""
    await relay.task(task_id="mine")
    assert await relay.send(type="task", task_id="mine") == {
        "status": "ok", "task_id": "mine", "duplicate": True,
    }  # fmt: skip
    await relay.callback("mine", status="done")
    await relay.send(type="task", task_id="mine")
    assert await relay.state("mine") == "completed"

    await relay.task(task_id="other")
    await relay.callback("other", status="broken")
    assert await relay.state("other") == "failed"
    assert (await relay.send(type="task", task_id="other"))["duplicate"] is True
    assert await relay.state("other") == "pending"
    await relay.callback("other", status="done")
    assert await relay.state("other") == "completed"


async def test_an_idempotency_key_names_one_task(relay: Relay) -> None:
    """The same key and body: the same task. Another body: 422."""
    first = await relay.send(type="task", cmd="a", idempotency_key="k1")
    again = await relay.send(type="task", cmd="a", idempotency_key="k1")
    assert again == {**first, "duplicate": True}
    assert re.fullmatch(r"t_[0-9]{19}", first["task_id"])
    other = {**TASK, "cmd": "b", "idempotency_key": "k1"}
    assert (await relay.client.post("/send", json=other)).status_code == 422
    message = {"from": "a", "to": "b", "text": "hi", "idempotency_key": "k2"}
    assert (await relay.client.post("/send", json=message)).json() == {
        "status": "ok", "task_id": None,
    }  # fmt: skip
    assert (await relay.client.post("/send", json=message)).json()["duplicate"] is True
    assert len(await relay.logs()) == 2


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/send", "POST"),
        ("PUT", "/send", "POST"),
        ("GET", "/callback", "POST"),
        ("POST", "/logs", "GET, HEAD"),
        ("DELETE", "/task-status/t_1", "GET, HEAD"),
        ("POST", "/tasks", "GET, HEAD"),
        ("GET", "/clear", "POST"),
    ],
)
async def test_other_methods(relay: Relay, method: str, path: str, allow: str) -> None:
    """405 as JSON."""
    answer = await relay.client.request(method, path)
    assert (answer.status_code, answer.text) == (405, refused("method not allowed"))
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_limit_of_a_body(relay: Relay, chunked: bool) -> None:
    """1 MiB is taken, whatever the hub adds to it, one byte more is not."""

    async def parts(body: bytes) -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    limit = 1024 * 1024
    frame = b'{"from":"a","to":"b","text":"%b"}'
    for size, status in ((limit, 200), (limit + 1, 413), (3 * limit, 413)):
        body = frame % (b"x" * (size - len(frame) + 2))
        answer = await relay.client.post("/send", content=parts(body) if chunked else body)
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.text == refused("body too large")


@pytest.mark.parametrize(
    ("members", "filling"),
    [
        (b'"type":"task","payload":{"x":"%b"}', b"x"),
        (b'"type":"task","payload":{"x":"%b"}', b"\\u0001"),
        (b'"type":"task","payload":[%b0]', b"1e15,"),
        (b'"text":["%b"]', b"\\u0001"),
        (b'"text":["%b"]', b'\\"'),
        (b'"text":[%b0]', b"1e15,"),
    ],
)
async def test_what_a_body_becomes_does_not_count(
    relay: Relay, members: bytes, filling: bytes
) -> None:
    """As JSON again it may take more bytes; a text may be written as JSON inside of JSON."""
    limit = 1024 * 1024
    frame = b'{"from":"a","to":"b",' + members + b"}"
    body = frame % (filling * ((limit - len(frame)) // len(filling)))
    body = body[:-1] + b" " * (limit - len(body)) + body[-1:]
    assert (await relay.client.post("/send", content=body)).status_code == 200
    assert (await relay.client.post("/send", content=body + b" ")).status_code == 413


async def test_a_callback_of_the_largest_size_ends_its_task(relay: Relay) -> None:
    """What is told of it to others may be larger than what the worker sent."""
    limit = 1024 * 1024
    task_id = await relay.task()
    frame = b'{"task_id":"%b","child_id":"c","result":"%%b"}' % task_id.encode()
    body = frame % (b"x" * (limit - len(frame) + 2))
    assert len(body) == limit
    assert (await relay.client.post("/callback", content=body)).status_code == 200
    assert await relay.state(task_id) == "completed"
    [record] = await relay.logs(task_id=task_id, event="callback")
    assert len(record["result"]) > limit - 100


async def test_callback(relay: Relay) -> None:
    """The first final state wins; repeats are told so; a differing late one is logged."""
    task_id = await relay.task()
    result = {"summary": "ok", "score": 0.85}
    body = {"task_id": task_id, "child_id": "child_bazi", "status": "done", "result": result}
    first = await relay.client.post("/callback", json=body)
    assert (first.status_code, first.text) == (200, '{"status":"ok"}')
    assert await relay.state(task_id) == "completed"
    again = await relay.client.post("/callback", json=body)
    assert again.text == '{"status":"ok","duplicate":true}'
    late = await relay.client.post("/callback", json={**body, "status": "failed"})
    assert late.text == '{"status":"ok","duplicate":true}'
    assert await relay.state(task_id) == "completed"
    records = await relay.logs(event="callback")
    assert [record.get("ignored") for record in records] == [None, True]
    assert records[0]["result"] == result


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "missing task_id"),
        ([], "missing task_id"),
        ({"status": "done"}, "missing task_id"),
        ({"task_id": ""}, "missing task_id"),
        ({"task_id": {}}, "missing task_id"),
        ({"task_id": {"a": 1}}, "invalid task_id"),
        ({"task_id": "a b"}, "invalid task_id"),
        (b"{", "invalid JSON"),
        ([1], "body must be an object"),
    ],
)
async def test_bad_callbacks(relay: Relay, body: Any, message: str) -> None:
    """Refused with 400, and nothing is stored."""
    for path in ("/callback", "/ack"):
        answer = await relay.client.post(path, content=encoded(body))
        assert (answer.status_code, answer.text) == (400, refused(message))
    assert await relay.logs() == []


@pytest.mark.parametrize(("said", "state"), [("done", "completed"), ("broken", "failed")])
async def test_callback_for_an_unknown_task(relay: Relay, said: str, state: str) -> None:
    """200, and a state appears: a worker retries anything else for ever."""
    assert await relay.callback("t_1", status=said) == {"status": "ok"}
    assert await relay.state("t_1") == state
    assert (await relay.callback("t_1", status=said))["duplicate"] is True
    assert await relay.lease() == []


async def test_callback_processing_renews_the_lease(relay: Relay) -> None:
    """It is no end: the task is still its worker's."""
    task_id = await relay.task()
    [task] = await relay.lease(lease=1)
    assert await relay.callback(task_id, status="processing") == {"status": "ok"}
    assert await relay.state(task_id) == "processing"
    await relay.callback(task_id, result="text")
    assert await relay.state(task_id) == "completed"
    assert task["attempt"] == 1


async def test_callback_processing_begins_what_nobody_leased(relay: Relay) -> None:
    """A worker that read the mirror file says so; nobody else is given the task meanwhile."""
    task_id = await relay.task()
    assert await relay.callback(task_id, child_id="c", status="processing") == {"status": "ok"}
    assert await relay.state(task_id) == "processing"
    assert await relay.lease() == []
    await relay.callback(task_id, child_id="c", status="processing")
    await relay.callback(task_id, child_id="c")
    assert await relay.state(task_id) == "completed"
    await relay.callback(task_id, child_id="c", status="processing")
    assert await relay.state(task_id) == "completed"


async def test_a_begun_task_that_is_not_finished_waits_again(run_relay: RunRelay) -> None:
    """After the lease, as one that was taken: attempt + 1."""
    clock = FakeClock()
    async with run_relay(SETTINGS, clock=clock) as relay:
        task_id = await relay.task()
        await relay.callback(task_id, child_id="c", status="processing")
        await clock.advance(59)
        assert await relay.state(task_id) == "processing"
        await clock.advance(2)
        await relay.core.journal.flush()
        assert await relay.state(task_id) == "pending"
        [task] = await relay.lease()
        assert task["attempt"] == 2


async def test_callbacks_are_published(relay: Relay) -> None:
    """On the child's subject, as canonical types, on the trace of the task; repeats are not."""
    desk = RecordingEndpoint("plugin.desk")
    relay.core.attach(desk)
    relay.core.table.put(Route(name="seen", match="relay.*.callback", to=("plugin.desk",)))
    task_id = await relay.task(cmd="a")
    await relay.callback(task_id, child_id="c", status="processing")
    await relay.callback(task_id, child_id="c", result={"n": 1}, mine=2)
    await relay.callback(task_id, child_id="c", result={"n": 1})
    await relay.callback("t_1", status="broken", result="why")
    begun, done, orphan = await desk.wait_for(3)
    assert {begun.subject, done.subject} == {"relay.c.callback"}
    assert (begun.type, done.type) == ("hubbub.task.update.v1", "hubbub.task.result.v1")
    said = done.json()
    assert isinstance(said, dict)
    assert (said["task_id"], said["state"], said["result"]) == (task_id, "completed", {"n": 1})
    assert said["relay"] == {"child_id": "c", "mine": 2}
    task = await relay.core.work.find(task_id)
    assert task is not None
    assert begun.trace_id == done.trace_id == task.trace_id
    assert (orphan.subject, orphan.source) == ("relay.callback.callback", "relay.callback")
    assert orphan.json() == {
        "task_id": "t_1", "state": "failed", "result": "why", "error": "why",
        "relay": {"status": "broken"},
    }  # fmt: skip


async def test_callback_cannot_end_a_task_of_somebody_else(relay: Relay) -> None:
    """A task that never touched the relay is not the relay's to end."""
    from hubbub import Envelope

    envelope = Envelope.new(
        source="api.tester",
        subject="tasks.x.request",
        type="hubbub.task.request.v1",
        data={"task_id": "foreign", "task_type": "x"},
    )
    await relay.core.publish(envelope)
    assert await relay.state("foreign") is None
    assert await relay.callback("foreign", status="done") == {"status": "ok"}
    task = await relay.core.work.find("foreign")
    assert task is not None
    assert task.state == "queued"


async def test_logs(relay: Relay) -> None:
    """The newest records, oldest first, with filters."""
    task_id = await relay.task()
    for number in range(5):
        await relay.send(type="message", text=str(number), to="user")
    await relay.callback(task_id)
    records = await relay.logs()
    assert [record["id"] for record in records] == sorted(record["id"] for record in records)
    assert list(records[0]) == ["event", "from", "to", "type", "task_id", "ts", "id", "ts_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", records[0]["ts"])
    assert await relay.logs(limit=2) == records[-2:]
    assert [r["text"] for r in await relay.logs(to="user", limit=3)] == ["2", "3", "4"]
    assert [r["event"] for r in await relay.logs(task_id=task_id)] == ["send", "callback"]
    assert await relay.logs(event="ack") == []
    assert await relay.logs(after_id=records[2]["id"], limit=2) == records[3:5]


async def test_bad_limits_of_logs(relay: Relay) -> None:
    """1 to 1000."""
    for limit in ("0", "-1", "1001", "x", "1.5", ""):
        answer = await relay.client.get("/logs", params={"limit": limit})
        assert (answer.status_code, answer.text) == (400, refused("invalid limit"))


async def test_unknown_tasks(relay: Relay) -> None:
    """404, for an empty id too."""
    for name in ("t_unknown", "", "a b", "x" * 200, "a/b"):
        answer = await relay.client.get(f"/task-status/{name}")
        assert (answer.status_code, answer.text) == (404, refused("task not found"))


async def test_ack(relay: Relay) -> None:
    """Only writes a record; the task may be unknown."""
    answer = await relay.client.post("/ack", json={"task_id": "t_9", "ack_by": "master"})
    assert (answer.status_code, answer.text) == (200, '{"status":"ok"}')
    [record] = await relay.logs()
    assert (record["event"], record["task_id"], record["ack_by"]) == ("ack", "t_9", "master")
    assert await relay.state("t_9") is None


async def test_clear(relay: Relay) -> None:
    """Hides logs and states, keeps leases, needs `admin`."""
    task_id = await relay.task()
    await relay.lease()
    other = await relay.task(cmd="later")
    assert (await relay.client.post("/clear")).status_code == 403
    answer = await relay.client.post("/clear", headers={"X-Relay-API-Key": BOSS}, content=b"{")
    assert (answer.status_code, answer.text) == (
        200,
        '{"status":"ok","msg":"对话日志已清空"}',
    )
    assert await relay.logs() == []
    assert await relay.state(task_id) is None
    assert [task["task_id"] for task in await relay.lease()] == [other]
    assert await relay.callback(task_id, status="done") == {"status": "ok"}
    assert await relay.state(task_id) == "completed"
    assert len(await relay.logs()) == 1
    token = relay.core.config.hub.data_dir.joinpath("admin.token").read_text().strip()
    bearer = {"Authorization": f"Bearer {token}", "X-Relay-API-Key": ""}
    assert (await relay.client.post("/clear", headers=bearer)).status_code == 200


async def test_details_need_a_key(relay: Relay) -> None:
    """Without one only the state is told."""
    task_id = await relay.task()
    await relay.callback(task_id, result={"a": 1})
    open_answer = await relay.anybody.get(f"/task-status/{task_id}")
    assert set(open_answer.json()) == {"status", "task_id", "task_status"}
    answer = (await relay.client.get(f"/task-status/{task_id}")).json()
    assert answer["result"] == {"a": 1}
    assert set(answer) >= {"attempts", "updated_at", "trace_id"}


async def test_without_public_read(run_relay: RunRelay) -> None:
    """Both open reads want a key then."""
    async with run_relay("[adapters.relay]\nenabled = true\npublic_read = false\n") as relay:
        for path in ("/logs", "/task-status/t_1"):
            assert (await relay.anybody.get(path)).text == UNAUTHORIZED
        assert (await relay.client.get("/logs")).status_code == 200


LIMITED = """
[adapters.relay]
enabled = true
[[adapters.relay.api_keys]]
name = "worker"
key = "limited"
scopes = ["send", "callback", "work"]
from = ["child_*"]
to = ["child_*", "master"]
cmd = ["render"]
[[adapters.relay.api_keys]]
name = "reader"
key = "reading"
scopes = ["read"]
"""


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/send", {"from": "child_a", "to": "master"}, 200),
        ("POST", "/send", {"from": "master", "to": "child_a"}, 403),
        ("POST", "/send", {"from": "child_a", "to": "user"}, 403),
        ("POST", "/send", {"from": "child_a", "to": "master", "type": "task"}, 403),
        (
            "POST", "/send",
            {"from": "child_a", "to": "master", "type": "task", "cmd": "render"}, 200,
        ),
        ("POST", "/callback", {"task_id": "t_1", "child_id": "child_a"}, 200),
        ("POST", "/callback", {"task_id": "t_1", "child_id": "other"}, 403),
        ("GET", "/tasks?to=child_a", None, 200),
        ("GET", "/tasks?to=child_a&cmd=render", None, 200),
        ("GET", "/tasks?to=child_a&cmd=other", None, 403),
        ("GET", "/tasks?to=user", None, 403),
        ("POST", "/clear", None, 403),
    ],
)  # fmt: skip
async def test_limits_of_a_key(
    run_relay: RunRelay, method: str, path: str, body: Any, status: int
) -> None:
    """403 outside its scopes, names and commands."""
    async with run_relay(LIMITED) as relay:
        headers = {"X-Relay-API-Key": "limited"}
        answer = await relay.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert answer.text == refused("forbidden")
        headers = {"X-Relay-API-Key": "reading"}
        answer = await relay.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == 403


@pytest.mark.parametrize("how", ["done", "failed", "cancelled", "orphan"])
async def test_a_late_sign_of_life_is_a_repetition(relay: Relay, how: str) -> None:
    """Told so, logged as ignored, and told to nobody as news; the task stays as it is."""
    task_id = "t_1" if how == "orphan" else await relay.task()
    if how == "cancelled":
        await relay.core.work.cancel(task_id)
    else:
        await relay.callback(task_id, status="done" if how == "orphan" else how)
    ended = await relay.state(task_id)
    told: list[str] = []
    stop = relay.core.router.tap(lambda envelope: told.append(envelope.type))
    late = await relay.callback(task_id, child_id="c", status="processing", note="mine")
    stop()
    assert late == {"status": "ok", "duplicate": True}
    assert told == []
    assert await relay.state(task_id) == ended
    *_, record = await relay.logs(task_id=task_id, event="callback")
    assert (record["status"], record["note"], record["ignored"]) == ("processing", "mine", True)


async def test_a_late_renewal_is_refused(relay: Relay) -> None:
    """There is no lease any more that it could move."""
    task_id = await relay.task()
    await relay.lease(worker="w1")
    await relay.callback(task_id)
    answer = await relay.client.post(f"/tasks/{task_id}/renew", json={"worker": "w1"})
    assert answer.status_code == 409
    assert await relay.state(task_id) == "completed"


async def test_the_shipped_key_does_not_clear(run_relay: RunRelay) -> None:
    """It may do what the original's clients do."""
    async with run_relay("[adapters.relay]\nenabled = true\n") as relay:
        answer = await relay.client.post("/send", json={"from": "a", "to": "b"})
        assert answer.status_code == 200
        assert (await relay.client.post("/clear")).status_code == 403


async def test_too_many_names(run_relay: RunRelay) -> None:
    """A free name makes a mailbox, up to a limit."""
    async with run_relay("[adapters.relay]\nenabled = true\nmax_names = 3\n") as relay:
        for to in ("b", "c"):
            answer = await relay.client.post("/send", json={"from": "a", "to": to})
            assert answer.status_code == 200
        answer = await relay.client.post("/send", json={"from": "a", "to": "d"})
        assert (answer.status_code, answer.text) == (429, refused("too many names"))


async def test_while_draining(relay: Relay) -> None:
    """503 as JSON for what is new; results are still taken."""
    task_id = await relay.task()
    relay.core.router.draining = True
    answer = await relay.client.post("/send", json=TASK)
    assert answer.status_code == 503
    assert answer.json()["status"] == "error"
    await relay.callback(task_id)
    assert await relay.state(task_id) == "completed"
    relay.core.router.draining = False


async def test_odd_names(relay: Relay) -> None:
    """Names are free strings: no dot, star or space can reach another's mailbox."""
    for name in ("child.bazi", "*", ">", "a b", "你好", "%", "{subject.1}", "x" * 128):
        task_id = await relay.task(to=name, cmd=name)
        [task] = await relay.lease(name if name != "*" else "*")
        assert (task["task_id"], task["to"], task["cmd"]) == (task_id, name, name)
        await relay.callback(task_id, child_id=name)
        assert await relay.state(task_id) == "completed"


async def test_paths_that_do_not_exist(relay: Relay) -> None:
    """404 as JSON."""
    answer = await relay.client.get("/nothing")
    assert (answer.status_code, answer.text) == (404, refused("not found"))


async def test_traceparent_is_honoured(relay: Relay) -> None:
    """The task goes on on the caller's trace."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await relay.client.post("/send", json=TASK, headers=headers)
    assert [task["trace_id"] for task in await relay.lease()] == [trace]


async def test_wrong_keys_are_slowed_down_and_valid_ones_taken(run_relay: RunRelay) -> None:
    """By header, query and token; in the relay's own words; what is public stays so."""
    limits = '[hub]\nauth_failure_limit = 2\nauth_failure_window = "60s"\n'
    async with run_relay(limits + SETTINGS) as relay:

        async def sent(headers: dict[str, str], query: str = "") -> httpx2.Response:
            body = {"from": "a", "to": "b", "type": "message"}
            return await relay.anybody.post(f"/send{query}", json=body, headers=headers)

        answers = [
            await sent({"X-Relay-API-Key": "wrong"}),
            await sent({}, "?api_key=wrong"),
            await sent({"X-Relay-API-Key": "wrong"}),
            await relay.anybody.get("/tasks?to=b&api_key=wrong"),
        ]
        assert [one.status_code for one in answers] == [401] * 2 + [429] * 2
        for refused in answers[2:]:
            assert refused.json()["status"] == "error"
            assert refused.json().keys() == {"status", "msg"}
            assert int(refused.headers["retry-after"]) >= 1
        tokens = [await sent({"Authorization": "Bearer wrong"}) for _ in range(3)]
        assert [one.status_code for one in tokens] == [401] * 2 + [429]
        assert (await sent({"X-Relay-API-Key": BOSS})).status_code == 200
        assert (await sent({})).status_code == 401  # none is no attempt
        shown = await relay.anybody.get("/logs", headers={"X-Relay-API-Key": "wrong"})
        assert shown.status_code == 200


async def test_a_wrong_key_on_what_is_public_counts(run_relay: RunRelay) -> None:
    """The answer differs for a valid one, so it tells whether a guess was right."""
    limits = '[hub]\nauth_failure_limit = 2\nauth_failure_window = "60s"\n'
    async with run_relay(limits + SETTINGS) as relay:
        task_id = await relay.task()
        for _ in range(3):
            wrong = {"X-Relay-API-Key": "wrong"}
            shown = await relay.anybody.get(f"/task-status/{task_id}", headers=wrong)
            assert shown.status_code == 200
            assert shown.json().keys() == {"status", "task_id", "task_status"}
        refused = await relay.anybody.post("/send", json={}, headers={"X-Relay-API-Key": "x"})
        assert refused.status_code == 429


async def test_a_name_that_cannot_be_decoded_is_nobodys(relay: Relay) -> None:
    """In a query, in a path: 400, and never the name with a replacement in it."""
    for query in ("to=%FF", "%FF=1", "to=a%", "to=%ED%A0%80", "to=a&to=b"):
        for path in ("/logs", "/tasks"):
            answer = await relay.client.get(f"{path}?{query}")
            assert (answer.status_code, answer.text) == (400, refused("invalid query"))
    assert (await relay.client.get("/task-status/%FF")).status_code == 400


async def test_a_key_or_a_trace_that_is_there_twice(relay: Relay) -> None:
    """Two keys are refused, right as they may be; two traces are a new one."""
    for headers in (
        [("x-relay-api-key", KEY), ("x-relay-api-key", "other")],
        [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer other")],
    ):
        answer = await relay.anybody.post("/send", json=TASK, headers=headers)
        assert answer.status_code == 400, answer.text
    traces = [("traceparent", f"00-{sign * 32}-b7ad6b7169203331-01") for sign in "ab"]
    assert (await relay.client.post("/send", json=TASK, headers=traces)).status_code == 200
    (task,) = await relay.lease()
    assert task["trace_id"] not in ("a" * 32, "b" * 32)
