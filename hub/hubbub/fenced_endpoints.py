"""Endpoints of third-party plugins: what the hub calls of them is measured as their hooks are.

The event loop is inside a plugin not only in its hooks: it hands envelopes to its endpoints. A
`deliver` that waits is entered again and again; each stretch on the loop counts by itself. What
an endpoint raises stays a matter of the delivery, not of the fence.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from time import perf_counter
from typing import Any, Final

from hubbub.fence import Fence, Plugin
from hubbub.values import Endpoint

__all__ = ["fence_endpoint"]

CALLS: Final = ("deliver", "deliver_now", "record", "recorded", "overloaded", "cancel")
"""What the hub calls of an endpoint; those that a class does not write itself cost nothing."""


def fence_endpoint(fence: Fence, plugin: Plugin, endpoint: Endpoint) -> None:
    """Have the calls of an endpoint measured, and the watchdog know whose they are.

    Args:
        endpoint: Gets methods of its own in place of those of its class, once.
    """
    for name in CALLS:
        method = getattr(endpoint, name)
        own = getattr(method, "__func__", None) is not getattr(Endpoint, name)
        if own and not getattr(method, "fenced", False):
            setattr(endpoint, name, _fenced(fence, plugin, name, method))


def _fenced(fence: Fence, plugin: Plugin, name: str, method: Callable[..., Any]) -> object:
    @functools.wraps(method)
    def call(*args: object) -> object:
        began = perf_counter()
        with fence.watched(plugin, name):
            given = method(*args)
        took_s = perf_counter() - began
        if name == "deliver":
            return _Stretches(fence, plugin, given, took_s)
        fence.measure(plugin, name, took_s)
        return given

    call.fenced = True  # type: ignore[attr-defined]
    return call


class _Stretches:
    """An awaitable of a plugin; the longest stretch that it holds the loop is what counts."""

    __slots__ = ("_fence", "_given", "_longest_s", "_plugin")

    def __init__(
        self, fence: Fence, plugin: Plugin, given: Awaitable[object], took_s: float
    ) -> None:
        self._fence = fence
        self._plugin = plugin
        self._given = given
        self._longest_s = took_s

    def __await__(self) -> Generator[Any, Any, object]:
        steps = _waiting(self._given)
        step: Callable[[], object] = functools.partial(steps.send, None)
        try:
            while True:
                try:
                    waits_for = self._step(step)
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    self._step(steps.close)
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown into the coroutine
                    step = functools.partial(steps.throw, error)
                else:
                    step = functools.partial(steps.send, sent)
        finally:
            self._fence.measure(self._plugin, "deliver", self._longest_s)

    def _step(self, step: Callable[[], object]) -> object:
        began = perf_counter()
        try:
            with self._fence.watched(self._plugin, "deliver"):
                return step()
        finally:
            self._longest_s = max(self._longest_s, perf_counter() - began)


async def _waiting(given: Awaitable[object]) -> object:
    return await given
