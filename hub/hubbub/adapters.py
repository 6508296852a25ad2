"""Adapters, each for itself: started, degraded and tried again, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from hubbub.config import AdapterSettings
from hubbub.errors import NotFoundError
from hubbub.observe.metrics import Metrics
from hubbub.ports import Adapter, Clock, HubApi

__all__ = ["AdapterState", "Adapters", "RunningAdapter"]

AdapterState = Literal["up", "degraded", "failed", "stopped"]

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class RunningAdapter:
    """One enabled adapter and how it is."""

    adapter: Adapter
    settings: AdapterSettings
    state: AdapterState = "stopped"
    reason: str = ""
    retry_s: float = FIRST_RETRY_S

    @property
    def name(self) -> str:
        """Its name."""
        return self.adapter.name


class Adapters:
    """All enabled adapters of one hub."""

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        stop_timeout_s: float,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._spawn = spawn
        self._stop_timeout_s = stop_timeout_s
        self._running: dict[str, RunningAdapter] = {}
        self._stopping = False

    def __iter__(self) -> Iterator[RunningAdapter]:
        return iter(list(self._running.values()))

    def add(self, adapter: Adapter, settings: AdapterSettings) -> None:
        """Take an adapter in, not yet started."""
        self._running[adapter.name] = RunningAdapter(adapter, settings)

    def get(self, name: str) -> RunningAdapter:
        """Return an adapter.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        running = self._running.get(name)
        if running is None:
            raise NotFoundError(
                f"no adapter {name!r} is enabled; set adapters.{name}.enabled = true in hub.toml"
            )
        return running

    async def start(self, hub: HubApi) -> None:
        """Start all of them side by side; one that cannot is tried again."""
        await asyncio.gather(*(self._start(one, hub) for one in self))

    async def restart(self, name: str, hub: HubApi) -> None:
        """Stop one adapter and start it again.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        running = self.get(name)
        await self._stop(running)
        await self._start(running, hub)

    async def stop(self) -> None:
        """Stop all of them, each within its time."""
        self._stopping = True
        await asyncio.gather(*(self._stop(one) for one in self))

    def degrade(self, name: str, reason: str) -> None:
        """Note that something an adapter needs is missing (a listener's port)."""
        running = self._running[name]
        running.state, running.reason = "degraded", reason
        self._metrics.adapter_up[name].set(0)

    def mend(self, name: str) -> None:
        """Note that an adapter has all it needs."""
        running = self._running[name]
        running.state, running.reason = "up", ""
        self._metrics.adapter_up[name].set(1)

    async def _start(self, running: RunningAdapter, hub: HubApi) -> None:
        try:
            await running.adapter.start(hub)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.degrade(running.name, reason)
            log.warning(
                "adapter.degraded", adapter=running.name, reason=reason, again_s=running.retry_s
            )
            due_us = self._clock.now_us() + int(running.retry_s * 1e6)
            running.retry_s = min(LAST_RETRY_S, running.retry_s * 2)
            self._clock.call_at(due_us, lambda: self._try_again(running, hub))
        else:
            running.retry_s = FIRST_RETRY_S
            self.mend(running.name)
            log.info("adapter.up", adapter=running.name)

    def _try_again(self, running: RunningAdapter, hub: HubApi) -> None:
        if running.state == "degraded" and not self._stopping:
            self._spawn(self._start(running, hub))

    async def _stop(self, running: RunningAdapter) -> None:
        if running.state == "stopped":
            return
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await running.adapter.stop()
        except Exception as error:
            log.warning(
                "adapter.stop_failed",
                adapter=running.name,
                error=f"{type(error).__name__}: {error}",
            )
        running.state, running.reason = "stopped", ""
        self._metrics.adapter_up[running.name].set(0)
