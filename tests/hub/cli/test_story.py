"""A story from facts of the API; pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hubbub.cli.story import Facts, lines_of

NOW = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def envelope(**more: Any) -> dict[str, Any]:
    return {
        "id": "01A",
        "source": "api.admin",
        "type": "hubbub.event.v1",
        "subject": "orders.new",
        "time": "2026-01-02T03:04:00.000000Z",
        "data": {"total": 3},
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "priority": 5,
        **more,
    }


def delivery(**more: Any) -> dict[str, Any]:
    return {
        "id": "17",
        "envelope_id": "01A",
        "endpoint": "stream.a",
        "pool": None,
        "route": "orders",
        "state": "pending",
        "outcome": None,
        "reason": None,
        "attempts": 0,
        "created_at": "2026-01-02T03:04:00.001000Z",
        "updated_at": "2026-01-02T03:04:00.001000Z",
        **more,
    }


def told(*deliveries: dict[str, Any], **facts: Any) -> str:
    answer = {"envelope": envelope(), "outcome": "accepted", "deliveries": list(deliveries)}
    return "\n".join(lines_of(Facts(envelopes=[answer], **facts), now=NOW))


def test_times_are_relative_to_the_first_step_and_steps_are_in_order() -> None:
    done = delivery(
        state="done", outcome="delivered", attempts=2, updated_at="2026-01-02T03:04:01.500000Z"
    )
    retry = {
        "name": "delivery.retry",
        "at": "2026-01-02T03:04:00.250000Z",
        "endpoint": "stream.a",
        "detail": {"delivery": "17", "attempt": 1, "reason": "timeout"},
    }
    lines = told(done, spans=[retry]).splitlines()
    assert lines[0] == "2026-01-02 03:04:00 UTC"
    steps = [line for line in lines if line.lstrip().startswith("+")]
    assert [step.split()[0] for step in steps] == ["+0.000", "+0.001", "+0.250", "+1.500"]
    assert "attempt 1 at stream.a failed: timeout" in steps[2]
    assert "delivered to stream.a, attempt 2" in steps[3]


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ([], "no endpoint present: nobody is known as stream.a"),
        ([{"address": "stream.a", "state": "offline"}], "no endpoint present: stream.a is away"),
        ([{"address": "stream.a", "state": "paused"}], "stream.a is paused"),
        (
            [{"address": "stream.a", "state": "online", "concurrency": 2, "in_flight": 2}],
            "stream.a is busy: 2 of 2 slots taken",
        ),
    ],
    ids=["unknown", "away", "paused", "busy"],
)
def test_what_waits_says_why(known: list[dict[str, Any]], says: str) -> None:
    assert says in told(delivery(), endpoints=known)


def test_what_is_not_due_says_until_when() -> None:
    text = told(delivery(due_at="2026-01-02T03:05:30Z"))
    assert "not due until 2026-01-02 03:05:30 UTC, in 30.000 s" in text


def test_what_waits_for_its_key_names_what_is_in_front() -> None:
    text = told(delivery(key="u7"), ahead={"17": [delivery(id="9", state="in_flight", key="u7")]})
    assert "behind delivery 9 (in_flight) of the same key u7" in text


def test_a_pool_names_its_members() -> None:
    text = told(
        delivery(endpoint=None, pool=["worker.*"]),
        endpoints=[
            {"address": "worker.a", "state": "online", "concurrency": 1, "in_flight": 1},
            {"address": "stream.x", "state": "online"},
        ],
    )
    assert "the pool worker.*" in text
    assert "worker.a is busy" in text
    assert "stream.x" not in text


def test_a_lease_says_until_when() -> None:
    text = told(
        delivery(state="in_flight", attempts=1, lease_until="2026-01-02T03:06:00Z", pulled_by="w1")
    )
    assert "attempt 1 is in the hands of w1" in text
    assert "its lease is until 2026-01-02 03:06:00 UTC, in 60.000 s" in text


def test_reasons_are_explained() -> None:
    answer = {"envelope": envelope(), "outcome": "unrouted", "reason": "no_route"}
    text = "\n".join(lines_of(Facts(envelopes=[answer]), now=NOW))
    assert "unrouted: no_route (no route matches its subject" in text


def test_a_task_tells_its_attempts_and_its_result() -> None:
    task = {
        "task_id": "t1",
        "task_type": "render",
        "state": "completed",
        "asker": "api.admin",
        "run": 1,
        "result": {"ok": True},
        "created_at": "2026-01-02T03:04:00Z",
        "finished_at": "2026-01-02T03:04:09Z",
        "attempts": [
            {
                "run": 1,
                "attempt": 1,
                "endpoint": "worker.a",
                "worker": None,
                "started_at": "2026-01-02T03:04:01Z",
                "ended_at": "2026-01-02T03:04:09Z",
                "outcome": "completed",
            }
        ],
    }
    text = "\n".join(lines_of(Facts(tasks=[task]), now=NOW))
    assert "task t1 of type render queued, asked by api.admin" in text
    assert "+1.000 s  task t1 dispatched to worker.a, attempt 1" in text
    assert "task t1 completed" in text
    assert 'result {"ok": true}' in text


def test_foreign_text_cannot_move_the_terminal() -> None:
    answer = {"envelope": envelope(partitionkey="\x1b[2J"), "outcome": "accepted"}
    text = "\n".join(lines_of(Facts(envelopes=[answer]), now=NOW))
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
