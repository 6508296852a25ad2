"""Frames and values. Vectors: seed README; protocols page, section 3."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub_kenko import wire
from hubbub_kenko.wire import (
    Ack,
    BadRegister,
    FrameError,
    Heartbeat,
    Message,
    Ping,
    Register,
    RunnerResult,
    Target,
    Unknown,
)

SEED_REGISTER = """{
  "type": "register",
  "data": {
    "name": "应用名称", "version": "应用版本", "description": "应用描述", "author": "应用作者"
  }
}"""

VECTORS: dict[str, wire.Inbound] = {
    SEED_REGISTER: Register("应用名称", "应用版本", "应用描述", "应用作者"),
    '{"type":"heartbeat"}': Heartbeat(),
    '{"type":"ping"}': Ping(),
    "ping": Ping(bare=True),
    '{"type":"ack","data":{"id":"m","ok":true,"error":null}}': Ack("m"),
    '{"type":"message","data":{"content":"Rain","reply_to":"m","target":'
    '{"adapter":"onebot","group_id":"4711"}}}': Message(
        "Rain", "m", Target(adapter="onebot", group_id="4711")
    ),
    '{"type":"message","data":{"key":"hello","args":{"n":1}}}': Message(key="hello", args={"n": 1}),
    '{"type":"runner.result","data":{"ok":true}}': RunnerResult({"ok": True}),
    '{"type":"later","data":7}': Unknown("later"),
}

BAD = {
    "": "bad_json",
    "{": "bad_json",
    "pong": "bad_json",
    "[]": "bad_json",
    '"ping"': "bad_json",
    "null": "bad_json",
    '{"type":"message","data":{"content":}}': "bad_json",
    "[" * 100_000: "bad_json",
    "{}": "bad_type",
    '{"type":null}': "bad_type",
    '{"type":["message"]}': "bad_type",
    '{"type":"message"}': "bad_data",
    '{"type":"message","data":{}}': "bad_data",
    '{"type":"message","data":{"content":7}}': "bad_data",
    '{"type":"message","data":{"content":"x","reply_to":7}}': "bad_data",
    '{"type":"message","data":{"content":"x","target":"there"}}': "bad_data",
    '{"type":"ack","data":{}}': "bad_data",
    '{"type":"ack","data":{"id":"m","ok":"yes"}}': "bad_data",
    '{"type":"runner.result","data":[]}': "bad_data",
}


@pytest.mark.parametrize(("text", "value"), VECTORS.items())
def test_a_frame_is_read(text: str, value: wire.Inbound) -> None:
    """The same from text and from bytes."""
    assert wire.decode(text) == value
    assert wire.decode(text.encode()) == value


@pytest.mark.parametrize(("text", "code"), BAD.items())
def test_a_bad_frame_says_what_is_wrong(text: str, code: str) -> None:
    """By a code, and in words."""
    with pytest.raises(FrameError) as failed:
        wire.decode(text)
    assert failed.value.code == code
    assert failed.value.message


def test_a_bad_message_names_what_it_was_about() -> None:
    """So that the client knows which one."""
    with pytest.raises(FrameError) as failed:
        wire.decode('{"type":"message","data":{"content":7,"reply_to":"m_1"}}')
    assert failed.value.ref == "m_1"


def test_bytes_that_are_no_text_are_no_json() -> None:
    """Binary frames hold UTF-8."""
    with pytest.raises(FrameError) as failed:
        wire.decode(b"\xff\xfe")
    assert failed.value.code == "bad_json"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(
    ["register", "heartbeat", "ping", "message", "ack", "runner.result", "x"]
) | st.text(max_size=5)
members = st.dictionaries(
    st.sampled_from(
        ["name", "version", "capabilities", "subscribe", "concurrency", "content", "id", "ok",
         "reply_to", "target", "segments", "key", "args"]
    ),
    json_values,
)  # fmt: skip
frames = st.fixed_dictionaries({"type": kinds, "data": members | json_values})


@given(st.text() | st.binary() | json_values.map(json.dumps) | frames.map(json.dumps))
def test_whatever_comes_is_a_value_or_an_error(raw: str | bytes) -> None:
    """Nothing else is raised."""
    with suppress(FrameError):
        wire.decode(raw)


@given(json_values)
def test_a_registration_is_valid_or_named(data: Any) -> None:
    """What is accepted keeps to the limits."""
    match wire.read_register(data):
        case Register() as register:
            assert 1 <= len(register.name) <= wire.MAX_NAME
            assert register.capabilities <= wire.CAPABILITIES
        case BadRegister(code, message):
            assert code in ("invalid_data", "invalid_name")
            assert message


@pytest.mark.parametrize("name", ["天气\u3000一号", "\U0001f468\u200d\U0001f467", "a\u00a0b"])
def test_names_of_any_script(name: str) -> None:
    """An ideographic space, and what joins an emoji, are no control characters."""
    register = wire.read_register({"name": name})
    assert isinstance(register, Register)
    assert register.name == name


@pytest.mark.parametrize("sign", ["\0", "\n", "\x1b", "\u2028"])
def test_names_with_a_control_character(sign: str) -> None:
    """They would break a line of a log."""
    refused = wire.read_register({"name": f"a{sign}b"})
    assert isinstance(refused, BadRegister)
    assert refused.code == "invalid_name"


@given(json_values)
def test_auth_takes_anything(argument: Any) -> None:
    """An object with a name is a registration; all else is one without."""
    auth = wire.read_auth(argument, session_id="0123456789")
    if not (isinstance(argument, dict) and "name" in argument):
        assert auth.register == Register("socketio-01234567")
        assert auth.token == (argument if isinstance(argument, str) else None)


@given(st.text(max_size=20), st.text(max_size=20), st.none() | st.text(max_size=20))
def test_both_families_say_the_same(code: str, message: str, ref: str | None) -> None:
    """A frame as text holds the event's name and data."""
    for frame in (wire.error(code, message, ref), wire.registered(code), wire.pause(code)):
        event, data = wire.event_of(frame)
        assert json.loads(wire.encode(frame)) == {"type": event, "data": data}
    for bare in (wire.START, wire.PONG, wire.HEARTBEAT):
        assert json.loads(wire.encode(bare)) == {"type": wire.event_of(bare)[0]}
    assert wire.encode(wire.BARE_PONG) == b"pong"
    assert msgspec.json.decode(wire.encode(wire.refused("internal", message)))["data"] == {
        "success": False,
        "code": "internal",
        "message": message,
    }
