"""What may happen in a run: one function a step, with its weight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.guards import BreakerRule, GuardRule
from hubbub.ports import Finished
from hubbub.values import Receipt, Route, TaskResult
from tests.hub.invariants.world import (
    ADDRESSES,
    CLAIMER,
    KEYS,
    SUBJECTS,
    TASK_TYPES,
    Claimed,
    World,
)

Step = Callable[[World], Awaitable[None]]
STEPS: Final[dict[str, tuple[int, Step]]] = {}


def step(weight: int) -> Callable[[Step], Step]:
    """Note a step with its weight."""

    def note(function: Step) -> Step:
        STEPS[function.__name__] = (weight, function)
        return function

    return note


def _claimed(w: World, name: tuple[str, str], envelope: Envelope, receipt: Receipt) -> None:
    w.claimed(name, receipt, envelope)


def _finished(w: World, finished: Finished) -> None:
    if finished.task is not None:
        w.onlookers.told(finished.task)


def _begun(w: World, task_id: str, counts: bool) -> None:
    if counts:
        w.begun_by_hand(task_id)


def _reply_to(w: World) -> str | None:
    return w.chance.choice((None, None, "app.a", "app.b", "app.small"))


def plain(w: World, **how: Any) -> Envelope:
    """Return an envelope of any kind but a task."""
    chance = w.chance
    w.number += 1
    key = chance.choice(KEYS)
    settings: dict[str, Any] = {
        "source": chance.choice(("src.x", *ADDRESSES)),
        "subject": chance.choice(SUBJECTS),
        "data": {"n": w.number, "k": chance.choice(("p", "q"))},
        "key": key,
        "priority": chance.choice((5, 5, 5, 0, 9)),
        "durable": chance.choice((None, True, True, False)),
        "reply_to": _reply_to(w),
    }
    if chance.random() < 0.15:
        settings["expires_us"] = w.clock.now_us() + chance.choice((0, 2, 30)) * 1_000_000
    if chance.random() < 0.25:
        settings["to"] = tuple(chance.sample(ADDRESSES, chance.choice((1, 1, 2))))
    elif w.envelopes and chance.random() < 0.15:
        settings["in_reply_to"] = chance.choice(w.envelopes[-10:])
    return Envelope.new(**{**settings, **how})


@step(22)
async def publish(w: World) -> None:
    """Publish some plain envelopes, one after the other or together."""
    for _ in range(w.chance.choice((1, 1, 2, 5))):
        envelope = plain(w)
        w.do(w.core.publish(envelope), w.checked(envelope))


@step(2)
async def publish_batch(w: World) -> None:
    """Publish several in one commit."""
    batch = [plain(w) for _ in range(3)]

    checks = [w.checked(envelope) for envelope in batch]

    def check(receipts: list[Any]) -> None:
        for receipt, then in zip(receipts, checks, strict=True):
            then(receipt)

    w.do(w.core.router.publish_all(batch), check)


@step(6)
async def publish_claimed(w: World) -> None:
    """Publish under an id or a key, new or seen before, the same or another body, at once."""
    chance = w.chance
    kind = chance.choice(("id", "key"))
    if w.claims and chance.random() < 0.5:
        name = chance.choice(list(w.claims))
    else:
        name = (kind, f"claim-{len(w.claims)}")
    for _ in range(chance.choice((1, 2, 3))):
        known = w.claims.get(name)
        said = {"id": name[1]} if name[0] == "id" else {"idempotency_key": name[1]}
        if known is None or chance.random() < 0.2:
            envelope = plain(w, in_reply_to=None, source="api.p", **said)
        else:
            envelope = known.envelope
        w.claims.setdefault(name, Claimed(envelope))
        w.do(
            w.core.publish(envelope, principal=CLAIMER),
            partial(_claimed, w, name, envelope),
        )


@step(12)
async def ask(w: World) -> None:
    """Publish task requests."""
    chance = w.chance
    for _ in range(chance.choice((1, 1, 3))):
        w.number += 1
        kind = chance.choice(TASK_TYPES)
        data: dict[str, Any] = {"task_type": kind, "k": chance.choice(("p", "q"))}
        if chance.random() < 0.5:
            data["max_attempts"] = chance.choice((1, 2, 3))
        if chance.random() < 0.5:
            data["timeout_s"] = chance.choice((2.0, 10.0, 120.0))
        if chance.random() < 0.2:
            data["not_before"] = w.clock.now_us() / 1e6 + chance.choice((1.0, 20.0, 900.0))
        if chance.random() < 0.3:
            data["retry_on_failure"] = True
        if chance.random() < 0.2:
            data["labels"] = {"zone": chance.choice(("x", "y"))}
        if chance.random() < 0.5:
            data["task_id"] = f"task-{w.number}"
        envelope = plain(
            w,
            subject=f"tasks.{kind}.request",
            type=TASK_REQUEST,
            data=data,
            durable=None,
            in_reply_to=None,
            to=chance.choice(((), (), ("pull.a",), ("work.a",), ("pull.*",)[:0])),
        )
        w.do(w.core.publish(envelope), w.checked(envelope))


@step(6)
async def route(w: World) -> None:
    """Put a route, or take one away."""
    chance = w.chance
    if w.routes and chance.random() < 0.4:
        name = chance.choice(list(w.routes))
        del w.routes[name]
        w.core.table.remove(name)
        return
    name = f"r{chance.randrange(8)}"
    to = ("app.*", "work.*", "app.a", "app.small", "work.a", ">", "pull.a", "app.b")
    made = Route(
        name=name,
        match=chance.choice(("e.1", "e.>", "e.*", "e.2", "tasks.>", ">", "tasks.*.request")),
        to=tuple(chance.sample(to, chance.choice((1, 1, 2)))),
        deliver=chance.choice(("all", "all", "one", "sticky")),
        hold_s=chance.choice((0.0, 0.0, 30.0)),
        key=chance.choice((None, None, "data.k")),
        durable=chance.choice((None, None, True, False)),
        attempts=chance.choice((None, 1, 3)),
        timeout_s=chance.choice((None, 5.0)),
        fallback=chance.random() < 0.2,
        labels={"zone": "x"} if chance.random() < 0.15 else {},
    )
    w.routes[name] = made
    w.core.table.put(made)


BREAKERS: Final = (
    None,
    BreakerRule(failures=2, open_s=5.0, open_max_s=20.0),
    BreakerRule(failures=1, open_s=1.0, open_max_s=4.0),
)


@step(5)
async def guard(w: World) -> None:
    """Somebody is guarded, otherwise than before, or no longer."""
    address = w.chance.choice((*ADDRESSES, "pull.a", "pull.a", "pull.b"))
    if w.guards.pop(address, None) is None:
        w.guards[address] = GuardRule(
            match=address,
            rate_per_s=w.chance.choice((0.0, 0.1, 2.0)),
            burst=w.chance.choice((1, 3)),
            concurrency=w.chance.choice((0, 1, 2)),
            breaker=w.chance.choice(BREAKERS),
        )
    w.let_through.pop(address, None)
    w.guard()


@step(10)
async def attach(w: World) -> None:
    """Somebody comes, or comes again."""
    w.attach(w.chance.choice(ADDRESSES))


@step(5)
async def leave(w: World) -> None:
    """Somebody goes, whatever it was given."""
    if w.held_links:
        w.held_links[w.chance.choice(list(w.held_links))].close()


@step(3)
async def pause(w: World) -> None:
    """Somebody pauses, or goes on."""
    if w.held_links:
        link = w.held_links[w.chance.choice(list(w.held_links))]
        link.slots = 0 if link.slots else 1


@step(12)
async def answer(w: World) -> None:
    """A peer that hung answers at last."""
    if w.hanging:
        hang = w.chance.choice(w.hanging)
        if not hang.answer.done():
            if w.chance.random() < 0.8:
                hang.answer.set_result(None)
            else:
                hang.answer.set_exception(ValueError("late and bad"))


@step(6)
async def pull(w: World) -> None:
    """A pull worker asks for work; two of them at once sometimes."""
    for _ in range(w.chance.choice((1, 1, 2))):
        kinds = w.chance.choice((None, None, frozenset({"alpha"})))
        patterns = [w.chance.choice(("pull.a", "pull.b", "pull.*"))]
        worker = w.chance.choice(("w1", "w2"))
        w.do(
            w.core.work.lease(
                patterns,
                worker=worker,
                limit=w.chance.choice((1, 2, 5)),
                lease_us=w.chance.choice((2, 20)) * 1_000_000,
                task_types=kinds,
                wait_us=w.chance.choice((0, 0, 5_000_000)),
            ),
            w.leased,
        )


@step(2)
async def begin(w: World) -> None:
    """A worker says that it does a task which it has not taken; or has, or which has ended."""
    if w.tasks:
        task_id, worker = w.chance.choice(w.tasks[-8:]), w.chance.choice(("w1", "w2"))
        begun = w.core.work.begin(task_id, worker=worker, lease_us=15_000_000)
        w.do(begun, partial(_begun, w, task_id))


@step(3)
async def renew(w: World) -> None:
    """A worker asks for more time."""
    if w.given:
        task_id, _ = w.chance.choice(w.given[-8:])
        worker = w.chance.choice((None, "w1", "w2"))
        w.do(w.core.work.renew(task_id, worker=worker, lease_us=15_000_000))


@step(14)
async def finish(w: World) -> None:
    """Results: right, late, twice at once, of strangers, of anyone."""
    if not w.tasks:
        return
    if w.given and w.chance.random() < 0.8:
        task_id, by = w.chance.choice(w.given[-8:])
    else:
        task_id, by = w.chance.choice(w.tasks), w.chance.choice(ADDRESSES)
    for _ in range(w.chance.choice((1, 1, 1, 2))):
        state = w.chance.choice(("completed", "completed", "failed"))
        anyone = w.chance.random() < 0.15
        w.do(
            w.core.work.finish(TaskResult(task_id, state), by=by, anyone=anyone),
            partial(_finished, w),
        )


@step(3)
async def bring_kept(w: World) -> None:
    """Those who were given something bring their results, whoever has it now: as after a restart.

    Some of it is just on its way to somebody else.
    """
    if w.chance.random() < 0.5:
        w.journal.held = True
        await asyncio.sleep(0)
    for task_id, by in w.chance.sample(w.given[-12:], min(4, len(w.given[-12:]))):
        w.do(w.core.work.finish(TaskResult(task_id), by=by, anyone=True))


@step(3)
async def give_up(w: World) -> None:
    """Whoever called the hub goes away before it has answered."""
    w.gave_up = True
    for doing in w.chance.sample(w.doing, min(len(w.doing), w.chance.choice((1, 1, 3)))):
        doing.cancel()


@step(4)
async def cancel(w: World) -> None:
    """An asker takes a task back, twice at once sometimes."""
    if w.tasks:
        task_id = w.chance.choice(w.tasks[-8:])
        for _ in range(w.chance.choice((1, 1, 2))):
            w.do(w.core.work.cancel(task_id), w.onlookers.told)


@step(4)
async def rerun(w: World) -> None:
    """An asker wants it once more, twice at once sometimes."""
    if w.tasks:
        task_id = w.chance.choice(w.tasks)
        for _ in range(w.chance.choice((1, 1, 2))):
            w.do(w.core.work.rerun(task_id), w.onlookers.told)


@step(14)
async def time_passes(w: World) -> None:
    """Time passes, evenly or in one leap."""
    await w.clock.leap(w.chance.choice((0.1, 0.6, 1.0, 2.5, 7.0, 25.0)))


@step(1)
async def long_time_passes(w: World) -> None:
    """A long time passes."""
    await w.clock.leap(w.chance.choice((70.0, 1000.0, 4000.0)))


@step(3)
async def hold_commits(w: World) -> None:
    """The disk is slow: nothing is committed until it is let."""
    w.journal.held = True


@step(10)
async def let_commits(w: World) -> None:
    """The disk is well."""
    w.let()


@step(1)
async def break_store(w: World) -> None:
    """The disk is full; what it was slow with until now fails."""
    w.journal.fail()


@step(2)
async def kill(w: World) -> None:
    """The hub is killed, and started again on the same file."""
    await w.kill()
    await w.start()


@step(1)
async def stop(w: World) -> None:
    """The hub is stopped in order, and started again."""
    await w.stop()
    w._new_life()
    await w.start()


async def ask_idle_workers(w: World) -> None:
    """Workers are there and free, tasks come for them, and the disk may be slow just then."""
    if w.chance.random() < 0.4:
        w.journal.held = True
    if w.chance.random() < 0.5:
        w.attach(w.chance.choice(("work.a", "work.b")))
    for _ in range(w.chance.choice((1, 2, 4))):
        w.number += 1
        data = {"task_type": w.chance.choice(TASK_TYPES), "k": w.chance.choice(("p", "q"))}
        envelope = plain(
            w,
            subject="tasks.idle",
            type=TASK_REQUEST,
            data={**data, "max_attempts": w.chance.choice((1, 2))},
            durable=None,
            in_reply_to=None,
            expires_us=None,
            to=w.chance.choice((("work.a",), ("work.b",), ())),
        )
        w.do(w.core.publish(envelope), w.checked(envelope))


async def end_in_hand(w: World) -> None:
    """Tasks end that somebody has, or is just to get: their hand-over is being written."""
    if w.chance.random() < 0.6:
        w.journal.held = True
        away = [one for one in ("work.a", "work.b") if w.core.room.link_of(one) is None]
        if away:
            w.attach(w.chance.choice(away))
        for _ in range(3):
            await asyncio.sleep(0)
    in_hand = list(w.core.room.in_hand)
    for task_id in w.chance.sample(in_hand, min(len(in_hand), w.chance.choice((1, 2, 4)))):
        if w.chance.random() < 0.6:
            w.do(w.core.work.cancel(task_id))
        else:
            by = w.chance.choice(ADDRESSES)
            w.do(w.core.work.finish(TaskResult(task_id), by=by, anyone=True))


async def crowd(w: World) -> None:
    """More is published to a small mailbox than it holds; its owner may be there, or not."""
    for _ in range(w.chance.choice((3, 5))):
        envelope = plain(w, to=("app.small",), durable=True, in_reply_to=None, expires_us=None)
        w.do(w.core.publish(envelope), w.checked(envelope))


async def ask_twice(w: World) -> None:
    """Ask for a task that is there already, or twice at once: it is given to nobody again."""
    w.number += 1
    named = w.chance.choice(w.tasks[-4:]) if w.tasks and w.chance.random() < 0.5 else None
    asked = {"task_type": w.chance.choice(TASK_TYPES), "task_id": named or f"task-{w.number}"}
    how: dict[str, Any] = {"subject": "tasks.again", "type": TASK_REQUEST, "in_reply_to": None}
    claim = {"id": f"asked-{w.number}"} if w.chance.random() < 0.5 else {}
    envelope = plain(w, data=asked, durable=None, to=(), source="api.p", **how, **claim)
    for _ in range(w.chance.choice((1, 2))):
        w.do(
            w.core.publish(envelope, principal=CLAIMER),
            w.checked(envelope),
        )


WITH_FREE_WORKERS: Final[dict[Step, int]] = {
    ask_idle_workers: 30,
    ask_twice: 8,
    ask: 6,
    attach: 10,
    leave: 12,
    pause: 10,
    answer: 12,
    finish: 20,
    bring_kept: 4,
    give_up: 3,
    cancel: 5,
    rerun: 4,
    time_passes: 10,
    long_time_passes: 1,
    hold_commits: 6,
    let_commits: 14,
    break_store: 2,
    kill: 2,
    stop: 2,
}
"""Steps of runs in which most tasks find somebody who is free for them, and then may not."""


WITH_EARLY_ENDS: Final[dict[Step, int]] = {
    ask_idle_workers: 24,
    ask: 6,
    end_in_hand: 16,
    crowd: 8,
    publish: 8,
    route: 4,
    guard: 16,
    attach: 16,
    leave: 12,
    pause: 4,
    answer: 8,
    pull: 8,
    finish: 10,
    bring_kept: 6,
    give_up: 10,
    cancel: 4,
    time_passes: 16,
    long_time_passes: 1,
    hold_commits: 4,
    let_commits: 12,
    break_store: 5,
    kill: 1,
}
"""Steps of runs in which much ends before it has begun: it is taken back, given up, brought by
others, held by a guard, lost with a link.
"""


async def prepare(w: World, *, routes: int = 4) -> None:
    """Start the hub, with some peers and routes."""
    await w.start()
    for address in w.chance.sample(ADDRESSES, 4):
        w.attach(address)
    for _ in range(routes):
        await route(w)
    w.kind = False


async def run_steps(w: World, count: int, weights: Mapping[Step, int] | None = None) -> None:
    """Do weighted random steps, then the finale."""
    await prepare(w, routes=4 if weights is None else 0)
    if weights is None:
        weights = {step: weight for weight, step in STEPS.values()}
    for _ in range(count):
        (step,) = w.chance.choices(list(weights), list(weights.values()))
        await one_step(w, step)
    await w.finale()


async def one_step(w: World, step: Step) -> None:
    """Do one step, then wait for the hub to rest, or not quite."""
    w.story.append(f"{w.clock.now_us() / 1e6:.1f} {step.__name__}")
    await step(w)
    w.onlookers.look(w.core, w.tasks)
    rest = w.chance.random() < 0.6
    if not rest:
        for _ in range(w.chance.randrange(6)):
            await asyncio.sleep(0)
    await w.check(rest=rest)
