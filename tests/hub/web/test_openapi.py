"""The API is as it describes itself: looked at, and fuzzed on a running hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from schemathesis import GenerationMode

from hubbub.web.api.deliveries import Other, Some
from hubbub.web.api.tasks import SubmissionIn
from hubbub.web.api.tokens import NewToken
from hubbub.web.forms import Event as EventForm
from hubbub.web.forms import Short
from hubbub.web.inputs import EnvelopeIn, EventIn, NewTokenIn, ReplayIn, ReplaySomeIn, TaskIn
from hubbub.web.schemas import CANONICAL
from tests.hub.web.conftest import ADMIN, Served
from tests.hub.web.fuzzing import fetch, fuzz, living, operations_of

EXAMPLES = 15
OWN = ("/api/v1/", "/healthz", "/readyz", "/metrics")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub in a thread of its own, so that a client that waits can be used."""
    with living(tmp_path_factory.mktemp("fuzzed") / "hub") as served:
        yield served


# As it is written


async def test_every_operation_is_described(served: Served) -> None:
    """Path, parameters, answers, errors, and who may call it."""
    document = await served.get("/api/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    paths = document["paths"]
    assert paths.keys() >= {"/healthz", "/api/v1/envelopes", "/api/v1/routes/{name}"}
    for path, methods in paths.items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert any(status.startswith("2") for status in operation["responses"]), where
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, where
            is_open = operation.get("security") == []
            assert is_open is ("401" not in operation["responses"]) or path == "/metrics", where
            if method in ("post", "put") and "requestBody" in operation:
                assert {"400", "413", "422"} <= operation["responses"].keys(), where
    names = [one["operationId"] for methods in paths.values() for one in methods.values()]
    assert len(set(names)) == len(names)


def test_the_document_is_openapi(live: Served) -> None:
    """schemathesis reads all of it, and every reference leads somewhere."""
    assert len(operations_of(live)) > 30
    assert_references(fetch(live))


async def test_the_asyncapi_document_has_the_live_table(served: Served) -> None:
    """A route that was just put is a channel; the stream's frames are messages."""
    name = "to the desk/1~2"
    body = {"match": "orders.>", "to": ["plugin.desk"], "types": ["hubbub.chat.message.v1"]}
    assert (await served.client.put(f"/api/v1/routes/{name}", json=body)).status_code == 201
    document = await served.get("/api/v1/asyncapi.json")
    assert document["asyncapi"] == "3.0.0"
    channel = document["channels"][f"route {name}"]
    assert channel["address"] == "orders.>"
    assert list(channel["messages"]) == ["hubbub_chat_message_v1"]
    frames = document["channels"]["stream"]["messages"]
    assert {"subscribe", "ack", "publish", "hello", "envelope", "refused"} <= frames.keys()
    tasks = document["channels"]["route tasks: to any worker"]["messages"]
    assert list(tasks) == ["hubbub_task_request_v1"]
    assert_references(document)


def assert_references(document: dict[str, Any]) -> None:
    """Every `$ref` leads somewhere in the document."""
    rest: list[Any] = [document]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value)
            reference = value.get("$ref")
            if isinstance(reference, str):
                here: Any = document
                for part in reference.removeprefix("#/").split("/"):
                    here = here[part.replace("~1", "/").replace("~0", "~")]
            rest += value.values()
        elif isinstance(value, list):
            rest += value


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        (EnvelopeIn, Short),
        (EventIn, EventForm),
        (TaskIn, SubmissionIn),
        (NewTokenIn, NewToken),
        (ReplayIn, Other),
        (ReplaySomeIn, Some),
    ],
)
def test_bodies_are_described_as_they_are_read(
    shown: type[msgspec.Struct], read: type[msgspec.Struct]
) -> None:
    """The same members; `hops` of an event counts for administrators only and is not shown."""
    names = set(read.__struct_encode_fields__) - ({"hops"} if read is EventForm else set())
    assert set(shown.__struct_encode_fields__) == names


def test_canonical_data_fits_its_schema() -> None:
    """What the manual shows of each type, and what the hub itself publishes."""
    page = (Path(__file__).parents[3] / "docs" / "types.md").read_text(encoding="utf-8")
    sections = page.split("\n## ")[1:]
    shown = {section.split("\n", 1)[0].strip("` "): section for section in sections}
    assert set(CANONICAL) <= shown.keys()
    for name, model in CANONICAL.items():
        block = shown[name].split("```json\n")[1].split("```")[0]
        msgspec.convert(json.loads(block), model)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("hubbub.task.request.v1", {"params": {}}),
        ("hubbub.task.request.v1", {"task_type": "x", "max_attempts": 0}),
        ("hubbub.task.request.v1", "no object"),
    ],
)
async def test_malformed_task_requests_are_refused(served: Served, type_: str, data: Any) -> None:
    """422; chat is not looked at."""
    body = {"subject": "tasks.x.request", "type": type_, "data": data}
    assert (await served.client.post("/api/v1/envelopes", json=body)).status_code == 422
    chat = {"subject": "chat.x", "type": "hubbub.chat.message.v1", "data": data}
    assert (await served.client.post("/api/v1/envelopes", json=chat)).status_code == 202


# Fuzzed; paths of plugins and adapters have a module of their own


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_answers_are_as_described(live: Served, mode: GenerationMode) -> None:
    """Whatever is sent, no 500, and every answer has a status, type and shape that is described."""
    operations = [one for one in operations_of(live) if one.path.startswith(OWN)]
    seen = fuzz(live, operations, mode, examples=EXAMPLES)
    assert seen.total() > 200
    assert {200, 404, 422} <= seen.keys()


def test_the_fuzzed_hub_is_well(live: Served) -> None:
    """It still takes messages and reads all it has stored."""
    import httpx2

    client = httpx2.Client(
        base_url=live.url, headers={"authorization": f"Bearer {ADMIN}"}, timeout=30
    )
    assert client.get("/readyz").status_code == 200
    answer = client.post("/api/v1/envelopes", json={"subject": "after.all", "data": 1})
    assert answer.status_code == 202
    for path in ("envelopes", "deliveries", "tasks", "routes", "tokens", "audit", "endpoints"):
        assert client.get(f"/api/v1/{path}", params={"limit": 1000}).status_code == 200, path
    client.close()
