"""Frames: what is read, what is refused, what is written."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Envelope
from hubbub.envelope import TASK_REQUEST
from hubbub.errors import InvalidError
from hubbub_octohub import actions, wire
from hubbub_octohub.wire import Ask, FrameError, NodeReady, Pong, Result, read_ask, read_node_frame

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)

# Frames: OctoHub protocol page, 3.2, as the original's node sends them.
NODE_FRAMES: dict[str, tuple[str, object]] = {
    "ready": (
        '{"type":"node_ready","pc_id":"node_00112233aabbccdd","timestamp":1700000000}',
        NodeReady(),
    ),
    "completed": (
        (
            '{"type":"task_result","task_id":"task_01HZX4Q7","status":"completed",'
            '"result":{"echo":{"k":"v"},"processed_at":1700000001},"timestamp":1700000001}'
        ),
        Result("task_01HZX4Q7", "completed", b'{"echo":{"k":"v"},"processed_at":1700000001}', None),
    ),
    "failed": (
        (
            '{"type":"task_result","task_id":"task_01HZX4Q7","status":"failed",'
            '"error":"boom happened","timestamp":1700000001}'
        ),
        Result("task_01HZX4Q7", "failed", b"null", "boom happened"),
    ),
    "pong": ('{"type":"pong"}', Pong()),
    "other dialect": (
        '{"action":"task_result","data":{"task_id":"t","status":"completed","result":1}}',
        Result("t", "completed", b"1", None),
    ),
    "extended ready": (
        (
            '{"type":"node_ready","task_types":["render"],"labels":{"gpu":"yes"},'
            '"max_concurrency":4,"version":"1.2","features":["ack"]}'
        ),
        NodeReady(("render",), {"gpu": "yes"}, 4, "1.2", frozenset({"ack"})),
    ),
    "ask": (
        '{"action":"echo","data":[1],"request_id":7,"timestamp":1700000000123}',
        Ask("echo", [1], 7),
    ),
}

UNUSABLE = {
    "not json": "{",
    "no object": "[1]",
    "nothing": "",
    "no type": "{}",
    "type of no text": '{"type":7}',
    "unknown type": '{"type":"dance"}',
    "no task": '{"type":"task_result","status":"completed"}',
    "long task id": json.dumps({"type": "task_result", "task_id": "t" * 129}),
    "other status": '{"type":"task_result","task_id":"t","status":"done"}',
    "types of no array": '{"type":"node_ready","task_types":"echo"}',
    "types of no text": '{"type":"node_ready","task_types":[1]}',
    "type that cannot be shown": '{"type":"node_ready","task_types":["a\\u0000"]}',
    "too many types": json.dumps({"type": "node_ready", "task_types": ["t"] * 1001}),
    "labels of no object": '{"type":"node_ready","labels":[]}',
    "label of no text": '{"type":"node_ready","labels":{"a":1}}',
    "no concurrency": '{"type":"node_ready","max_concurrency":0}',
    "true concurrency": '{"type":"node_ready","max_concurrency":true}',
    "too much concurrency": '{"type":"node_ready","max_concurrency":1001}',
    "deep": '{"type":' + "[" * 100_000,
}


@pytest.mark.parametrize(("text", "frame"), NODE_FRAMES.values(), ids=NODE_FRAMES)
def test_frames_of_nodes_are_read(text: str, frame: object) -> None:
    """Flat members, members in `data`, and bytes instead of text."""
    assert read_node_frame(text) == frame
    assert read_node_frame(text.encode()) == frame


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_frames_that_cannot_be_used_are_refused(text: str) -> None:
    """With a number of OctoHub's own."""
    with pytest.raises(FrameError) as refused:
        read_node_frame(text)
    assert refused.value.number in (wire.INVALID, wire.UNKNOWN)


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_whatever_is_sent_is_read_or_refused(text: str | bytes) -> None:
    """Never anything else."""
    for read in (read_node_frame, read_ask):
        with suppress(FrameError):
            read(text)


@given(
    st.dictionaries(
        st.sampled_from(
            ("type", "action", "data", "task_id", "status", "result", "error", "task_types",
             "labels", "max_concurrency", "features", "to", "request_id", "traceparent")
        ),
        JSON | st.sampled_from(("task_result", "node_ready", "pong", "completed", "failed")),
    )
)  # fmt: skip
def test_frames_of_any_members_are_read_or_refused(members: dict[str, Any]) -> None:
    """Known members of the wrong kind too."""
    try:
        frame = read_node_frame(json.dumps(members))
    except FrameError:
        return
    assert isinstance(frame, (NodeReady, Result, Pong, Ask))


@given(JSON)
def test_a_result_is_kept_as_it_came(result: object) -> None:
    """Byte for byte."""
    text = json.dumps({"type": "task_result", "task_id": "t", "status": "completed"})
    sent = json.dumps(result)
    frame = read_node_frame(f'{text[:-1]}, "result": {sent}}}')
    assert frame == Result("t", "completed", sent.encode(), None)


def test_a_result_that_is_too_deep_fails_the_task() -> None:
    """Refused like any other frame the task would never end."""
    deep = "[" * 61 + "]" * 61
    text = f'{{"type":"task_result","task_id":"t","status":"completed","result":{deep}}}'
    frame = read_node_frame(text)
    assert isinstance(frame, Result)
    assert (frame.status, frame.result) == ("failed", b"null")
    fine = "[" * 60 + "]" * 60
    frame = read_node_frame(text.replace(deep, fine))
    assert isinstance(frame, Result)
    assert frame.status == "completed"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("boom", "boom"),
        (None, "failed"),
        ({"a": 1}, '{"a":1}'),
        ("a\0b", "a�b"),
        ("x" * 5000, None),
    ],
)
def test_words_of_a_failure_can_be_stored(error: object, words: str | None) -> None:
    """Whatever the node makes of its `error`."""
    frame = read_node_frame(
        json.dumps({"type": "task_result", "task_id": "t", "status": "failed", "error": error})
    )
    assert isinstance(frame, Result)
    assert frame.error == (words or "x" * 4000)


# Written


def asked(params: object, **members: object) -> Envelope:
    """Return a task request."""
    data = {"task_id": "t1", "task_type": "echo", "params": params, **members}
    return Envelope.new(
        source="api.me",
        subject="octohub.task.echo",
        type=TASK_REQUEST,
        data=data,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@pytest.mark.parametrize(
    ("params", "data"),
    [({"k": "v"},) * 2, (None, {}), ([1], {"value": [1]}), ("x", {"value": "x"})],
)  # fmt: skip
def test_data_of_a_task_is_always_an_object(params: object, data: object) -> None:
    """The original's handlers fail on anything else."""
    task_id, task_type, text = wire.task_frame(asked(params), now_s=1_700_000_000)
    assert (task_id, task_type) == ("t1", "echo")
    assert json.loads(text) == {
        "type": "task",
        "action": "task",
        "task_id": "t1",
        "task_type": "echo",
        "data": data,
        "timestamp": 1_700_000_000,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


def test_no_task_is_refused() -> None:
    """An envelope that is none makes no frame."""
    with pytest.raises(InvalidError):
        wire.task_frame(Envelope.new(source="a", subject="b", data=[1]), now_s=0)


@given(JSON)
def test_tasks_go_through_whole(params: object) -> None:
    """What was asked for stands in the frame."""
    frame = json.loads(wire.task_frame(asked(params), now_s=0)[2])
    if params is None:
        assert frame["data"] == {}
    else:
        assert frame["data"] == (params if isinstance(params, dict) else {"value": params})


def test_frames_have_both_keys() -> None:
    """Node and front end read one each."""
    frames = [
        wire.connected("pc_id", "n", "s", now_s=1),
        wire.disconnected("新连接建立", now_s=1),
        wire.task_frame(asked({}), now_s=1)[2],
        wire.result_taken("t", "done"),
        wire.task_cancelled("t"),
    ]
    for text in frames:
        frame = json.loads(text)
        assert frame["type"]
        assert frame["action"]
    assert json.loads(frames[0])["data"] == {"pc_id": "n", "session_id": "s", "server_time": 1}
    assert json.loads(frames[1]) == {
        "type": "disconnect_notification",
        "action": "disconnected",
        "reason": "新连接建立",
        "data": {"reason": "新连接建立", "code": 1000},
        "timestamp": 1,
        "from": "system",
    }


def test_replies_of_the_other_dialect() -> None:
    """Protocol page, 3.3."""
    ask = Ask("ping", None, "r1")
    assert json.loads(actions.answer(ask, {"x": 1}, now_s=5)) == {
        "action": "pong",
        "data": {"x": 1},
        "timestamp": 5,
        "request_id": "r1",
    }
    assert json.loads(actions.failed(Ask("dance"), wire.UNKNOWN, "dance", now_s=5)) == {
        "action": "error",
        "data": {"code": 1002, "message": "未知的消息动作", "details": "dance"},
        "timestamp": 5,
    }
    refused = json.loads(actions.frame_refused(FrameError("no"), now_s=5))
    assert refused["from"] == "system"
    assert refused["data"]["code"] == 1001
