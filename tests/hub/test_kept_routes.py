"""Routes of the API after a restart: all that still fit, for little each."""

from __future__ import annotations

import gc
import json
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import insert

from hubbub import Hub as HubApi
from hubbub import hookimpl
from hubbub.config import load_config
from hubbub.core import Core
from hubbub.hub import Hub
from hubbub.routes import Routes
from hubbub.routing import RoutingTable
from hubbub.store.tables import RouteRow

MOST_CALLS: int = 30
"""Calls of Python functions that one kept route may take; with pydantic they were 80."""


async def kept(core: Core, numbers: range) -> None:
    """Keep plain routes, as a PUT would."""
    rows = [
        {
            "name": f"r{number}",
            "body": json.dumps({"match": f"shop.{number}.>", "to": [f"stream.s{number}"]}),
            "updated_us": 0,
        }
        for number in numbers
    ]
    await core.journal.execute((insert(RouteRow), rows))


def loaded(core: Core) -> tuple[RoutingTable, int]:
    """Return a table of the kept routes, and the calls of Python functions it took."""
    table = RoutingTable()
    routes = Routes(table, core.database, core.journal, core.clock)
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        routes.load()
    finally:
        sys.setprofile(before)
    return table, calls


async def test_many_kept_routes_cost_little_each(core: Core) -> None:
    """Few calls for each, and not more of them when there are more."""
    await kept(core, range(500))
    few, few_calls = loaded(core)
    await kept(core, range(500, 2_500))
    many, many_calls = loaded(core)
    assert (len(few), len(many)) == (500, 2_500)
    assert many_calls - few_calls < 2_000 * MOST_CALLS


async def test_one_that_no_longer_fits_is_left_out(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are there."""
    bodies = {
        "pattern": {"match": "a..b", "to": ["x"]},
        "unknown": {"match": "a", "to": ["x"], "colour": "red"},
        "good": {"match": "a", "to": ["x"]},
        "held": {"match": "a", "to": ["x.{subject.0}"], "hold": "10m"},
    }
    rows = [
        {"name": name, "body": json.dumps(body), "updated_us": 0} for name, body in bodies.items()
    ]
    await core.journal.execute((insert(RouteRow), rows))
    table, _ = loaded(core)
    assert [route.name for route in table] == ["good", "held"]


class Watching:
    """A plugin that looks whether garbage is collected, then tells the hub to stop."""

    collected: bool | None = None

    @hookimpl
    def startup(self, hub: HubApi) -> None:
        del hub
        self.collected = gc.isenabled()
        signal.raise_signal(signal.SIGTERM)


async def test_garbage_is_not_looked_for_while_a_hub_starts(tmp_path: Path) -> None:
    """What is loaded then stays, so looking at all of it again and again is of no use."""
    path = tmp_path / "hub.toml"
    path.write_text(f'[hub]\nport = 0\ndata_dir = "{tmp_path}"\n')
    hub = Hub(load_config(path), environ={})
    plugin = Watching()
    hub.core.plugins.add("watching", plugin)
    try:
        assert await hub.serve() == 0
        assert (plugin.collected, gc.isenabled()) == (False, True)
    finally:
        gc.unfreeze()
