"""Waits before the next attempt: they grow, they have a cap, they never storm."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.net import Backoff
from hubbub.net.backoff import MAX_FACTOR, retry_after_s

CHANCES = st.floats(0, 1)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    first = draw(st.floats(0.001, 100))
    return Backoff(
        first_s=first,
        cap_s=first * draw(st.floats(1, 1000)),
        factor=draw(st.floats(1, MAX_FACTOR)),
        jitter=draw(st.floats(0, 1)),
        stable_s=draw(st.floats(0, 1000)),
    )


@given(backoffs(), st.integers(1, 10_000), CHANCES, st.floats(0, 1e12))
def test_a_wait_stays_within_its_bounds(
    backoff: Backoff, failures: int, chance: float, asked: float
) -> None:
    """At most the cap; at least what jitter leaves of the first, and what was asked for."""
    wait = backoff.wait_s(failures, chance, asked_s=asked)
    assert wait <= backoff.cap_s
    assert wait >= backoff.first_s * (1 - backoff.jitter) * 0.999
    assert wait >= min(asked, backoff.cap_s)


@given(backoffs(), CHANCES)
def test_waits_grow_up_to_the_cap(backoff: Backoff, chance: float) -> None:
    """Each is the one before times the factor, while that is below the cap."""
    waits = [backoff.wait_s(failures, 0.0) for failures in range(1, 30)]
    assert waits[0] == backoff.first_s
    for before, after in pairwise(waits):
        assert after == pytest.approx(min(backoff.cap_s, before * backoff.factor), rel=1e-6)
    assert backoff.wait_s(5, chance) <= waits[4]


@given(backoffs(), st.integers(0, 1000), st.one_of(st.none(), st.floats(0, 2000)))
def test_only_a_stable_link_begins_anew(
    backoff: Backoff, failures: int, lasted: float | None
) -> None:
    """One that is lost at once, again and again, is dialled more and more rarely."""
    stable = lasted is not None and lasted >= backoff.stable_s
    assert backoff.failures_after(failures, lasted) == (1 if stable else failures + 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_s": 0.0},
        {"first_s": 2.0, "cap_s": 1.0},
        {"cap_s": float("inf")},
        {"factor": 0.5},
        {"factor": MAX_FACTOR + 0.1},
        {"jitter": 1.1},
        {"stable_s": -1.0},
    ],
)
def test_what_is_no_backoff(wrong: dict[str, float]) -> None:
    """A storm, or a wait without end."""
    with pytest.raises(ValueError, match="backoff"):
        Backoff(**wrong)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", 0),
        ("17", 17),
        (" 3 ", 3),
        ("-3", 0),
        ("1.5", 0),
        ("soon", 0),
        ("²", 0),
        ("9" * 400, 999_999_999_999),
        ("Fri, 02 Jan 2026 00:00:10 GMT", 10),
        ("Thu, 01 Jan 2026 00:00:10 GMT", 0),
        ("Fri, 99 Jan 2026 00:00:10 GMT", 0),
    ],
)
def test_retry_after(said: str, seconds: float) -> None:
    """Seconds or a date; anything else asks for nothing."""
    now_us = 1_767_312_000_000_000
    assert retry_after_s({"retry-after": said}, now_us) == seconds


@given(st.text())
def test_retry_after_never_fails(said: str) -> None:
    """Whatever a peer writes there."""
    assert retry_after_s({"retry-after": said}, 0) >= 0
