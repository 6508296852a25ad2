"""Envelopes and their one JSON form."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.envelope import Envelope, rfc3339
from hubbub.errors import InvalidError, MalformedError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_data_passes_through_unchanged(data: Any) -> None:
    """What is said comes out as it came in, decoded and in the JSON form."""
    envelope = Envelope.new(source="s", subject="a.b", id="i", data=data)
    assert envelope.json() == data
    assert json.loads(envelope.encode())["data"] == data


def test_the_json_form_is_a_cloud_event() -> None:
    """All attributes under the names of CloudEvents; what is not set is not there."""
    envelope = Envelope(
        id="01J", source="relay.master", subject="relay.child.task.x", type="t.v1",
        time_us=1_767_323_045_678_901, data=b'{"n": 1}', key="u77", priority=7,
        reply_to="relay.master", in_reply_to="00X", expires_us=1_767_326_645_000_000,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", hops=1,
        idempotency_key="never told", durable=True, to=("a.b",),
    )  # fmt: skip
    assert json.loads(envelope.encode()) == {
        "specversion": "1.0", "id": "01J", "source": "relay.master", "type": "t.v1",
        "subject": "relay.child.task.x", "time": "2026-01-02T03:04:05.678901Z",
        "datacontenttype": "application/json", "data": {"n": 1},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "partitionkey": "u77", "priority": 7, "replyto": "relay.master", "inreplyto": "00X",
        "expirytime": "2026-01-02T04:04:05.000000Z", "hops": 1,
    }  # fmt: skip
    assert b'{"n": 1}' in envelope.encode(), "data is not encoded again"


def test_what_is_not_set_is_left_out() -> None:
    """A short envelope has a short form."""
    form = json.loads(Envelope(id="i", source="s", subject="a").encode())
    assert set(form) == {
        "specversion", "datacontenttype", "id", "source", "type", "subject", "data",
        "priority", "hops",
    }  # fmt: skip


def test_a_changed_envelope_is_encoded_anew() -> None:
    """`replace` takes neither the encoded nor the decoded form along."""
    first = Envelope.new(source="s", subject="a", id="i", data={"n": 1})
    assert (first.json(), first.encode()) == ({"n": 1}, first.encode())
    second = first.replace(data=b'{"n":2}', subject="b")
    assert second.json() == {"n": 2}
    assert json.loads(second.encode())["subject"] == "b"
    assert first.json() == {"n": 1}


def test_data_json_cannot_say_is_refused() -> None:
    """With an error of the family, not one of the encoder."""
    with pytest.raises(InvalidError):
        Envelope.new(source="s", subject="a", data=object())


@pytest.mark.parametrize("data", [b"", b"{", b'"\xff"', b"[" * 100_000])
def test_data_that_is_no_json_is_malformed(data: bytes) -> None:
    """Whoever looks inside is told."""
    with pytest.raises(MalformedError):
        Envelope(source="s", subject="a", data=data).json()


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_are_rfc_3339(time_us: int) -> None:
    """To the microsecond, in UTC."""
    moment = datetime.fromisoformat(rfc3339(time_us))
    assert moment - EPOCH == timedelta(microseconds=time_us)
