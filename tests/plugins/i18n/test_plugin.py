"""Texts over HTTP, over a restart, and in messages between endpoints of different languages."""

from __future__ import annotations

from pathlib import Path

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.envelope import CHAT_MESSAGE, CHAT_TEMPLATE
from hubbub.testing import RecordingEndpoint, running_hub
from tests.hub.web.conftest import FAST, serving

API = "/api/i18n"


async def test_texts_are_read_changed_and_kept(tmp_path: Path) -> None:
    """PUT merges, null takes back; a restart knows them still; the act is in the audit."""
    async with serving(tmp_path / "hub", FAST) as served:
        items = (await served.get(f"{API}/locales"))["items"]
        assert {item["locale"]: item["missing"] for item in items} == {"en": 0, "zh-CN": 0}
        put = await served.client.put(f"{API}/en-gb", json={"greet": "Hello, {name}!", "x": "y"})
        assert (put.status_code, put.json()) == (200, {"greet": "Hello, {name}!", "x": "y"})
        put = await served.client.put(f"{API}/en-GB", json={"x": None, "bye": "Bye"})
        assert put.json() == {"bye": "Bye", "greet": "Hello, {name}!"}
        items = (await served.get(f"{API}/locales"))["items"]
        missing = {item["locale"]: item["missing"] for item in items}
        assert missing["en"] == 2
        acts = (await served.get("/api/v1/audit", limit=1))["items"]
        assert (acts[0]["act"], acts[0]["target"]) == ("i18n.put", "en-GB")
    async with serving(tmp_path / "hub", FAST) as served:
        assert await served.get(f"{API}/en-GB") == {"bye": "Bye", "greet": "Hello, {name}!"}
        said = await served.client.post(
            f"{API}/render", json={"key": "greet", "args": {"name": "Li"}, "locale": "en_gb"}
        )
        assert said.json() == {"text": "Hello, Li!"}
        said = await served.client.post(f"{API}/render", json={"key": "nobody.has.it"})
        assert said.json() == {"text": "nobody.has.it"}


async def test_bad_calls_are_problems(tmp_path: Path) -> None:
    """Each with its own status; who may only read does not write."""
    async with serving(tmp_path / "hub", FAST) as served:
        client = served.client
        assert (await client.get(f"{API}/fr")).status_code == 404
        assert (await client.get(f"{API}/no_such_language_at_all")).status_code == 422
        assert (await client.put(f"{API}/en", json={"a b": "x"})).status_code == 422
        assert (await client.put(f"{API}/en", json=["x"])).status_code == 422
        for unread in (b"{", b"", b" "):
            assert (await client.put(f"{API}/en", content=unread)).status_code == 400
        assert (await client.post(f"{API}/render", json={"args": {}})).status_code == 422
        headers = await served.token("read")
        assert (await client.get(f"{API}/en", headers=headers)).status_code == 200
        put = await client.put(f"{API}/en", json={"a": "x"}, headers=headers)
        assert put.status_code == 403


def chat_endpoint(address: str, lang: str | None) -> RecordingEndpoint:
    endpoint = RecordingEndpoint(address)
    endpoint.accepts = (CHAT_MESSAGE,)
    endpoint.labels = {} if lang is None else {"lang": lang}
    return endpoint


async def say(core: Core, data: object) -> None:
    core.table.put(Route(name="all", match="say", to=("plugin.*",)))
    await core.publish(
        Envelope.new(source="api.test", subject="say", type=CHAT_TEMPLATE, data=data, durable=False)
    )


async def test_each_destination_gets_its_language(tmp_path: Path) -> None:
    """The endpoint's own, else the message's."""
    async with running_hub(tmp_path / "hub") as core:
        english = chat_endpoint("plugin.english", "en-US")
        any_language = chat_endpoint("plugin.any", None)
        core.attach(english)
        core.attach(any_language)
        await say(core, {"key": "kenko.error.not_running", "args": {"state": "IDLE"}, "n": 1})
        (one,) = await english.wait_for(1)
        (two,) = await any_language.wait_for(1)
        assert one.type == CHAT_MESSAGE
        text = "message refused in state IDLE"
        assert one.json() == {"n": 1, "text": text, "lang": "en-US"}
        assert two.json() == {"n": 1, "text": "状态 IDLE 下不接受消息", "lang": "zh-CN"}
        await say(core, {"key": "kenko.error.no_route", "lang": "en"})
        (_, second) = await any_language.wait_for(2)
        assert second.json() == {"text": "no route takes this message", "lang": "en"}


async def test_what_is_no_template_is_filtered_and_no_fault(tmp_path: Path) -> None:
    """However often it comes, the plugin stays up and goes on."""
    async with running_hub(tmp_path / "hub") as core:
        endpoint = chat_endpoint("plugin.english", "en")
        core.attach(endpoint)
        garbage: list[object] = [None, [], {}, {"key": 3}, {"key": "a", "args": []}, "text"]
        for data in garbage:
            await say(core, data)
        await say(core, {"key": "kenko.pause.admin"})
        (only,) = await endpoint.wait_for(1)
        assert only.json() == {"text": "paused by an administrator", "lang": "en"}
        plugin = core.plugins.get("i18n")
        assert plugin is not None
        assert (plugin.state, plugin.faults) == ("up", 0)


async def test_the_hub_translates_by_its_plugins(tmp_path: Path) -> None:
    """A key that nobody has gives None, so that who asks uses words of its own."""
    async with running_hub(tmp_path / "hub") as core:
        assert core.translate("kenko.pause.admin", {}, "en-GB") == "paused by an administrator"
        assert core.translate("nobody.has.it", {}, "en") is None


async def test_a_folder_that_is_missing_fails_the_plugin_only(tmp_path: Path) -> None:
    """The hub runs, and says what is wrong."""
    toml = '[plugins.i18n]\nfolder = "/nowhere/at/all"\n'
    async with running_hub(tmp_path / "hub", toml) as core:
        plugin = core.plugins.get("i18n")
        assert plugin is not None
        assert plugin.state == "failed"
        assert "/nowhere/at/all" in plugin.reason
