"""hub.toml read again while the hub runs: all of it or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubbub.config import AdapterSettings, Settings, describe
from hubbub.config.models import CoreSettings
from hubbub.hookspecs import hookimpl
from hubbub.reload import AT_ONCE
from hubbub.testing import RecordingEndpoint
from tests.hub.web.conftest import FAST, Served, serving

API = "/api/v1"
ROUTE = '[[routes]]\nname = "{name}"\nmatch = "{match}"\nto = ["plugin.{to}"]\n'


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """A reload sets up logging; leave it as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def write(served: Served, text: str) -> None:
    file = served.core.config.file
    assert file is not None
    file.write_text(text, encoding="utf-8")


async def reload(served: Served, text: str) -> Any:
    """Write hub.toml, reload, and return the answer, which is a success."""
    write(served, text)
    answer = await served.client.post(f"{API}/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


def file_routes(served: Served) -> list[str]:
    return [route.name for route in served.core.table if route.origin == "file"]


async def test_nothing_changed_is_nothing_applied(served: Served) -> None:
    """The answer says so, and so does the audit."""
    assert await reload(served, FAST) == {"applied": [], "needs_restart": []}
    (entry,) = (await served.get(f"{API}/audit", limit=1))["items"]
    assert (entry["act"], entry["principal"]) == ("reload", "admin")
    assert "nothing" in entry["detail"]


async def test_routes_are_added_changed_removed_and_ordered(served: Served) -> None:
    """The table of the file becomes what the file says; the rest of the table stays."""
    one = ROUTE.format(name="one", match="a.>", to="x")
    two = ROUTE.format(name="two", match="a.>", to="y")
    await served.client.put(f"{API}/routes/mine", json={"match": "b.>", "to": ["plugin.z"]})
    done = await reload(served, FAST + one + two)
    assert done["applied"] == ["routes.one", "routes.two"]
    assert file_routes(served) == ["one", "two"]
    x, y = RecordingEndpoint("plugin.x"), RecordingEndpoint("plugin.y")
    served.core.attach(x)
    served.core.attach(y)
    await served.publish("a.b", 1)
    await x.wait_for(1)
    await y.wait_for(1)

    assert (await reload(served, FAST + two + one))["applied"] == ["routes.one", "routes.two"]
    assert file_routes(served) == ["two", "one"]
    changed = ROUTE.format(name="two", match="c.>", to="y")
    assert (await reload(served, FAST + changed))["applied"] == ["routes.one", "routes.two"]
    assert file_routes(served) == ["two"]
    assert (await served.publish("a.b", 1))["reason"] == "no_route"
    assert "mine" in [route.name for route in served.core.table]


async def test_a_broken_file_changes_nothing(served: Served) -> None:
    """422 with every problem and its line; settings and routes are what they were."""
    one = ROUTE.format(name="one", match="a.>", to="x")
    await reload(served, FAST + "max_body = 2048\n" + one)
    config = served.core.config
    broken = FAST + 'max_body = 1\nprot = 1\ntimeout = "x"\n' + ROUTE.format(
        name="two", match="a.>.b", to="y"
    )  # fmt: skip
    write(served, broken)
    answer = await served.client.post(f"{API}/reload")
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "config"
    assert len(problem["problems"]) == 3
    assert all("hub.toml:" in line for line in problem["problems"])
    write(served, "this is not TOML")
    assert (await served.client.post(f"{API}/reload")).status_code == 422
    assert served.core.config is config
    assert file_routes(served) == ["one"]
    assert (await served.client.post(f"{API}/envelopes", content=b" " * 2049)).status_code == 413


async def test_a_route_whose_name_is_taken_changes_nothing(served: Served) -> None:
    """Nothing of the new file holds, not even what was valid."""
    await served.client.put(f"{API}/routes/mine", json={"match": "b.>", "to": ["plugin.z"]})
    text = FAST + "max_body = 2048\n" + ROUTE.format(name="mine", match="a.>", to="x")
    write(served, text)
    answer = await served.client.post(f"{API}/reload")
    assert answer.status_code == 422
    assert "mine" in answer.json()["problems"][0]
    assert file_routes(served) == []
    assert served.core.config.hub.max_body != 2048


async def test_what_is_read_at_every_use_holds_at_once(served: Served) -> None:
    """Limits, rates, the log level; the port needs a restart and stays what it was."""
    text = FAST + 'max_body = 100\npublish_rate = 1\nattempts = 2\nport = 1\n[log]\nlevel = "error"'
    done = await reload(served, text)
    assert done == {
        "applied": ["hub.attempts", "hub.max_body", "hub.publish_rate", "log.level"],
        "needs_restart": ["hub.port"],
    }
    assert logging.getLogger().level == logging.ERROR
    assert served.core.config.hub.port == 17680
    long = await served.client.post(f"{API}/envelopes", content=b"x" * 101)
    assert long.status_code == 413
    statuses = [
        (await served.client.post(f"{API}/envelopes", json={"subject": "a", "data": 1})).status_code
        for _ in range(3)
    ]
    assert statuses == [202, 429, 429]
    assert (await reload(served, text))["needs_restart"] == ["hub.port"]
    back = await reload(served, FAST)
    assert back["needs_restart"] == []
    assert "hub.max_body" in back["applied"]


def test_settings_that_hold_at_once_are_settings() -> None:
    """A renamed setting is noticed here."""
    known = [row.key.removesuffix("[]") for row in describe(CoreSettings)]
    for key in AT_ONCE:
        assert any(row == key or row.startswith(f"{key}.") for row in known), key


async def test_mailboxes_take_another_bound(served: Served) -> None:
    """Those that are there too; what waits stays, and a publisher who waits for room is woken."""
    served.core.attach(RecordingEndpoint("plugin.away", linger_s=None)).close()

    async def publish() -> int:
        body = {"subject": "a", "data": 1, "to": ["plugin.away"]}
        return (await served.client.post(f"{API}/envelopes", json=body)).status_code

    assert [await publish(), await publish()] == [202, 202]
    done = await reload(served, FAST + "mailbox_limit = 1\n")
    assert done == {"applied": ["hub.mailbox_limit"], "needs_restart": []}
    assert await publish() == 503
    (box,) = (await served.get(f"{API}/stats"))["mailboxes"]
    assert box == {"mailbox": "plugin.away", "waiting": 2}
    done = await reload(served, FAST + 'mailbox_limit = 1\noverflow = "wait"\n')
    assert done["applied"] == ["hub.overflow"]
    waits = asyncio.create_task(publish())
    box = served.core.room.boxes.get("plugin.away")
    async with asyncio.timeout(10):
        while not box.wanted:  # noqa: ASYNC110  # nothing tells that somebody waits
            await asyncio.sleep(0)
    await reload(served, FAST + 'mailbox_limit = 3\noverflow = "wait"\n')
    assert await waits == 202


async def test_a_bound_of_an_endpoint_stays_its_own(served: Served) -> None:
    """Only the hub's default is changed."""
    served.core.attach(RecordingEndpoint("plugin.own", linger_s=None, mailbox_limit=7)).close()
    await served.publish("a", 1, to=["plugin.own"])
    await reload(served, FAST + "mailbox_limit = 1\n")
    assert served.core.room.boxes.get("plugin.own").limit == 7


async def test_backoff_and_grace_hold_at_once(served: Served) -> None:
    """For what fails from then on."""
    text = "[hub]\ndrain_timeout = 0.05\nbackoff = 7\nbackoff_max = 7\nslot_grace = 3\n"
    done = await reload(served, text)
    assert done == {
        "applied": ["hub.backoff", "hub.backoff_max", "hub.slot_grace"],
        "needs_restart": [],
    }
    assert 3_500_000 <= served.core.room.policy.backoff_us(5, 0.5) <= 7_000_000
    assert served.core.room.policy.slot_grace_s == 3


class ParrotSettings(AdapterSettings):
    """Two settings."""

    word: str = "hello"
    size: int = 1


class Parrot:
    """An adapter that keeps its settings."""

    Config: type[Settings] = ParrotSettings

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: ParrotSettings | None = None
        self.calls: list[str] = []

    @hookimpl
    def adapters(self) -> list[Any]:
        return [self]

    async def start(self, hub: Any) -> None:
        self.calls.append("start")
        self.settings = hub.settings(self.name, ParrotSettings)

    async def stop(self) -> None:
        self.calls.append("stop")


class Learning(Parrot):
    """One that takes another table over while it runs, if the word is a word."""

    async def reload(self, settings: ParrotSettings) -> None:
        self.calls.append("reload")
        if settings.word == "bad":
            raise ValueError("no such word")
        self.settings = settings


def adapters(**more: str) -> str:
    return FAST + "".join(
        f"[adapters.{name}]\n{text or 'enabled = true'}\n" for name, text in more.items()
    )


async def state_of(served: Served, adapter: str) -> str:
    shown = await served.pages(f"{API}/adapters")
    (state,) = [one["state"] for one in shown if one["name"] == adapter]
    return str(state)


async def test_adapters_are_switched_on_and_off(tmp_path: Path) -> None:
    """By `enabled` alone, without a restart of the hub."""
    parrot = Parrot("parrot")
    async with serving(tmp_path / "hub", FAST, plugins={"parrot": parrot}) as served:
        assert await state_of(served, "parrot") == "stopped"
        done = await reload(served, adapters(parrot=""))
        assert done["applied"] == ["adapters.parrot.enabled"]
        assert await state_of(served, "parrot") == "up"
        await reload(served, FAST)
        assert await state_of(served, "parrot") == "stopped"
        assert parrot.calls == ["start", "stop"]


async def test_an_adapter_takes_its_table_over_or_waits(tmp_path: Path) -> None:
    """With `reload` at once; without, its keys are named, and a restart of it is enough."""
    old, new = Parrot("old"), Learning("new")
    plugins = {"old": old, "new": new}
    async with serving(tmp_path / "hub", adapters(old="", new=""), plugins=plugins) as served:
        changed = 'enabled = true\nword = "hi"'
        done = await reload(served, adapters(old=changed, new=changed))
        assert done == {"applied": ["adapters.new.word"], "needs_restart": ["adapters.old.word"]}
        assert new.settings is not None
        assert new.settings.word == "hi"
        again = await reload(served, adapters(old=changed, new=changed))
        assert again == {"applied": [], "needs_restart": ["adapters.old.word"]}
        assert (await served.client.post(f"{API}/adapters/old/restart")).status_code == 200
        assert old.settings is not None
        assert old.settings.word == "hi"
        assert (await reload(served, adapters(old=changed, new=changed)))["needs_restart"] == []


async def test_an_adapter_that_refuses_its_table_stops_the_whole_reload(tmp_path: Path) -> None:
    """Those that took theirs over go back."""
    one, two = Learning("one"), Learning("two")
    plugins = {"one": one, "two": two}
    async with serving(tmp_path / "hub", adapters(one="", two=""), plugins=plugins) as served:
        fine, bad = 'enabled = true\nword = "hi"', 'enabled = true\nword = "bad"'
        write(served, adapters(one=fine, two=bad) + ROUTE.format(name="r", match="a", to="x"))
        answer = await served.client.post(f"{API}/reload")
        assert answer.status_code == 422
        assert "no such word" in answer.json()["problems"][0]
        assert one.settings is not None
        assert one.settings.word == "hello"
        assert file_routes(served) == []


async def test_a_bad_table_of_an_adapter_that_is_off_counts_too(tmp_path: Path) -> None:
    """Both passes are made."""
    async with serving(tmp_path / "hub", FAST, plugins={"p": Parrot("parrot")}) as served:
        write(served, adapters(parrot="size = 'x'", nobody=""))
        answer = await served.client.post(f"{API}/reload")
        assert answer.status_code == 422
        assert len(answer.json()["problems"]) == 2


async def test_a_reload_needs_an_administrator(served: Served) -> None:
    """A narrower token gets 403, and 503 while the hub stops."""
    headers = await served.token("read", "publish:>")
    assert (await served.client.post(f"{API}/reload", headers=headers)).status_code == 403
    served.core.state = "draining"
    assert (await served.client.post(f"{API}/reload")).status_code == 503
    served.core.state = "ready"
