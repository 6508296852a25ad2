"""Adapters, each for itself: started, degraded and tried again, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import structlog

from hubbub.config import AdapterSettings
from hubbub.errors import NotFoundError, UnsafeSettingsError
from hubbub.intake import check_text
from hubbub.observe.metrics import Metrics
from hubbub.ports import Adapter, Clock, HubApi

__all__ = ["AdapterState", "Adapters", "RunningAdapter", "speaks_http"]

AdapterState = Literal["up", "degraded", "failed", "stopped"]

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0

PEERS_S: Final = 1.0
"""How long peers may take to be told that the hub stops; those who do not read never are."""

MAX_LACKS: Final = 32
"""Things that one adapter may say it lacks; further ones are only logged."""

MAX_REASON: Final = 300
"""Characters that are kept of what an adapter says of one."""

_OWN: Final = "own "
"""Before what an adapter itself lacks, so that no listener has the same name."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class RunningAdapter:
    """One enabled adapter and how it is.

    Attributes:
        started: Whether its `start` has succeeded.
        lacks: Its listeners that are down, and what it says itself that it lacks, and why.
        starts: How often it was started; its paths may be others each time.
    """

    adapter: Adapter
    settings: AdapterSettings
    hub: HubApi
    state: AdapterState = "stopped"
    reason: str = ""
    retry_s: float = FIRST_RETRY_S
    started: bool = False
    lacks: dict[str, str] = field(default_factory=dict[str, str])
    starts: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self.adapter.name


class Adapters:
    """All enabled adapters of one hub.

    Attributes:
        stop_timeout_s: How long each may take to stop.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        stop_timeout_s: float,
        close_listeners: Callable[[str], Awaitable[None]],
    ) -> None:
        self._close_listeners = close_listeners
        self._clock = clock
        self._metrics = metrics
        self._spawn = spawn
        self.stop_timeout_s = stop_timeout_s
        self._running: dict[str, RunningAdapter] = {}
        self._stopping = False

    def __iter__(self) -> Iterator[RunningAdapter]:
        return iter(list(self._running.values()))

    def add(self, adapter: Adapter, settings: AdapterSettings, hub: HubApi) -> None:
        """Take an adapter in, not yet started."""
        self._running[adapter.name] = RunningAdapter(adapter, settings, hub)

    def remove(self, name: str) -> None:
        """Forget an adapter that was stopped."""
        self._running.pop(name, None)
        self._metrics.adapter_up[name].set(0)

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

    async def start(self) -> None:
        """Start all of them side by side; one that cannot is tried again."""
        await asyncio.gather(*(self._start(one) for one in self if one.state != "failed"))

    async def start_one(self, name: str) -> None:
        """Start an adapter that was taken in; one that cannot start is tried again.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        await self._start(self.get(name))

    async def restart(self, name: str) -> None:
        """Stop one adapter and start it again.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        running = self.get(name)
        await self._stop(running)
        await self._start(running)

    async def stop_one(self, name: str) -> None:
        """Stop one adapter, and keep it as stopped.

        Raises:
            NotFoundError: none of that name is enabled.
        """
        await self._stop(self.get(name))

    def fail(self, name: str, reason: str) -> None:
        """Note that an adapter cannot be used, and why; it is not tried again."""
        running = self._running.get(name)
        if running is not None:
            running.state, running.reason, running.started = "failed", reason, False
            self._metrics.adapter_up[name].set(0)

    async def stop(self) -> None:
        """Stop all of them, each within its time."""
        self._stopping = True
        await asyncio.gather(*(self._stop(one) for one in self))

    async def pause_peers(self) -> None:
        """Let adapters tell their peers that the hub stops (`ports.PeerAdapter`)."""
        await asyncio.gather(*(self._ask(one, "pause_peers") for one in self))

    async def close_peers(self) -> None:
        """Let adapters close the connections of their peers, before listeners do."""
        await asyncio.gather(*(self._ask(one, "close_peers") for one in self))

    async def _ask(self, running: RunningAdapter, method: str) -> None:
        asked = getattr(running.adapter, method, None)
        if asked is None or not running.started:
            return
        try:
            async with asyncio.timeout(min(PEERS_S, self.stop_timeout_s)):
                await asked()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("adapter.peers_not_told", adapter=running.name, method=method, error=reason)

    def lack(self, name: str, what: str, reason: str | None) -> None:
        """Note that something an adapter needs is missing (a listener's port), or is there again.

        Args:
            reason: Why it is missing; None when it is there.
        """
        running = self._running.get(name)
        if running is None:
            return
        if reason is None:
            running.lacks.pop(what, None)
        else:
            running.lacks[what] = reason
        if running.started:
            self._judge(running)

    def lack_own(self, name: str, what: str, reason: str | None) -> None:
        """Note what an adapter says that it lacks, or has again (`HubApi.lack`).

        Raises:
            InvalidError: not a short text.
        """
        running = self._running.get(name)
        if running is None:
            return
        check_text("what an adapter lacks", what)
        key, said = _OWN + what, None
        if reason is not None:
            said = f"{what}: {reason}"[:MAX_REASON]
        before = running.lacks.get(key)
        if said == before:
            return
        if said is None:
            log.info("adapter.lacks_no_more", adapter=name, what=what)
        else:
            log.warning("adapter.lacks", adapter=name, what=what, reason=reason)
            own = sum(key.startswith(_OWN) for key in running.lacks)
            if before is None and own >= MAX_LACKS:
                return
        self.lack(name, key, said)

    def _judge(self, running: RunningAdapter) -> None:
        """Say how an adapter that has started is."""
        running.state = "degraded" if running.lacks else "up"
        running.reason = "; ".join(running.lacks.values())
        self._metrics.adapter_up[running.name].set(not running.lacks)

    async def _start(self, running: RunningAdapter) -> None:
        running.lacks = {
            key: reason for key, reason in running.lacks.items() if not key.startswith(_OWN)
        }
        try:
            await running.adapter.start(running.hub)
        except UnsafeSettingsError as error:  # only other settings mend that, not another try
            self.fail(running.name, str(error))
            log.error("adapter.failed", adapter=running.name, reason=running.reason)  # noqa: TRY400
            await self._close_listeners(running.name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            running.state, running.reason = "degraded", reason
            self._metrics.adapter_up[running.name].set(0)
            log.warning(
                "adapter.degraded", adapter=running.name, reason=reason, again_s=running.retry_s
            )
            due_us = self._clock.now_us() + int(running.retry_s * 1e6)
            running.retry_s = min(LAST_RETRY_S, running.retry_s * 2)
            self._clock.call_at(due_us, lambda: self._try_again(running))
            await self._close_listeners(running.name)
        else:
            running.retry_s = FIRST_RETRY_S
            running.started = True
            running.starts += 1
            self._judge(running)
            log.info("adapter.up", adapter=running.name, state=running.state)

    def _try_again(self, running: RunningAdapter) -> None:
        if running.state == "degraded" and not running.started and not self._stopping:
            self._spawn(self._start(running))

    async def _stop(self, running: RunningAdapter) -> None:
        if running.state == "stopped":
            return
        try:
            async with asyncio.timeout(self.stop_timeout_s):
                await running.adapter.stop()
        except Exception as error:
            log.warning(
                "adapter.stop_failed",
                adapter=running.name,
                error=f"{type(error).__name__}: {error}",
            )
        await self._close_listeners(running.name)
        running.started = False
        running.state, running.reason = "stopped", ""
        self._metrics.adapter_up[running.name].set(0)


def speaks_http(adapter: Adapter) -> bool:
    """Tell whether an adapter brings HTTP paths, so that the hub opens its `listen`."""
    return hasattr(adapter, "http_routes") or hasattr(adapter, "listener_routes")
