"""Everything of the API beside publishing: lists, routes, tasks, dead letters, traces, tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as HttpRoute

from hubbub import Envelope, Reject, Retry, Route, hookimpl
from hubbub.config import AdapterSettings
from hubbub.testing import RecordingEndpoint
from hubbub.values import TaskResult
from hubbub.web.api.stream import covers
from hubbub.web.app import HubApp, build_adapter_app
from tests.hub.web.conftest import FAST, Served, serving

API = "/api/v1"


def routed(served: Served, address: str = "plugin.desk", **how: Any) -> RecordingEndpoint:
    """Attach an endpoint that gets all orders."""
    desk = RecordingEndpoint(address, **how)
    served.core.attach(desk)
    served.core.table.put(
        Route(name="orders", match="orders.>", to=(address,), attempts=2, durable=True)
    )
    return desk


async def eventually(served: Served, path: str, **query: Any) -> Any:
    """Return the first item of a list once it has one."""
    async with asyncio.timeout(10):
        while not (items := (await served.get(path, **query))["items"]):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return items[0]


# History


async def test_history_has_every_page(served: Served) -> None:
    """Newest first, no item twice, none missing, whatever the size of a page."""
    names = [(await served.publish(f"a.{n % 2}", n))["id"] for n in range(23)]
    for limit in (1, 5, 22, 23, 24, 1000):
        items = await served.pages(f"{API}/envelopes", limit=limit)
        assert [item["id"] for item in items] == names[::-1], limit
    odd = await served.pages(f"{API}/envelopes", limit=3, subject="*.1")
    assert [item["id"] for item in odd] == names[1::2][::-1]


async def test_history_is_filtered(served: Served) -> None:
    """By subject, type, outcome and time."""
    routed(served)
    taken = await served.publish("orders.eu", 1, type="t.v1")
    await served.publish("other", 2)
    event = (await served.get(f"{API}/envelopes/{taken['id']}"))["envelope"]
    wanted: list[dict[str, str]] = [
        {"subject": "orders.eu"}, {"subject": "orders.>"}, {"type": "t.v1"},
        {"outcome": "accepted"}, {"subject": "orders.*", "since": "1h"},
        {"subject": "orders.>", "since": "2020-01-01T00:00:00+02:00", "until": "9999-01-01"},
    ]  # fmt: skip
    for query in wanted:
        items = await served.pages(f"{API}/envelopes", **query)
        assert [item["id"] for item in items] == [taken["id"]], query
        assert items[0] == {**event, "outcome": "accepted"}
    (unrouted,) = await served.pages(f"{API}/envelopes", outcome="unrouted")
    assert (unrouted["subject"], unrouted["reason"]) == ("other", "no_route")
    assert await served.pages(f"{API}/envelopes", until="2020-01-01") == []


BAD_QUERIES = [
    "envelopes?limit=0", "envelopes?limit=1001", "envelopes?limit=x", "envelopes?limit=-1",
    "envelopes?cursor=x", "envelopes?cursor=%C3%BF",
    "envelopes?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
    "envelopes?since=soon", "envelopes?until=99999-01-01", "envelopes?since=-1",
    "envelopes?subject=a..b", "envelopes?subject=%3E.a", "envelopes?outcome=lost",
    "envelopes?type=%00", "deliveries?state=away", "deliveries?outcome=x", "deliveries?subject=*a",
    "tasks?state=x", "endpoints?state=x", "endpoints?limit=0", "stream?subject=a..b",
    "envelopes?" + "&".join(["a=1"] * 101),
]  # fmt: skip


async def test_a_bad_query_is_422(served: Served) -> None:
    """With the parameter that is wrong."""
    for query in BAD_QUERIES:
        answer = await served.client.get(f"{API}/{query}")
        assert answer.status_code == 422, (query, answer.text)
        assert answer.json()["code"] in ("invalid", "invalid_subject")


UNKNOWN = [
    "/nothing", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/envelopes/none",
    "/api/v1/traces/none", "/api/v1/tasks/none", "/api/v1/deliveries/1", "/api/v1/deliveries/x",
    "/api/v1/deliveries/99999999999999999999", "/api/v1/endpoints/none", "/api/v1/routes/none",
    "/api/v1/envelopes/%00%C3%BF", "/healthz/",
]  # fmt: skip


async def test_what_is_not_there_is_404(served: Served) -> None:
    """As a problem."""
    for path in UNKNOWN:
        answer = await served.client.get(path, follow_redirects=False)
        assert answer.status_code == 404, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_method_is_405(served: Served) -> None:
    """With the methods that there are; HEAD is GET without a body."""
    answer = await served.client.put(f"{API}/envelopes")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.json()["code"] == "method_not_allowed"
    head = await served.client.head(f"{API}/envelopes")
    assert (head.status_code, head.content) == (200, b"")


# Deliveries


async def test_a_plain_delivery_in_flight_is_shown_so(served: Served) -> None:
    """The store does not know; memory does."""
    release = asyncio.Event()

    class Slow(RecordingEndpoint):
        async def deliver(self, envelope: Envelope) -> None:
            await super().deliver(envelope)
            await release.wait()

    slow = Slow("plugin.slow")
    served.core.attach(slow)
    answer = await served.publish("x.y", 1, to=["plugin.slow"])
    waiting = await served.publish("x.y", 2, to=["plugin.slow"])
    await slow.wait_for(1)
    (shown,) = (await served.get(f"{API}/envelopes/{answer['id']}"))["deliveries"]
    assert (shown["state"], shown["endpoint"], shown["attempts"]) == ("in_flight", "plugin.slow", 1)
    assert (await served.get(f"{API}/deliveries/{shown['id']}"))["state"] == "in_flight"
    (flying,) = await served.pages(f"{API}/deliveries", state="in_flight")
    assert flying["id"] == shown["id"]
    (pending,) = await served.pages(f"{API}/deliveries", state="pending")
    assert (pending["envelope_id"], pending["endpoint"]) == (waiting["id"], "plugin.slow")
    release.set()
    done = await eventually(served, f"{API}/deliveries", outcome="delivered")
    assert done["state"] == "done"


async def test_deliveries_are_filtered_and_paged(served: Served) -> None:
    """Every filter, every page."""
    desk = routed(served)
    for number in range(5):
        desk.answers.append(Reject("no") if number % 2 else None)
        await served.publish(f"orders.{number}", number)
    await desk.wait_for(5)
    await asyncio.sleep(0)
    await served.core.journal.flush()
    dead = await served.pages(f"{API}/deliveries", outcome="dead", limit=1)
    assert [one["subject"] for one in dead] == ["orders.3", "orders.1"]
    for query in (
        {"endpoint": "plugin.desk"}, {"route": "orders"}, {"reason": "rejected"},
        {"subject": "orders.*"}, {"since": "1h"}, {"state": "done"},
    ):  # fmt: skip
        found = await served.pages(f"{API}/deliveries", outcome="dead", limit=1, **query)
        assert found == dead, query
    for query in ({"endpoint": "x"}, {"route": "x"}, {"subject": "other.>"}, {"until": "1h"}):
        assert await served.pages(f"{API}/deliveries", **query) == [], query
    (three,) = await served.pages(f"{API}/deliveries", subject="orders.3")
    assert three == dead[0]


async def test_a_dead_letter_is_replayed(served: Served) -> None:
    """As a new delivery to the same endpoint; the old outcome stays."""
    desk = routed(served)
    desk.answers = [Reject("no")]
    await served.publish("orders.eu", {"n": 1})
    dead = await eventually(served, f"{API}/deliveries", outcome="dead")
    answer = await served.client.post(f"{API}/deliveries/{dead['id']}/replay")
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert (again["replay_of"], again["endpoint"]) == (dead["id"], "plugin.desk")
    await desk.wait_for(2)
    done = await eventually(served, f"{API}/deliveries", outcome="delivered")
    assert done["id"] == again["id"]
    assert (await served.get(f"{API}/deliveries/{dead['id']}"))["outcome"] == "dead"
    conflict = await served.client.post(f"{API}/deliveries/{again['id']}/replay")
    assert conflict.status_code == 409
    (audit, *_) = await served.pages(f"{API}/audit")
    assert (audit["act"], audit["target"]) == ("delivery.replay", dead["id"])


async def test_a_dead_letter_is_dropped(served: Served) -> None:
    """It is gone from the list and the audit says what it was; what is not dead stays."""
    desk = routed(served)
    desk.answers = [Reject("no")]
    first = await served.publish("orders.eu", {"n": 1})
    dead = await eventually(served, f"{API}/deliveries", outcome="dead")
    path = f"{API}/deliveries/{dead['id']}"
    watch = await served.token("read")
    assert (await served.client.delete(path, headers=watch)).status_code == 403
    assert (await served.client.delete(path)).status_code == 204
    assert await served.pages(f"{API}/deliveries", outcome="dead") == []
    for gone in (await served.client.get(path), await served.client.delete(path)):
        assert gone.status_code == 404
    assert (await served.client.post(f"{path}/replay")).status_code == 404
    assert (await served.get(f"{API}/envelopes/{first['id']}"))["deliveries"] == []
    (audit, *_) = await served.pages(f"{API}/audit")
    assert (audit["act"], audit["target"]) == ("delivery.drop", dead["id"])
    assert audit["detail"] == f"rejected: orders.eu for plugin.desk, envelope {first['id']}"
    await served.publish("orders.eu", {"n": 2})
    done = await eventually(served, f"{API}/deliveries", outcome="delivered")
    refused = await served.client.delete(f"{API}/deliveries/{done['id']}")
    assert refused.status_code == 409
    assert "only a dead one can be dropped" in refused.json()["detail"]


async def test_a_replay_with_data_is_a_new_envelope(served: Served) -> None:
    """For the same endpoint, on the same trace."""
    desk = routed(served)
    desk.answers = [Reject("no")]
    first = await served.publish("orders.eu", {"n": 1})
    dead = await eventually(served, f"{API}/deliveries", outcome="dead")
    answer = await served.client.post(
        f"{API}/deliveries/{dead['id']}/replay", json={"data": {"n": 2}}
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["replay_of"] == dead["id"]
    assert answer.json()["trace_id"] == first["trace_id"]
    _, mended = await desk.wait_for(2)
    assert (mended.json(), mended.id) == ({"n": 2}, answer.json()["envelope_id"])


async def test_dead_letters_are_replayed_by_filter(served: Served) -> None:
    """Counted before, replayed once, oldest first."""
    desk = routed(served)
    desk.answers = [Reject("no") for _ in range(4)]
    for number in range(4):
        await served.publish(f"orders.{number}", number)
    await desk.wait_for(4)

    async def replay(**body: Any) -> Any:
        answer = await served.client.post(f"{API}/deliveries/replay", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    nothing = {"matched": 0, "replayed": 0, "refused": 0}
    assert await replay(endpoint="plugin.other") == nothing
    counted = await replay(endpoint="plugin.desk", dry_run=True)
    assert counted == {"matched": 4, "replayed": 0, "refused": 0}
    one = await replay(subject="orders.2", reason="rejected", route="orders", since="1h")
    assert one == {"matched": 1, "replayed": 1, "refused": 0}
    for nothing_said in ({}, {"rate": 1000}, {"endpoint": None}, {"all": False}):
        answer = await served.client.post(f"{API}/deliveries/replay", json=nothing_said)
        assert answer.status_code == 400, nothing_said
        assert '{"all": true}' in answer.json()["detail"]
    assert (await served.client.post(f"{API}/deliveries/replay")).status_code == 400
    both = {"all": True, "endpoint": "plugin.desk"}
    assert (await served.client.post(f"{API}/deliveries/replay", json=both)).status_code == 422
    assert (await replay(dry_run=True))["matched"] == 3
    rest = await replay(all=True, rate=1000)
    assert rest == {"matched": 3, "replayed": 3, "refused": 0}
    taken = await desk.wait_for(8)
    assert [envelope.json() for envelope in taken[4:]] == [2, 0, 1, 3]
    assert await replay(all=True) == nothing
    for bad in ({"rate": 0}, {"rate": "x"}, {"endpont": "x"}, {"subject": "a..b"}):
        answer = await served.client.post(f"{API}/deliveries/replay", json=bad)
        assert answer.status_code == 422, bad


# Routes


async def test_a_route_is_put_tried_and_taken_out(served: Served) -> None:
    """Whatever characters its name has; it is used at once."""
    desk = RecordingEndpoint("plugin.desk")
    served.core.attach(desk)
    for name in ("eu", "a b/c?d", "ä.*", "test", "x·y"):
        path = f"{API}/routes/{_quoted(name)}"
        body = {"match": "orders.>", "to": ["plugin.desk"], "where": {"data.n": {"gt": 1}}}
        made = await served.client.put(path, json=body)
        assert (made.status_code, made.json()["name"]) == (201, name)
        assert (await served.client.put(path, json=body)).status_code == 200
        shown = await served.get(path)
        assert (shown["origin"], shown["where"]) == ("api", body["where"])
        assert name in [route["name"] for route in await served.pages(f"{API}/routes", limit=1)]
        tried = await served.client.post(
            f"{API}/routes/test", json={"subject": "orders.eu", "data": {"n": 2}}
        )
        result = tried.json()
        assert [route["name"] for route in result["routes"]] == [name]
        assert (result["outcome"], result["to"]) == ("accepted", ["plugin.desk"])
        assert (await served.publish("orders.eu", {"n": 2}))["deliveries"] == 1
        assert (await served.client.delete(path)).status_code == 204
        assert (await served.client.get(path)).status_code == 404
    tried = await served.client.post(f"{API}/routes/test", json={"subject": "orders.x", "data": 1})
    assert tried.json() == {
        "routes": [], "deliveries": [], "outcome": "unrouted", "reason": "no_route", "to": [],
    }  # fmt: skip
    acts = [row["act"] for row in await served.pages(f"{API}/audit")]
    assert acts.count("route.put") == 10
    assert acts.count("route.delete") == 5


def _quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())


async def test_a_bad_route_is_422_and_a_foreign_one_is_left_alone(tmp_path: Path) -> None:
    """A route of hub.toml can be neither replaced nor taken out over the API."""
    toml = FAST + '[[routes]]\nname = "mine"\nmatch = "a.>"\nto = ["x"]\n'
    async with serving(tmp_path / "hub", toml) as served:
        bad: list[Any] = [
            {}, {"match": "a"}, {"match": "a", "to": []}, {"match": ">.a", "to": ["x"]},
            {"match": "a", "to": ["x"], "tto": 1}, {"match": "a", "to": ["x"], "deliver": "most"},
            {"match": "a", "to": ["x"], "name": "other"}, [1], "x",
        ]  # fmt: skip
        for body in bad:
            answer = await served.client.put(f"{API}/routes/new", json=body)
            assert answer.status_code == 422, (body, answer.text)
        body = {"match": "a.b", "to": ["x"]}
        assert (await served.client.put(f"{API}/routes/mine", json=body)).status_code == 422
        assert (await served.client.delete(f"{API}/routes/mine")).status_code == 409
        assert len(await served.pages(f"{API}/routes")) == len(served.core.table)


# Tasks


async def test_a_task_is_submitted_done_and_shown(served: Served) -> None:
    """Its history and its trace tell each step."""
    worker = RecordingEndpoint(
        "plugin.worker", accepts=["hubbub.task.request.v1"], task_types=["*"]
    )
    served.core.attach(worker)
    answer = await served.client.post(
        f"{API}/tasks",
        json={
            "task_type": "verify chart", "params": {"n": 1}, "text": "please", "labels": {},
            "priority": 7, "timeout": "50s", "max_attempts": 2,
        },
    )  # fmt: skip
    assert answer.status_code == 202, answer.text
    submitted = answer.json()
    assert submitted.keys() == {"task_id", "state", "trace_id"}
    (request,) = await worker.wait_for(1)
    assert request.subject == "tasks.verify%20chart.request"
    said = request.json()
    assert isinstance(said, dict)
    assert (said["params"], said["timeout_s"], said["text"]) == ({"n": 1}, 50, "please")
    path = f"{API}/tasks/{submitted['task_id']}"
    assert (await served.get(path))["state"] == "dispatched"
    early = await served.client.post(f"{path}/retry")
    assert early.status_code == 409
    result = TaskResult(submitted["task_id"])
    await served.core.work.finish(result, by="plugin.worker")
    done = await served.get(path)
    assert (done["state"], done["endpoint"], done["attempt"]) == ("completed", "plugin.worker", 1)
    assert [one["outcome"] for one in done["attempts"]] == ["completed"]
    assert [one["outcome"] for one in done["deliveries"]] == ["delivered"]
    assert (await served.client.post(f"{path}/cancel")).status_code == 409
    trace = await served.get(f"{API}/traces/{submitted['trace_id']}")
    names = [span["name"] for span in trace["spans"]]
    steps = [
        "envelope.accepted", "task.queued", "delivery.planned", "task.leased",
        "delivery.delivered", "task.completed",
    ]  # fmt: skip
    assert [name for name in names if name in steps][:6] == steps
    again = await served.client.post(f"{path}/retry")
    assert (again.status_code, again.json()["run"]) == (202, 2)


async def test_a_task_waits_and_is_cancelled(served: Served) -> None:
    """Nobody is there: it is queued, then cancelled, and counted."""
    may = await served.token("tasks", "direct:plugin.*", name="asker")
    answer = await served.client.post(
        f"{API}/tasks", json={"task_type": "t", "to": "plugin.later"}, headers=may
    )
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    path = f"{API}/tasks/{answer.json()['task_id']}"
    cancelled = await served.client.post(f"{path}/cancel", headers=may)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    (shown,) = await served.pages(f"{API}/tasks", state="cancelled", task_type="t")
    assert shown["task_id"] == answer.json()["task_id"]
    assert shown["asker"] == "api.asker"
    assert await served.pages(f"{API}/tasks", state="queued") == []
    assert (await served.client.post(f"{API}/tasks/none/cancel")).status_code == 404
    assert 'hubbub_tasks{state="cancelled"} 1.0' in (await served.client.get("/metrics")).text


async def test_tasks_have_every_page(served: Served) -> None:
    """Newest first."""
    made = [
        (await served.client.post(f"{API}/tasks", json={"task_type": "t"})).json()["task_id"]
        for _ in range(7)
    ]
    for limit in (1, 3, 7, 8):
        items = await served.pages(f"{API}/tasks", limit=limit)
        assert [item["task_id"] for item in items] == made[::-1]


BAD_TASKS: list[Any] = [
    {}, {"task_type": ""}, {"task_type": 1}, {"task_type": "t", "timeout": "soon"},
    {"task_type": "t", "timeout": -1}, {"task_type": "t", "timeout": "31d"},
    {"task_type": "t", "max_attempts": 0}, {"task_type": "t", "not_before": "x"},
    {"task_type": "t", "to": "a.*"}, {"task_type": "t", "labels": {"a": 1}},
    {"task_type": "t", "parms": {}}, {"task_type": "t", "priority": 10},
    {"task_type": "t\0"}, {"task_type": "t" * 600}, {"task_type": "t", "task_id": "a b"}, [], 1,
    {"task_type": "t", "params": {"x": "\0"}},
]  # fmt: skip


async def test_a_bad_task_is_422(served: Served) -> None:
    """With what to change; nothing is kept."""
    for body in BAD_TASKS:
        answer = await served.client.post(f"{API}/tasks", json=body)
        assert answer.status_code == 422, (body, answer.text)
    assert await served.pages(f"{API}/tasks") == []


async def test_a_dead_task_is_replayed_as_a_new_run(served: Served) -> None:
    """A replay of its delivery is a retry of the task."""
    worker = RecordingEndpoint(
        "plugin.worker", accepts=["hubbub.task.request.v1"], task_types=["*"]
    )
    worker.answers = [Reject("no")]
    served.core.attach(worker)
    await served.client.post(f"{API}/tasks", json={"task_type": "t"})
    dead = await eventually(served, f"{API}/deliveries", outcome="dead")
    answer = await served.client.post(f"{API}/deliveries/{dead['id']}/replay")
    assert answer.status_code == 202, answer.text
    assert answer.json()["replay_of"] == dead["id"]
    await worker.wait_for(2)


# Traces


async def test_a_trace_tells_every_step(served: Served) -> None:
    """A failed attempt, then the delivery; each once."""
    desk = routed(served)
    desk.answers = [Retry(after_s=0.001, reason="busy"), None]
    answer = await served.publish("orders.eu", 1)
    await desk.wait_for(2)
    await eventually(served, f"{API}/deliveries", outcome="delivered")
    trace = await served.get(f"{API}/traces/{answer['trace_id']}")
    assert trace["trace_id"] == answer["trace_id"]
    names = [span["name"] for span in trace["spans"]]
    assert names == [
        "envelope.accepted",
        "delivery.planned",
        "delivery.retry",
        "delivery.delivered",
    ]
    accepted, planned, retry, delivered = trace["spans"]
    assert accepted["envelope"] == answer["id"]
    assert planned["endpoint"] == delivered["endpoint"] == "plugin.desk"
    assert retry["detail"]["reason"] == "busy"
    assert delivered["detail"]["attempts"] == 2
    assert sorted(span["at"] for span in trace["spans"]) == [s["at"] for s in trace["spans"]]


async def test_a_volatile_message_is_told_by_the_ring(served: Served) -> None:
    """Nothing of it is stored, its end is known."""
    served.core.attach(RecordingEndpoint("plugin.desk"))
    answer = await served.publish("a.b", 1, durable=False, to=["plugin.desk"])
    async with asyncio.timeout(10):
        while not (spans := served.core.tracer.of_trace(answer["trace_id"])):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert spans
    trace = await served.get(f"{API}/traces/{answer['trace_id']}")
    assert "delivery.delivered" in [span["name"] for span in trace["spans"]]


# Tokens and administration


async def test_a_token_is_made_used_and_revoked(served: Served) -> None:
    """Shown once; worthless after that."""
    answer = await served.client.post(
        f"{API}/tokens", json={"name": "watch", "scopes": ["read"], "expires": "30d"}
    )
    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == {"id", "name", "scopes", "expires", "token"}
    headers = {"authorization": f"Bearer {made['token']}"}
    assert (await served.client.get(f"{API}/stats", headers=headers)).status_code == 200
    assert (await served.client.get(f"{API}/tokens", headers=headers)).status_code == 403
    (shown,) = await served.pages(f"{API}/tokens")
    assert shown["expires"] == made["expires"]
    assert made["token"] not in str(shown)
    assert (await served.client.delete(f"{API}/tokens/{made['id']}")).status_code == 204
    assert (await served.client.get(f"{API}/stats", headers=headers)).status_code == 401
    assert (await served.client.delete(f"{API}/tokens/{made['id']}")).status_code == 404
    acts = [row["act"] for row in await served.pages(f"{API}/audit", limit=1)]
    assert acts == ["token.revoke", "token.create"]


async def test_a_bad_token_is_422(served: Served) -> None:
    """Without a name, without a scope, with one that means nothing, expired already."""
    good = {"name": "n", "scopes": ["read"]}
    wrong: list[dict[str, Any]] = [
        {"name": ""}, {"scopes": []}, {"scopes": ["all"]}, {"scopes": ["publish:"]},
        {"scopes": ["publish:a..b"]}, {"expires": "2020-01-01T00:00:00Z"}, {"expires": "x"},
        {"scope": ["read"]},
    ]  # fmt: skip
    for bad in wrong:
        answer = await served.client.post(f"{API}/tokens", json={**good, **bad})
        assert answer.status_code == 422, bad


READ = ["envelopes", "deliveries", "endpoints", "routes", "adapters", "plugins", "stats"]
ADMIN_ONLY = [
    ("GET", "audit"), ("GET", "tokens"), ("POST", "tokens"), ("PUT", "routes/x"),
    ("DELETE", "routes/x"), ("POST", "deliveries/1/replay"), ("POST", "deliveries/replay"),
    ("DELETE", "deliveries/1"),
    ("POST", "adapters/x/restart"),
]  # fmt: skip


async def test_scopes_are_looked_at(served: Served) -> None:
    """`read` reads, only `admin` changes, a narrow token does neither."""
    read = await served.token("read", name="reader")
    narrow = await served.token("publish:a.>", name="narrow")
    for path in READ:
        assert (await served.client.get(f"{API}/{path}", headers=read)).status_code == 200, path
        assert (await served.client.get(f"{API}/{path}", headers=narrow)).status_code == 403, path
        nobody = await served.client.get(f"{API}/{path}", headers={"authorization": ""})
        assert nobody.status_code == 401, path
    for method, path in ADMIN_ONLY:
        answer = await served.client.request(method, f"{API}/{path}", headers=read, json={})
        assert answer.status_code == 403, path
    assert (await served.client.post(f"{API}/tasks", headers=read, json={})).status_code == 403


async def test_endpoints_are_listed(served: Served) -> None:
    """By address, in pages, with their state."""
    links = [
        served.core.attach(RecordingEndpoint(f"plugin.e{n}", labels={"n": str(n)}, linger_s=None))
        for n in range(3)
    ]
    links[1].close()
    links[2].slots = 0
    items = await served.pages(f"{API}/endpoints", limit=1, address="plugin.*")
    assert [(item["address"], item["state"]) for item in items] == [
        ("plugin.e0", "online"), ("plugin.e1", "offline"), ("plugin.e2", "paused"),
    ]  # fmt: skip
    shown = await served.get(f"{API}/endpoints/plugin.e0")
    assert shown["labels"] == {"n": "0"}


METRICS = [
    "hubbub_build_info{version=", "hubbub_envelopes_accepted_total{adapter=",
    "hubbub_envelopes_refused_total{adapter=\"api\",reason=", "hubbub_envelopes_unrouted_total{",
    "hubbub_deliveries_total{adapter=\"plugin\",outcome=\"delivered\"}",
    "hubbub_delivery_retries_total{adapter=", "hubbub_publish_seconds_count",
    "hubbub_delivery_seconds_count{adapter=", "hubbub_mailbox_depth{adapter=\"plugin\"}",
    "hubbub_endpoints{adapter=\"plugin\",state=\"online\"} 1.0",
    "hubbub_tasks{state=\"queued\"} 1.0", "hubbub_tasks{state=\"cancelled\"} 0.0",
    "hubbub_routes ", "# TYPE hubbub_adapter_up gauge",
    "# TYPE hubbub_plugin_errors_total counter",
    "hubbub_journal_commit_seconds_count", "hubbub_journal_batch_size_count",
    "# TYPE hubbub_frames_refused_total counter", "hubbub_mailbox_depth{adapter=\"pool\"} 1.0",
]  # fmt: skip


async def test_metrics_have_the_names_of_the_contract(served: Served) -> None:
    """Open on loopback; the gauges are of this moment."""
    desk = routed(served, accepts=["hubbub.event.v1"])
    desk.answers = [Retry(after_s=0.001)]
    await served.publish("orders.eu", 1)
    await served.publish("other", 1)
    await served.client.post(f"{API}/envelopes", json={"subject": "a.*", "data": 1})
    await served.client.post(f"{API}/tasks", json={"task_type": "t"})
    await desk.wait_for(2)
    await eventually(served, f"{API}/deliveries", outcome="delivered")
    answer = await served.client.get("/metrics", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in METRICS:
        assert name in answer.text, name


async def test_metrics_need_a_token_where_others_can_reach_them(tmp_path: Path) -> None:
    """Bound to every network, the scope `read` is asked for."""
    async with serving(tmp_path / "hub", FAST + 'host = "0.0.0.0"\n') as served:
        nobody = await served.client.get("/metrics", headers={"authorization": ""})
        assert nobody.status_code == 401
        narrow = await served.token("publish:a.>")
        assert (await served.client.get("/metrics", headers=narrow)).status_code == 403
        assert (await served.client.get("/metrics")).status_code == 200


# The stream


async def test_the_stream_shows_what_is_accepted(served: Served) -> None:
    """As it comes, under the patterns asked for."""
    url = f"{API}/stream"
    async with served.client.stream("GET", url, params={"subject": "a.>"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        await served.publish("b.c", 1)
        sent = await served.publish("a.b", {"text": "x\ny"})
        event = [await anext(lines) for _ in range(4)]
    assert event[1:3] == [f"id: {sent['id']}", "event: envelope"]
    assert event[3].startswith('data: {"specversion":"1.0"')


async def test_the_stream_resumes(served: Served) -> None:
    """After the last event; with a gap when that is unknown."""
    first, second = [await served.publish("a.b", n) for n in (1, 2)]
    for last, wanted in ((first["id"], f"id: {second['id']}"), ("none", "event: gap")):
        headers = {"last-event-id": last}
        async with served.client.stream("GET", f"{API}/stream", headers=headers) as answer:
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(3)][2] == wanted


async def test_a_narrow_token_watches_where_it_may(served: Served) -> None:
    """Not more than its scope covers, whatever wildcards it asks for."""
    may = await served.token("subscribe:orders.*")
    for subject in (">", "orders.>", "other", "orders.a.b"):
        answer = await served.client.get(f"{API}/stream", params={"subject": subject}, headers=may)
        assert answer.status_code == 403, subject
    none = await served.token("publish:>", name="other")
    assert (await served.client.get(f"{API}/stream", headers=none)).status_code == 403
    async with served.client.stream("GET", f"{API}/stream", headers=may) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        (">", "a", True), (">", ">", True), ("a.>", "a.b.>", True), ("a.>", "a", False),
        ("a.*", "a.b", True), ("a.*", "a.*", True), ("a.*", "a.>", False), ("a.b", "a.*", False),
        ("*", "a.b", False), ("a.*.c", "a.b.c", True), ("*.*", "a", False),
    ],
)  # fmt: skip
def test_a_pattern_covers_another(wide: str, narrow: str, covered: bool) -> None:
    """All that the narrow one covers, or nothing."""
    assert covers(wide, narrow) is covered


# Health, plugins and adapters


async def test_healthz_and_readyz_answer_without_a_token(served: Served) -> None:
    """Every part is named."""
    headers = {"authorization": ""}
    alive = (await served.client.get("/healthz", headers=headers)).json()
    assert alive["status"] == "alive"
    ready = await served.client.get("/readyz", headers=headers)
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert ready.json()["parts"].keys() == {"hub", "store", "adapters", "plugins"}


class Parrot:
    """An adapter with a path, which cannot start at first."""

    Config = AdapterSettings

    def __init__(self, name: str, path: str, *, fails: bool = False) -> None:
        self.name = name
        self._path = path
        self.fails = fails

    @hookimpl
    def adapters(self) -> list[Any]:
        return [self]

    async def start(self, hub: Any) -> None:
        if self.fails:
            raise OSError("port taken")

    async def stop(self) -> None: ...

    def http_routes(self) -> list[Any]:
        async def say(request: Request) -> Response:
            if request.query_params.get("fail"):
                raise ValueError("secret detail")
            return PlainTextResponse(self.name)

        return [HttpRoute(self._path, say)]


async def _panel(request: Request) -> Response:
    return PlainTextResponse("panel")


class Panel:
    """A plugin with paths."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths

    @hookimpl
    def http_routes(self) -> list[Any]:
        return [HttpRoute(path, _panel) for path in self.paths]


def _toml(**adapters: str) -> str:
    tables = [f"[adapters.{name}]\nenabled = true\n{more}" for name, more in adapters.items()]
    return FAST + "\n".join(tables)


async def adapter(served: Served, name: str) -> Any:
    """Return how the API shows an adapter."""
    (shown,) = [one for one in await served.pages(f"{API}/adapters") if one["name"] == name]
    return shown


async def test_a_degraded_adapter_is_named_and_a_required_one_counts(tmp_path: Path) -> None:
    """200 with the reason; 503 when it is required; a restart mends it."""
    for required, status in (("", 200), ("required = true", 503)):
        parrot = Parrot("parrot", "/parrot", fails=True)
        directory = tmp_path / f"hub{status}"
        async with serving(directory, _toml(parrot=required), plugins={"p": parrot}) as served:
            answer = await served.client.get("/readyz")
            assert answer.status_code == status
            part = answer.json()["parts"]["adapters"]["parrot"]
            assert (part["state"], part["reason"]) == ("degraded", "OSError: port taken")
            assert (await served.client.get("/parrot")).text == "parrot"
            parrot.fails = False
            mended = await served.client.post(f"{API}/adapters/parrot/restart")
            assert mended.json()["state"] == "up"
            assert (await served.client.get("/readyz")).status_code == 200
            shown = await adapter(served, "parrot")
            assert (shown["name"], shown["state"]) == ("parrot", "up")


async def test_the_second_that_claims_a_path_is_refused_by_name(tmp_path: Path) -> None:
    """All of its paths are left out, the first one's stay, the hub's own are never given away."""
    plugins = {
        "one": Panel("/panel", "/x/{a}"),
        "two": Panel("/other", "/panel"),
        "three": Panel("/x/{b}"),
        "four": Panel("/api/v1/mine"),
        "five": Panel("/metrics"),
        "parrot": Parrot("parrot", "/panel"),
    }
    async with serving(tmp_path / "hub", _toml(parrot=""), plugins=plugins) as served:
        assert (await served.client.get("/panel")).text == "panel"
        assert (await served.client.get("/other")).status_code == 404
        shown = {one["name"]: one for one in await served.pages(f"{API}/plugins")}
        assert shown["one"]["state"] == "up"
        for name in ("two", "three", "four", "five", "parrot"):
            assert shown[name]["state"] == "failed", name
            assert "belongs to" in shown[name]["reason"]
        refused = await adapter(served, "parrot")
        assert refused["state"] == "failed"
        assert "plugin 'one'" in refused["reason"]


async def test_an_unexpected_exception_is_a_problem_without_internals(tmp_path: Path) -> None:
    """500, a trace id to look for, and nothing of what went wrong."""
    parrot = Parrot("parrot", "/parrot")
    async with serving(tmp_path / "hub", _toml(parrot=""), plugins={"p": parrot}) as served:
        answer = await served.client.get("/parrot?fail=1")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        app = build_adapter_app(served.core, "parrot", loopback=True)
        assert isinstance(app, HubApp)
        assert [getattr(route, "path", None) for route in app.routes] == ["/parrot"]
        served.core.database.read = None  # type: ignore[method-assign,assignment]
        broken = await served.client.get(f"{API}/envelopes")
        assert (broken.status_code, broken.json()["code"]) == (500, "internal")
        del served.core.database.read


async def test_routes_of_the_hub_itself_come_before_plugins(tmp_path: Path) -> None:
    """What is given as `more` stands where no plugin can take it."""
    more = [Mount("/console", routes=[HttpRoute("/", _panel)])]
    plugins = {"one": Panel("/console/x")}
    async with serving(tmp_path / "hub", FAST, plugins=plugins, more=more) as served:
        assert (await served.client.get("/console/")).text == "panel"
        (plugin,) = [p for p in await served.pages(f"{API}/plugins") if p["name"] == "one"]
        assert plugin["state"] == "failed"
