"""Failures are counted by name, within bounds; passwords are refused over three limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import TooManyFailuresError
from hubbub.failure_guards import CredentialGuard, PasswordGuard
from hubbub.guards import FailedAttempts, PasswordLimits, name_of
from hubbub.observe.metrics import Metrics
from hubbub.testing import FakeClock

A, B = name_of("a"), name_of("b")


# The mechanism


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_so_many_and_no_more(limit: int) -> None:
    """Exactly the limit is counted; one more is due after its share of the window."""
    failures = FailedAttempts(limit, 90.0)
    now_s = 1_700_000_000.1
    assert [failures.count(A, now_s=now_s) for _ in range(limit)] == [0.0] * limit
    share_s = 90.0 / limit
    assert failures.wait_s(A, now_s=now_s) == pytest.approx(share_s, abs=1e-5)
    assert failures.count(A, now_s=now_s) == pytest.approx(share_s, abs=1e-5)
    assert failures.count(A, now_s=now_s + share_s - 0.01) > 0
    assert failures.count(A, now_s=now_s + share_s) == 0
    assert failures.count(A, now_s=now_s + share_s) > 0
    assert failures.count(B, now_s=now_s) == 0


def test_a_refusal_costs_nothing() -> None:
    """Who goes on trying does not wait longer for that."""
    failures = FailedAttempts(2, 10.0)
    for _ in range(1000):
        failures.count(A, now_s=0.0)
    assert failures.wait_s(A, now_s=0.0) == pytest.approx(5.0)
    assert failures.wait_s(A, now_s=5.0) == 0


def test_no_limit_counts_nothing() -> None:
    """0 is none."""
    failures = FailedAttempts(0, 10.0)
    assert {failures.count(A, now_s=0.0) for _ in range(1000)} == {0.0}
    assert len(failures) == 0


def test_what_is_given_back_does_not_count() -> None:
    """Nor does what is forgiven."""
    failures = FailedAttempts(2, 10.0)
    for _ in range(10):
        assert failures.count(A, now_s=0.0) == 0
        failures.give_back(A)
    failures.count(A, now_s=0.0)
    failures.count(A, now_s=0.0)
    assert failures.wait_s(A, now_s=0.0) > 0
    failures.forgive(A)
    assert failures.wait_s(A, now_s=0.0) == 0
    failures.give_back(A)  # which nobody knows any more
    assert len(failures) == 0


def test_names_are_bounded_and_the_least_guilty_goes() -> None:
    """A flood of names does not push out the one whose limit is reached."""
    failures = FailedAttempts(5, 10.0, maximum=100)
    for _ in range(5):
        failures.count(A, now_s=0.0)
    for number in range(10_000):
        failures.count(name_of(str(number)), now_s=0.1)
        assert len(failures) <= 100
    assert failures.wait_s(A, now_s=0.1) > 0
    assert len(failures._order) <= 2 * 100 + 65


def test_names_at_the_bound_are_all_remembered() -> None:
    """One more takes the place of one."""
    failures = FailedAttempts(1, 10.0, maximum=3)
    names = [name_of(str(number)) for number in range(4)]
    for place, name in enumerate(names[:3]):
        failures.count(name, now_s=place / 10)
    assert all(failures.wait_s(name, now_s=0.2) for name in names[:3])
    failures.count(names[3], now_s=0.3)
    assert [failures.wait_s(name, now_s=0.3) > 0 for name in names] == [False, True, True, True]


def test_names_are_forgotten_when_nothing_is_against_them() -> None:
    """By the next failure of anybody."""
    failures = FailedAttempts(5, 10.0)
    for number in range(50):
        failures.count(name_of(str(number)), now_s=0.0)
    assert len(failures) == 50
    failures.count(A, now_s=2.1)
    assert len(failures) == 1


def test_names_of_parts_are_not_mixed_up() -> None:
    """Whatever their parts are; they are short, and take any text."""
    assert name_of("a", "bc") != name_of("ab", "c")
    assert name_of("a") != name_of("a", "")
    assert name_of("1:a") != name_of("a")
    assert len(name_of("x" * 1_000_000, "\ud800")) == 16


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["count", "back", "forgive"]))),
    st.integers(1, 4),
)
def test_it_never_lets_more_through_than_a_window_has(
    steps: list[tuple[int, str]], limit: int
) -> None:
    """In no window of time, over any steps, unless something was taken back."""
    failures = FailedAttempts(limit, 10.0, maximum=2)
    now_s, counted = 0.0, list[float]()
    for after_s, act in steps:
        now_s += after_s
        if act == "count":
            if failures.count(A, now_s=now_s) == 0:
                counted.append(now_s)
        elif act == "back":
            if counted:
                counted.pop()
                failures.give_back(A)
        else:
            counted.clear()
            failures.forgive(A)
        late = [at for at in counted if at > now_s - 10.0]
        assert len(late) <= 2 * limit  # the burst, and what a window gives back


# Tokens and keys


@dataclass
class Reports:
    """What was reported."""

    seen: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def __call__(self, source: str, kind: str, detail: str) -> None:
        self.seen.append((source, kind, detail))


def value_of(metrics: Metrics, line: str) -> bool:
    return line in metrics.render().decode().splitlines()


async def test_wrong_tokens_of_one_source_are_slowed_down() -> None:
    """Over the limit, by kind; once in a window it is reported."""
    clock, reports, metrics = FakeClock(), Reports(), Metrics()
    guard = CredentialGuard(3, 30.0, clock=clock, metrics=metrics, report=reports)
    for _ in range(3):
        guard.failed("token", "192.0.2.1")
    with pytest.raises(TooManyFailuresError) as refused:
        guard.failed("token", "192.0.2.1")
    assert refused.value.after_s == pytest.approx(10.0, abs=1e-3)
    assert guard.count("token", "192.0.2.1") > 0
    assert guard.count("relay_key", "192.0.2.1") == 0
    assert guard.count("token", "192.0.2.2") == 0
    assert guard.count("token", None) == 0
    assert reports.seen == [("192.0.2.1", "token", "over 3 were not valid")]
    await clock.advance(10.001)
    guard.failed("token", "192.0.2.1")
    assert guard.count("token", "192.0.2.1") > 0
    assert len(reports.seen) == 1
    await clock.advance(20)
    assert [guard.count("token", "192.0.2.1") > 0 for _ in range(3)] == [False, False, True]
    assert len(reports.seen) == 2
    assert value_of(metrics, 'hubbub_auth_failures_total{kind="token"} 12.0')
    assert value_of(metrics, 'hubbub_auth_refused_total{kind="token"} 4.0')


def test_a_network_of_ipv6_is_one_source() -> None:
    """64 bits of it, for one subscriber has them all; an IPv4 address in IPv6 is that address."""
    guard = CredentialGuard(
        2, 30.0, clock=FakeClock(), metrics=Metrics(), report=Reports()
    )  # fmt: skip
    assert guard.count("token", "2001:db8::1") == 0
    assert guard.count("token", "2001:db8::2") == 0
    assert guard.count("token", "2001:db8::ffff:3") > 0
    assert guard.count("token", "2001:db8:0:1::1") == 0
    guard.count("token", "192.0.2.1")
    guard.count("token", "::ffff:192.0.2.1")
    assert guard.count("token", "192.0.2.1") > 0


def test_other_limits_begin_anew() -> None:
    """The same ones do not."""
    guard = CredentialGuard(1, 30.0, clock=FakeClock(), metrics=Metrics(), report=Reports())
    guard.failed("token", "192.0.2.1")
    guard.change(1, 30.0)
    assert guard.count("token", "192.0.2.1") > 0
    guard.change(2, 30.0)
    assert guard.count("token", "192.0.2.1") == 0


# Passwords


@dataclass
class Logins:
    """A guard, and what it reported."""

    guard: PasswordGuard
    clock: FakeClock
    reports: Reports
    metrics: Metrics

    def fail(self, user: str, peer: str) -> bool:
        """Try a wrong password; tells whether it was looked at."""
        try:
            attempt = self.guard.attempt(user, peer)
        except TooManyFailuresError:
            return False
        attempt.failed()
        return True

    def succeed(self, user: str, peer: str) -> bool:
        """Try the right password; tells whether it was looked at."""
        try:
            attempt = self.guard.attempt(user, peer)
        except TooManyFailuresError:
            return False
        attempt.succeeded()
        return True


def logins(pair: int = 3, source: int = 6, user: int = 8) -> Logins:
    clock, reports, metrics = FakeClock(), Reports(), Metrics()
    limits = PasswordLimits(pair, source, user, window_s=900.0, setting="login_failure_limit")
    guard = PasswordGuard("password", limits, clock=clock, metrics=metrics, report=reports)
    return Logins(guard, clock, reports, metrics)


async def test_a_user_from_one_source_has_so_many_attempts() -> None:
    """And one more for each share of the window; another source is not touched by that."""
    here = logins()
    assert [here.fail("eve", "192.0.2.1") for _ in range(5)] == [True] * 3 + [False] * 2
    assert not here.succeed("eve", "192.0.2.1")  # not looked at
    assert here.succeed("eve", "192.0.2.2")
    await here.clock.advance(299)
    assert not here.fail("eve", "192.0.2.1")
    await here.clock.advance(2)
    assert [here.fail("eve", "192.0.2.1") for _ in range(2)] == [True, False]
    (report,) = here.reports.seen
    assert report[:2] == ("192.0.2.1", "password")
    assert "'eve'" in report[2]
    assert value_of(here.metrics, 'hubbub_auth_refused_total{kind="password"} 5.0')
    assert value_of(here.metrics, 'hubbub_auth_failures_total{kind="password"} 4.0')


def test_one_source_cannot_try_all_users() -> None:
    """Over its limit nobody logs in from there who has not before."""
    here = logins()
    assert here.succeed("regular", "192.0.2.1")
    tried = [here.fail(f"user{number}", "192.0.2.1") for number in range(10)]
    assert tried == [True] * 6 + [False] * 4
    assert not here.succeed("newcomer", "192.0.2.1")
    assert here.succeed("regular", "192.0.2.1")
    assert here.succeed("newcomer", "192.0.2.2")


def test_many_sources_cannot_try_one_user() -> None:
    """Over its limit the user logs in from where that user was before, and nowhere else."""
    here = logins()
    assert here.succeed("eve", "192.0.2.1")
    tried = [here.fail("eve", f"198.51.100.{number}") for number in range(20)]
    assert tried == [True] * 8 + [False] * 12
    assert here.succeed("eve", "192.0.2.1")
    assert not here.succeed("eve", "192.0.2.2")
    assert here.succeed("adam", "198.51.100.1")


def test_attempts_of_a_known_place_have_their_limit_too() -> None:
    """To have logged in once is no licence to guess."""
    here = logins()
    here.guard.remember("eve", "192.0.2.1")
    assert [here.fail("eve", "192.0.2.1") for _ in range(5)] == [True] * 3 + [False] * 2


def test_logging_in_forgives_this_user_here_and_nothing_else() -> None:
    """So somebody with an account of his own does not clear what he did to others."""
    here = logins()
    for _ in range(2):
        here.fail("eve", "192.0.2.1")
    assert here.succeed("eve", "192.0.2.1")
    assert [here.fail("eve", "192.0.2.1") for _ in range(4)] == [True] * 3 + [False]
    tried = list[bool]()
    for number in range(10):
        tried.append(here.fail(f"user{number}", "192.0.2.9"))
        here.succeed("mallory", "192.0.2.9")
    assert tried.count(True) == 6
    tried = list[bool]()
    for number in range(20):
        tried.append(here.fail("adam", f"198.51.100.{number}"))
        here.succeed("mallory", f"198.51.100.{number}")
    assert tried.count(True) == 8


async def test_attempts_at_the_same_time_are_no_more_than_the_limit() -> None:
    """Each counts from its beginning; those that turn out well give it back."""
    here = logins()
    under_way = [here.guard.attempt("eve", "192.0.2.1") for _ in range(3)]
    with pytest.raises(TooManyFailuresError):
        here.guard.attempt("eve", "192.0.2.1")
    for attempt in under_way:
        attempt.succeeded()
    await asyncio.sleep(0)
    assert here.succeed("eve", "192.0.2.1")


def test_what_a_client_chose_is_cleaned_before_it_is_reported() -> None:
    """Length and control characters; it stands in the audit and in logs."""
    here = logins(pair=1)
    user = "e\x1b[31m\0\n" + "x" * 100_000
    here.fail(user, "192.0.2.1")
    assert not here.fail(user, "192.0.2.1")
    ((_, _, detail),) = here.reports.seen
    assert detail.isprintable()
    assert len(detail) < 300


def test_places_that_are_known_are_bounded() -> None:
    """The one that was not used for longest goes."""
    limits = PasswordLimits(9, 1, 1, window_s=900.0, setting="s")
    guard = PasswordGuard(
        "password", limits, clock=FakeClock(), metrics=Metrics(), report=Reports(), maximum=2
    )
    for number in (1, 2, 1, 3):
        guard.remember("eve", f"192.0.2.{number}")
    guard.attempt("eve", "198.51.100.1").failed()
    guard.check("eve", "192.0.2.1")
    guard.check("eve", "192.0.2.3")
    with pytest.raises(TooManyFailuresError):
        guard.check("eve", "192.0.2.2")
