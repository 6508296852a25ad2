"""Work by every way in: what it takes to submit, take, end and look at tasks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Envelope
from hubbub.core import Core
from hubbub.testing import RecordingEndpoint
from hubbub.values import Principal, TaskResult
from tests.hub.web.conftest import Served
from tests.hub.web.test_sockets import heard, say, stream

REQUEST = "hubbub.task.request.v1"
RESULT = "hubbub.task.result.v1"
UPDATE = "hubbub.task.update.v1"
API = "/api/v1"

Way = Callable[[Served, str, dict[str, Any]], Awaitable[Any]]
"""Publishes an envelope with a token; returns the problem, or None when it was taken."""


def bearer(headers: dict[str, str]) -> str:
    return headers["authorization"].partition(" ")[2]


def _problem(answer: Any) -> Any:
    return None if answer.status_code == 202 else answer.json()


async def short(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {token}"}
    return _problem(await served.client.post(f"{API}/envelopes", json=envelope, headers=headers))


async def structured(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    names = {"reply_to": "replyto", "in_reply_to": "inreplyto"}
    event = {"specversion": "1.0", "id": f"e{len(str(envelope))}", "source": "x"}
    event |= {names.get(name, name): value for name, value in envelope.items()}
    return await short(served, token, event)


async def binary(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    names = {"reply_to": "replyto", "in_reply_to": "inreplyto"}
    headers = {"authorization": f"Bearer {token}", "ce-specversion": "1.0"}
    headers |= {
        f"ce-{names.get(name, name)}": str(value)
        for name, value in envelope.items()
        if name != "data"
    }
    headers["content-type"] = "application/json"
    body = json.dumps(envelope["data"])
    return _problem(await served.client.post(f"{API}/envelopes", content=body, headers=headers))


async def batch(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {token}"}
    subject = envelope["subject"]
    harmless = {"subject": "a.ok" if subject.startswith("tasks.") else subject, "data": 1}
    answer = await served.client.post(
        f"{API}/envelopes", json=[harmless, envelope], headers=headers
    )
    return _problem(answer)


async def socket(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    async with stream(served, token=token) as connection:
        await heard(connection, "hello")
        await say(connection, type="publish", ref="r", envelope=envelope)
        frame = json.loads(await connection.recv())
        return frame.get("problem")


async def durable_socket(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    return await socket(served, token, {**envelope, "durable": True})


async def volatile_socket(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    return await socket(served, token, {**envelope, "durable": False})


async def asked(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {token}"}
    body = {**envelope, "timeout": "200ms"}
    answer = await served.client.post(f"{API}/requests", json=body, headers=headers)
    return None if answer.status_code in (200, 503, 504) else answer.json()


async def asked_by_socket(served: Served, token: str, envelope: dict[str, Any]) -> Any:
    async with stream(served, token=token) as connection:
        await heard(connection, "hello")
        await say(connection, type="request", ref="r", envelope=envelope, timeout="200ms")
        problem = json.loads(await connection.recv()).get("problem")
        return None if problem["code"] in ("no_endpoint", "deadline") else problem


WAYS: dict[str, Way] = {
    "short": short,
    "structured": structured,
    "binary": binary,
    "batch": batch,
    "durable socket": durable_socket,
    "volatile socket": volatile_socket,
    "request": asked,
    "request frame": asked_by_socket,
}

NO_RESULTS = (batch, asked, asked_by_socket)
"""Ways that no result comes by: it is one act, and nobody answers it."""

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def work(task_type: str = "echo", subject: str = "a.work") -> dict[str, Any]:
    return {"subject": subject, "type": REQUEST, "data": {"task_type": task_type}}


@every_way
async def test_to_publish_work_is_to_submit_it(served: Served, way: Way) -> None:
    """The scope for the subject is not enough, nor is one for another task type."""
    for number, scopes in enumerate((
        ("publish:a.>",), ("publish:>", "direct:>", "read"), ("publish:a.>", "tasks:render"),
        ("publish:a.>", "tasks:echo.*"), ("publish:a.>", "direct:tasks"), ("tasks", "publish:b.>"),
    )):  # fmt: skip
        token = bearer(await served.token(*scopes, name=f"n{number}"))
        problem = await way(served, token, work())
        assert problem["status"] == 403, scopes
        assert problem["code"] == "forbidden"
    assert (await served.get(f"{API}/tasks"))["items"] == []


@every_way
async def test_with_the_scope_for_its_type_work_is_taken(served: Served, way: Way) -> None:
    """The type is one token there: what has a dot, or is a wildcard, is escaped."""
    good = {"tasks": "echo", "tasks:echo": "echo", "tasks:*": "a.b", "tasks:>": "echo",
            "tasks:a%2Eb": "a.b", "tasks:%2A": "*"}  # fmt: skip
    for number, (scope, task_type) in enumerate(good.items()):
        token = bearer(await served.token("publish:a.>", scope, name=f"n{number}"))
        assert await way(served, token, work(task_type, f"a.n{number}")) is None, scope
    token = bearer(await served.token("publish:a.>", "tasks:%2A", name="star"))
    assert (await way(served, token, work("echo")))["code"] == "forbidden"


async def test_whom_a_task_is_for_is_named_by_who_may_write_there(served: Served) -> None:
    """`tasks` alone submits to anybody's; `to` and `reply_to` need `direct:`."""
    tasks = f"{API}/tasks"
    worker = RecordingEndpoint("plugin.worker", accepts=[REQUEST], task_types=["*"])
    link = served.core.attach(worker)
    link.slots = 9
    narrow = await served.token("tasks:echo")
    ours = await served.token("tasks", "direct:plugin.*", name="ours")
    body: dict[str, Any] = {"task_type": "echo"}
    for members, headers, status in (
        ({}, narrow, 202),
        ({"task_type": "render"}, narrow, 403),
        ({"to": "plugin.worker"}, narrow, 403),
        ({"reply_to": "plugin.other"}, narrow, 403),
        ({"reply_to": "api.narrow"}, narrow, 202),
        ({"to": "plugin.worker"}, ours, 202),
        ({"reply_to": "plugin.other"}, ours, 202),
        ({"to": "stream.other"}, ours, 403),
    ):
        answer = await served.client.post(tasks, json={**body, **members}, headers=headers)
        assert answer.status_code == status, (members, answer.text)
    assert (await served.client.post(tasks, json={**body, "to": "plugin.worker"})).is_success
    link.close()


async def test_tasks_are_looked_at_and_changed_by_their_type(served: Served) -> None:
    """Lists have only those that are covered; to read all there is `read`."""
    ids = {}
    for task_type in ("echo", "render", "a.b"):
        answer = await served.client.post(f"{API}/tasks", json={"task_type": task_type})
        ids[task_type] = answer.json()["task_id"]
    echo = await served.token("tasks:echo", "tasks:a%2Eb")
    reader = await served.token("read", "tasks:echo", name="reader")
    nothing = await served.token("publish:>", "direct:>", name="nothing")

    async def get(path: str, headers: dict[str, str]) -> Any:
        answer = await served.client.get(f"{API}/tasks{path}", headers=headers)
        return answer.json() if answer.is_success else answer.status_code

    def types(page: Any) -> list[str]:
        return sorted(task["task_type"] for task in page["items"])

    assert types(await get("", echo)) == ["a.b", "echo"]
    assert types(await get("?task_type=echo", echo)) == ["echo"]
    assert await get("?task_type=render", echo) == 403
    assert types(await get("", reader)) == ["a.b", "echo", "render"]
    assert await get("", nothing) == 403
    assert (await get(f"/{ids['echo']}", echo))["task_id"] == ids["echo"]
    assert await get(f"/{ids['render']}", echo) == 403
    assert (await get(f"/{ids['render']}", reader))["task_id"] == ids["render"]
    for act, good in (("cancel", 200), ("retry", 202)):
        for headers in (echo, reader):
            url = f"{API}/tasks/{ids['render']}/{act}"
            assert (await served.client.post(url, headers=headers)).status_code == 403
        url = f"{API}/tasks/{ids['echo']}/{act}"
        assert (await served.client.post(url, headers=echo)).status_code == good
        assert (await served.client.post(f"{API}/tasks/x/{act}", headers=echo)).status_code == 404


REFUSED = {
    "no scope": (("read", "publish:>", "direct:>"), f"accepts={REQUEST}&task_types=echo"),
    "only types": (("read",), "task_types=echo"),
    "no types": (("tasks:echo",), f"accepts={REQUEST}"),
    "all types": (("tasks:echo",), f"accepts={REQUEST}&task_types=*"),
    "all types by the token of one": (("tasks:%2A",), f"accepts={REQUEST}&task_types=*"),
    "one too many": (("tasks:echo",), f"accepts=*,{REQUEST}&task_types=echo,render"),
}


@pytest.mark.parametrize(("scopes", "query"), REFUSED.values(), ids=REFUSED)
async def test_a_stream_is_no_worker_without_the_scope(
    served: Served, scopes: tuple[str, ...], query: str
) -> None:
    """It is refused at the handshake."""
    token = bearer(await served.token(*scopes))
    with pytest.raises(InvalidStatus) as refused:
        async with stream(served, f"name=w&{query}", token=token):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["code"] == "forbidden"


async def test_a_stream_works_within_its_scope(served: Served) -> None:
    """It takes tasks of its types, says how far it is, and ends them; nothing else is needed."""
    token = bearer(await served.token("tasks:echo"))
    query = f"name=w&accepts={REQUEST}&task_types=echo"
    async with stream(served, query, token=token) as connection:
        await heard(connection, "hello")
        await served.client.post(f"{API}/tasks", json={"task_type": "render"})
        task_id = (await served.client.post(f"{API}/tasks", json={"task_type": "echo"})).json()[
            "task_id"
        ]
        given = (await heard(connection, "envelope"))["envelope"]["data"]
        assert given["task_id"] == task_id
        result = {"task_id": task_id, "state": "completed", "result": 1}
        await say(
            connection, type="publish", envelope={"subject": "w.x", "type": RESULT, "data": result}
        )
        await heard(connection, "accepted")
    assert (await served.get(f"{API}/tasks/{task_id}"))["result"] == 1


async def test_a_subscriber_is_not_given_work(served: Served) -> None:
    """Whatever it accepts by default, and though it subscribes where work is published."""
    token = bearer(await served.token("read"))
    async with stream(served, "name=watch&subject=orders.>&accepts=*", token=token) as connection:
        await heard(connection, "hello")
        made = await served.publish("orders.eu", {"task_type": "echo"}, type=REQUEST)
        await served.publish("orders.eu", "event")
        assert (await heard(connection, "envelope"))["envelope"]["data"] == "event"
        assert (await served.get(f"{API}/tasks/{made['task_id']}"))["state"] == "queued"


# Results


async def _dispatched(served: Served, address: str = "plugin.worker") -> tuple[str, Any]:
    worker = RecordingEndpoint(address, accepts=[REQUEST], task_types=["*"])
    link = served.core.attach(worker)
    answer = await served.client.post(f"{API}/tasks", json={"task_type": "echo"})
    await worker.wait_for(1)
    return answer.json()["task_id"], link


def result_of(task_id: str, **more: Any) -> dict[str, Any]:
    data = {"task_id": task_id, "state": "completed", "result": "forged"}
    return {"subject": "a.done", "type": RESULT, "data": data, **more}


@every_way
async def test_a_result_is_taken_from_who_was_given_the_task(served: Served, way: Way) -> None:
    """By no way does another end it, whatever its scopes are; nothing of it is published."""
    task_id, link = await _dispatched(served)
    scopes = ("publish:>", "direct:>", "read", "tasks")
    tokens = [bearer(await served.token(*scopes)), "the-admin-token-of-the-tests"]
    for number, token in enumerate(tokens):
        for more in ({}, {"subject": f"tasks.echo.completed{number}"}):
            problem = await way(served, token, result_of(task_id, **more))
            expected = (422, "invalid") if way in NO_RESULTS else (403, "not_given")
            assert (problem["status"], problem["code"]) == expected
    assert (await served.get(f"{API}/tasks/{task_id}"))["state"] == "dispatched"
    found = await served.get(f"{API}/envelopes", type=RESULT)
    assert found["items"] == []
    link.close()


@every_way
async def test_to_end_work_takes_the_scope(served: Served, way: Way) -> None:
    """For the type of that task; and a result goes to nobody but its asker."""
    task_id, link = await _dispatched(served)
    for number, scopes in enumerate((("publish:>", "direct:>"), ("publish:>", "tasks:render"))):
        token = bearer(await served.token(*scopes, name=f"n{number}"))
        problem = await way(served, token, result_of(task_id))
        assert problem["code"] == ("invalid" if number and way in NO_RESULTS else "forbidden")
    token = bearer(await served.token("publish:>", "direct:>", "tasks", name="all"))
    problem = await way(served, token, result_of(task_id, to="plugin.asker"))
    assert problem["code"] == "invalid"
    assert (await served.get(f"{API}/tasks/{task_id}"))["state"] == "dispatched"
    link.close()


async def test_who_had_an_earlier_run_is_told_so(served: Served) -> None:
    """It is no stranger, but its result is not that of this run."""
    core: Core = served.core
    task_id, link = await _dispatched(served)
    link.close()
    token = bearer(await served.token("tasks", "publish:>"))
    query = f"name=w&accepts={REQUEST}&task_types=echo"
    async with stream(served, query, token=token) as one:
        await heard(one, "hello")
        await heard(one, "envelope")
        await core.work.cancel(task_id)
        await core.work.rerun(task_id)
        await say(one, type="publish", envelope=result_of(task_id))
        frame = json.loads(await one.recv())
        while frame["type"] == "envelope":  # it may be given the new run, too
            frame = json.loads(await one.recv())
        assert frame["problem"]["code"] == "conflict"
    task = await served.get(f"{API}/tasks/{task_id}")
    assert (task["run"], task["result"]) == (2, None)
    assert (await core.work.finish(TaskResult(task_id), by="stream.never")).verdict == "stranger"


async def test_a_batch_with_a_result_is_refused_whole(served: Served) -> None:
    """The index says which member it is; the others are not published."""
    answer = await served.client.post(
        f"{API}/envelopes", json=[{"subject": "a.b", "data": 1}, result_of("t")]
    )
    assert (answer.status_code, answer.json()["index"]) == (422, 1)
    assert (await served.get(f"{API}/envelopes"))["items"] == []


# What is the hub's own


@every_way
@pytest.mark.parametrize("state", ["queued", "completed", "failed"])
async def test_nobody_else_tells_the_state_of_a_task(served: Served, way: Way, state: str) -> None:
    """Those subjects are the hub's; neither `publish:>` nor `to` reaches them."""
    token = bearer(await served.token("publish:>", "direct:>", "tasks"))
    data = {"task_id": "t", "state": state}
    for more in ({}, {"to": "stream.victim"}):
        envelope = {"subject": f"tasks.echo.{state}", "data": data, **more}
        problem = await way(served, token, envelope)
        assert (problem["status"], problem["code"]) == (403, "forbidden")
    assert await way(served, token, {"subject": "tasks.echo.mine", "data": data}) is None
    assert await way(served, token, {"subject": f"tasks.a.b.{state}", "data": data}) is None


@pytest.mark.parametrize("way", [short, durable_socket, volatile_socket, asked])
async def test_progress_is_told_by_who_has_the_task(served: Served, way: Way) -> None:
    """Of a task that it was given, and never that it has ended."""
    task_id, link = await _dispatched(served)
    token = bearer(await served.token("publish:>", "direct:>", "tasks"))
    update: dict[str, Any] = {"subject": "w.progress", "type": UPDATE}
    for data, code in (
        ({"task_id": task_id, "progress": 0.5}, "not_given"),
        ({"task_id": task_id, "state": "completed"}, "invalid"),
        ({"task_id": "t"}, "not_found"),
        ({"progress": 1}, "invalid"),
    ):
        assert (await way(served, token, {**update, "data": data}))["code"] == code
    narrow = bearer(await served.token("publish:>", name="other"))
    problem = await way(served, narrow, {**update, "data": {"task_id": task_id}})
    assert problem["code"] == "forbidden"
    mine = Principal("w", "plugin.worker", frozenset({"publish:w.>", "tasks:echo"}))
    receipt = await served.core.publish(
        Envelope.new(
            source="plugin.worker", subject="w.progress", type=UPDATE,
            data={"task_id": task_id, "state": "dispatched", "progress": 0.5},
        ),
        principal=mine,
    )  # fmt: skip
    assert receipt.reason == "no_route"
    link.close()
