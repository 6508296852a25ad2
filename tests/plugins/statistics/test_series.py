"""Figures are put into buckets: sums of counters, the highest of gauges, each user once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Envelope
from hubbub.envelope import CHAT_MESSAGE
from hubbub.errors import InvalidError
from hubbub.values import Delivery, Outcome
from hubbub_statistics.counting import MAX_CALLED, MAX_DATA, MAX_USERS, Counting, sender_of
from hubbub_statistics.series import MAX_POINTS, Series, Window


def said(data: object, **how: Any) -> Envelope:
    how = {"source": "onebot.bot.1", "subject": "onebot.1.event.message", **how}
    return Envelope.new(data=data, **how)


def delivered(address: str, outcome: Outcome = Outcome.DELIVERED) -> Delivery:
    envelope = said(None)
    return Delivery(
        id=1, envelope=envelope, seq=1, mailbox=address, route="r", endpoint=address,
        outcome=outcome,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window_s", "bucket_s", "points"), [(3600, 60, 61), (3600, 300, 13), (60, 60, 2)]
)
def test_a_window_has_every_bucket_it_touches(window_s: int, bucket_s: int, points: int) -> None:
    """The first one it begins in, and the one that runs."""
    window = Window.of(now_s=1_000_005 * 60 + 30, window_s=window_s, bucket_s=bucket_s)
    assert len(window.places) == points
    assert all(place % bucket_s == 0 for place in window.places)


@pytest.mark.parametrize(("window_s", "bucket_s"), [(3600, 30), (3600, 90), (60, 300), (0, 60)])
def test_other_windows_are_refused(window_s: int, bucket_s: int) -> None:
    """Whole minutes, at least one bucket."""
    with pytest.raises(InvalidError):
        Window.of(now_s=10**9, window_s=window_s, bucket_s=bucket_s)


def test_points_are_limited_at_their_edge() -> None:
    """The most there may be, and one more."""
    now_s = 10**9 - 10**9 % 60 + 30
    Window.of(now_s=now_s, window_s=(MAX_POINTS - 1) * 60, bucket_s=60)
    with pytest.raises(InvalidError):
        Window.of(now_s=now_s, window_s=MAX_POINTS * 60, bucket_s=60)


def test_series_add_up_and_measure() -> None:
    """Counters add up, also over restarts; gauges show the highest; a user counts once."""
    window = Window(600, 779, 60)
    kept = [
        (600, "messages_in", "", 3.0),
        (660, "messages_in", "", 4.0),
        (660, "calls", "kenko:bot", 2.0),
        (600, "db_bytes", "gauge", 10.0),
        (660, "db_bytes", "gauge", 12.0),
        (600, "active_users", "gauge", 7.0),
    ]
    users = [(660, "a"), (660, "b"), (720, "a")]
    running = [(720, "messages_in", "", 1.0), (720, "user", "c", 5.0), (720, "user", "a", 1.0)]
    series = Series.of(window, kept, users, running)
    assert series.messages_in == [(600, 3), (660, 4), (720, 1)]
    assert series.messages_out == [(600, 0), (660, 0), (720, 0)]
    assert series.calls == {"kenko:bot": [(600, 0), (660, 2), (720, 0)]}
    assert series.active_users == [(600, 7), (660, 2), (720, 2)]
    assert series.db_bytes == [(600, 10), (660, 12)]
    assert series.figures["active_users"] == 7
    wide = Series.of(Window(600, 779, 300), kept, [(600, "a"), (600, "b")], running)
    assert wide.messages_in == [(600, 8)]
    assert wide.db_bytes == [(600, 12)]
    assert wide.active_users == [(600, 7)]


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"sender": {"id": "815"}}, True),
        ({"sender": {"user_id": 815}}, True),
        ({"user_id": 815}, True),
        ({"sender": {"id": True}}, False),
        ({"sender": "815"}, False),
        ({"user_id": ""}, False),
        ({}, False),
        ([], False),
        (None, False),
        ("text", False),
    ],
)
def test_senders_are_found_or_not(data: object, known: bool) -> None:
    """And shown as a hash only."""
    sender = sender_of(said(data))
    assert (sender is not None) == known
    assert sender is None or (len(sender) == 16 and sender != "815")


def test_one_user_of_two_platforms_is_two() -> None:
    """And of one platform, by whatever member, one."""
    data = {"sender": {"id": "815"}}
    assert sender_of(said(data)) == sender_of(said({"user_id": 815}))
    assert sender_of(said(data)) != sender_of(said(data, source="kenko.app.1"))


@given(st.binary(max_size=200))
def test_no_data_are_too_bad_to_look_into(data: bytes) -> None:
    """A sender or none."""
    sender_of(said(data))


def test_only_chat_is_looked_into() -> None:
    """By its type or its subject; what the hub tells of itself is not counted."""
    counting = Counting()
    data = {"sender": {"id": "1"}}
    counting.on_accepted(said(data, subject="a.b"))
    assert (counting.accepted, len(counting.users)) == (1, 0)
    counting.on_accepted(said(data, subject="a.b", type=CHAT_MESSAGE))
    counting.on_accepted(said(data))
    assert (counting.accepted, list(counting.users.values())) == (3, [2])
    counting.on_accepted(said(data, source="hub.system"))
    assert counting.accepted == 3
    counting.on_accepted(said({"sender": {"id": "1"}, "pad": "x" * MAX_DATA}))
    assert list(counting.users.values()) == [2]


def test_counting_is_bounded_at_its_edges() -> None:
    """The last user and endpoint are told apart; the next ones are not."""
    counting = Counting()
    for number in range(MAX_USERS + 1):
        counting.on_accepted(said({"sender": {"id": number}}))
    counting.on_accepted(said({"sender": {"id": 0}}))
    assert len(counting.users) == MAX_USERS
    assert sum(counting.users.values()) == MAX_USERS + 1
    for number in range(MAX_CALLED + 2):
        counting.on_ended(delivered(f"plugin.p{number}"))
    counting.on_ended(delivered("plugin.p0"))
    counting.on_ended(delivered("plugin.p0", Outcome.DEAD))
    assert (len(counting.called), counting.called["other"]) == (MAX_CALLED + 1, 2)
    assert counting.called["plugin.p0"] == 2
    taken = counting.take()
    assert (taken.delivered, counting.delivered) == (MAX_CALLED + 3, 0)
