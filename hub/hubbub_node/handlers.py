"""What a node does: a function for each task type."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, TypeVar, cast

from hubbub_node.wire import Task

__all__ = ["Handler", "Handlers", "HandlersError", "call", "current_task", "is_async", "load"]

Handler = Callable[[dict[str, Any]], object]
"""Takes a task's data and returns its result, or a coroutine that does; both are JSON.

An exception makes the task `failed`, with its text as error. A function that is not `async` runs
on a thread of its own.
"""

H = TypeVar("H", bound=Handler)

_current: ContextVar[Task] = ContextVar("hubbub_node_task")


class HandlersError(Exception):
    """There are no handlers where they were looked for."""


class Handlers(dict[str, Handler]):
    """Handlers by task type.

    >>> handlers = Handlers()
    >>> @handlers.task("add")
    ... def add(data):
    ...     return data["a"] + data["b"]
    """

    def task(self, task_type: str) -> Callable[[H], H]:
        """Make a function the handler of a task type."""

        def keep(handler: H) -> H:
            self[task_type] = handler
            return handler

        return keep


def current_task() -> Task:
    """Return the task that the calling handler does.

    Raises:
        LookupError: called from anywhere else.
    """
    return _current.get()


def load(name: str) -> Mapping[str, Handler]:
    """Return the handlers that stand at `module:attribute`, a mapping of task types.

    The working directory is searched first, as by `python -m`.

    Raises:
        HandlersError: no such module or attribute, or no handlers there.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise HandlersError(f"{name!r} does not say where; write module:attribute")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise HandlersError(f"there is no module {error.name!r}; looked in {folder} too") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Mapping) or not found:
        raise HandlersError(
            f"{name} is no mapping of task types to functions; make it a hubbub_node.Handlers"
        )
    handlers = cast("Mapping[object, object]", found)
    for task_type, handler in handlers.items():
        if not isinstance(task_type, str) or not task_type or not callable(handler):
            raise HandlersError(f"{name}: {task_type!r} is no task type with a function")
    return cast("Mapping[str, Handler]", handlers)


async def call(handler: Handler, task: Task) -> object:
    """Do a task; what is not `async` runs on a thread that ends with the process."""
    token = _current.set(task)
    try:
        if is_async(handler):
            return await cast("Callable[[dict[str, Any]], Awaitable[object]]", handler)(
                dict(task.data)
            )
        return await _on_thread(handler, dict(task.data))
    finally:
        _current.reset(token)


def is_async(handler: object) -> bool:
    """Tell whether a handler is awaited, and can be cancelled."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004  # an object with an async __call__
    )


async def _on_thread(handler: Handler, data: dict[str, Any]) -> object:
    """Call on a daemon thread: an executor's would keep a process that wants to end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()
    context = copy_context()

    def tell(value: object, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def work() -> None:
        value: object = None
        error: BaseException | None = None
        try:
            value = context.run(handler, data)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it is the task's failure
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, value, error)

    threading.Thread(target=work, name=f"task {_current.get().id}", daemon=True).start()
    value, error = await done
    if error is not None:
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))
    return value
