"""The task model: pure, so that every state and every outcome can be tried."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.errors import InvalidError
from hubbub.tasks import (
    after,
    read_request,
    read_result,
    request_subject,
    result_envelope,
    state_of,
    update_envelope,
)
from hubbub.values import Delivery, DeliveryState, Outcome, Task, TaskResult, TaskState

TASK = Task(
    id="t1", seq=1, envelope_seq=1, envelope_id="e1", task_type="a.b", asker="api.x", reply_to="r.x"
)
ENVELOPE = Envelope(source="t", subject="t")

TABLE = {
    "pending": (DeliveryState.PENDING, None, None, None, TaskState.QUEUED),
    "in flight": (DeliveryState.IN_FLIGHT, None, None, None, TaskState.DISPATCHED),
    "completed": (DeliveryState.DONE, Outcome.DELIVERED, None, "completed", TaskState.COMPLETED),
    "failed": (DeliveryState.DONE, Outcome.DELIVERED, None, "failed", TaskState.FAILED),
    "expired": (DeliveryState.DONE, Outcome.EXPIRED, "no_eligible_node", None, TaskState.FAILED),
    "gone": (DeliveryState.DONE, Outcome.DEAD, "endpoint_gone", None, TaskState.FAILED),
    "rejected": (DeliveryState.DONE, Outcome.DEAD, "rejected", None, TaskState.FAILED),
    "timeout": (DeliveryState.DONE, Outcome.DEAD, "timeout", None, TaskState.TIMEOUT),
    "expired as timeout": (DeliveryState.DONE, Outcome.EXPIRED, "timeout", None, TaskState.FAILED),
    "cancelled": (DeliveryState.DONE, Outcome.DROPPED, "cancelled", None, TaskState.CANCELLED),
    "full": (DeliveryState.DONE, Outcome.DROPPED, "mailbox_full", None, TaskState.FAILED),
    "filtered": (DeliveryState.DONE, Outcome.FILTERED, "converter", None, TaskState.FAILED),
}


def delivery(state: DeliveryState, outcome: Outcome | None, reason: str | None) -> Delivery:
    """Return a delivery in some state of its life."""
    return Delivery(
        id=1, envelope=ENVELOPE, seq=1, mailbox="m", route="r", leased=True, endpoint="w.1",
        attempts=2, state=state, outcome=outcome, reason=reason,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "outcome", "reason", "said", "wanted"), TABLE.values(), ids=TABLE
)
def test_a_task_is_what_its_delivery_makes_it(
    state: DeliveryState,
    outcome: Outcome | None,
    reason: str | None,
    said: str | None,
    wanted: TaskState,
) -> None:
    """The whole table, and what `after` writes beside the state."""
    one = delivery(state, outcome, reason)
    assert state_of(one, said=said) is wanted
    result = None if said is None else TaskResult("t1", said, msgspec.Raw(b'{"n":1}'))
    task = after(TASK, one, now_us=77, result=result)
    assert (task.state, task.attempt, task.endpoint, task.updated_us) == (wanted, 2, "w.1", 77)
    assert (task.finished_us == 77) == wanted.final
    assert (task.error is None) == (not wanted.final or wanted is TaskState.COMPLETED)
    assert task.result == (None if said is None else b'{"n":1}')


@given(st.sampled_from(list(DeliveryState)), st.sampled_from(list(Outcome)), st.text())
def test_only_a_delivery_that_is_done_makes_a_final_task(
    state: DeliveryState, outcome: Outcome, reason: str
) -> None:
    """Final exactly when done, whatever the reason is called."""
    one = delivery(state, outcome if state is DeliveryState.DONE else None, reason)
    assert state_of(one, said="completed").final == (state is DeliveryState.DONE)


def test_a_result_tells_whose_and_what() -> None:
    """The envelope of a result answers the request, and passes the worker's words on."""
    task = msgspec.structs.replace(TASK, state=TaskState.COMPLETED, result=b'{"ok":true}')
    envelope = result_envelope(task, source="w.1")
    assert (envelope.type, envelope.in_reply_to, envelope.durable) == (TASK_RESULT, "e1", True)
    assert envelope.subject == "tasks.a%2Eb.completed"
    assert envelope.json() == {
        "task_id": "t1", "state": "completed", "result": {"ok": True}, "error": None
    }  # fmt: skip
    assert read_result(envelope).task_id == "t1"


def test_an_update_is_volatile() -> None:
    """A change of state is told, and never stored."""
    envelope = update_envelope(TASK, source="hub.tasks")
    assert envelope.durable is False
    assert envelope.subject == "tasks.a%2Eb.queued"


@given(st.text(min_size=1, max_size=20))
def test_a_task_type_is_one_token(task_type: str) -> None:
    """No task type reaches another subject."""
    assert request_subject(task_type).count(".") == 2


BAD_REQUESTS = {
    "no json": b"{",
    "a list": b"[]",
    "no type": b"{}",
    "empty type": b'{"task_type":""}',
    "type of a wrong kind": b'{"task_type":1}',
    "empty id": b'{"task_type":"a","task_id":""}',
    "id with a space": b'{"task_type":"a","task_id":"a b"}',
    "id too long": json.dumps({"task_type": "a", "task_id": "i" * 129}).encode(),
    "no attempts": b'{"task_type":"a","max_attempts":0}',
    "many attempts": b'{"task_type":"a","max_attempts":1001}',
    "no time": b'{"task_type":"a","timeout_s":0}',
    "half a pair": b'{"task_type":"\xed\xa0\x80"}',
}


@pytest.mark.parametrize("data", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused(data: bytes) -> None:
    """Whatever is wrong, it is an error that says so."""
    with pytest.raises(InvalidError):
        read_request(Envelope(source="t", subject="t", data=data))


@given(st.binary(max_size=60))
def test_a_result_is_read_or_refused(data: bytes) -> None:
    """Whatever a worker sends, it is a result or an InvalidError."""
    try:
        result = read_result(Envelope(source="t", subject="t", data=data))
    except InvalidError:
        return
    assert result.state in ("completed", "failed", "timeout", "cancelled")


def test_the_limits_of_a_request_are_within() -> None:
    """The largest values are taken."""
    data = {"task_type": "a", "task_id": "i" * 128, "max_attempts": 1000, "timeout_s": 30 * 86400}
    request = read_request(Envelope.new(source="t", subject="t", data=data))
    assert request.max_attempts == 1000
