"""Commands that talk to a running hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.hub.cli.conftest import Call, RunningHub


def unique(stem: str) -> str:
    return f"{stem}{uuid4().hex[:8]}"


def test_healthcheck(call: Call) -> None:
    answer = call("healthcheck")
    assert (answer.code, answer.out) == (0, "ready\n")
    assert call("healthcheck", "--json").json["ready"] is True


def test_the_clock_is_confirmed(call: Call) -> None:
    """By the time it is; another one is refused, and says what to do."""
    now = datetime.now(UTC).isoformat()
    answer = call("db", "confirm-clock", now)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("the hub's clock is right: 20")
    assert call("db", "confirm-clock", now, "--json").json["held"] is None
    answer = call("db", "confirm-clock", "2001-02-03T04:05Z")
    assert answer.code == 1
    assert "set the machine's clock" in answer.err


def test_a_wrong_token_says_what_to_do(call: Call) -> None:
    answer = call("endpoints", "--token", "wrong")
    assert answer.code == 1
    assert answer.out == ""
    assert "hubbub token create" in answer.err
    assert "--token" in answer.err


def test_publish_and_explain_what_nobody_wanted(call: Call) -> None:
    subject = unique("nobody.")
    answer = call("publish", subject, "--data", '{"n": 1}')
    assert answer.code == 0
    assert " unrouted, 0 deliveries, trace " in answer.out
    assert f"hubbub routes test {subject}" in answer.err
    envelope_id = answer.out.split()[0]
    told = call("explain", envelope_id)
    assert told.code == 0
    assert f"message {envelope_id} on {subject}" in told.out
    assert "unrouted: no_route (no route matches" in told.out


def test_data_from_a_file_stays_as_it_is(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"big": 12345678901234567890123, "e": 1e2}', encoding="utf-8")
    answer = call("publish", unique("file."), "--data", f"@{file}", "--json")
    shown = call("explain", answer.json["id"], "--json")
    assert '"big": 12345678901234567890123' in shown.out


def test_what_the_hub_refuses_is_one_message(call: Call) -> None:
    answer = call("publish", "with.*.wildcard", "--data", "1")
    assert answer.code == 1
    assert answer.err.startswith("hubbub: ")
    assert answer.err.count("\n") == 1
    assert "wildcard" in answer.err


def test_explain_knows_when_an_id_is_nothing(call: Call) -> None:
    for nothing in ("nothing", "7", "0" * 31 + "1"):
        answer = call("explain", nothing)
        assert answer.code == 1
        assert nothing in answer.err


def test_explain_tells_the_way_to_an_endpoint(call: Call) -> None:
    published = call("publish", "takes.x", "--data", "1", "--key", "k1", "--json").json
    delivery_id = ""
    while not delivery_id:
        (answer,) = call("explain", published["id"], "--json").json["envelopes"]
        if answer["deliveries"][0]["state"] == "done":
            delivery_id = answer["deliveries"][0]["id"]
    for known in (published["id"], published["trace_id"], delivery_id):
        told = call("explain", known).out
        assert "key k1" in told
        assert "route 'to takes' put it into the mailbox of peer.takes" in told
        assert "delivered to peer.takes, attempt 1" in told


def test_explain_of_a_volatile_message_tells_what_the_ring_has(call: Call) -> None:
    published = call("publish", "takes.x", "--data", "1", "--volatile", "--json").json
    told = call("explain", published["trace_id"])
    while told.code:
        told = call("explain", published["trace_id"])
    assert "delivered at peer.takes (volatile delivery" in told.out


def test_explain_says_why_something_waits(call: Call) -> None:
    published = call("publish", "away.x", "--data", "1", "--durable", "--json").json
    told = call("explain", published["id"]).out
    assert "now  delivery" in told
    assert "no endpoint present: peer.away is away" in told


def test_explain_says_that_an_endpoint_is_busy(call: Call) -> None:
    first = call("publish", "stuck.x", "--data", "1", "--durable", "--json").json
    second = call("publish", "stuck.x", "--data", "2", "--durable", "--json").json
    assert "attempt 1 is in the hands of peer.stuck" in call("explain", first["id"]).out
    assert "peer.stuck is busy: 1 of 1 slots taken" in call("explain", second["id"]).out


def test_endpoints_are_listed(call: Call) -> None:
    listed = call("endpoints").out.splitlines()
    assert listed[0].split()[:2] == ["ADDRESS", "STATE"]
    assert ["peer.away", "offline"] in [line.split()[:2] for line in listed]
    assert call("endpoints", "peer.takes", "--json").json["state"] == "online"
    assert call("endpoints", "peer.nobody").code == 1


def test_a_dead_letter_is_listed_shown_and_replayed(call: Call) -> None:
    subject = unique("refuses.")
    call("publish", subject, "--data", '{"n": 1}', "--durable")
    dead: list[Any] = []
    while not dead:
        dead = call("dlq", "ls", "--subject", subject, "--json").json
    number = dead[0]["id"]
    assert dead[0]["reason"] == "rejected"
    assert subject in call("dlq", "ls", "--endpoint", "peer.refuses").out
    shown = call("dlq", "show", number)
    assert '"n": 1' in shown.out
    assert "broken" in shown.out
    told = call("explain", number).out
    assert "dead after attempt 1" in told
    assert "last error: broken" in told
    counted = call("dlq", "replay", "--subject", subject, "--dry-run")
    assert counted.out == "1 matched, 0 replayed\n"
    assert "replayed as delivery" in call("dlq", "replay", number).out
    assert "sent again as message" in call("dlq", "replay", number, "--data", '{"n": 2}').out
    assert call("dlq", "replay").code == 2
    assert call("dlq", "replay", "1", "--reason", "x").code == 2
    assert call("dlq", "drop", number).out == f"delivery {number} is dropped\n"
    assert call("dlq", "drop", number).code == 1
    assert call("dlq", "show", number).code == 1


def test_routes_are_put_tested_listed_and_removed(call: Call, tmp_path: Path) -> None:
    name = unique("r")
    file = tmp_path / "route.toml"
    file.write_text(f'match = "{name}.>"\nto = ["stream.{name}"]\nhold = "1m"\n', encoding="utf-8")
    assert call("routes", "put", name, "--file", str(file)).code == 0
    assert name in call("routes", "ls").out
    assert name in [route["name"] for route in call("routes", "ls", "--json").json]
    tried = call("routes", "test", f"{name}.x", "--data", "1")
    assert tried.code == 0
    assert f"{name}.x matches {name}" in tried.out
    assert f"stream.{name}" in tried.out
    assert call("routes", "rm", name).code == 0
    assert call("routes", "rm", name).code == 1
    assert "matches no route" in call("routes", "test", f"{name}.x").out


def test_a_task_waits_for_a_worker_and_says_so(call: Call) -> None:
    kind = unique("k")
    answer = call("tasks", "submit", kind, "--params", '{"size": 1}', "--json")
    task_id = answer.json["task_id"]
    told = call("explain", task_id).out
    assert f"task {task_id} of type {kind} queued" in told
    assert "waits" in told
    assert task_id in call("tasks", "ls", "--type", kind).out
    assert "queued" in call("tasks", "show", task_id).out
    assert call("tasks", "cancel", task_id).out == f"{task_id} cancelled\n"
    assert f"task {task_id} cancelled" in call("explain", task_id).out
    assert call("tasks", "cancel", task_id).code == 1


def test_a_task_is_done_and_its_result_printed(call: Call) -> None:
    done = call("tasks", "submit", "add", "--params", '{"a": 1}', "--wait")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"a": 1}
    task_id = call("tasks", "ls", "--type", "add", "--json").json[0]["task_id"]
    told = call("explain", task_id).out
    assert f"task {task_id} dispatched to peer.worker, attempt 1" in told
    assert f"task {task_id} completed" in told
    assert call("tasks", "retry", task_id).code == 0


def test_a_request_is_answered(call: Call) -> None:
    done = call("request", "takes.ping", "--data", "7", "--timeout", "10s")
    if "this hub has no requests" in done.err:
        pytest.skip("the hub has no requests yet")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"got": 7}


def test_a_request_that_nobody_takes_fails_at_once(call: Call) -> None:
    answer = call("request", unique("q."), "--data", "7")
    assert answer.code == 1
    assert answer.err.startswith("hubbub: ")
    assert call("request", "q.x", "--timeout", "soon").code == 2


def test_tokens_are_made_listed_and_revoked(call: Call) -> None:
    name = unique("t")
    made = call("token", "create", name, "--scope", "read", "--expires", "30d")
    assert made.code == 0
    token = made.out.strip()
    assert token not in made.err
    assert call("endpoints", "--token", token).code == 0
    refused = call("publish", "a.b", "--data", "1", "--token", token)
    assert refused.code == 1
    assert "publish" in refused.err
    (listed,) = [each for each in call("token", "ls", "--json").json if each["name"] == name]
    assert token not in call("token", "ls").out
    assert call("token", "revoke", listed["id"]).code == 0
    assert call("endpoints", "--token", token).code == 1


def test_tail_prints_one_line_a_message(hub: RunningHub, call: Call) -> None:
    name = unique("v")
    env = {**os.environ, "HUBBUB_URL": hub.url}
    with subprocess.Popen(
        [sys.executable, "-m", "hubbub.cli", "tail", f"{name}.>", "--count", "2", "--json"],
        cwd=hub.folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:  # until it listens, nothing is seen
            call("publish", f"{name}.x", "--data", '{"text": "h\\u00e4"}')
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert [json.loads(line)["subject"] for line in lines] == [f"{name}.x"] * 2


def test_tail_ends_with_130_at_ctrl_c(hub: RunningHub, call: Call) -> None:
    name = unique("v")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "hubbub.cli", "tail", f"{name}.>"],
        cwd=hub.folder,
        env={**os.environ, "HUBBUB_URL": hub.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = threading.Thread(target=process.stdout.readline)
        seen.start()
        while seen.is_alive():
            call("publish", f"{name}.x", "--data", "1")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""


def test_plugins_are_listed_with_and_without_a_hub(call: Call) -> None:
    with_hub = call("plugin", "ls", "--json").json
    assert with_hub["hub"] is not None
    assert {item["name"] for item in with_hub["items"]} >= {"relay"}
    without = call("plugin", "ls", "--json", "--url", "http://127.0.0.1:9")
    assert without.code == 0
    assert without.json["hub"] is None
    assert "relay" in call("plugin", "ls").out
