"""Credentials that hold, and what is open by means of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hubbub.credentials import LOOK_US, CredentialRegistry
from hubbub.errors import CredentialEndedError
from hubbub.testing import FakeClock, settle


class CountingClock(FakeClock):
    """A clock that counts what it was asked for."""

    timers = 0

    def call_at(self, time_us: int, callback: Callable[[], None]) -> Any:
        self.timers += 1
        return super().call_at(time_us, callback)


class SetClock(FakeClock):
    """A clock that may be set."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


async def test_what_is_open_ends_with_its_credential() -> None:
    """All of it, once, and nothing of another one; what has ended by itself is not ended again."""
    credentials = CredentialRegistry(FakeClock())
    ended: list[str] = []

    def note(what: str, why: str) -> None:
        ended.append(what + why)

    for name in ("a", "b"):
        credentials.admit(name)
        for number in range(2):
            credentials.open(name, partial(note, f"{name}{number}"))
    credentials.open("a", ended.append)()
    credentials.revoke("a")
    credentials.revoke("a")
    assert ended == ["a0revoked", "a1revoked"]
    assert (credentials.holds("a"), credentials.holds("b")) == (False, True)
    with pytest.raises(CredentialEndedError):
        credentials.open("a", ended.append)


async def test_one_that_cannot_be_ended_holds_no_other_up() -> None:
    """Its error is logged."""
    credentials = CredentialRegistry(FakeClock())
    credentials.admit("a")
    ended: list[str] = []

    def fails(reason: str) -> None:
        raise RuntimeError(reason)

    credentials.open("a", fails)
    credentials.open("a", ended.append)
    credentials.revoke("a")
    assert ended == ["revoked"]


@pytest.mark.parametrize("of", ["credential", "use"])
async def test_time_ends_it_at_the_moment(of: str) -> None:
    """Not a microsecond earlier, whichever of the two ends first."""
    clock = FakeClock()
    credentials = CredentialRegistry(clock)
    until_us = clock.now_us() + 10_500_000
    credentials.admit("a", expires_us=until_us if of == "credential" else until_us + 1)
    ended: list[str] = []
    credentials.open("a", ended.append, expires_us=until_us if of == "use" else None)
    await clock.advance(10.499_999)
    assert ended == []
    await clock.advance(0.000_001)
    assert ended == ["expired"]
    assert credentials.holds("a") is (of == "use")


async def test_a_clock_that_is_set_is_noticed_within_a_second() -> None:
    """The clock is looked at once a second, while something open has an end."""
    clock = SetClock()
    credentials = CredentialRegistry(clock)
    credentials.admit("a", expires_us=clock.now_us() + 3_600_000_000)
    ended: list[str] = []
    credentials.open("a", ended.append)
    clock.ahead_us = 7_200_000_000
    assert ended == []
    await clock.advance(LOOK_US / 1e6)
    assert ended == ["expired"]


async def test_nothing_is_left_of_what_comes_and_goes() -> None:
    """Waits under a token that ends far from now leave neither notes nor timers behind."""
    clock = CountingClock()
    credentials = CredentialRegistry(clock)
    credentials.admit("a", expires_us=clock.now_us() + 10**15)
    for _ in range(1000):
        credentials.open("a", lambda _: None)()
    assert credentials.count("a") == 0
    assert clock.timers < 3


async def test_a_wait_is_left_when_its_credential_ends() -> None:
    """With the reason; a deadline of the work itself stays one."""
    credentials = CredentialRegistry(FakeClock())
    credentials.admit("a")

    async def wait() -> None:
        async with credentials.within("a"):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await settle()
    credentials.revoke("a", "removed")
    with pytest.raises(CredentialEndedError) as ended:
        await waiting
    assert ended.value.reason == "removed"
    with pytest.raises(CredentialEndedError):
        await wait()
    with pytest.raises(TimeoutError):
        async with credentials.within(""), asyncio.timeout(0):
            await asyncio.Event().wait()
