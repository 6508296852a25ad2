"""Waiting with an end: also where what is waited for does not let itself be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from typing import Any, Final, TypeVar

__all__ = ["CANCEL_S", "end_tasks", "within"]

CANCEL_S: Final = 0.25
"""How long something that was cancelled may take to end; after that it is left behind."""

T = TypeVar("T")


async def within(work: Awaitable[T], limit_s: float, *, name: str) -> T:
    """Wait for something, at most so long; then it is cancelled, and left behind if that fails.

    `asyncio.timeout` waits for what it cancels, which may be for ever.

    Args:
        name: What it is, as the name of its task.

    Raises:
        TimeoutError: it took longer.
        BaseException: what it raised; one that cancelled itself has failed.
    """
    task = asyncio.create_task(_caught(work), name=name)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(0.0, limit_s))
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)
            raise TimeoutError(f"it took longer than {limit_s:.3g} s")
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_S)
        raise
    if task.cancelled():
        raise RuntimeError("it was cancelled from inside")
    value, error = task.result()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel tasks; returns those that have not ended a moment later."""
    for task in tasks:
        task.cancel()
    return (await asyncio.wait(tasks, timeout=CANCEL_S))[1] if tasks else set()


async def _caught(work: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """Return what it gives or raises: `SystemExit` out of a task would end the event loop."""
    try:
        return await work, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # raised again, where it is waited for
        return None, error
