"""Paths of adapters and plugins are in the description of the API, and are as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from schemathesis import GenerationMode

from hubbub import hookimpl
from hubbub.errors import ConflictError, HubError
from hubbub.web import Call, Manners, Operation, Reply, Spec, operation_routes
from hubbub_octohub.desk import TaskIn
from hubbub_octohub.shapes import OctohubTaskIn
from tests.hub.web.conftest import FAST, Served, serving
from tests.hub.web.fuzzing import fetch, fuzz, living, operations_of
from tests.hub.web.test_openapi import OWN, assert_references

EXAMPLES = 8
API = "/api/v1"


# Fuzzed first: the bundled plugins are one object each, and end with any hub of this process


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub with all adapters, whose files may be changed and whose deployments may run."""
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "shown").mkdir()
    (folder / "shown" / "a.txt").write_text("text", encoding="utf-8")
    shown = json.dumps(str(folder / "shown"))
    toml = (
        "[adapters.kenko]\nenabled = true\nrunners = true\n"
        "[adapters.octohub]\nenabled = true\n[adapters.relay]\nenabled = true\n"
        f"[plugins.files]\nwritable = true\nroots = {{ shown = {shown} }}\n"
    )
    with living(folder / "hub", toml) as served:
        yield served


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_answers_are_as_described(live: Served, mode: GenerationMode) -> None:
    """Whatever is sent, no 500, and every answer has a status, type and shape that is described."""
    operations = [one for one in operations_of(live) if not one.path.startswith(OWN)]
    assert len(operations) > 40
    seen = fuzz(live, operations, mode, examples=EXAMPLES)
    assert seen.total() > 100
    assert {200, 404} <= seen.keys()
    assert seen[503] == 0


def test_the_document_is_openapi(live: Served) -> None:
    """Tagged with the names of those who answer, and every reference leads somewhere."""
    document = fetch(live)
    assert_references(document)
    tags = {
        tag
        for methods in document["paths"].values()
        for one in methods.values()
        for tag in one["tags"]
    }
    assert tags >= {"kenko", "octohub", "files", "i18n", "stat", "system", "tasks"}
    names = [one["operationId"] for each in document["paths"].values() for one in each.values()]
    assert len(set(names)) == len(names)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not path.startswith(OWN):
                described = [status for status in operation["responses"] if status < "3"]
                assert described, f"{method} {path}"


def test_errors_are_described_in_the_form_they_have(live: Served) -> None:
    """Those of kenko are its own but for who calls; what is not valid is 400 for octohub."""
    paths = fetch(live)["paths"]
    kenko = paths["/api/kenko/deployments"]["post"]["responses"]
    assert set(kenko["401"]["content"]) == {"application/problem+json"}
    assert set(kenko["404"]["content"]) == {"application/json"}
    assert set(kenko["403"]["content"]) == {"application/json", "application/problem+json"}
    octohub = paths["/api/octohub/nodes/{pc_id}"]["put"]["responses"]
    assert "400" in octohub
    assert "422" not in octohub


def test_a_task_is_described_as_it_is_read() -> None:
    """The same members."""
    assert set(OctohubTaskIn.__struct_encode_fields__) == set(TaskIn.__struct_encode_fields__)


# Of a plugin


class Thing(msgspec.Struct):
    """Something."""

    name: str


class Odd:
    """A type that no schema can be made of."""


async def _answer(call: Call) -> Reply:
    return Reply(200, Thing(call.argument("name") or ""))


async def _conflict(call: Call) -> Reply:
    raise ConflictError(call.params["id"])


class Plugin:
    """A plugin with operations."""

    def __init__(self, *operations: Operation, manners: Manners | None = None) -> None:
        self.operations = operations
        self.manners = manners or Manners()

    @hookimpl
    def http_routes(self) -> list[Any]:
        return [*operation_routes(self.operations, self.manners)]


async def test_a_plugins_operations_come_and_go_with_it(tmp_path: Path) -> None:
    """Described while it is there; one that says nothing of itself has a default answer."""
    plugin = Plugin(
        Operation("GET", "/api/mine", _answer, "A thing", ("read",), Spec(answers={200: Thing})),
        Operation("POST", "/api/mine", _answer, "Make one"),
    )
    async with serving(tmp_path / "hub", FAST, plugins={"mine": plugin}) as served:
        document = await served.get(f"{API}/openapi.json")
        path = document["paths"]["/api/mine"]
        assert path["get"]["tags"] == ["mine"]
        assert "200" in path["get"]["responses"]
        assert set(path["post"]["responses"]) == {"401", "403", "503", "default"}
        assert_references(document)
        await served.client.post(f"{API}/plugins/mine/disable")
        assert "/api/mine" not in (await served.get(f"{API}/openapi.json"))["paths"]
        await served.client.post(f"{API}/plugins/mine/enable")
        assert "/api/mine" in (await served.get(f"{API}/openapi.json"))["paths"]


async def test_what_cannot_be_described_is_left_out(tmp_path: Path) -> None:
    """With all of that plugin, and of no other; it is answered all the same."""
    odd = Plugin(
        Operation("GET", "/api/odd", _answer, "Odd", ("read",), Spec(answers={200: Odd})),
    )
    fine = Plugin(Operation("GET", "/api/fine", _answer, "Fine", spec=Spec(answers={200: Thing})))
    async with serving(tmp_path / "hub", FAST, plugins={"odd": odd, "fine": fine}) as served:
        paths = (await served.get(f"{API}/openapi.json"))["paths"]
        assert "/api/fine" in paths
        assert "/api/odd" not in paths
        assert await served.get("/api/odd", name="a") == {"name": "a"}


async def test_manners_change_what_a_refusal_looks_like(tmp_path: Path) -> None:
    """For paths, methods and bodies too, but not for who calls; Allow is kept."""

    def refuse(error: HubError) -> Reply:
        return Reply(418, {"said": error.code})

    manners = Manners(refuse=refuse, refusal=dict[str, str])
    plugin = Plugin(
        Operation("POST", "/api/mine/{id}", _conflict, "Refuse", ("read",)), manners=manners
    )
    async with serving(tmp_path / "hub", FAST, plugins={"mine": plugin}) as served:
        answer = await served.client.post("/api/mine/7")
        assert (answer.status_code, answer.json()) == (418, {"said": "conflict"})
        answer = await served.client.get("/api/mine/7")
        assert (answer.status_code, answer.json()) == (418, {"said": "method_not_allowed"})
        assert answer.headers["allow"] == "POST"
        answer = await served.client.post("/api/mine/7", headers={"authorization": ""})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        narrow = await served.token("tasks")
        answer = await served.client.post("/api/mine/7", headers=narrow)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
