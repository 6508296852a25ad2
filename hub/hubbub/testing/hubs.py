"""Hubs for tests: one without sockets, and one that is served on free ports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from hubbub.config import load_config
from hubbub.core import Core
from hubbub.file_modes import make_folder, write_text
from hubbub.hub import Hub
from hubbub.observe.logbook import LogBook
from hubbub.ports import Clock
from hubbub.testing.stores import store_of

__all__ = ["running_hub", "serving_hub"]


def _written(data_dir: Path, toml: str) -> Path:
    make_folder(data_dir)
    path = data_dir / "hub.toml"
    write_text(path, toml)
    return path


def _overrides(data_dir: Path, store_url: str | None) -> list[str]:
    url = store_url or store_of(data_dir)
    return [f'hub.data_dir="{data_dir}"', *([f'store.url="{url}"'] if url else [])]


@asynccontextmanager
async def running_hub(
    data_dir: Path,
    toml: str = "",
    *,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    plugins: Mapping[str, object] | None = None,
    store_url: str | None = None,
    book: LogBook | None = None,
) -> AsyncGenerator[Core]:
    """Run a hub without sockets on a SQLite file in `data_dir`; its hub.toml is `toml`.

    Args:
        book: Where its log lines are remembered.
        plugins: Plugin objects to load beside those that are installed, by name.
        store_url: Another database.
    """
    path = _written(data_dir, toml)
    config = load_config(path, overrides=_overrides(data_dir, store_url), environ=environ or {})
    core = Core(config, clock=clock, environ=environ or {}, book=book)
    for name, plugin in (plugins or {}).items():
        core.plugins.add(name, plugin)
    await core.start()
    try:
        yield core
    finally:
        await core.stop()


@asynccontextmanager
async def serving_hub(
    data_dir: Path,
    toml: str = "",
    *,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    plugins: Mapping[str, object] | None = None,
) -> AsyncGenerator[Hub]:
    """Run a hub with its sockets; its one port is a free one, `hub.main.url`.

    Args:
        plugins: Plugin objects to load beside those that are installed, by name.
    """
    path = _written(data_dir, toml)
    overrides = [*_overrides(data_dir, None), "hub.port=0"]
    hub = Hub(
        load_config(path, overrides=overrides, environ=environ or {}),
        clock=clock,
        environ=environ or {},
    )
    for name, plugin in (plugins or {}).items():
        hub.core.plugins.add(name, plugin)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
