"""`hubbub explain`: what happened to a message, step by step."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final

import typer

from hubbub.cli.answers import Json, object_in, objects_in
from hubbub.cli.client import HubClient, part
from hubbub.cli.errors import ApiError, CommandError
from hubbub.cli.options import DEFAULT_URL, AsJson, Token, Url
from hubbub.cli.output import clean, print_json, print_line
from hubbub.cli.story import Facts, lines_of

__all__ = ["explain"]

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_DELIVERY_ID: Final = re.compile(r"[0-9]{1,19}")

MAX_ENDPOINTS: Final = 10_000
"""Endpoints that are looked through for those a waiting delivery is for."""

MAX_AHEAD: Final = 100
"""Deliveries that are looked through for those in front of a waiting one."""


def explain(
    subject_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a message, a task, a trace or a delivery.")
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a message. Step by step, and why it still waits if it does."""
    with HubClient(url, token) as hub:
        facts = gather(hub, subject_id)
    if as_json:
        print_json(
            {
                "envelopes": facts.envelopes,
                "tasks": facts.tasks,
                "spans": facts.spans,
                "endpoints": facts.endpoints,
            }
        )
        return
    for line in lines_of(facts, now=datetime.now(UTC)):
        print_line(line)


def gather(hub: HubClient, subject_id: str) -> Facts:
    """Ask the hub for all that belongs to an id, whatever kind of id it is.

    Raises:
        CommandError: no message, task, trace or delivery has it.
    """
    facts = Facts()
    trace_id = _trace_of(hub, subject_id, facts)
    if trace_id is None:
        raise CommandError(
            f"no message, task, trace or delivery {clean(subject_id)} is known here; volatile ones "
            "are forgotten soon, durable ones after store.retention"
        )
    if trace_id:
        _add_trace(hub, trace_id, facts)
    _add_waiting(hub, facts)
    return facts


def _trace_of(hub: HubClient, subject_id: str, facts: Facts) -> str | None:
    """Return the trace an id belongs to, "" when it has none, None when nothing has this id."""
    if _TRACE_ID.fullmatch(subject_id):
        return subject_id
    if _DELIVERY_ID.fullmatch(subject_id):
        delivery = _maybe(hub, f"/api/v1/deliveries/{subject_id}")
        if delivery is not None:
            subject_id = str(delivery["envelope_id"])
    answer = _maybe(hub, f"/api/v1/envelopes/{part(subject_id)}")
    if answer is not None:
        facts.envelopes.append(answer)
        return _trace_in(answer)
    task = _maybe(hub, f"/api/v1/tasks/{part(subject_id)}")
    if task is None:
        return None
    facts.tasks.append(task)
    return str(task.get("trace_id") or "")


def _trace_in(answer: Json) -> str:
    return str(object_in(answer, "envelope").get("traceparent") or "")[3:35]


def _add_trace(hub: HubClient, trace_id: str, facts: Facts) -> None:
    """Add the messages, tasks and steps of a trace.

    Raises:
        CommandError: it is not known, and nothing else is.
    """
    trace = _maybe(hub, f"/api/v1/traces/{trace_id}")
    if trace is None:
        if not (facts.envelopes or facts.tasks):
            raise CommandError(
                f"no trace {trace_id} is known here; volatile ones are forgotten soon"
            )
        return
    facts.spans += objects_in(trace, "spans")
    there = {str(object_in(answer, "envelope").get("id")) for answer in facts.envelopes}
    for envelope_id in _mentioned(facts.spans, "envelope"):
        if envelope_id not in there:
            answer = _maybe(hub, f"/api/v1/envelopes/{part(envelope_id)}")
            facts.envelopes += [] if answer is None else [answer]
    known = {str(task.get("task_id")) for task in facts.tasks}
    for task_id in _task_ids(facts):
        if task_id not in known:
            task = _maybe(hub, f"/api/v1/tasks/{part(task_id)}")
            facts.tasks += [] if task is None else [task]


def _mentioned(spans: list[Json], name: str) -> list[str]:
    """Return ids that steps mention, in order, once each."""
    found: dict[str, None] = {}
    for span in spans:
        for holder in (span, object_in(span, "detail")):
            if holder.get(name):
                found[str(holder[name])] = None
    return list(found)


def _task_ids(facts: Facts) -> list[str]:
    found = dict.fromkeys(_mentioned(facts.spans, "task"))
    for answer in facts.envelopes:
        for delivery in objects_in(answer, "deliveries"):
            if delivery.get("task_id"):
                found[str(delivery["task_id"])] = None
    return list(found)


def _add_waiting(hub: HubClient, facts: Facts) -> None:
    """Add what tells why deliveries wait: the endpoints there are, and who is in front."""
    waiting = [
        delivery
        for answer in facts.envelopes
        for delivery in objects_in(answer, "deliveries")
        if delivery.get("state") == "pending"
    ]
    if waiting:
        facts.endpoints = hub.items("/api/v1/endpoints", MAX_ENDPOINTS)
    for delivery in waiting:
        if delivery.get("key") and delivery.get("endpoint"):
            facts.ahead[str(delivery["id"])] = _ahead(hub, delivery)


def _ahead(hub: HubClient, delivery: Json) -> list[Json]:
    """Return what is in front of a delivery in its mailbox, under the same key, first first."""
    found: list[Json] = []
    for state in ("in_flight", "pending"):
        found += hub.items(
            "/api/v1/deliveries", MAX_AHEAD, endpoint=delivery["endpoint"], state=state
        )
    mine = int(delivery["id"])
    ahead = [
        each for each in found if each.get("key") == delivery["key"] and int(each["id"]) < mine
    ]
    return sorted(ahead, key=lambda each: int(each["id"]))


def _maybe(hub: HubClient, path: str) -> Json | None:
    """Return what is at a path; None when nothing is."""
    try:
        return hub.get(path)
    except ApiError as error:
        if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY):
            return None
        raise
