"""The hub's own endpoint protocol, spoken by the `websockets` library."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub.testing import serving_hub
from hubbub.values import Submission
from hubbub.web.sockets.frames import Publish, read_frame
from tests.hub.web.conftest import ADMIN, Served


@asynccontextmanager
async def stream(
    served: Served, query: str = "", token: str = ADMIN
) -> AsyncGenerator[ClientConnection]:
    """Connect, and read the hello."""
    url = served.url.replace("http", "ws") + "/api/v1/stream?" + query
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


async def heard(socket: ClientConnection, kind: str) -> Any:
    """Return the next frame, which is of that type."""
    async with asyncio.timeout(10):
        frame = json.loads(await socket.recv())
    assert frame["type"] == kind, frame
    return frame


async def say(socket: ClientConnection, **frame: Any) -> None:
    """Send a frame."""
    await socket.send(json.dumps(frame))


async def test_hello_names_the_endpoint(served: Served) -> None:
    """The first frame says which endpoint this connection is."""
    async with stream(served, "name=worker-1") as socket:
        hello = await heard(socket, "hello")
        assert hello == {"type": "hello", "endpoint": "stream.worker-1", "resumed": False}
    async with stream(served) as socket:
        assert (await heard(socket, "hello"))["endpoint"].startswith("stream.")


async def test_a_subscriber_gets_what_is_published(served: Served) -> None:
    """At connect or by frame: a private route to this endpoint."""
    async with stream(served, "subject=orders.>") as socket:
        await heard(socket, "hello")
        await say(socket, type="subscribe", subject="alarms.*")
        await say(socket, type="publish", ref=1, envelope={"subject": "x.y", "data": 0})
        await heard(socket, "accepted")  # frames are read in order: the subscription stands
        published = await served.publish("orders.eu", {"n": 1})
        assert published["deliveries"] == 1
        first = await heard(socket, "envelope")
        assert (first["delivery"], first["envelope"]["data"]) == (1, {"n": 1})
        await served.publish("alarms.fire", 2)
        assert (await heard(socket, "envelope"))["envelope"]["data"] == 2
        await say(socket, type="unsubscribe", subject="alarms.*")
        await say(socket, type="publish", ref=2, envelope={"subject": "x.y", "data": 0})
        await heard(socket, "accepted")
        assert (await served.publish("alarms.fire", 3))["outcome"] == "unrouted"


async def test_publish_is_answered_after_the_commit_and_bears_the_streams_address(
    served: Served,
) -> None:
    """`accepted` has the id that history shows, with the stream as its source."""
    async with stream(served, "name=sensor") as socket:
        await heard(socket, "hello")
        await say(socket, type="publish", ref="r1", envelope={"subject": "a.b", "data": [1]})
        accepted = await heard(socket, "accepted")
        assert (accepted["ref"], accepted["deliveries"]) == ("r1", 0)
        stored = await served.get(f"/api/v1/envelopes/{accepted['id']}")
        assert stored["envelope"]["source"] == "stream.sensor"


async def test_request_and_reply_between_two_streams(served: Served) -> None:
    """One asks, the other answers with `inreplyto`."""
    async with stream(served, "subject=sum.*&name=adder") as adder, stream(served) as asker:
        await heard(adder, "hello")
        await heard(asker, "hello")
        await say(
            asker, type="request", ref="q", envelope={"subject": "sum.now", "data": [2, 3]},
            timeout="5s",
        )  # fmt: skip
        question = (await heard(adder, "envelope"))["envelope"]
        answer = {"subject": "sum.done", "data": 5, "in_reply_to": question["id"]}
        await say(adder, type="publish", envelope=answer)
        reply = await heard(asker, "reply")
        assert (reply["ref"], reply["envelope"]["data"]) == ("q", 5)
        asked = await served.client.post(
            "/api/v1/requests", json={"subject": "nobody.there", "data": 1, "timeout": "5s"}
        )
        assert (asked.status_code, asked.json()["code"]) == (503, "no_endpoint")


async def test_manual_acknowledgement(served: Served) -> None:
    """Taken, tried again, or dead: as the client says."""
    async with stream(served, "subject=jobs.*&ack=manual&name=careful") as socket:
        await heard(socket, "hello")
        published = await served.publish("jobs.a", 1)
        frame = await heard(socket, "envelope")
        await say(socket, type="nack", delivery=frame["delivery"], reason="busy", retry=True)
        again = await heard(socket, "envelope")
        assert again["envelope"]["id"] == published["id"]
        assert again["delivery"] > frame["delivery"]
        await say(socket, type="ack", delivery=again["delivery"])
        await say(socket, type="ack", delivery=again["delivery"])
        problem = (await heard(socket, "error"))["problem"]
        assert problem["code"] == "conflict"
        refused = await served.publish("jobs.b", 2)
        frame = await heard(socket, "envelope")
        await say(socket, type="nack", delivery=frame["delivery"], reason="no", retry=False)
        await say(socket, type="publish", ref=1, envelope={"subject": "sync.x", "data": 0})
        await heard(socket, "accepted")
        shown = await served.get(f"/api/v1/envelopes/{refused['id']}")
        (delivery,) = shown["deliveries"]
        assert (delivery["outcome"], delivery["reason"]) == ("dead", "rejected")


async def test_a_trace_tells_when_it_was_sent_and_when_acknowledged(served: Served) -> None:
    """Each attempt of a stream that acknowledges; both stay."""
    async with stream(served, "subject=jobs.*&ack=manual&name=careful") as socket:
        await heard(socket, "hello")
        trace_id = (await served.publish("jobs.a", 1))["trace_id"]
        frame = await heard(socket, "envelope")

        async def names() -> list[str]:
            return [
                span["name"] for span in (await served.get(f"/api/v1/traces/{trace_id}"))["spans"]
            ]

        await say(socket, type="nack", delivery=frame["delivery"], reason="busy", retry=True)
        again = await heard(socket, "envelope")
        assert [name for name in await names() if name in ("delivery.sent", "delivery.retry")] == [
            "delivery.sent", "delivery.retry", "delivery.sent",
        ]  # fmt: skip
        await say(socket, type="ack", delivery=again["delivery"])
        await say(socket, type="publish", ref=1, envelope={"subject": "sync.x", "data": 0})
        await heard(socket, "accepted")
        assert (await names())[-4:] == [
            "delivery.sent", "delivery.retry", "delivery.sent", "delivery.delivered",
        ]  # fmt: skip


async def test_a_durable_stream_gets_what_it_missed_in_order(served: Served) -> None:
    """Its mailbox and its subscriptions stay while it is away."""
    query = "name=keeper&durable=1"
    async with stream(served, query + "&subject=news.>") as socket:
        await heard(socket, "hello")
    for number in range(5):
        assert (await served.publish("news.today", number))["deliveries"] == 1
    async with stream(served, query) as socket:
        assert (await heard(socket, "hello"))["resumed"] is True
        got = [(await heard(socket, "envelope"))["envelope"]["data"] for _ in range(5)]
    assert got == [0, 1, 2, 3, 4]


async def test_the_newest_connection_of_a_name_wins(served: Served) -> None:
    """The older one is closed with 4009; another token may not take the name."""
    async with stream(served, "name=only") as older:
        await heard(older, "hello")
        async with stream(served, "name=only&subject=a.b") as newer:
            await heard(newer, "hello")
            with pytest.raises(ConnectionClosed):
                await heard(older, "envelope")
            assert older.close_code == 4009
            await say(newer, type="publish", ref=0, envelope={"subject": "a.b", "data": 7})
            kinds = {json.loads(await newer.recv())["type"] for _ in range(2)}
            assert kinds == {"accepted", "envelope"}
            other = await served.token("read")
            with pytest.raises(InvalidStatus) as refusal:
                async with stream(served, "name=only", other["authorization"].split()[1]):
                    pass
            assert refusal.value.response.status_code == 403


async def test_the_newest_wins_while_the_older_is_still_subscribing(served: Served) -> None:
    """The older one never takes its place back, and subscribes nothing more for the newer one."""
    many = "".join(f"&subject=s.{number}" for number in range(100))
    older = asyncio.create_task(_connected(served, "name=only&durable=1" + many))
    while not served.core.subscriptions.of("stream.only"):  # noqa: ASYNC110  # it has begun
        await asyncio.sleep(0)
    async with stream(served, "name=only&durable=1&subject=a.b") as newer:
        await heard(newer, "hello")
        await (await older).wait_closed()
        for _ in range(3):
            await served.core.journal.flush()
        subscribed = served.core.subscriptions.of("stream.only")
        assert "a.b" in subscribed
        assert len(subscribed) < 100
        await served.publish("a.b", 7)
        assert (await heard(newer, "envelope"))["envelope"]["data"] == 7


async def _connected(served: Served, query: str) -> ClientConnection:
    url = served.url.replace("http", "ws") + "/api/v1/stream?" + query
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return await connect(url, additional_headers=headers, proxy=None)


async def test_a_stream_is_a_worker(served: Served) -> None:
    """It is given a task, and its published result ends it."""
    query = "name=solver&ack=manual&accepts=hubbub.task.request.v1&task_types=solve&label=gpu:yes"
    async with stream(served, query) as socket:
        await heard(socket, "hello")
        body = {"task_type": "solve", "params": {"x": 2}, "labels": {"gpu": "yes"}}
        task_id = (await served.client.post("/api/v1/tasks", json=body)).json()["task_id"]
        given = (await heard(socket, "envelope"))["envelope"]
        assert given["data"]["task_id"] == task_id
        result = {"task_id": task_id, "state": "completed", "result": {"y": 4}}
        envelope = {"subject": "solver.done", "type": "hubbub.task.result.v1", "data": result}
        await say(socket, type="publish", ref="done", envelope=envelope)
        accepted = await heard(socket, "accepted")
        task = await served.get(f"/api/v1/tasks/{task_id}")
        assert (task["state"], task["result"]) == ("completed", {"y": 4})
        stored = await served.get(f"/api/v1/envelopes/{accepted['id']}")
        assert stored["envelope"]["data"]["result"] == {"y": 4}
        assert accepted["deliveries"] == len(stored["deliveries"])
        envelope["data"] = {**result, "result": {"y": 5}}
        await say(socket, type="publish", ref="done", envelope=envelope)
        assert await heard(socket, "accepted") == {**accepted, "late": True}
        await say(
            socket, type="publish", ref="odd",
            envelope={**envelope, "data": {**result, "task_id": "unknown"}},
        )  # fmt: skip
        assert (await heard(socket, "refused"))["problem"]["code"] == "not_found"


async def test_a_failure_that_is_tried_again_is_told_by_its_request(served: Served) -> None:
    """Nothing of it is stored as a message yet, so the id is that of what was asked."""
    query = "name=solver&accepts=hubbub.task.request.v1&task_types=solve"
    async with stream(served, query) as socket:
        await heard(socket, "hello")
        work = Submission(task_type="solve", source="plugin.asker", retry_on_failure=True)
        asked = await served.core.submit(work)
        await heard(socket, "envelope")
        data = {"task_id": asked.task_id, "state": "failed", "error": "no"}
        envelope = {"subject": "solver.done", "type": "hubbub.task.result.v1", "data": data}
        await say(socket, type="publish", ref="r", envelope=envelope)
        assert await heard(socket, "accepted") == {
            "type": "accepted", "ref": "r", "id": asked.id, "deliveries": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "labels=gpu:yes,zone:eu",
        "labels=gpu%3Dyes&label=zone%3Deu",
        'labels={"gpu":"yes","zone":"eu"}',
    ],
)
async def test_labels_are_said_in_any_of_three_ways(served: Served, said: str) -> None:
    """With a colon, with an equals sign, or as a JSON object."""
    async with stream(served, f"name=a&{said}") as socket:
        await heard(socket, "hello")
        found = await served.get("/api/v1/endpoints/stream.a")
        assert found["labels"] == {"gpu": "yes", "zone": "eu"}


def test_the_page_shows_frames_that_are_read() -> None:
    """Those to the hub, in its table and in its examples."""
    page = (Path(__file__).parents[3] / "docs" / "streams.md").read_text(encoding="utf-8")
    table = page.partition("## Frames to the hub")[2].partition("## Frames from the hub")[0]
    shown = re.findall(r"^\| `(\{.*?\})` \|", table, re.MULTILINE)
    kinds = {type(read_frame(text)).__name__ for text in shown}
    assert kinds == {"Subscribe", "Unsubscribe", "Ack", "Nack", "Publish", "Request"}
    examples = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert [type(read_frame(text)) for text in examples] == [Publish, Publish]


BAD_FRAMES = {
    "not json": "{",
    "no type": "{}",
    "unknown type": '{"type":"dance"}',
    "a number": "17",
    "bad subject": '{"type":"subscribe","subject":"a..b"}',
    "ack of nothing": '{"type":"ack","delivery":99}',
    "wrong kind": '{"type":"ack","delivery":"x"}',
    "deep": "[" * 5000,
}


@pytest.mark.parametrize("text", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_a_bad_frame_is_answered_and_the_connection_stays(served: Served, text: str) -> None:
    """After garbage, a proper publish still succeeds on the same socket."""
    async with stream(served) as socket:
        await heard(socket, "hello")
        await socket.send(text)
        assert (await heard(socket, "error"))["problem"]["status"] in (400, 409, 422)
        await socket.send(b"\x00")
        await heard(socket, "error")
        await say(socket, type="publish", ref=1, envelope={"subject": "a.b", "data": 1})
        assert (await heard(socket, "accepted"))["ref"] == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [("ack=maybe", 422), ("concurrency=0", 422), ("colour=red", 422), ("durable=1", 422),
     ("subject=a..b", 422), ("label=nocolon", 422), ("labels=%7B", 422),
     ("labels=:x", 422), ('labels={"a":1}', 422)],
)  # fmt: skip
async def test_a_bad_query_is_refused_at_the_handshake(
    served: Served, query: str, status: int
) -> None:
    """With a problem, before anything is accepted."""
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(served, query):
            pass
    assert refusal.value.response.status_code == status


async def test_a_refused_handshake_is_no_error_of_the_hub(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can be refused as often as he likes without filling the log."""
    with pytest.raises(InvalidStatus):
        async with stream(served, "", "wrong"):
            pass
    await served.get("/healthz")  # the refused one has been served to its end by now
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_scopes_hold_on_streams_too(served: Served) -> None:
    """No token, a subscription that is not covered, a publish that is not."""
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(served, "", "wrong"):
            pass
    assert refusal.value.response.status_code == 401
    narrow = (await served.token("subscribe:orders.>"))["authorization"].split()[1]
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(served, "subject=>", narrow):
            pass
    assert refusal.value.response.status_code == 403
    async with stream(served, "subject=orders.eu", narrow) as socket:
        await heard(socket, "hello")
        await say(socket, type="publish", ref=1, envelope={"subject": "orders.eu", "data": 1})
        assert (await heard(socket, "refused"))["problem"]["code"] == "forbidden"


@pytest.mark.parametrize("limit", [1000, 3000])
async def test_a_frame_of_the_largest_size_and_one_byte_more(tmp_path: Path, limit: int) -> None:
    """What the stream sent counts; on the same port another path may have room for more."""
    toml = f"[hub]\nmax_body = {limit}\nlimits = {{ frame = {limit} }}\n"
    toml += "[adapters.kenko]\nenabled = true\nmax_message_bytes = 5000\n"
    async with serving_hub(tmp_path / "hub", toml, environ={"HUBBUB_ADMIN_TOKEN": ADMIN}) as hub:
        url = hub.main.url.replace("http", "ws") + "/api/v1/stream"
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            await heard(socket, "hello")
            frame = '{"type":"publish","envelope":{"subject":"a.b","data":"%s"}}'
            fits = frame % ("é" * ((limit - len(frame) + 2) // 2))
            fits += " " * (limit - len(fits.encode()))
            await socket.send(fits)
            await heard(socket, "accepted")
            await socket.send(fits + " ")
            with pytest.raises(ConnectionClosed) as closed:
                await heard(socket, "error")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009


async def test_data_over_the_largest_envelope_is_refused(tmp_path: Path) -> None:
    """Also where a frame may be larger than that."""
    toml = "[hub]\nmax_body = 1000\n"
    async with serving_hub(tmp_path / "hub", toml, environ={"HUBBUB_ADMIN_TOKEN": ADMIN}) as hub:
        url = hub.main.url.replace("http", "ws") + "/api/v1/stream"
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            await heard(socket, "hello")
            for size, answer in ((998, "accepted"), (999, "refused")):
                await say(socket, type="publish", envelope={"subject": "a.b", "data": "x" * size})
                await heard(socket, answer)
