"""Plugins switched over the API, quarantine as it is seen from outside, counts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as HttpRoute

from hubbub import Endpoint, Envelope
from hubbub.config import AdapterSettings
from hubbub.hookspecs import hookimpl
from hubbub.testing import RecordingEndpoint
from hubbub.values import Route
from tests.hub.web.conftest import FAST, Served, serving

API = "/api/v1"


class Parrot:
    """An adapter that notes what is asked of it."""

    name = "parrot"
    Config = AdapterSettings

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self, hub: Any) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")


class Panel:
    """A plugin with a path, an adapter, a route, an endpoint, and a hook that may raise."""

    def __init__(self) -> None:
        self.raises = False
        self.parrot = Parrot()

    @hookimpl
    def http_routes(self) -> list[Any]:
        async def say(request: Request) -> Response:
            return PlainTextResponse("panel")

        return [HttpRoute("/panel", say)]

    @hookimpl
    def adapters(self) -> list[Any]:
        return [self.parrot]

    @hookimpl
    def routes(self) -> list[Route]:
        return [Route(name="panel", match="panel.>", to=("plugin.panel",))]

    @hookimpl
    def startup(self, hub: Any) -> None:
        hub.attach(RecordingEndpoint("plugin.panel"))

    @hookimpl
    def before_route(self, envelope: Envelope) -> None:
        if self.raises:
            raise ValueError("no")


TOML = FAST + "[adapters.parrot]\nenabled = true\n"


async def shown(served: Served, name: str) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {
        one["name"]: one for one in await served.pages(f"{API}/plugins")
    }
    return found[name]


async def parrots(served: Served) -> list[Any]:
    """Return how the API shows the adapter of these tests."""
    shown = await served.pages(f"{API}/adapters")
    return [one for one in shown if one["name"] == "parrot"]


async def test_a_plugin_is_switched_off_and_on(tmp_path: Path) -> None:
    """Its path, adapter, route and endpoint go and come back; both are in the audit."""
    panel = Panel()
    async with serving(tmp_path / "hub", TOML, plugins={"panel": panel}) as served:
        assert (await served.client.get("/panel")).text == "panel"
        off = await served.client.post(f"{API}/plugins/panel/disable")
        assert (off.status_code, off.json()["state"]) == (200, "disabled")
        assert (await served.client.get("/panel")).status_code == 404
        assert (await served.client.get(f"{API}/endpoints/plugin.panel")).status_code == 404
        assert (await served.client.get(f"{API}/routes/panel")).status_code == 404
        (adapter,) = await parrots(served)
        assert adapter["state"] == "failed"
        assert "disabled by admin" in adapter["reason"]

        on = await served.client.post(f"{API}/plugins/panel/enable")
        assert (on.status_code, on.json()["state"], on.json()["reason"]) == (200, "up", None)
        assert (await served.client.get("/panel")).text == "panel"
        assert (await served.client.get(f"{API}/endpoints/plugin.panel")).status_code == 200
        assert (await served.client.get(f"{API}/routes/panel")).status_code == 200
        (adapter,) = await parrots(served)
        assert adapter["state"] == "up"
        assert panel.parrot.calls == ["start", "stop", "start"]
        acts = [one["act"] for one in (await served.get(f"{API}/audit", limit=2))["items"]]
        assert acts == ["plugin.enable", "plugin.disable"]


async def test_quarantine_is_named_and_leaves_the_hub_ready(tmp_path: Path) -> None:
    """200 with its name and reason; its path and endpoint are gone, its route stays."""
    panel = Panel()
    async with serving(tmp_path / "hub", TOML, plugins={"panel": panel}) as served:
        panel.raises = True
        for _ in range(3):
            await served.publish("any.thing")
        await served.core.extensions.ended()
        ready = await served.client.get("/readyz")
        assert ready.status_code == 200
        part = ready.json()["parts"]["plugins"]["panel"]
        assert part["state"] == "quarantined"
        assert "3 faults in a row" in part["reason"]
        assert (await served.client.get("/panel")).status_code == 404
        assert (await served.client.get(f"{API}/endpoints/plugin.panel")).status_code == 404
        assert (await served.client.get(f"{API}/routes/panel")).status_code == 200
        metrics = (await served.client.get("/metrics")).text
        assert 'hubbub_plugin_errors_total{hook="before_route",plugin="panel"} 3.0' in metrics
        panel.raises = False
        await served.client.post(f"{API}/plugins/panel/enable")
        assert (await shown(served, "panel"))["state"] == "up"


async def test_an_unknown_plugin_is_404_and_a_narrow_token_403(served: Served) -> None:
    """For both ways."""
    headers = await served.token("read")
    for how in ("enable", "disable"):
        assert (await served.client.post(f"{API}/plugins/nobody/{how}")).status_code == 404
        answer = await served.client.post(f"{API}/plugins/relay/{how}", headers=headers)
        assert answer.status_code == 403


async def test_counts_that_operators_want(served: Served) -> None:
    """What waits and where, what ended how, how fast, how large, since when."""
    served.core.table.put(Route(name="a", match="a.>", to=("plugin.away",)))
    served.core.attach(Endpoint(address="plugin.away", linger_s=None)).close()
    for number in range(3):
        await served.publish("a.b", number)
    await served.client.post(f"{API}/tasks", json={"task_type": "x"})
    stats = await served.get(f"{API}/stats")
    assert stats["envelopes"]["accepted"] == 4
    assert stats["waiting"] == 4
    assert stats["mailboxes"][0] == {"mailbox": "plugin.away", "waiting": 3}
    assert stats["tasks"] == {"queued": 1}
    if served.core.database.path is None:
        assert stats["store"] == {"kind": "server", "bytes": None}
    else:
        assert stats["store"]["kind"] == "sqlite"
        assert stats["store"]["bytes"] > 4096
    assert 0 < stats["uptime_s"] < 60
    await asyncio.sleep(0)
    assert (await served.get(f"{API}/stats"))["envelopes"]["per_second"] > 0


async def test_the_audit_has_every_page(served: Served) -> None:
    """Newest first, each once."""
    names = [f"r{number}" for number in range(5)]
    for name in names:
        await served.client.put(f"{API}/routes/{name}", json={"match": "a", "to": ["b.c"]})
    acts = await served.pages(f"{API}/audit", limit=2)
    assert [one["target"] for one in acts] == names[::-1]
    headers = await served.token("read")
    assert (await served.client.get(f"{API}/audit", headers=headers)).status_code == 403


def test_sighup_reloads_a_hub(tmp_path: Path) -> None:
    """A route of the file is there without a restart; a broken file leaves it there."""
    toml = tmp_path / "hub.toml"
    base = '[hub]\nport = 0\n[log]\nformat = "json"\n'
    toml.write_text(base)
    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub.cli", "run"],
        cwd=tmp_path,
        env={**os.environ, "HUBBUB_ADMIN_TOKEN": "t"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"ready (http\S+)", process.stdout.readline())
        assert found is not None
        toml.write_text(base + '[[routes]]\nname = "new"\nmatch = "a"\nto = ["b.c"]\n')
        process.send_signal(signal.SIGHUP)
        log = wait_for(process.stderr, "hub.reloaded")
        assert "routes.new" in log
        toml.write_text("broken")
        process.send_signal(signal.SIGHUP)
        assert "hub.toml:1" in wait_for(process.stderr, "hub.not_reloaded")
        headers = {"authorization": "Bearer t"}
        answer = httpx2.get(f"{found[1]}{API}/routes/new", headers=headers, timeout=30)
        assert answer.json()["origin"] == "file"
        audit = httpx2.get(f"{found[1]}{API}/audit", headers=headers, timeout=30).json()["items"]
        assert [one["principal"] for one in audit] == ["SIGHUP"]
        process.terminate()
        assert process.wait(20) == 0


def wait_for(lines: Any, event: str) -> str:
    for line in lines:
        if event in line:
            return str(line)
    raise AssertionError(f"no {event}")
