"""Requests and records as bytes."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.subjects import escape
from hubbub.tasks import request_envelope
from hubbub_relay import wire
from hubbub_relay.wire import RelayError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = TEXTS.filter(
    lambda text: (
        1 <= len(text) <= wire.MAX_NAME
        and not any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text)
    )
)
MEMBERS = (
    "from", "to", "type", "task_id", "cmd", "payload", "text", "priority", "not_before",
    "idempotency_key", "callback_url", "status", "child_id", "event",
)  # fmt: skip
READERS: list[Callable[[bytes], object]] = [
    wire.read_send,
    wire.read_callback,
    wire.read_ack,
    wire.read_renew,
]


def refusal(act: Callable[[], object]) -> int | None:
    """Return the status of a refusal; None when there is none."""
    try:
        act()
    except RelayError as error:
        return error.status
    return None


@pytest.mark.parametrize("read", READERS)
@given(body=st.binary() | VALUES.map(json.dumps).map(str.encode))
def test_any_body_is_read_or_refused(read: Callable[[bytes], object], body: bytes) -> None:
    """Whatever a client sends, the outcome is a request or RelayError with a client's status."""
    assert refusal(lambda: read(body)) in (None, 400)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(MEMBERS, VALUES),
    )
)
def test_members_of_any_kind_are_read_or_refused(members: dict[str, object]) -> None:
    """Known members of unexpected kinds never raise anything else, up to the envelope's data."""
    body = json.dumps(members).encode()
    for read in READERS:
        try:
            request = read(body)
            if isinstance(request, wire.SendRequest):
                request_envelope(
                    wire.task_of(request, "t_1", source="relay.a", subject="relay.b.task.c")
                )
                wire.chat_data(request)
        except RelayError:
            pass


def _read(read: Callable[[dict[str, str]], object], query: bytes) -> object:
    return read(wire.read_query(query))


@given(st.binary(max_size=200))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    """Query strings never raise anything else."""
    for read in (wire.read_logs_query, wire.read_tasks_query):
        assert refusal(partial(_read, read, query)) in (None, 400)


@given(
    sender=NAMES,
    to=NAMES,
    members=st.dictionaries(
        TEXTS.filter(
            lambda name: (
                name not in wire.RESERVED | {"attempt", "lease_until"}
                and name not in ("cmd", "priority", "not_before", "idempotency_key", "callback_url")
            )
        ),
        PLAIN,
        max_size=5,
    ),
    cmd=st.none() | NAMES,
)
def test_a_leased_task_shows_the_members_as_sent(
    sender: str, to: str, members: dict[str, object], cmd: str | None
) -> None:
    """What the master said is what the worker sees, whatever is said."""
    said = {**members, "from": sender, "to": to, "type": "task"}
    said.pop("task_id", None)
    if cmd is not None:
        said["cmd"] = cmd
    request = wire.read_send(json.dumps(said).encode())
    work = wire.task_of(
        request,
        "t_1",
        source=f"relay.{escape(sender)}",
        subject=f"relay.{escape(to)}.task.{escape(request.cmd or 'task')}",
    )
    envelope = request_envelope(work)
    shown = wire.leased_task(envelope, task_id="t_1", to=to, attempt=1, lease_until_us=0)
    if said.get("payload", {}) is None:
        del said["payload"]
    assert {**shown, **said} == shown
    assert shown["task_id"] == "t_1"
    assert shown["cmd"] == cmd


@given(members=st.dictionaries(TEXTS, PLAIN, max_size=5))
def test_a_log_record_is_one_line_in_order(members: dict[str, Any]) -> None:
    """`event` first, the members as they came, then `ts`, `id` and `ts_ms`."""
    members = {name: value for name, value in members.items() if name not in wire.RESERVED}
    body = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    line = wire.log_record("send", body, ts_ms=1_700_000_000_123, number=7)
    assert b"\n" not in line
    record = json.loads(line)
    assert list(record) == ["event", *members, "ts", "id", "ts_ms"]
    assert {name: record[name] for name in members} == members
    assert (record["id"], record["ts_ms"]) == (7, 1_700_000_000_123)
    day, time = record["ts"].split(" ")
    assert (len(day), len(time)) == (10, 8)


@pytest.mark.parametrize("name", sorted(wire.RESERVED))
def test_reserved_members_are_ignored(name: str) -> None:
    """A sender cannot forge what the server says."""
    body = {"from": "a", "to": "b", name: "forged", "other": 1}
    assert wire.read_send(json.dumps(body).encode()).members == {"from": "a", "to": "b", "other": 1}


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, "completed"),
        ({"status": "done"}, "completed"),
        ({"status": "completed"}, "completed"),
        ({"status": "ok"}, "completed"),
        ({"status": "processing"}, "processing"),
        ({"status": "failed"}, "failed"),
        ({"status": "DONE"}, "failed"),
        ({"status": ""}, "failed"),
        ({"status": 1}, "failed"),
        ({"status": ["done"]}, "failed"),
    ],
)
def test_status_of_a_callback(said: dict[str, object], status: str) -> None:
    """Source: relay protocol page, 3.2."""
    request = wire.read_callback(json.dumps({"task_id": "t_1", **said}).encode())
    assert request.status == status


@pytest.mark.parametrize("text", ["0", "1001", "-1", "x", "", "1.0", "１", "9" * 30])
def test_limits_of_logs(text: str) -> None:
    """1 to 1000, in plain digits."""
    with pytest.raises(RelayError, match="invalid limit"):
        wire.read_logs_query({"limit": text})
    assert wire.read_logs_query({"limit": "1"}).limit == 1
    assert wire.read_logs_query({"limit": "1000"}).limit == 1000
