"""What an adapter says that it lacks: it is `degraded`, and says for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, hookimpl
from hubbub.adapters import MAX_LACKS, MAX_REASON
from hubbub.config import AdapterSettings
from hubbub.errors import HubError, InvalidError, PluginError
from tests.hub.web.conftest import FAST, Served, serving


class Needy:
    """An adapter that needs accounts."""

    name = "needy"
    Config = AdapterSettings
    hub: Hub

    async def start(self, hub: Hub) -> None:
        self.hub = hub
        hub.lack("account 1", "not logged in")

    async def stop(self) -> None:
        pass


class Plugin:
    """Brings it."""

    def __init__(self) -> None:
        self.adapter = Needy()
        self.hub: Hub | None = None

    @hookimpl
    def adapters(self) -> list[Any]:
        return [self.adapter]

    @hookimpl
    async def startup(self, hub: Hub) -> None:
        self.hub = hub


TOML = f"{FAST}[adapters.needy]\nenabled = true\n"


async def reason_of(served: Served) -> tuple[str, str | None]:
    """Return state and reason, which `/readyz` and the list of adapters say alike."""
    part = (await served.client.get("/readyz")).json()["parts"]["adapters"]["needy"]
    (shown,) = [
        one for one in (await served.get("/api/v1/adapters"))["items"] if one["name"] == "needy"
    ]
    assert (shown["state"], shown["reason"]) == (part["state"], part["reason"])
    return part["state"], part["reason"]


async def test_an_adapter_says_what_it_lacks(tmp_path: Path) -> None:
    """From within its start, several at once, and each until it is there again."""
    plugin = Plugin()
    async with serving(tmp_path / "hub", TOML, plugins={"needy": plugin}) as served:
        hub = plugin.adapter.hub
        assert await reason_of(served) == ("degraded", "account 1: not logged in")
        hub.lack("account 2", "banned")
        hub.lack("account 1", "wrong password")
        expected = ("degraded", "account 1: wrong password; account 2: banned")
        assert await reason_of(served) == expected
        assert (
            'hubbub_adapter_up{adapter="needy"} 0.0' in (await served.client.get("/metrics")).text
        )
        hub.lack("account 1", None)
        hub.lack("account 1", None)
        assert await reason_of(served) == ("degraded", "account 2: banned")
        hub.lack("account 2", None)
        assert await reason_of(served) == ("up", None)


async def test_a_restart_begins_without(tmp_path: Path) -> None:
    """Also without what was said after the stop."""
    plugin = Plugin()
    async with serving(tmp_path / "hub", TOML, plugins={"needy": plugin}) as served:
        adapters, hub = served.core.adapters, plugin.adapter.hub
        hub.lack("account 2", "banned")
        await adapters.stop_one("needy")
        hub.lack("account 3", "late")
        await adapters.start_one("needy")
        assert await reason_of(served) == ("degraded", "account 1: not logged in")


async def test_a_required_adapter_makes_the_hub_wait(tmp_path: Path) -> None:
    """As one whose port is taken does."""
    plugin = Plugin()
    toml = f"{TOML}required = true\n"
    async with serving(tmp_path / "hub", toml, plugins={"needy": plugin}) as served:
        answer = await served.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["culprits"] == ["adapter needy: account 1: not logged in"]
        plugin.adapter.hub.lack("account 1", None)
        assert (await served.client.get("/readyz")).status_code == 200


async def test_what_is_said_is_bounded(tmp_path: Path) -> None:
    """MAX_LACKS of MAX_REASON characters; what is over it is only logged."""
    plugin = Plugin()
    async with serving(tmp_path / "hub", TOML, plugins={"needy": plugin}) as served:
        hub = plugin.adapter.hub
        for number in range(2, MAX_LACKS + 2):
            hub.lack(f"account {number}", "x" * 1000)
        _, reason = await reason_of(served)
        assert reason is not None
        parts = reason.split("; ")
        assert len(parts) == MAX_LACKS
        assert {len(part) for part in parts[1:]} == {MAX_REASON}
        assert f"account {MAX_LACKS}:" in reason
        assert f"account {MAX_LACKS + 1}:" not in reason
        with pytest.raises(InvalidError):
            hub.lack("two\nlines", "why")


async def test_a_plugin_is_no_adapter(tmp_path: Path) -> None:
    """It is told so."""
    plugin = Plugin()
    async with serving(tmp_path / "hub", TOML, plugins={"needy": plugin}) as served:
        assert plugin.hub is not None
        for hub in (plugin.hub, served.core):
            with pytest.raises(PluginError, match="only an adapter"):
                hub.lack("sleep", "why")
        assert issubclass(PluginError, HubError)
