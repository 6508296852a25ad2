"""POST /api/v1/envelopes: all forms, repeated, refused; nothing bad is stored, nothing is 5xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubbub.config import Address
from hubbub.testing import TcpPeer
from hubbub.web.bodies import DISCARDED
from tests.hub.web.conftest import ADMIN, FAST, Served, serving

PATH = "/api/v1/envelopes"
CLOUD = {"content-type": "application/cloudevents+json"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


async def stored(served: Served) -> int:
    """Return how many envelopes history has."""
    return len(await served.pages(PATH))


async def post(served: Served, body: Any, **headers: str) -> httpx2.Response:
    """Publish a body as it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await served.client.post(PATH, content=content, headers=headers)


# Forms


async def test_the_short_form_is_accepted(served: Served) -> None:
    """Every member of the short form arrives in the one JSON form."""
    answer = await served.publish(
        "orders.eu",
        {"n": 1},
        type="shop.order.v1",
        key="k1",
        priority=7,
        reply_to="plugin.desk",
        expires="1h",
    )
    assert answer.keys() == {"id", "trace_id", "outcome", "deliveries", "reason"}
    assert (answer["outcome"], answer["reason"]) == ("unrouted", "no_route")
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert event["subject"] == "orders.eu"
    assert event["source"] == "api.admin"
    assert event["type"] == "shop.order.v1"
    assert event["data"] == {"n": 1}
    assert event["partitionkey"] == "k1"
    assert event["priority"] == 7
    assert event["replyto"] == "plugin.desk"
    assert event["traceparent"][3:35] == answer["trace_id"]
    assert event["expirytime"] > event["time"]


async def test_a_reply_to_without_a_dot_is_the_id_of_what_is_answered(served: Served) -> None:
    """The answer goes on the first one's trace."""
    asked = await served.publish("a.b", 1)
    answer = await served.publish("a.c", 2, reply_to=asked["id"])
    assert answer["trace_id"] == asked["trace_id"]
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert event["inreplyto"] == asked["id"]


@pytest.mark.parametrize("headers", [{}, CLOUD], ids=["plain", "declared"])
async def test_a_structured_cloud_event_is_accepted(
    served: Served, headers: dict[str, str]
) -> None:
    """Known extensions are kept, unknown lower-case ones are left out; `time` is the hub's."""
    event = {
        "specversion": "1.0",
        "id": "e1",
        "source": "relay.master",
        "type": "t.v1",
        "subject": "a.b",
        "time": "2026-01-02T03:04:05Z",
        "data": [1, 2],
        "traceparent": PARENT,
        "partitionkey": "p",
        "priority": 3,
        "comexampleother": "x",
    }
    answer = await post(served, event, **headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["id"] == "e1"
    assert answer.json()["trace_id"] == TRACE
    kept = (await served.get(f"{PATH}/e1"))["envelope"]
    assert kept["source"] == "relay.master"
    assert kept["time"] != event["time"]
    assert (kept["data"], kept["partitionkey"], kept["priority"]) == ([1, 2], "p", 3)


async def test_a_binary_cloud_event_is_accepted(served: Served) -> None:
    """Attributes are headers, the body is the data as it came."""
    headers = {
        "content-type": "application/json; charset=utf-8",
        "ce-specversion": "1.0",
        "ce-id": "b1",
        "ce-source": "x.y",
        "ce-type": "t.v1",
        "ce-subject": "a.%C3%A4",
        "ce-priority": "9",
        "ce-traceparent": PARENT,
    }
    answer = await post(served, b'{"n": 1.50}', **headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["trace_id"] == TRACE
    kept = (await served.get(f"{PATH}/b1"))["envelope"]
    assert (kept["subject"], kept["priority"], kept["data"]) == ("a.ä", 9, {"n": 1.5})


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-type": "application/cloudevents-batch+json"}],
    ids=["plain", "declared"],
)
async def test_a_batch_is_one_commit(served: Served, headers: dict[str, str]) -> None:
    """Members may have different forms; the answer has one item each, in order."""
    members = [
        {"subject": "a.1", "data": 1},
        {"specversion": "1.0", "id": "m2", "source": "s.t", "type": "t", "subject": "a.2"},
        {"subject": "a.3", "data": None},
    ]
    answer = await post(served, members, **headers)
    assert answer.status_code == 202, answer.text
    items = answer.json()["items"]
    assert len(items) == 3
    assert items[1]["id"] == "m2"
    subjects = [item["subject"] for item in await served.pages(PATH)]
    assert subjects == ["a.3", "a.2", "a.1"]


async def test_one_bad_member_refuses_the_whole_batch(served: Served) -> None:
    """422 with its index, wherever it is found; nothing is stored."""
    good = {"subject": "a.b", "data": 1}
    bad: dict[str, Any] = {
        "unknown member": {**good, "datta": 1},
        "forged subject": {"subject": "a.*", "data": 1},
        "no task": {"subject": "a.b", "type": "hubbub.task.request.v1", "data": {}},
        "not an object": 7,
        "priority": {**good, "priority": 10},
    }
    for name, member in bad.items():
        answer = await post(served, [good, good, member])
        assert (answer.status_code, answer.json().get("index")) == (422, 2), name
    assert await stored(served) == 0


async def test_the_batch_limit_is_exact(tmp_path: Path) -> None:
    """As many as the limit, not one more, not none."""
    async with serving(tmp_path / "hub", FAST + "batch_limit = 3\n") as served:
        member = {"subject": "a.b", "data": 1}
        assert (await post(served, [member] * 3)).status_code == 202
        assert (await post(served, [member] * 4)).status_code == 422
        assert (await post(served, [])).status_code == 422
        assert await stored(served) == 3


async def test_the_traceparent_of_the_request_is_honoured(served: Served) -> None:
    """It is the default of members that have none."""
    answer = await post(served, {"subject": "a.b", "data": 1}, traceparent=PARENT)
    assert answer.json()["trace_id"] == TRACE
    refused = await post(served, {"subject": "a b", "data": 1}, traceparent=PARENT)
    assert refused.json()["trace_id"] == TRACE


# Repeated


async def test_a_repeated_idempotency_key_gives_the_same_answer(served: Served) -> None:
    """Stored once; another body under the same key is 422."""
    body = {"subject": "a.b", "data": 1}
    first = await post(served, body, **{"idempotency-key": "k"})
    again = await post(served, body, **{"idempotency-key": "k"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    other = await post(served, {**body, "data": 2}, **{"idempotency-key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert "index" not in other.json()
    assert await stored(served) == 1


async def test_concurrent_duplicates_are_stored_once(served: Served) -> None:
    """Twenty at once, one envelope, one answer."""
    body = {"subject": "a.b", "data": 1}
    answers = await asyncio.gather(
        *(post(served, body, **{"idempotency-key": "k"}) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert await stored(served) == 1


async def test_a_repeated_batch_gives_the_same_answer(served: Served) -> None:
    """The key names the batch as a whole."""
    members = [{"subject": "a.1", "data": 1}, {"subject": "a.2", "data": 2}]
    first = await post(served, members, **{"idempotency-key": "k"})
    again = await post(served, members, **{"idempotency-key": "k"})
    assert first.json() == again.json()
    other = await post(served, members[:1], **{"idempotency-key": "k"})
    assert other.status_code == 422
    assert await stored(served) == 2


async def test_an_id_given_again_is_the_same_envelope(served: Served) -> None:
    """Another body under the id is 409; twice in one batch is 422."""
    body = {"id": "mine", "subject": "a.b", "data": 1}
    first, again = await post(served, body), await post(served, body)
    assert first.json() == again.json()
    other = await post(served, {**body, "data": 2})
    assert (other.status_code, other.json()["code"]) == (409, "id_reused")
    twice = await post(served, [{**body, "id": "x"}, {**body, "id": "x"}])
    assert (twice.status_code, twice.json()["index"]) == (422, 1)
    assert await stored(served) == 1


# Who


async def test_without_a_known_token_it_is_401(served: Served) -> None:
    """Missing, garbage, another scheme, unknown, expired, revoked."""
    tokens = served.core.tokens
    _, expired = await tokens.create("old", ["admin"], expires_us=1)
    token, revoked = await tokens.create("gone", ["admin"], expires_us=None)
    await tokens.revoke(token.id)
    for header in (
        "", "Bearer", "Basic YTpi", "Bearer unknown", f"Token {ADMIN}",
        f"Bearer {expired}", f"Bearer {revoked}",
    ):  # fmt: skip
        answer = await post(served, {"subject": "a.b", "data": 1}, authorization=header)
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthorized"
    assert await stored(served) == 0


async def test_a_narrow_token_publishes_where_it_may(served: Served) -> None:
    """Its source is its own whatever it says; elsewhere it is 403."""
    may = await served.token("publish:orders.>", name="shop 1")
    body = {"subject": "orders.eu", "data": 1, "source": "relay.master"}
    answer = await post(served, body, **may)
    assert answer.status_code == 202
    kept = (await served.get(f"{PATH}/{answer.json()['id']}"))["envelope"]
    assert kept["source"] == "api.shop%201"
    for other in ({"subject": "other", "data": 1}, {**body, "to": ["plugin.x"]}):
        refused = await post(served, other, **may)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await served.client.get(PATH, headers=may)).status_code == 403


# Limits


async def test_the_body_limit_is_exact(tmp_path: Path) -> None:
    """As many bytes as the limit, not one more; with Content-Length and without."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100):
            yield content[start : start + 100]

    async with serving(tmp_path / "hub", FAST + 'max_body = "2KiB"\n') as served:
        for over, status in ((0, 202), (1, 413)):
            frame = b'{"subject":"a.b","data":"%s"}'
            content = frame % (b"x" * (2048 + over - len(frame) + 2))
            assert len(content) == 2048 + over
            assert (await post(served, content)).status_code == status
            chunked = await served.client.post(PATH, content=pieces(content))
            assert chunked.status_code == status
            if status == 413:
                assert chunked.json()["code"] == "too_large"
        assert await stored(served) == 2


@pytest.mark.parametrize(
    ("path", "frame"),
    [
        ("/api/v1/tasks", b'{"task_type":"render","params":{"x":"%b"}}'),
        (
            PATH,
            b'{"specversion":"1.0","id":"1","source":"x","type":"t","subject":"a.b","data":"%b"}',
        ),
        (PATH, b'[{"subject":"a.b","data":"%b"}]'),
    ],
)
async def test_what_the_hub_adds_does_not_count(tmp_path: Path, path: str, frame: bytes) -> None:
    """A task, an event or a batch is as large as the body it came in."""
    async with serving(tmp_path / "hub", FAST + 'max_body = "2KiB"\n') as served:
        for over, status in ((0, 202), (1, 413)):
            content = frame % (b"x" * (2048 + over - len(frame) + 2))
            assert len(content) == 2048 + over
            answer = await served.client.post(path, content=content)
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("pieces", "closes"), [(DISCARDED, False), (DISCARDED + 1, True)])
async def test_who_still_sends_hears_of_the_limit(
    tmp_path: Path, pieces: int, closes: bool
) -> None:
    """The rest is thrown away, so that the refusal arrives; of far too much it is not."""
    async with serving(tmp_path / "hub", FAST + 'max_body = "2KiB"\n') as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        peer = await TcpPeer.connect(Address(host, int(port)))
        token = served.client.headers["authorization"]
        await peer.send(
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(pieces):
            await peer.send(b"800\r\n" + b"x" * 2048 + b"\r\n")
        if not closes:
            await peer.send(b"0\r\n\r\n")
        phrase = HTTPStatus(413).phrase  # Python 3.13 has other words for it
        assert await peer.line() == f"HTTP/1.1 413 {phrase}\r\n".encode()
        headers = [await peer.line()]
        while headers[-1] != b"\r\n":
            headers.append(await peer.line())
        assert (b"connection: close\r\n" in headers) == closes
        await peer.close()


async def test_over_the_rate_it_is_429(tmp_path: Path) -> None:
    """With the seconds after which to try again."""
    async with serving(tmp_path / "hub", FAST + "publish_rate = 2\n") as served:
        answers = [await post(served, {"subject": "a.b", "data": 1}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert int(answers[2].headers["retry-after"]) >= 1


async def test_while_draining_it_is_503(served: Served) -> None:
    """With a time after which to try again; /readyz says so too."""
    await served.core.drain()
    answer = await post(served, {"subject": "a.b", "data": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert "retry-after" in answer.headers
    ready = await served.client.get("/readyz")
    assert (ready.status_code, ready.json()["culprits"]) == (503, ["hub: draining"])
    assert (await served.client.get("/healthz")).status_code == 200


# Bad input

DEEP = b"[" * 200_000 + b"]" * 200_000
BAD: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "garbage": (b"\x00\x01\x02", 400),
    "half": (b'{"subject":"a.b","data":', 400),
    "more": (b'{"subject":"a.b","data":1} 2', 400),
    "bom": (b'\xef\xbb\xbf{"subject":"a.b","data":1}', 400),
    "bad utf-8 in data": (b'{"subject":"a.b","data":"\xff"}', 400),
    "bad utf-8 in subject": (b'{"subject":"a.\xc3","data":1}', 400),
    "half a surrogate": (rb'{"subject":"a.b","data":"\ud800"}', 400),
    "deep": (b'{"subject":"a.b","data":' + DEEP + b"}", 400),
    "rather deep": (b'{"subject":"a.b","data":' + b"[" * 65 + b"]" * 65 + b"}", 400),
    "deep batch": (DEEP, 400),
    "nan": (b'{"subject":"a.b","data":NaN}', 400),
    "a number": (b"1", 422),
    "a text": (b'"x"', 422),
    "null": (b"null", 422),
    "no data": (b'{"subject":"a.b"}', 422),
    "no subject": (b'{"data":1}', 422),
    "unknown member": (b'{"subject":"a.b","data":1,"prioriti":1}', 422),
    "subject is a number": (b'{"subject":1,"data":1}', 422),
    "subject is null": (b'{"subject":null,"data":1}', 422),
    "empty subject": (b'{"subject":"","data":1}', 422),
    "empty token": (b'{"subject":"a..b","data":1}', 422),
    "wildcard": (b'{"subject":"a.*","data":1}', 422),
    "rest": (b'{"subject":"a.>","data":1}', 422),
    "space": (b'{"subject":"a b","data":1}', 422),
    "nul in subject": (rb'{"subject":"a.\u0000","data":1}', 422),
    "nul in data": (rb'{"subject":"a.b","data":"x\u0000"}', 422),
    "nul in a name": (rb'{"subject":"a.b","data":{"\u0000":1}}', 422),
    "nul in key": (rb'{"subject":"a.b","data":1,"key":"\u0000"}', 422),
    "long subject": (b'{"subject":"%s","data":1}' % (b"a" * 513), 422),
    "many tokens": (b'{"subject":"%s","data":1}' % b".".join([b"a"] * 33), 422),
    "priority text": (b'{"subject":"a.b","data":1,"priority":"1"}', 422),
    "priority 10": (b'{"subject":"a.b","data":1,"priority":10}', 422),
    "priority -1": (b'{"subject":"a.b","data":1,"priority":-1}', 422),
    "huge priority": (b'{"subject":"a.b","data":1,"priority":99999999999999999999}', 422),
    "expires garbage": (b'{"subject":"a.b","data":1,"expires":"soon"}', 422),
    "expires negative": (b'{"subject":"a.b","data":1,"expires":-1}', 422),
    "expires huge": (b'{"subject":"a.b","data":1,"expires":1e300}', 422),
    "expires after the end": (
        b'{"subject":"a.b","data":1,"expires":"9999-12-31T23:59:59-23:00"}', 422,
    ),
    "expires before the beginning": (
        b'{"subject":"a.b","data":1,"expires":"0001-01-01T00:00:00+14:00"}', 422,
    ),
    "expires true": (b'{"subject":"a.b","data":1,"expires":true}', 422),
    "to a pattern": (b'{"subject":"a.b","data":1,"to":["x.>"]}', 422),
    "to a number": (b'{"subject":"a.b","data":1,"to":1}', 422),
    "empty key": (b'{"subject":"a.b","data":1,"key":""}', 422),
    "long id": (b'{"subject":"a.b","data":1,"id":"%s"}' % (b"x" * 257), 422),
    "source with a space": (b'{"subject":"a.b","data":1,"source":"a b"}', 422),
    "reply to a pattern": (b'{"subject":"a.b","data":1,"reply_to":"x.*"}', 422),
    "two answered": (b'{"subject":"a.b","data":1,"reply_to":"x","in_reply_to":"y"}', 422),
    "other specversion": (b'{"specversion":"0.3","subject":"a.b"}', 422),
    "event without subject": (b'{"specversion":"1.0","id":"1","source":"s","type":"t"}', 422),
    "event with bad base64": (b'{"specversion":"1.0","subject":"a.b","data_base64":"A*=="}', 422),
    "event with capitals": (b'{"specversion":"1.0","subject":"a.b","Foo":1}', 422),
    "event with a text for priority": (
        b'{"specversion":"1.0","subject":"a.b","priority":"x"}', 422,
    ),
    "batch of numbers": (b"[1]", 422),
}  # fmt: skip


async def test_bad_input_is_refused_and_nothing_is_stored(served: Served) -> None:
    """400 for what cannot be parsed, 422 for what is not valid; always a problem."""
    for name, (body, status) in BAD.items():
        answer = await post(served, body)
        assert answer.status_code == status, (name, answer.text)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json", name
        assert problem["type"] == f"tag:hubbub,2026:{problem['code']}"
        assert problem["status"] == status
        assert len(problem["trace_id"]) == 32
        assert problem["detail"]
    assert await stored(served) == 0


async def test_a_near_miss_is_named(served: Served) -> None:
    """Who mistypes a member is told which one was meant."""
    answer = await post(served, {"subject": "a.b", "data": 1, "prioriti": 1})
    assert "did you mean 'priority'?" in answer.json()["detail"]


BAD_HEADERS: dict[str, dict[str, str]] = {
    "no media type": {"content-type": "text"},
    "type of data twice": {"ce-datacontenttype": "text/plain"},
    "data in a header": {"ce-data_base64": "AA=="},
    "priority": {"ce-priority": "high"},
    "subject": {"ce-subject": "a.*"},
    "nul": {"ce-subject": "a%00b"},
    "truth": {"ce-durable": "maybe"},
    "version": {"ce-specversion": "2"},
}


@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS)
async def test_a_bad_binary_event_is_422(served: Served, headers: dict[str, str]) -> None:
    """Whatever header is wrong."""
    good = {"ce-specversion": "1.0", "ce-subject": "a.b", "ce-type": "t", "ce-source": "s"}
    answer = await post(served, b"1", **{**good, **headers})
    assert answer.status_code == 422, answer.text
    assert await stored(served) == 0


async def test_an_idempotency_key_that_is_none_is_422(served: Served) -> None:
    """Empty, or too long."""
    for key in ("", "x" * 257):
        answer = await post(served, {"subject": "a.b", "data": 1}, **{"idempotency-key": key})
        assert answer.status_code == 422
        batch = await post(served, [{"subject": "a.b", "data": 1}], **{"idempotency-key": key})
        assert batch.status_code == 422


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ["subject", "data", "type", "key", "priority", "reply_to", "to", "expires", "id", "source",
     "durable", "specversion", "traceparent", "idempotency_key", "hops", "in_reply_to"]
)  # fmt: skip


def _with_subject(more: dict[str, Any]) -> bytes:
    return json.dumps({"subject": "a.b", "data": 1, **more}).encode()


BODIES = (
    st.binary(max_size=64)
    | JSON.map(json.dumps).map(str.encode)
    | st.dictionaries(MEMBERS, JSON, max_size=8).map(json.dumps).map(str.encode)
    | st.dictionaries(MEMBERS, JSON, max_size=4).map(_with_subject)
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES)
def test_whatever_is_posted_is_accepted_or_refused(fuzzed: Any, body: bytes) -> None:
    """Never a 5xx, and always JSON."""
    answer = fuzzed(body)
    assert answer.status_code in (202, 400, 403, 409, 422), (body, answer.text)
    answer.json()
