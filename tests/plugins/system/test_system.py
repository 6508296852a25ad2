"""Figures are of this machine, and told only while somebody wants them."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import pytest

from hubbub import Route
from hubbub.core import Core
from hubbub.testing import RecordingEndpoint, running_hub
from hubbub.testing.clock import settle
from hubbub_system.figures import read_figures
from tests.hub.web.conftest import FAST, serving

KEYS = [
    "os", "arch", "python", "cpu_percent", "load1", "mem_total", "mem_used", "process_rss",
    "process_uptime_s", "host_uptime_s",
]  # fmt: skip


async def test_the_figures_are_those_of_this_machine(tmp_path: Path) -> None:
    """All ten, for the scope `read`."""
    async with serving(tmp_path / "hub", FAST) as served:
        figures = await served.get("/api/system")
        assert list(figures) == KEYS
        assert figures["mem_total"] == psutil.virtual_memory().total
        assert figures["python"] == platform.python_version()
        assert figures["process_rss"] > 10_000_000
        assert 0 <= figures["process_uptime_s"] < figures["host_uptime_s"]
        headers = await served.token("read")
        assert (await served.client.get("/api/system", headers=headers)).status_code == 200
        headers = await served.token("publish:a")
        assert (await served.client.get("/api/system", headers=headers)).status_code == 403


def test_what_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other figures stay."""

    def refused(*_: object) -> Any:
        raise OSError("no /proc here")

    monkeypatch.setattr(psutil, "virtual_memory", refused)
    monkeypatch.setattr(psutil, "boot_time", refused)
    monkeypatch.delattr(os, "getloadavg")
    figures = read_figures()
    assert (figures.mem_total, figures.mem_used, figures.host_uptime_s) == (None, None, None)
    assert figures.load1 is None
    assert figures.process_rss is not None


FAST_TICKS = "[plugins.system]\nevery = 0.1\n"


def watching(core: Core) -> RecordingEndpoint:
    watcher = RecordingEndpoint("plugin.watcher")
    core.attach(watcher)
    core.table.put(Route(name="watch", match="hub.system", to=("plugin.watcher",)))
    return watcher


async def test_it_is_told_while_somebody_wants_it(tmp_path: Path) -> None:
    """Again and again to a route that takes it, and not at all without one."""
    async with running_hub(tmp_path / "hub", FAST_TICKS) as core:
        await asyncio.sleep(0.25)  # more than two of its ticks
        assert "hub" not in core.metrics.envelopes_accepted
        watcher = watching(core)
        first, *_ = await watcher.wait_for(3)
        assert list(first.json()) == KEYS  # type: ignore[call-overload]


async def test_it_ends_with_its_plugin(tmp_path: Path) -> None:
    """Switched off, nothing is told; switched on, it is told again."""
    async with running_hub(tmp_path / "hub", FAST_TICKS) as core:
        watcher = watching(core)
        await watcher.wait_for(1)
        plugin = core.plugins.get("system")
        assert plugin is not None
        core.plugins.switch_off(plugin, "disabled", "test")
        await core.extensions.ended()
        await settle()
        told = len(watcher.taken)
        await asyncio.sleep(0.25)
        assert len(watcher.taken) == told
        core.plugins.switch_on(plugin)
        await core.plugins.startup(core.hub_for, only=plugin)
        await watcher.wait_for(told + 1)
