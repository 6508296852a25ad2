"""A link that is dialled for ever: connected, lost, waited for, connected again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

from hubbub.config import LimitSettings
from hubbub.listeners.connections import Connection, Home, Spawn
from hubbub.listeners.limits import Gate
from hubbub.net.backoff import Backoff
from hubbub.net.connector import DialError, Resolve, connect, resolve
from hubbub.net.targets import Target
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock, Timer

__all__ = ["Dial", "DialEnv", "DialPolicy", "DialState", "DialTimes", "Failure"]

CONNECT_S: Final = 10.0
HANDSHAKE_S: Final = 10.0
CLOSE_S: Final = 5.0
PING_S: Final = 20.0
PONG_S: Final = 20.0
"""The usual deadlines; see `DialTimes`."""

SHOWN_TEXT: Final = 300
"""Characters of a failure that are shown: a peer may have had a word in it."""

DialState = Literal["waiting", "connecting", "open", "closed"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DialTimes:
    """Deadlines of a dial. All but the first are those of WebSockets.

    Attributes:
        connect_s: How long an attempt may take to connect and to agree on encryption.
        handshake_s: How long the peer may take to answer the handshake.
        close_s: How long it may take to answer a close frame; then it is cut off.
        ping_s: Silence after which it is asked whether it is there.
        pong_s: How long it may stay silent after that; then it is dead.
    """

    connect_s: float = CONNECT_S
    handshake_s: float = HANDSHAKE_S
    close_s: float = CLOSE_S
    ping_s: float = PING_S
    pong_s: float = PONG_S


@dataclass(frozen=True, slots=True)
class DialPolicy:
    """How a dial goes about it.

    Attributes:
        changed: Called after each change of its state.
    """

    backoff: Backoff = field(default_factory=Backoff)
    times: DialTimes = field(default_factory=DialTimes)
    changed: Callable[[Dial], None] | None = None


@dataclass(frozen=True, slots=True)
class DialEnv:
    """What a dial is given of the hub.

    Attributes:
        owner: The adapter or plugin it belongs to.
        limits: Gives what a new link keeps to, `frame` and `idle` of it; it may have been reloaded.
        chance: Gives numbers from 0 to 1.
    """

    owner: str
    limits: Callable[[], LimitSettings]
    clock: Clock
    metrics: Metrics
    spawn: Spawn
    chance: Callable[[], float]
    resolve: Resolve = resolve


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a link is not open.

    Attributes:
        reason: As in `hubbub_dial_failures_total`.
        retry_after_s: How long the peer asked to be left alone.
    """

    reason: str
    text: str
    retry_after_s: float = 0.0


class Dial:
    """One peer that is dialled again and again until `close`.

    Attributes:
        owner: The adapter or plugin it belongs to.
        state: `waiting` for the next attempt, `connecting`, `open`, or `closed` for good.
        failures: Attempts and links in a row that did not last.
        reason: Why it is not open; empty while it is, and before the first attempt.
        next_s: How long it waits when it is `waiting` after a failure.
    """

    def __init__(
        self,
        target: Target,
        make: Callable[[Dial], Awaitable[Connection]],
        *,
        env: DialEnv,
        policy: DialPolicy,
        shakes_hands: bool = False,
    ) -> None:
        """Begin closed to the world; `begin` dials.

        Args:
            make: Gives the protocol of one attempt.
            shakes_hands: Whether a link can be used only once its protocol calls `is_up`.
        """
        self.owner: Final = env.owner
        self.state: DialState = "waiting"
        self.failures = 0
        self.reason = ""
        self.next_s = 0.0
        self.env: Final = env
        self._target = target
        self._make = make
        self.policy: Final = policy
        self._shakes_hands = shakes_hands
        self._home = Home(
            env.owner, _DialGate(self, env.limits()), env.clock, env.spawn, self._faulty
        )
        self._attempt: asyncio.Task[None] | None = None
        self._again: Timer | None = None
        self._held = True
        self._entered = False
        self._up_us: int | None = None
        self._failure: Failure | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        self._forget: Callable[[Dial], None] | None = None
        env.metrics.dials[env.owner, self.state].inc()

    @property
    def url(self) -> str:
        """Where it leads, without what is secret in it."""
        return self._target.shown

    @property
    def limits(self) -> LimitSettings:
        """What its link keeps to."""
        return self._home.gate.limits

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, and its link has ended."""
        return self.state == "closed" and self._gone.is_set()

    def begin(self) -> None:
        """Dial, from here on."""
        if self._held and self.state != "closed":
            self._held = False
            self._dial()

    def hold(self) -> None:
        """Begin no further attempt; a link that is open stays."""
        self._held = True
        self._end_attempt()

    def close(self) -> None:
        """Dial no more, and end the link politely; within the time that its protocol has for it."""
        if self.state == "closed":
            return
        self.hold()
        self._become("closed")
        for connection in list(self._home.connections):
            connection.leave()
        self._forget_if_gone()

    async def stop(self, timeout_s: float) -> None:
        """Close, and return when the link has ended: politely until then, at once after that."""
        self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        for connection in list(self._home.connections):
            connection.abort()
        for task in self._home.talking:
            task.cancel()
        await asyncio.sleep(0)

    def when_gone(self, forget: Callable[[Dial], None]) -> None:
        """Say who is told once it is closed and its link has ended."""
        self._forget = forget

    # Told by the link

    def enter(self) -> bool:
        """A link has come to be; returns whether it may stay."""
        if self._turns_away():
            return False
        self._entered = True
        self._gone.clear()
        self._up_us = self._failure = None
        if not self._shakes_hands:
            self.is_up()
        return not self._turns_away()  # who was told of it may have closed it

    def _turns_away(self) -> bool:
        """Tell whether a link that has just come to be may not stay."""
        if self.state != "closed":
            return False
        self._gone.set()
        self._forget_if_gone()
        return True

    def is_up(self) -> None:
        """The link can be used."""
        self._up_us = self.env.clock.now_us()
        self.reason = ""
        self._become("open")
        log.info("dial.up", adapter=self.owner, url=self.url)

    def fails(self, failure: Failure) -> None:
        """Note why the link is about to end; the first reason counts."""
        self._failure = self._failure or failure

    def left(self) -> None:
        """The link has ended."""
        up_us, self._up_us = self._up_us, None
        self._gone.set()
        if self.state == "closed":
            self._forget_if_gone()
            return
        lasted_s = None if up_us is None else (self.env.clock.now_us() - up_us) / 1e6
        ended = Failure("lost", "the peer has ended the connection")
        if lasted_s is None:
            ended = Failure("handshake", "the peer has ended the connection during the handshake")
        self._wait(self._failure or ended, lasted_s)

    # Inside

    def _dial(self) -> None:
        self._again = None
        if not self._held:
            self._entered = False
            self._attempt = self.env.spawn(self._connect())
            self._become("connecting")

    async def _connect(self) -> None:
        clock, within_s = self.env.clock, self.policy.times.connect_s
        try:
            # By the hub's clock, as all that follows.
            async with asyncio.timeout(None) as limit:
                now_s = asyncio.get_running_loop().time
                due_us = clock.now_us() + int(within_s * 1e6)
                timer = clock.call_at(due_us, lambda: limit.reschedule(now_s()))
                try:
                    await self._try()
                finally:
                    timer.cancel()
        except DialError as error:
            self._not_connected(Failure(error.reason, str(error)))
        except TimeoutError:
            self._not_connected(Failure("timeout", f"no connection within {within_s:g} s"))

    def _not_connected(self, failure: Failure) -> None:
        if not self._entered:  # else the link tells of its end itself
            self._wait(failure)

    async def _try(self) -> None:
        try:
            self._home.gate.change(self.env.limits())
            made = await self._make(self)
        except Exception as error:  # noqa: BLE001  # the plugin boundary: counted and logged
            self._faulty("dial")
            log.error(  # noqa: TRY400  # its text may have secrets, such as a header
                "dial.failed_to_begin", adapter=self.owner, error=type(error).__name__
            )
            raise DialError(
                "adapter", f"its adapter has no connection or headers: {type(error).__name__}"
            ) from None
        await connect(
            self._target,
            lambda: made.settle(self._home),
            within_s=self.policy.times.connect_s,
            resolve=self.env.resolve,
        )

    def _wait(self, failure: Failure, lasted_s: float | None = None) -> None:
        """Note a failure, and dial again after a while."""
        env = self.env
        self._attempt = None
        self.failures = self.policy.backoff.failures_after(self.failures, lasted_s)
        self.next_s = self.policy.backoff.wait_s(
            self.failures, env.chance(), asked_s=failure.retry_after_s
        )
        env.metrics.dial_failures[self.owner, failure.reason].inc()
        # A peer that stays away is told of once, not each minute.
        text = failure.text[:SHOWN_TEXT]
        tell = log.warning if text != self.reason else log.debug
        tell(
            "dial.failed",
            adapter=self.owner,
            url=self.url,
            reason=failure.reason,
            error=text,
            again_s=round(self.next_s, 1),
        )
        self.reason = text
        if not self._held:
            due_us = env.clock.now_us() + int(self.next_s * 1e6)
            self._again = env.clock.call_at(due_us, self._dial)
        self._become("waiting")

    def _end_attempt(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._attempt is not None:
            if self.state == "connecting" and not self._entered:
                self._attempt.cancel()
                self._become("waiting")
            self._attempt = None

    def _become(self, state: DialState) -> None:
        if state == self.state:
            return
        dials = self.env.metrics.dials
        dials[self.owner, self.state].dec()
        if state != "closed":
            dials[self.owner, state].inc()
        self.state = state
        if self.policy.changed is None:
            return
        try:
            self.policy.changed(self)
        except Exception:
            self._faulty("dial")
            log.exception("dial.told_in_vain", adapter=self.owner)

    def _forget_if_gone(self) -> None:
        if self.is_gone and self._forget is not None:
            self._forget(self)

    def _faulty(self, what: str) -> None:
        self.env.metrics.plugin_errors[self.owner, what].inc()


class _DialGate(Gate):
    """The gate of a dial: lets its one link in, and tells the dial."""

    def __init__(self, dial: Dial, limits: LimitSettings) -> None:
        super().__init__(dial.owner, limits, clock=dial.env.clock, metrics=dial.env.metrics)
        self._dial = dial

    def enter(self, host: str) -> str | None:
        return host if self._dial.enter() else None

    def leave(self, source: str) -> None:
        del source
        self._dial.left()

    def refuse(self, reason: str) -> None:
        super().refuse(reason)
        self._dial.fails(Failure("lost", f"closed over a limit: {reason}"))
