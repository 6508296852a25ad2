"""Rule 12: the checks have been seen to catch each rule taken out.

Each mutant takes one thing out of the hub that keeps a rule, and a run must break within a few
seeds. Which rule is told first is chance; that one is told is not.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hubbub.core import Core
from hubbub.delivery import courier
from hubbub.delivery import room as room_module
from hubbub.delivery.boxes import Boxes
from hubbub.delivery.courier import Couriers
from hubbub.delivery.endings import Endings
from hubbub.delivery.finals import Finals
from hubbub.delivery.guarding import Guarding
from hubbub.delivery.leases import Leases
from hubbub.delivery.ledger import Ledger
from hubbub.delivery.lifecycle import Lifecycle
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.promises import Promises
from hubbub.delivery.room import DeliveryRoom
from hubbub.delivery.work import WorkDesk
from hubbub.engines.local import LocalEngine
from hubbub.following import Following
from hubbub.lanes import Line
from hubbub.planning import Plan, Planner
from hubbub.store.batch import Batch
from hubbub.sweeper import Sweeper
from hubbub.tasks import state_of
from hubbub.values import DeliveryState, TaskState
from tests.hub.invariants.rules import BrokenRuleError
from tests.hub.invariants.steps import WITH_EARLY_ENDS, WITH_FREE_WORKERS, Step
from tests.hub.invariants.test_random_runs import run

SEEDS = 80
SHOWN = 15
"""The rule about what is shown."""

TIMEOUT_S = 240
"""For those that are met in a late run, on a machine that has other things to do."""
Mutate = Callable[[pytest.MonkeyPatch], None]


def lanes_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Any of a key may go at any time."""
    original = Line._line_up

    def line_up(self: Line, delivery: Any) -> None:
        lane, delivery.lane = delivery.lane, None
        original(self, delivery)
        delivery.lane = lane

    patch.setattr(Line, "_line_up", line_up)
    patch.setattr(Line, "_leads", lambda self, delivery: True)


def a_lane_is_free_at_once(patch: pytest.MonkeyPatch) -> None:
    """The next of a key does not wait until the former is done."""
    original = Line.take

    def take(self: Line, delivery: Any) -> None:
        original(self, delivery)
        self.free(delivery)

    patch.setattr(Line, "take", take)


def a_lane_is_never_free(patch: pytest.MonkeyPatch) -> None:
    """A key waits for ever behind its first."""
    patch.setattr(Line, "free", lambda self, delivery: None)


def outcomes_may_change(patch: pytest.MonkeyPatch) -> None:
    """A change counts although the delivery is done."""
    original = Batch.change

    def change(self: Batch, change: Any, snapshot: Any) -> bool:
        state, attempts = self._deliveries.get(change.delivery.id, ("pending", 0))
        if state == DeliveryState.DONE:
            self._deliveries[change.delivery.id] = ("pending", attempts)
        return original(self, change, snapshot)

    patch.setattr(Batch, "change", change)
    patch.setattr(courier, "is_mine", lambda delivery, attempt: True)


def couriers_speak_of_old_attempts(patch: pytest.MonkeyPatch) -> None:
    """A courier whose delivery was taken from it still ends it."""
    patch.setattr(courier, "is_mine", lambda delivery, attempt: True)


def claims_are_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    """The store does not say that an id was there before."""
    original = Batch.look_up

    def look_up(self: Batch, *, claims: Any, **how: Any) -> None:
        original(self, claims=(), **how)

    patch.setattr(Batch, "look_up", look_up)


def siblings_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A pool gives an envelope to who has it already."""
    patch.setattr(room_module, "has_another", lambda delivery, address: False)


def one_mailbox_may_have_it_twice(patch: pytest.MonkeyPatch) -> None:
    """Two routes to one endpoint make two deliveries."""
    patch.setattr(Plan, "has", lambda self, mailbox: False)


def routes_that_find_nobody_have_no_word(patch: pytest.MonkeyPatch) -> None:
    """Whether an envelope without a delivery is stored is the publisher's word alone."""
    original = Planner.plan

    def plan(self: Planner, envelope: Any, *, durable: bool, **how: Any) -> Plan:
        made = original(self, envelope, durable=durable, **how)
        made.durable = durable and not made.deliveries
        return made

    patch.setattr(Planner, "plan", plan)


def attempts_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A hand-over is no attempt."""
    original = DeliveryRoom.taken

    def taken(self: DeliveryRoom, box: Any, delivery: Any, address: str) -> None:
        original(self, box, delivery, address)
        delivery.attempts -= 1

    patch.setattr(DeliveryRoom, "taken", taken)


def a_closed_link_keeps_what_it_had(patch: pytest.MonkeyPatch) -> None:
    """A link closes, and what was in flight is forgotten there."""
    original = DeliveryRoom._link_changed

    def link_changed(self: DeliveryRoom, link: EndpointLink, closed: bool) -> None:
        if closed:
            link.in_flight.clear()
        original(self, link, closed)

    patch.setattr(DeliveryRoom, "_link_changed", link_changed)


def slots_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """There is always a slot."""
    patch.setattr(EndpointLink, "free", property(lambda self: int(self._slots > 0)))


def slots_are_not_freed(patch: pytest.MonkeyPatch) -> None:
    """What ended keeps its slot."""
    patch.setattr(Endings, "_leave_hand", lambda self, delivery: "")


def deadlines_are_not_looked_after(patch: pytest.MonkeyPatch) -> None:
    """What is overdue waits on."""
    patch.setattr(Endings, "expire", lambda self, delivery: None)


def the_sweeper_sleeps(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at what is due in the store."""

    async def look(self: Sweeper) -> None:
        del self

    patch.setattr(Sweeper, "look", look)


def the_deadline_is_not_moved(patch: pytest.MonkeyPatch) -> None:
    """A task that waits again is measured from its first wait."""
    original = Endings.again

    def again(self: Endings, delivery: Any, reason: str, **how: Any) -> None:
        deadline_us = delivery.deadline_us
        original(self, delivery, reason, **how)
        if delivery.deadline_us is not None and delivery.state is DeliveryState.PENDING:
            delivery.deadline_us = min(deadline_us or 0, self._room.clock.now_us() - 10_000_000)

    patch.setattr(Endings, "again", again)


def places_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    """What leaves a mailbox leaves its place taken."""
    patch.setattr(Mailbox, "left", lambda self: None)


def planned_places_are_not_released(patch: pytest.MonkeyPatch) -> None:
    """What was planned and not kept leaves its place taken."""
    patch.setattr(Endings, "release", lambda self, planned: None)


def results_follow_a_loser(patch: pytest.MonkeyPatch) -> None:
    """A result that did not count is published all the same."""
    original = Batch.change

    def change(self: Batch, change: Any, snapshot: Any) -> bool:
        counted = original(self, change, snapshot)
        if not counted and change.follows is not None:
            self.keep(change.follows)
        return counted

    patch.setattr(Batch, "change", change)
    patch.setattr(Ledger, "alone", _together)


async def _together(self: Ledger, task_id: str, work: Any) -> Any:
    return await work


def results_are_not_published(patch: pytest.MonkeyPatch) -> None:
    """A result is written, and nobody hears of it."""
    original = Batch.change

    def change(self: Batch, change: Any, snapshot: Any) -> bool:
        change.follows = None
        return original(self, change, snapshot)

    patch.setattr(Batch, "change", change)


def tasks_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """A delivery changes, its task does not."""
    original = Batch.change

    def change(self: Batch, change: Any, snapshot: Any) -> bool:
        if change.task is not None and change.task.state == "dispatched":
            change.task = change.attempt = None
        return original(self, change, snapshot)

    patch.setattr(Batch, "change", change)


def a_timeout_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """The state of a task does not know a timeout."""
    from hubbub import tasks

    def states(delivery: Any, *, said: str | None = None) -> Any:
        state = state_of(delivery, said=said)
        return TaskState.FAILED if state is TaskState.TIMEOUT else state

    patch.setattr(tasks, "state_of", states)


def memory_is_not_known_to_a_refill(patch: pytest.MonkeyPatch) -> None:
    """The store gives again what memory has."""
    patch.setattr(LocalEngine, "hold", lambda self, delivery: None)


def readers_do_not_know_memory(patch: pytest.MonkeyPatch) -> None:
    """Who reads a delivery from the store acts on that copy."""
    patch.setattr(Boxes, "written", lambda self, delivery: None)
    original = Boxes.reading

    def reading(self: Boxes) -> Any:
        self.here.clear()
        return original(self)

    patch.setattr(Boxes, "reading", reading)


def nothing_is_recovered(patch: pytest.MonkeyPatch) -> None:
    """What was under way at a kill is not looked for."""
    patch.setattr(Lifecycle, "recovered", lambda self, delivery: None)


def refills_do_not_come(patch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory stays in the store."""
    patch.setattr(Boxes, "refill", lambda self, box: None)


def a_free_lane_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    """What the store alone has of a key is not read when its lane is free."""
    patch.setattr(Mailbox, "stir", lambda self: None)


def guards_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    """Whatever a guard says, something is handed over."""
    patch.setattr(Guarding, "held", lambda self, address, guard: None)


def leases_are_not_guarded(patch: pytest.MonkeyPatch) -> None:
    """Who asks for tasks gets them, whatever the guard says."""
    patch.setattr(Leases, "may_take", lambda self, link: True)


def what_nobody_saw_keeps_its_slot(patch: pytest.MonkeyPatch) -> None:
    """A task ends before it was handed over, and its endpoint shall answer it all the same."""
    patch.setattr(Leases, "unseen", lambda self, link, delivery, attempt: None)


def a_link_has_one_courier(patch: pytest.MonkeyPatch) -> None:
    """What is given to a second slot waits until the peer has answered the first."""

    def send(self: Couriers, link: EndpointLink, delivery: Any) -> None:
        if link.couriers:
            link.todo.append((delivery, delivery.attempts))
        else:
            original(self, link, delivery)

    original = Couriers.send
    patch.setattr(Couriers, "send", send)


def couriers_of_a_closed_link_are_remembered(patch: pytest.MonkeyPatch) -> None:
    """Who carried to a peer that left is kept for ever."""

    def dismiss(self: Couriers, link: EndpointLink) -> None:
        couriers = self._carrying.get(link, set())
        original(self, link)
        self._carrying[link] = couriers

    original = Couriers.dismiss
    patch.setattr(Couriers, "dismiss", dismiss)


def what_is_tried_again_stays_in_hand(patch: pytest.MonkeyPatch) -> None:
    """A task waits for its next attempt, and is said to be somebody's."""

    def again(self: Endings, delivery: Any, reason: str, **how: Any) -> None:
        had = delivery.task_id in self._room.in_hand
        original(self, delivery, reason, **how)
        if had and delivery.state is DeliveryState.PENDING:
            self._room.in_hand[delivery.task_id] = delivery

    original = Endings.again
    patch.setattr(Endings, "again", again)


def probes_are_not_taken_back(patch: pytest.MonkeyPatch) -> None:
    """A breaker waits for what comes of a probe that has ended otherwise."""
    patch.setattr(Guarding, "left", lambda self, delivery: None)


def guards_outlive_who_they_guarded(patch: pytest.MonkeyPatch) -> None:
    """What was learned of an endpoint that is gone is kept."""
    patch.setattr(Guarding, "forget", lambda self, address: None)


def pulled_tasks_are_never_left(patch: pytest.MonkeyPatch) -> None:
    """A guard counts the leases that have ended too."""
    patch.setattr(Leases, "left", lambda self, delivery, address: None)


def ends_that_failed_forget_whose_it_was(patch: pytest.MonkeyPatch) -> None:
    """A task whose end could not be written is nobody's."""

    def suspend(self: Endings, delivery: Any) -> Any:
        memory = original(self, delivery)
        memory.link = None
        return memory

    original = Endings.suspend
    patch.setattr(Endings, "suspend", suspend)


def what_is_written_stays_here(patch: pytest.MonkeyPatch) -> None:
    """Memory keeps each delivery whose end is in the store."""
    patch.setattr(Boxes, "written", lambda self, delivery: None)


def what_is_settled_stays_held(patch: pytest.MonkeyPatch) -> None:
    """The engine keeps the id of each delivery that ended."""
    patch.setattr(LocalEngine, "settled", lambda self, ids: None)


def workers_remember_all_pools(patch: pytest.MonkeyPatch) -> None:
    """A worker looks at a pool for each task type that anybody ever asked for."""

    def forget_idle(self: DeliveryRoom) -> None:
        self.boxes.forget_idle(needed=lambda name: self.directory.get(name) is not None)

    patch.setattr(DeliveryRoom, "forget_idle", forget_idle)


def who_has_left_stays_in_its_pools(patch: pytest.MonkeyPatch) -> None:
    """A pool believes in members that have gone."""
    patch.setattr(DeliveryRoom, "_leave_pools", lambda self, link: None)


def who_has_a_free_slot_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """A pool does not hear that a member is free again."""
    patch.setattr(DeliveryRoom, "_offer", lambda self, link: None)


def polls_that_are_over_are_remembered(patch: pytest.MonkeyPatch) -> None:
    """A mailbox keeps who has waited for something to take."""
    patch.setattr(Mailbox, "stop_waiting", lambda self, future: None)


def who_gives_up_is_told_of_a_place(patch: pytest.MonkeyPatch) -> None:
    """A publisher that has gone still stands in the line for a place."""

    async def wait_for_space(self: Mailbox) -> None:
        future = asyncio.get_running_loop().create_future()
        self._space.append(future)
        await future

    patch.setattr(Mailbox, "wait_for_space", wait_for_space)


def guards_wake_nobody(patch: pytest.MonkeyPatch) -> None:
    """When the time of a guard has come, nothing is handed over."""
    patch.setattr(Guarding, "_over", lambda self, address, guard: None)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """The publisher is told before anything is written."""
    original = LocalEngine.keep

    def keep(self: LocalEngine, record: Any, then: Any = None) -> Any:
        import asyncio

        from hubbub.ports import Kept

        told = asyncio.get_running_loop().create_future()
        told.set_result(Kept("kept"))
        asyncio.get_running_loop().create_task(_ignored(original(self, record)))
        if then is not None:
            then(Kept("kept"))
        return told

    patch.setattr(LocalEngine, "keep", keep)


async def _ignored(work: Any) -> None:
    import contextlib

    with contextlib.suppress(Exception):
        await work


def nobody_is_woken_by_an_attach(patch: pytest.MonkeyPatch) -> None:
    """Who comes gets only what is published after that."""
    patch.setattr(Core, "attach", _attach_only)


def _attach_only(self: Core, endpoint: Any) -> Any:
    from hubbub.attachments import Attachment
    from hubbub.values import PresenceState

    self.directory.put(endpoint, PresenceState.ONLINE)
    pump, self.room.pump_link = self.room.pump_link, lambda link: None  # type: ignore[method-assign]
    link = self.room.attach(endpoint)
    self.room.pump_link = pump  # type: ignore[method-assign]
    return Attachment(self.attachments, link)


def promises_overtake(patch: pytest.MonkeyPatch) -> None:
    """A task is promised whatever waits, or is on its way, before it."""

    def taker(self: Promises, box: Mailbox, delivery: Any) -> EndpointLink | None:
        room = self._room
        pool = box.requirement is not None
        link = room.member_for(box, delivery) if pool else room.link_of(box.name)
        able = link is not None and link.free > 0 and not link.endpoint.pull
        return link if able and delivery.state is DeliveryState.PENDING else None

    patch.setattr(Promises, "_taker", taker)


def promises_keep_no_slot(patch: pytest.MonkeyPatch) -> None:
    """One slot is promised to everybody who comes while the first of them is written."""
    busy = property(lambda self: len(self.in_flight) + len(self.overtime))
    patch.setattr(EndpointLink, "busy", busy)
    patch.setattr(Promises, "_holds", lambda self, link, delivery: not link.closed)


def promises_are_kept_to_who_has_left(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks after the commit whether the endpoint is still there."""
    patch.setattr(Promises, "_holds", lambda self, link, delivery: True)


def broken_promises_keep_their_slot(patch: pytest.MonkeyPatch) -> None:
    """A task that was refused leaves its slot taken."""
    patch.setattr(Promises, "break_off", lambda self, delivery: delivery.id in self._made)


def promises_write_no_attempt(patch: pytest.MonkeyPatch) -> None:
    """The history of a task does not know who was promised it."""
    original = Promises.make

    def make(self: Promises, planned: Any) -> None:
        original(self, planned)
        planned.record.attempts.clear()

    patch.setattr(Promises, "make", make)


def promises_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """A task is handed over whose row says that it waits."""
    original = Promises.make

    def make(self: Promises, planned: Any) -> None:
        queued = list(planned.record.tasks)
        original(self, planned)
        planned.record.tasks = queued

    patch.setattr(Promises, "make", make)


def readers_are_shown_memory(patch: pytest.MonkeyPatch) -> None:
    """Who asks for a task is told what is on its way to the store."""
    patch.setattr(WorkDesk, "find", WorkDesk.current)


def results_are_shown_at_once(patch: pytest.MonkeyPatch) -> None:
    """Observers see a result when it is planned."""
    original = Following.result

    def result(self: Following, task: Any, delivery: Any) -> Any:
        planned = original(self, task, delivery)
        self._taps.show(planned.results[0])
        return planned

    patch.setattr(Following, "result", result)


def ends_of_tasks_are_counted_at_once(patch: pytest.MonkeyPatch) -> None:
    """Metrics and plugins hear of an end that nobody waits for before it is written."""
    original = Endings._end_task

    def end_task(self: Endings, delivery: Any, before: Any, reason: str | None) -> None:
        original(self, delivery, before, reason)
        self.count(delivery)

    patch.setattr(Endings, "_end_task", end_task)


def results_are_counted_at_once(patch: pytest.MonkeyPatch) -> None:
    """Metrics and plugins hear of a result before it is written."""
    original = Finals._end

    def end(self: Finals, delivery: Any, how: Any) -> None:
        original(self, delivery, how)
        self._room.endings.count(delivery)

    patch.setattr(Finals, "_end", end)


def retries_are_told_at_once(patch: pytest.MonkeyPatch) -> None:
    """That a task waits again is published before it is written."""
    original = Endings._retry_task

    def retry_task(self: Endings, delivery: Any, *about: Any) -> None:
        original(self, delivery, *about)
        self._room.tell(delivery, delivery.task)

    patch.setattr(Endings, "_retry_task", retry_task)


def hand_overs_are_told_at_once(patch: pytest.MonkeyPatch) -> None:
    """That a task is dispatched is published before it is written."""
    original = Leases.lease

    def lease(self: Leases, delivery: Any, **how: Any) -> Any:
        change = original(self, delivery, **how)
        self._room.tell(delivery, delivery.task)
        return change

    patch.setattr(Leases, "lease", lease)


MUTANTS: tuple[Mutate, ...] = (
    a_closed_link_keeps_what_it_had,
    a_free_lane_wakes_nobody,
    a_lane_is_free_at_once,
    a_lane_is_never_free,
    a_timeout_is_a_failure,
    acknowledged_before_the_commit,
    attempts_are_not_counted,
    claims_are_not_looked_up,
    couriers_speak_of_old_attempts,
    deadlines_are_not_looked_after,
    guards_are_not_asked,
    guards_wake_nobody,
    lanes_are_ignored,
    leases_are_not_guarded,
    memory_is_not_known_to_a_refill,
    nobody_is_woken_by_an_attach,
    nothing_is_recovered,
    one_mailbox_may_have_it_twice,
    outcomes_may_change,
    places_are_not_given_back,
    planned_places_are_not_released,
    readers_do_not_know_memory,
    refills_do_not_come,
    results_are_not_published,
    results_follow_a_loser,
    routes_that_find_nobody_have_no_word,
    siblings_are_not_checked,
    slots_are_not_counted,
    slots_are_not_freed,
    tasks_are_not_written,
    the_deadline_is_not_moved,
    the_sweeper_sleeps,
)

MUTANTS_OF_KEEPING: tuple[Mutate, ...] = (
    a_link_has_one_courier,
    couriers_of_a_closed_link_are_remembered,
    ends_that_failed_forget_whose_it_was,
    guards_outlive_who_they_guarded,
    polls_that_are_over_are_remembered,
    probes_are_not_taken_back,
    pulled_tasks_are_never_left,
    what_is_settled_stays_held,
    what_is_tried_again_stays_in_hand,
    what_is_written_stays_here,
    what_nobody_saw_keeps_its_slot,
    who_gives_up_is_told_of_a_place,
    who_has_a_free_slot_is_not_told,
    who_has_left_stays_in_its_pools,
    workers_remember_all_pools,
)

MUTANTS_OF_SHOWING: tuple[Mutate, ...] = (
    ends_of_tasks_are_counted_at_once,
    hand_overs_are_told_at_once,
    readers_are_shown_memory,
    results_are_counted_at_once,
    results_are_shown_at_once,
    retries_are_told_at_once,
)

MUTANTS_OF_PROMISES: tuple[Mutate, ...] = (
    broken_promises_keep_their_slot,
    promises_are_kept_to_who_has_left,
    promises_are_not_written,
    promises_keep_no_slot,
    promises_overtake,
    promises_write_no_attempt,
)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_mutant_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Mutate
) -> None:
    """With one rule taken out, a check within a few seeds says so; that the hub crashes is none."""
    _catch(tmp_path, monkeypatch, mutate)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("mutate", MUTANTS_OF_KEEPING, ids=lambda mutate: mutate.__name__)
def test_a_mutant_of_keeping_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Mutate
) -> None:
    """The same, in runs in which much ends early: something is kept for what is over."""
    _catch(tmp_path, monkeypatch, mutate, WITH_EARLY_ENDS)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("mutate", MUTANTS_OF_SHOWING, ids=lambda mutate: mutate.__name__)
def test_a_mutant_of_showing_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Mutate
) -> None:
    """What is shown before it is written is noticed as that, and as nothing else."""
    assert _catch(tmp_path, monkeypatch, mutate) == SHOWN


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("mutate", MUTANTS_OF_PROMISES, ids=lambda mutate: mutate.__name__)
def test_a_mutant_of_promises_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Mutate
) -> None:
    """The same, in runs in which most tasks are promised."""
    _catch(tmp_path, monkeypatch, mutate, WITH_FREE_WORKERS)


def _catch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Mutate,
    weights: Mapping[Step, int] | None = None,
) -> int:
    """Return the number of the rule that was found broken."""
    mutate(monkeypatch)
    crashed: list[str] = []
    for seed in range(SEEDS):
        try:
            run(tmp_path, seed, size=4 if seed % 2 else 256, weights=weights)
        except BrokenRuleError as error:
            return error.rule
        except Exception as error:  # noqa: BLE001  # what a mutant does to the hub is not the matter
            crashed.append(f"{type(error).__name__}: {error}"[:200])
    pytest.fail(f"{mutate.__name__} was not noticed in {SEEDS} runs; crashes: {crashed}")
