"""What happened to a message, told step by step. Pure: facts of the API in, lines out.

Facts are the JSON answers of `/api/v1`; a member that is not there is a step that is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from hubbub.cli.answers import Json, object_in, objects_in, texts_in
from hubbub.cli.output import clean, data_of
from hubbub.subjects import matches

__all__ = ["Facts", "Step", "lines_of", "moment_of", "steps_of"]

REASONS: Final = {
    "already_delivered": "the only endpoint left has it by another delivery",
    "cancelled": "somebody cancelled it",
    "endpoint_gone": "its endpoint left for good while it waited",
    "expires": "it was worth nothing any more: its own `expires` had passed",
    "hold": "no endpoint came in the time the route held it",
    "loop": "it had been through the hub 16 times; two routes feed each other",
    "mailbox_full": "the mailbox was full; see hub.mailbox_limit and hub.overflow",
    "memory_full": "the hub held too much, and the endpoint was too slow; see hub.memory",
    "no_converter": "the endpoint does not take this type, and no converter leads there",
    "no_eligible_node": "no worker took it in time; see hub.queue_ttl",
    "no_endpoint": "routes matched, but none of their endpoints is known",
    "no_origin": "it answers a message whose sender is not known any more",
    "no_route": "no route matches its subject; `hubbub routes test` tries the table",
    "not_json": "its data is not JSON, which its endpoint, a converter or a transform needs",
    "node_lost": "the worker went away while it had it",
    "offline": "the endpoint was away, and a volatile message does not wait",
    "queue_ttl": "no worker took it in time; see hub.queue_ttl",
    "rejected": "the endpoint refused it for good",
    "timeout": "no answer came in the time of one attempt",
}
"""What the reasons of outcomes mean, and where to look."""

VOLATILE_ENDS: Final = frozenset(
    f"delivery.{outcome}" for outcome in ("delivered", "filtered", "dropped", "expired", "dead")
)
"""Steps that only a delivery without a row needs: of the others the row tells."""

NORMAL_PRIORITY: Final = 5
MAX_MEMBERS: Final = 10
"""Members of a pool that are named."""

MAX_DATA: Final = 200
"""Characters of data or of a result that are shown."""


@dataclass(slots=True)
class Facts:
    """What is known.

    Attributes:
        envelopes: Answers of `/api/v1/envelopes/{id}`, with their deliveries.
        tasks: Answers of `/api/v1/tasks/{id}`.
        spans: Steps of `/api/v1/traces/{trace_id}`.
        endpoints: All that `/api/v1/endpoints` knows, if something waits.
        ahead: For a waiting delivery, by its id, those of the same key that come before it.
    """

    envelopes: list[Json] = field(default_factory=list[Json])
    tasks: list[Json] = field(default_factory=list[Json])
    spans: list[Json] = field(default_factory=list[Json])
    endpoints: list[Json] = field(default_factory=list[Json])
    ahead: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])


@dataclass(slots=True)
class Step:
    """One line of a story.

    Attributes:
        at: When it was; None for now.
    """

    at: datetime | None
    text: str
    more: list[str] = field(default_factory=list[str])


def lines_of(facts: Facts, *, now: datetime) -> list[str]:
    """Return the story as lines; times are relative to the first step."""
    steps = steps_of(facts, now=now)
    times = [step.at for step in steps if step.at is not None]
    if not times:
        return [step.text for step in steps]
    first = min(times)
    lines = [f"{first.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"]
    for step in steps:
        when = "now" if step.at is None else f"+{_seconds((step.at - first).total_seconds())}"
        lines.append(f"{when:>10}  {step.text}")
        lines += [f"{'':>10}  {' ' * 4}{line}" for line in step.more]
    return lines


def steps_of(facts: Facts, *, now: datetime) -> list[Step]:
    """Return the steps in order of time; what still waits comes last."""
    steps: list[Step] = []
    for answer in facts.envelopes:
        steps += _of_envelope(answer)
        for delivery in objects_in(answer, "deliveries"):
            steps += _of_delivery(delivery, facts, now=now)
    for span in facts.spans:
        steps += _of_span(span, facts)
    for task in facts.tasks:
        steps += _of_task(task)
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(steps, key=lambda step: step.at or latest)  # stable: equal times as they came


# Envelopes


def _of_envelope(answer: Json) -> Iterator[Step]:
    envelope: Json = answer["envelope"]
    said = [f"{_pairs(envelope, 'type', 'source', 'hops')}"]
    more = {
        "key": envelope.get("partitionkey"),
        "answers": envelope.get("inreplyto"),
        "answers go to": envelope.get("replyto"),
        "expires": envelope.get("expirytime"),
    }
    if (priority := envelope.get("priority")) not in (None, NORMAL_PRIORITY):
        more["priority"] = priority
    said += [f"{name} {clean(value)}" for name, value in more.items() if value is not None]
    if "data" in envelope or "data_base64" in envelope:
        said.append(f"data {_cut(clean(data_of(envelope)))}")
    at = moment_of(envelope.get("time"))
    yield Step(at, f"message {clean(envelope['id'])} on {clean(envelope['subject'])}", said)
    if answer.get("outcome") == "unrouted":
        yield Step(at, f"unrouted: {_reason(answer.get('reason'))}")


def _pairs(values: Mapping[str, Any], *names: str) -> str:
    return ", ".join(f"{name} {clean(values[name])}" for name in names if values.get(name))


# Deliveries


def _of_delivery(delivery: Json, facts: Facts, *, now: datetime) -> Iterator[Step]:
    number = clean(str(delivery["id"]))
    mailbox = _mailbox(delivery)
    what = (
        "replay of " + clean(str(delivery["replay_of"]))
        if delivery.get("replay_of")
        else "delivery"
    )
    yield Step(
        moment_of(delivery.get("created_at")),
        f"route {clean(delivery.get('route'))!r} put it into the mailbox of {mailbox} "
        f"({what} {number})",
    )
    if delivery.get("state") == "done":
        yield _outcome(delivery, number)
    else:
        text = "in flight" if delivery.get("state") == "in_flight" else "waits"
        yield Step(None, f"delivery {number} {text}", list(why_waiting(delivery, facts, now=now)))


def _outcome(delivery: Json, number: str) -> Step:
    outcome, endpoint = clean(delivery.get("outcome")), delivery.get("endpoint")
    attempts = delivery.get("attempts") or 0
    text = f"{outcome} to {clean(endpoint)}" if outcome == "delivered" and endpoint else outcome
    if attempts:
        text += f", attempt {attempts}" if outcome == "delivered" else f" after attempt {attempts}"
    more = [_reason(delivery["reason"])] if delivery.get("reason") else []
    last = delivery.get("last_error")
    if last and last != delivery.get("reason"):
        more.append(f"last error: {clean(last)}")
    return Step(moment_of(delivery.get("updated_at")), f"{text} (delivery {number})", more)


def _mailbox(delivery: Json) -> str:
    pool = texts_in(delivery, "pool")
    if pool:
        return f"the pool {clean(' '.join(pool))}"
    return clean(delivery.get("endpoint"))


def why_waiting(delivery: Json, facts: Facts, *, now: datetime) -> Iterator[str]:
    """Yield why a delivery is not done: every reason that can be seen."""
    if delivery.get("last_error"):
        yield f"attempt {delivery.get('attempts') or 0} failed: {_reason(delivery['last_error'])}"
    if delivery.get("state") == "in_flight":
        yield from _under_way(delivery, now=now)
        return
    due = moment_of(delivery.get("due_at"))
    if due is not None and due > now:
        yield f"not due until {_clock(due)}, in {_seconds((due - now).total_seconds())}"
        return
    yield from _behind(delivery, facts)
    yield from _endpoint(delivery, facts)
    deadline = moment_of(delivery.get("deadline"))
    if deadline is not None:
        yield f"it gives up at {_clock(deadline)}, in {_seconds((deadline - now).total_seconds())}"


def _under_way(delivery: Json, *, now: datetime) -> Iterator[str]:
    who = clean(delivery.get("pulled_by") or delivery.get("endpoint"))
    yield f"attempt {delivery.get('attempts') or 1} is in the hands of {who}"
    lease = moment_of(delivery.get("lease_until"))
    if lease is not None:
        yield f"its lease is until {_clock(lease)}, in {_seconds((lease - now).total_seconds())}"


def _behind(delivery: Json, facts: Facts) -> Iterator[str]:
    ahead = facts.ahead.get(str(delivery["id"]))
    if ahead:
        first = ahead[0]
        yield (
            f"behind delivery {clean(str(first['id']))} ({clean(first.get('state'))}) of the same "
            f"key {clean(delivery.get('key'))}"
            + (f", and {len(ahead) - 1} more" if len(ahead) > 1 else "")
        )


def _endpoint(delivery: Json, facts: Facts) -> Iterator[str]:
    patterns = texts_in(delivery, "pool") or [str(delivery.get("endpoint") or "")]
    members = [
        known
        for known in facts.endpoints
        if any(matches(pattern, str(known.get("address"))) for pattern in patterns)
    ]
    if not members:
        yield f"no endpoint present: nobody is known as {clean(' or '.join(patterns))}"
    for known in members[:MAX_MEMBERS]:
        yield _member(known)
    if len(members) > MAX_MEMBERS:
        yield f"and {len(members) - MAX_MEMBERS} more endpoints"


def _member(known: Json) -> str:
    """Say whether an endpoint could take something now."""
    name, state = clean(known.get("address")), known.get("state")
    if state == "offline":
        return f"no endpoint present: {name} is away"
    if state == "paused":
        return f"{name} is paused: it takes nothing now"
    if known.get("pull"):
        return f"{name} is here and fetches its work itself"
    slots, taken = int(known.get("concurrency") or 0), int(known.get("in_flight") or 0)
    if taken >= slots:
        return f"{name} is busy: {taken} of {slots} slots taken"
    return f"{name} is here with {slots - taken} of {slots} slots free"


# Spans and tasks


def _of_span(span: Json, facts: Facts) -> Iterator[Step]:
    """Tell what no delivery tells itself: failed attempts, late results, volatile ends."""
    detail = object_in(span, "detail")
    name = str(span.get("name", ""))
    at = moment_of(span.get("at"))
    where = clean(span.get("endpoint") or detail.get("mailbox"))
    number = clean(str(detail.get("delivery", "")))
    if name == "delivery.retry":
        yield Step(
            at,
            f"attempt {clean(detail.get('attempt'))} at {where} failed: "
            f"{_reason(detail.get('reason'))}; to be tried again (delivery {number})",
        )
    elif name == "delivery.sent":
        attempt = clean(detail.get("attempt"))
        yield Step(
            at, f"attempt {attempt} written to {where}, to be acknowledged (delivery {number})"
        )
    elif name == "task.late":
        yield Step(at, f"a late result from {clean(detail.get('reason'))}, which counts no more")
    elif name in VOLATILE_ENDS and number not in _told(facts):
        reason = f": {_reason(detail['reason'])}" if detail.get("reason") else ""
        yield Step(at, f"{name.partition('.')[2]} at {where}{reason} (volatile delivery {number})")


def _told(facts: Facts) -> set[str]:
    return {
        str(delivery["id"])
        for answer in facts.envelopes
        for delivery in objects_in(answer, "deliveries")
    }


def _of_task(task: Json) -> Iterator[Step]:
    task_id = clean(task.get("task_id") or task.get("id"))
    run = f", run {task['run']}" if (task.get("run") or 1) > 1 else ""
    made = moment_of(task.get("created_at"))
    asker = f", asked by {clean(task['asker'])}" if task.get("asker") else ""
    yield Step(made, f"task {task_id} of type {clean(task.get('task_type'))} queued{asker}{run}")
    for attempt in objects_in(task, "attempts"):
        yield from _of_attempt(attempt, task_id)
    state = clean(task.get("state"))
    ended = moment_of(task.get("finished_at"))
    if ended is None:
        yield Step(None, f"task {task_id} is {state}{run}")
        return
    more: list[str] = []
    if task.get("error"):
        more.append(f"error: {_reason(task['error'])}")
    if task.get("result") is not None:
        more.append(f"result {_cut(clean(task['result']))}")
    yield Step(ended, f"task {task_id} {state}{run}", more)


def _of_attempt(attempt: Json, task_id: str) -> Iterator[Step]:
    number = clean(attempt.get("attempt"))
    who = clean(attempt.get("endpoint"))
    worker = attempt.get("worker")
    by = f" (worker {clean(worker)})" if worker and worker != attempt.get("endpoint") else ""
    yield Step(
        moment_of(attempt.get("started_at")),
        f"task {task_id} dispatched to {who}{by}, attempt {number}",
    )
    ended = moment_of(attempt.get("ended_at"))
    if ended is not None:
        why = f" ({clean(attempt['error'])})" if attempt.get("error") else ""
        yield Step(ended, f"attempt {number} ended: {_reason(attempt.get('outcome'))}{why}")


# Words


def _reason(reason: object) -> str:
    text = clean(reason)
    meaning = REASONS.get(text)
    return f"{text} ({meaning})" if meaning else text


def moment_of(text: object) -> datetime | None:
    """Read a time of the API; None when there is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _seconds(seconds: float) -> str:
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 120:  # noqa: PLR2004  # two minutes read better in seconds
        return f"{sign}{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts: Iterable[tuple[int, str]] = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    return sign + " ".join(f"{number}{unit}" for number, unit in parts if number)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DATA else text[: MAX_DATA - 1] + "…"
