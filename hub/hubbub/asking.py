"""Request and reply: publish, and wait for one answer. No store, one hop."""

from __future__ import annotations

import asyncio
from functools import partial

from hubbub.admission import Admission, Ready
from hubbub.clock import Ids
from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.errors import (
    DeadlineError,
    DrainingError,
    InvalidError,
    NoEndpointError,
    UnavailableError,
)
from hubbub.ports import Clock
from hubbub.router import Router
from hubbub.sources import SourceGuard
from hubbub.values import DeliveryState, Outcome, Principal

__all__ = ["Asking"]


class Asking:
    """Asks, and gives whoever asked the first answer."""

    def __init__(self, router: Router, admission: Admission, clock: Clock, ids: Ids) -> None:
        self._router = router
        self._admission = admission
        self._clock = clock
        self._ids = ids

    async def request(
        self,
        envelope: Envelope,
        *,
        timeout_s: float,
        principal: Principal | None = None,
    ) -> Envelope:
        """Publish and wait for one answer.

        The answer is an envelope whose `in_reply_to` is the request's id, or what the first
        endpoint's `deliver` returned.

        Raises:
            NoEndpointError: nobody is there to be asked.
            DeadlineError: no answer in time.
            HubError: refused.
        """
        sources = self._router.sources
        guard = sources.guard_of((envelope,), principal) if sources.active else None
        if guard is None:
            return await self._ask(envelope, timeout_s, principal, None)
        guard.under_way += 1
        try:
            return await self._ask(envelope, timeout_s, principal, guard)
        finally:
            guard.under_way -= 1

    async def _ask(
        self,
        envelope: Envelope,
        timeout_s: float,
        principal: Principal | None,
        guard: SourceGuard | None,
    ) -> Envelope:
        now_us = self._clock.now_us()
        asked = envelope.replace(
            id=envelope.id or self._ids.ulid(),
            durable=False,
            expires_us=now_us + int(timeout_s * 1e6),
        )
        if self._router.draining:
            raise DrainingError
        self._admission.check_one(asked, principal)
        if asked.type == TASK_RESULT and principal is not None:
            raise InvalidError("a task's result has no answer; publish it instead")
        if guard is not None:
            guard.check((asked,), now_s=now_us / 1e6)
        waiters = self._router.waiters
        answer = waiters.open(asked.id)
        timer = self._clock.call_at(asked.expires_us or 0, partial(_give_up, answer, timeout_s))
        try:
            one = await self._admission.admit(asked, principal, alone=False)
            waiters.note(one.envelope)
            if all(delivery.state is DeliveryState.DONE for delivery in one.planned.deliveries):
                raise NoEndpointError(
                    f"nobody is there who takes {asked.subject!r}; `hubbub routes test` shows "
                    "where it would go"
                )
            self._router.accept((one,))
            if not answer.done():
                _check_handed_over(one)
            return await answer
        finally:
            timer.cancel()
            waiters.close(asked.id)


def _give_up(answer: asyncio.Future[Envelope], timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineError(f"no answer came within {timeout_s:g} s"))


def _check_handed_over(one: Ready) -> None:
    """Tell whoever asks at once that nobody will answer: guards let nothing through just now.

    Raises:
        UnavailableError: with the guards' names.
    """
    dropped = {
        delivery.reason or "" for delivery in one.planned.deliveries
        if delivery.outcome is Outcome.DROPPED
    }  # fmt: skip
    if dropped and all(d.state is DeliveryState.DONE for d in one.planned.deliveries):
        raise UnavailableError(
            f"whoever takes {one.envelope.subject!r} is held back by its guard "
            f"({', '.join(sorted(dropped))}); try again later, `hubbub endpoints` shows the guard"
        )
