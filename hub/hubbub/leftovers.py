"""What is still there when a hub has ended: tasks and threads, named with their plugins."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, Final

from hubbub.fence import Plugin
from hubbub.stopping import STEP

__all__ = ["MAX_NAMED", "modules_of", "plugin_in", "task_name", "tasks_left", "threads_left"]

MAX_NAMED: Final = 10
"""Tasks and threads that are named; of more there is only the number."""

OWN: Final = ("Hub.", "Event.wait")
"""Coroutines that serve until a signal."""


def modules_of(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Return plugins by the top module of each, but for what is in the hub's own package."""
    tops: dict[str, str] = {}
    for plugin in plugins:
        module = type(plugin.object).__module__ if plugin.point is None else plugin.point.module
        tops.setdefault(module.partition(".")[0], plugin.name)
    return {top: name for top, name in tops.items() if top not in ("builtins", "hubbub")}


def tasks_left(loop: asyncio.AbstractEventLoop | None, modules: Mapping[str, str]) -> list[str]:
    """Return names of the tasks of a loop that have not ended.

    Args:
        modules: Plugins by the top module of each.
    """
    if loop is None or loop.is_closed():
        return []
    tasks = asyncio.all_tasks(loop)
    return _some(task_name(task, modules) for task in tasks if not _is_own(task))


def threads_left(modules: Mapping[str, str]) -> list[str]:
    """Return names of threads that keep a process from its end."""
    frames = sys._current_frames()  # noqa: SLF001  # the only way there
    return _some(
        _named(thread.name, plugin_in(frames.get(thread.ident or 0), modules))
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    )


def task_name(task: asyncio.Task[Any], modules: Mapping[str, str]) -> str:
    """Return which coroutine a task runs, and of which plugin it is."""
    work = task.get_coro()
    plugin = next(filter(None, (plugin_in(one, modules) for one in _awaited(work))), "")
    name = task.get_name()
    if name.startswith("Task-"):  # nobody gave it one
        name = getattr(work, "__qualname__", "") or type(work).__name__
    return _named(name, plugin)


def plugin_in(frame: FrameType | None, modules: Mapping[str, str]) -> str:
    """Return the plugin that a call is in, the innermost one; empty where it is in none."""
    while frame is not None:
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top in modules:
            return modules[top]
        frame = frame.f_back
    return ""


def _is_own(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is one of those that start and stop the hub."""
    name = getattr(task.get_coro(), "__qualname__", "")
    return task.get_name().startswith(STEP) or name.startswith(OWN)


def _awaited(work: Any) -> Iterator[FrameType | None]:  # noqa: ANN401  # what can be awaited
    """Yield the frames of a coroutine and of those it waits for."""
    while work is not None:
        yield getattr(work, "cr_frame", None) or getattr(work, "ag_frame", None)
        work = getattr(work, "cr_await", None) or getattr(work, "ag_await", None)


def _named(name: str, plugin: str) -> str:
    return f"{name} of plugin {plugin!r}" if plugin and repr(plugin) not in name else name


def _some(names: Any) -> list[str]:  # noqa: ANN401  # what can be listed
    listed = sorted(names)
    more = len(listed) - MAX_NAMED
    return listed if more <= 0 else [*listed[:MAX_NAMED], f"and {more} more"]
