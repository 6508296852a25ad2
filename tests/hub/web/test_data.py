"""Data that is not JSON: kept as its bytes under its type, and shown as a string or in Base64."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from hubbub import Converter, Envelope, Route, hookimpl
from hubbub.errors import NotJsonError
from hubbub.testing import RecordingEndpoint, settle
from tests.hub.web.conftest import FAST, Served, serving
from tests.hub.web.test_sockets import heard, say, stream

PATH = "/api/v1/envelopes"
EVENT = {"ce-specversion": "1.0", "ce-type": "t.v1", "ce-source": "s", "ce-subject": "a.b"}
STRUCTURED = {"specversion": "1.0", "type": "t.v1", "source": "s", "subject": "a.b"}
PNG = b"\x89PNG\r\n\x1a\n\0\xff"

BYTES: dict[str, tuple[str, bytes, str | None]] = {
    "text": ("text/plain", b"hello", "hello"),
    "text that is JSON too": ("text/plain", b'{"n": 1}', '{"n": 1}'),
    "text in UTF-8": ("text/html; charset=UTF-8", "<p>é</p>".encode(), "<p>é</p>"),
    "quoted charset": ('text/csv; header=present; charset="utf-8"', b"a,b\r\n", "a,b\r\n"),
    "xml": ("application/xml", b"<a/>", "<a/>"),
    "vendor's xml": ("image/svg+xml", b"<svg/>", "<svg/>"),
    "yaml": ("application/yaml", b"a: 1", "a: 1"),
    "no text": ("application/octet-stream", b"hello", None),
    "image": ("image/png", PNG, None),
    "text in another charset": ("text/plain; charset=utf-16", "hé".encode("utf-16"), None),
    "text that is not UTF-8": ("text/plain", b"caf\xe9", None),
    "text with NUL": ("text/plain", b"a\0b", None),
    "json in another charset": ("application/json; charset=utf-16", b"1\0", None),
    "nothing": ("text/plain", b"", ""),
    "no bytes": ("image/png", b"", None),
}


def shown(media_type: str, data: bytes, text: str | None) -> dict[str, Any]:
    """Return the members that say the data."""
    if text is not None:
        return {"datacontenttype": media_type, "data": text}
    return {"datacontenttype": media_type, "data_base64": b64encode(data).decode()}


def members(event: dict[str, Any]) -> dict[str, Any]:
    """Return those members of an event."""
    return {name: event[name] for name in event if name.startswith("data")}


async def post(served: Served, content: bytes, **headers: str) -> Any:
    """Publish and return the answer, which is a success."""
    answer = await served.client.post(PATH, content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


@pytest.mark.parametrize("given", BYTES.values(), ids=BYTES)
async def test_data_of_another_type_is_kept_as_it_came(
    served: Served, given: tuple[str, bytes, str | None]
) -> None:
    """In binary mode the body is the data, byte for byte."""
    media_type, data, _ = given
    receiver = RecordingEndpoint("plugin.x")
    served.core.attach(receiver)
    served.core.table.put(Route(name="r", match="a.b", to=("plugin.x",)))
    answer = await post(served, data, **EVENT, **{"content-type": media_type})
    (envelope,) = await receiver.wait_for(1)
    assert (envelope.data, envelope.content_type) == (data, media_type)
    with pytest.raises(NotJsonError, match="not JSON"):
        envelope.json()
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert members(event) == shown(*given)


@pytest.mark.parametrize("given", BYTES.values(), ids=BYTES)
async def test_what_was_shown_can_be_published_again(
    served: Served, given: tuple[str, bytes, str | None]
) -> None:
    """A structured event with these members has the same bytes."""
    body = {**STRUCTURED, **shown(*given)}
    answer = await post(served, json.dumps(body).encode())
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert members(event) == shown(*given)


JSON_TYPES = (None, "application/json", "application/json; charset=utf-8", "text/json",
              "application/vnd.shop.order+json", "Application/JSON")  # fmt: skip


@pytest.mark.parametrize("media_type", JSON_TYPES)
async def test_data_of_a_json_type_is_json(served: Served, media_type: str | None) -> None:
    """By both modes, as before."""
    headers = {} if media_type is None else {"content-type": media_type}
    binary = await post(served, b' {"n":1} ', **EVENT, **headers)
    body: dict[str, Any] = {**STRUCTURED, "data": {"n": 1}}
    if media_type is not None:
        body["datacontenttype"] = media_type
    structured = await post(served, json.dumps(body).encode())
    for answer in (binary, structured):
        event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
        assert members(event) == {"datacontenttype": "application/json", "data": {"n": 1}}


async def test_bytes_of_a_json_type_are_json(served: Served) -> None:
    """Base64 is a way to write them; without a type they are bytes."""
    body = {**STRUCTURED, "datacontenttype": "application/json", "data_base64": "eyJuIjoxfQ=="}
    answer = await post(served, json.dumps(body).encode())
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert event["data"] == {"n": 1}
    answer = await post(served, json.dumps({**STRUCTURED, "data_base64": "eyJuIjoxfQ=="}).encode())
    event = (await served.get(f"{PATH}/{answer['id']}"))["envelope"]
    assert members(event) == shown("application/octet-stream", b'{"n":1}', None)


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "both": ({"data": 1, "data_base64": "AA=="}, 422),
    "not Base64": ({"data_base64": "A"}, 422),
    "alphabet of addresses": ({"data_base64": "_-8="}, 422),
    "object as text": ({"datacontenttype": "text/plain", "data": {"n": 1}}, 422),
    "number as text": ({"datacontenttype": "text/plain", "data": 1}, 422),
    "characters in another charset": (
        {"datacontenttype": "text/plain; charset=utf-16", "data": "x"}, 422,
    ),
    "NUL in a text": ({"datacontenttype": "text/plain", "data": "a\0b"}, 422),
    "no media type": ({"datacontenttype": "text", "data": "x"}, 422),
    "empty media type": ({"datacontenttype": "", "data": "x"}, 422),
    "long media type": ({"datacontenttype": "text/" + "x" * 252, "data": "x"}, 422),
    "line in the media type": ({"datacontenttype": "text/plain\r\nx: y", "data": "x"}, 422),
    "bytes that are no JSON": ({"datacontenttype": "a/json", "data_base64": "ew=="}, 400),
    "task": ({"type": "hubbub.task.request.v1", "datacontenttype": "text/plain",
              "data": '{"task_type":"x"}'}, 422),
}  # fmt: skip


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
async def test_what_does_not_go_together_is_refused(
    served: Served, given: tuple[dict[str, Any], int]
) -> None:
    """And nothing of it is stored."""
    more, status = given
    answer = await served.client.post(PATH, json={**STRUCTURED, **more})
    assert answer.status_code == status, answer.text
    assert await served.pages(PATH) == []


async def test_a_media_type_has_at_most_256_characters(served: Served) -> None:
    """MAX_MEDIA_TYPE at its edge; one more is refused above."""
    body = {**STRUCTURED, "datacontenttype": "text/" + "x" * 251, "data": "x"}
    await post(served, json.dumps(body).encode())


async def test_no_type_means_json(served: Served) -> None:
    """A body that is none is refused with what to do, not guessed at."""
    answer = await served.client.post(PATH, content=b"hello", headers=EVENT)
    assert answer.status_code == 400
    assert "Content-Type" in answer.json()["detail"]


async def test_a_structured_event_stays_one_beside_its_headers(served: Served) -> None:
    """The content type tells the mode (HTTP binding, 3), not the headers."""
    body = json.dumps({**STRUCTURED, "id": "in-the-body", "data": 1}).encode()
    headers = {**EVENT, "ce-id": "in-a-header", "content-type": "application/cloudevents+json"}
    assert (await post(served, body, **headers))["id"] == "in-the-body"


async def test_the_type_belongs_to_what_is_said(served: Served) -> None:
    """The same id with the same bytes of another type is another body."""
    for media_type, status in (("text/plain", 202), ("text/plain", 202), ("text/html", 409)):
        headers = {**EVENT, "ce-id": "one", "content-type": media_type}
        answer = await served.client.post(PATH, content=b"x", headers=headers)
        assert answer.status_code == status, answer.text
    assert len(await served.pages(PATH)) == 1


CONDITIONS: dict[str, dict[str, Any]] = {
    "equality": {"where": {"data": "1"}},
    "is there": {"where": {"data": {"exists": True}}},
    "is not there": {"where": {"data.n": {"exists": False}}},
    "differs": {"where": {"data": {"ne": 2}}},
    "cel": {"where_cel": 'data == 1 || subject == "a.b"'},
    "cel without looking": {"where_cel": "!has(data.n)"},
}


@pytest.mark.parametrize("how", CONDITIONS.values(), ids=CONDITIONS)
async def test_a_condition_on_its_data_does_not_hold(served: Served, how: dict[str, Any]) -> None:
    """Whatever it asks, also where the bytes would be JSON."""
    if "where_cel" in how:
        pytest.importorskip("cel", reason="the optional library of where_cel is not installed")
    served.core.attach(RecordingEndpoint("plugin.x"))
    served.core.table.put(Route(name="r", match="a.b", to=("plugin.x",), **how))
    answer = await post(served, b"1", **EVENT, **{"content-type": "text/plain"})
    assert answer["reason"] == "no_route"


async def test_a_key_in_its_data_is_none(served: Served) -> None:
    """The envelope's own holds."""
    receiver = RecordingEndpoint("plugin.x")
    served.core.attach(receiver)
    served.core.table.put(Route(name="r", match="a.b", to=("plugin.x",), key="data.k"))
    headers = {**EVENT, "content-type": "text/plain", "ce-partitionkey": "mine"}
    await post(served, b'{"k":"theirs"}', **headers)
    (envelope,) = await receiver.wait_for(1)
    assert envelope.key == "mine"


class Readers:
    """A plugin whose converter and hook look into data, which is JSON, they think."""

    @hookimpl
    def converters(self) -> list[Converter]:
        """From a type that publishers use to another."""
        return [Converter("t.v1", "u.v1", self.convert)]

    @hookimpl
    def before_route(self, envelope: Envelope) -> None:
        """Read."""
        envelope.json()

    @staticmethod
    def convert(envelope: Envelope) -> Envelope:
        """Read, and change the type."""
        envelope.json()
        return envelope.replace(type="u.v1")


class Json(RecordingEndpoint):
    """An endpoint that reads JSON."""

    async def deliver(self, envelope: Envelope) -> None:
        """Read."""
        envelope.json()
        await super().deliver(envelope)


async def test_who_needs_json_says_so_and_is_at_no_fault(tmp_path: Path) -> None:
    """The delivery is dead at once; whoever publishes cannot switch a plugin off by it."""
    async with serving(tmp_path / "hub", FAST, plugins={"readers": Readers()}) as served:
        reader, converted = Json("plugin.json"), RecordingEndpoint("plugin.u", accepts=("u.v1",))
        for endpoint in (reader, converted):
            served.core.attach(endpoint)
        served.core.table.put(Route(name="r", match="a.b", to=("plugin.json", "plugin.u")))
        for _ in range(4):
            answer = await post(served, b"x", **EVENT, **{"content-type": "text/plain"})
            await settle()
            deliveries = (await served.get(f"{PATH}/{answer['id']}"))["deliveries"]
            ends = {(one["outcome"], one["reason"], one["attempts"]) for one in deliveries}
            assert ends == {("dead", "not_json", 1)}
        (plugin,) = [
            one for one in await served.pages("/api/v1/plugins") if one["name"] == "readers"
        ]
        assert plugin["state"] == "up"
        await post(served, b"1", **EVENT)
        await reader.wait_for(1)
        await converted.wait_for(1)
        dead = await served.pages("/api/v1/deliveries", outcome="dead")
        answer = await served.client.post(
            f"/api/v1/deliveries/{dead[0]['id']}/replay", json={"data": {"n": 1}}
        )
        assert answer.status_code == 202, answer.text
        await reader.wait_for(1)
        assert not served.core.room.boxes.get("plugin.u").depth


async def test_a_stream_and_a_request_carry_it(served: Served) -> None:
    """Live, over the socket, and as an answer."""
    text = {"datacontenttype": "text/plain", "data": "pong"}
    async with stream(served, "name=desk&subject=a.b") as socket:
        await heard(socket, "hello")
        await post(served, PNG, **EVENT, **{"content-type": "image/png"})
        first = (await heard(socket, "envelope"))["envelope"]
        assert members(first) == shown("image/png", PNG, None)
        asking = served.client.post(
            "/api/v1/requests",
            content=b'{"timeout":1}',
            headers={**EVENT, "content-type": "text/plain"},
        )

        asked = asyncio.create_task(asking)
        second = (await heard(socket, "envelope"))["envelope"]
        assert members(second) == {"datacontenttype": "text/plain", "data": '{"timeout":1}'}
        reply = {**STRUCTURED, **text, "subject": "a.c", "inreplyto": second["id"]}
        await say(socket, type="publish", ref=1, envelope=reply)
        answer = await asked
        assert answer.status_code == 200, answer.text
        assert members(answer.json()) == text


async def test_a_dry_run_shows_where_it_would_go(served: Served) -> None:
    """The same forms, and nothing kept."""
    served.core.attach(RecordingEndpoint("plugin.x"))
    served.core.table.put(Route(name="r", match="a.b", to=("plugin.x",)))
    answer = await served.client.post(
        "/api/v1/routes/test", content=PNG, headers={**EVENT, "content-type": "image/png"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["to"] == ["plugin.x"]
