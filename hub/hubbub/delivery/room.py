"""The delivery room: deliveries into mailboxes, out of them to endpoints, again or to an end.

Plain deliveries end when the peer took the message; leased ones (tasks) when the result is in,
which `work.py` sees to. The tables of states are in docs/concepts.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from hubbub.conversion import Conversions
from hubbub.delivery.boxes import Boxes
from hubbub.delivery.courier import Couriers
from hubbub.delivery.direct import Direct
from hubbub.delivery.endings import Endings
from hubbub.delivery.guarding import Guarding
from hubbub.delivery.hands import Hands
from hubbub.delivery.leases import Leases
from hubbub.delivery.lifecycle import Lifecycle
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.promises import Promises
from hubbub.delivery.rules import NODE_LOST, DeliveryPolicy, has_another, is_plain, load_of
from hubbub.delivery.spans import trace_sent
from hubbub.delivery.timers import Timers
from hubbub.directory import Directory
from hubbub.envelope import Envelope
from hubbub.guards import GuardRule
from hubbub.memory import MemoryBudget
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer
from hubbub.ports import Clock, Credentials, Engine, Planned
from hubbub.preparing import Preparer
from hubbub.values import Delivery, DeliveryState, Endpoint, Outcome, Requirement, Task

__all__ = ["DeliveryRoom", "Follow"]


THROWN_OUT: Final = 1000
"""Volatile deliveries dropped at once of one mailbox, when the hub holds too much."""

MEMORY_FULL: Final = "memory_full"
"""Why they were."""

_CHANCE: Final = random.Random().random  # noqa: S311  # spreads retries
"""A source of its own: whoever seeds the shared one, a test say, finds it undisturbed."""


class Follow(Protocol):
    """What the router gives the delivery room, so that results and updates are routed too."""

    def result(self, task: Task, delivery: Delivery) -> Planned:
        """Return the result's envelope, already routed."""
        ...

    def kept(self, planned: Planned) -> None:
        """Show and hand over what was planned, after its commit."""
        ...

    def update(self, task: Task, delivery: Delivery) -> None:
        """Tell a change of state to whoever watches."""
        ...

    def rerun(
        self, task: Task, delivery: Delivery, attempts: int | None
    ) -> tuple[Planned, Task]:  # fmt: skip
        """Return a new run of a task that ended, already routed."""
        ...

    def answer(self, delivery: Delivery, answer: Envelope) -> None:
        """Publish what `deliver` returned, as the answer to what was delivered."""
        ...


class DeliveryRoom:
    """Hands over, acknowledges, retries, gives up."""

    def __init__(  # noqa: PLR0913  # the rooms below it, and the seams a test controls
        self,
        *,
        engine: Engine,
        clock: Clock,
        directory: Directory,
        conversions: Conversions,
        preparer: Preparer,
        metrics: Metrics,
        tracer: Tracer,
        policy: DeliveryPolicy,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        after_delivery: Callable[[Delivery], None] | None = None,
        chance: Callable[[], float] = _CHANCE,
        credentials: Credentials,
        memory: MemoryBudget,
    ) -> None:
        self.engine: Final = engine
        self.credentials: Final = credentials
        self.clock: Final = clock
        self.directory: Final = directory
        self.policy = policy
        self.timers: Final = Timers(clock)
        self.tracer: Final = tracer
        self.metrics: Final = metrics
        self.boxes: Final = Boxes(
            engine=engine,
            clock=clock,
            directory=directory,
            limit=policy.mailbox_limit,
            overflow=policy.overflow,
            spawn=spawn,
            made=self._box_made,
            filled=self.pump,
            memory=memory,
            crowded=self._throw_out,
        )
        self.hands: Final = Hands(memory)
        self.guards: Final = Guarding(
            clock=clock, metrics=metrics, call_at=self.timers.at, ready=self._guard_over
        )
        self.follow: Follow | None = None
        self.in_hand: Final[dict[str, Delivery]] = {}
        self.endings: Final = Endings(self, after_delivery)
        self.leases: Final = Leases(self)
        self.promises: Final = Promises(self)
        self.lifecycle: Final = Lifecycle(self)
        self.spawn: Final = spawn
        self.couriers: Final = Couriers(self, preparer, spawn)
        self._direct = Direct(self, conversions)
        self._chance = chance
        self._links: dict[str, EndpointLink] = {}

    def change(self, policy: DeliveryPolicy) -> None:
        """Try by another policy from here on; what waits for its next attempt waits on."""
        self.policy = policy
        self.boxes.bound(policy.mailbox_limit, policy.overflow)

    # Coming in

    def accept(self, deliveries: Iterable[Delivery]) -> None:
        """Put deliveries that are safe into their mailboxes, and hand over what can go."""
        now_us = self.clock.now_us()
        deliveries = [one for one in deliveries if not self._was_read(one)]
        for delivery in self._direct.hand_over(deliveries, now_us=now_us):
            if delivery.leased:
                if self.promises.fulfil(delivery):
                    continue
                self.tell(delivery, delivery.task)
            if delivery.state is DeliveryState.DONE:
                self.endings.born_done(delivery)
                continue
            box = self.boxes.admit(delivery, now_us=now_us)
            if box.requirement is None and self.directory.named(box.name) is None:
                self.endings.end(delivery, Outcome.DEAD, "endpoint_gone")  # while it was written
                continue
            if delivery.due_us > now_us:
                self.pump_at(delivery.due_us, box.name)
            if not delivery.durable and delivery.deadline_us is not None:
                self.timers.at(delivery.deadline_us, partial(self.endings.expire, delivery))
            if self._waits_behind(box, delivery):
                box.arrived()
                self.boxes.refill(box)
            else:
                self.pump(box)

    def _was_read(self, delivery: Delivery) -> bool:
        """Tell whether a read of the store was quicker: then it is here already, or even done."""
        if not delivery.durable or not self.engine.holds(delivery.id):
            return False
        if self.promises.has(delivery):
            return False  # its row is in flight: nobody reads it to hand it over
        self.tell(delivery, delivery.task)
        self.boxes.get(delivery.mailbox).behind += 1
        return True

    def _waits_behind(self, box: Mailbox, delivery: Delivery) -> bool:
        """Tell whether a pool's line begins with another one, for which nobody was free.

        Whoever becomes free takes that one first, so there is nobody to look for.
        """
        if box.requirement is None:
            return False
        first = box.line.head(now_us=self.clock.now_us())
        return first is not None and first is not delivery

    # Links

    def attach(self, endpoint: Endpoint) -> EndpointLink:
        """Give an endpoint a link; an older one of its address is closed."""
        older = self._links.get(endpoint.address)
        if older is not None:
            older.close()
        own = self.boxes.find(endpoint.address)
        if own is not None:  # made before it was known, at a start
            own.line.fresh_first = endpoint.fresh_first
        link = EndpointLink(endpoint, self._link_changed, self.hands.account())
        self._links[endpoint.address] = link
        guard = self.guards.of(endpoint.address)
        if guard is not None:
            link.guard = guard
        self.join_pools(link)
        self.pump_link(link)
        return link

    def join_pools(self, link: EndpointLink) -> None:
        """Note the pools that an endpoint is a member of."""
        self._leave_pools(link)
        for box in self.boxes:
            if box.requirement and self.directory.covers(box.requirement, link.endpoint):
                link.pools[box.name] = None
        self._offer(link)

    def _leave_pools(self, link: EndpointLink) -> None:
        self._withdraw(link)
        link.pools.clear()

    def _offer(self, link: EndpointLink) -> None:
        """Note in its pools that an endpoint has a free slot, if it has; its place stays."""
        if link.free > 0 and not link.closed:
            for name in link.pools:
                box = self.boxes.find(name)
                if box is not None:
                    box.members.setdefault(link)

    def _withdraw(self, link: EndpointLink) -> None:
        """Note in its pools that an endpoint has no free slot."""
        for name in link.pools:
            box = self.boxes.find(name)
            if box is not None:
                box.members.pop(link, None)

    def taken_slot(self, link: EndpointLink) -> None:
        """A slot of an endpoint is taken: with the last one its pools do not look at it."""
        if link.free <= 0:
            self._withdraw(link)

    def freed(self, link: EndpointLink) -> None:
        """A slot of an endpoint is free: in its pools it stands behind all that were before."""
        self._withdraw(link)
        self._offer(link)

    def link_of(self, address: str) -> EndpointLink | None:
        """Return the living link of an address."""
        return self._links.get(address)

    def links(self) -> list[EndpointLink]:
        """Return all living links."""
        return list(self._links.values())

    def sent(self, link: EndpointLink, envelope_id: str) -> None:
        """Note that an envelope in an endpoint's hand was written to a peer that acknowledges."""
        for delivery in link.in_flight.values():
            if delivery.envelope.id == envelope_id and not delivery.leased:
                trace_sent(self.tracer, delivery, self.clock.now_us())
                return

    def held(self, ids: Iterable[int] | None = None) -> dict[int, Delivery]:
        """Return plain deliveries that are in flight, by id: no row says so, only memory.

        Leased ones are left out: of them the store tells, what memory knows may not be written.

        Args:
            ids: Only these; None for all.
        """
        wanted = None if ids is None else set(ids)
        if wanted is not None and not wanted:
            return {}
        return {
            number: delivery
            for link in self._links.values()
            for number, delivery in link.in_flight.items()
            if not delivery.leased and (wanted is None or number in wanted)
        }

    def _link_changed(self, link: EndpointLink, closed: bool) -> None:
        if not closed:
            self.pump_link(link)
            return
        if self._links.get(link.address) is link:
            del self._links[link.address]
        self._leave_pools(link)
        self.couriers.dismiss(link)
        lost = list(link.in_flight.values())
        link.in_flight.clear()
        link.overtime.clear()
        for delivery in lost:
            # For its guard all that was lost with a link is one failure.
            if delivery is lost[0] or self.guards.probes(delivery):
                self.endings.failed(delivery, NODE_LOST, due_us=self.clock.now_us())
            else:
                self.endings.again(delivery, NODE_LOST, due_us=self.clock.now_us())

    def _box_made(self, box: Mailbox) -> None:
        """A new pool: note it at the links of its members."""
        if box.requirement is not None:
            for address in self.directory.eligible(box.requirement):
                link = self._links.get(address)
                if link is not None:
                    link.pools[box.name] = None
                    self._offer(link)

    def forget_idle(self) -> None:
        """Forget mailboxes that nobody needs, and pools in which nothing is, at their members too.

        There is a pool for each task type that anybody ever asked for.
        """
        forgotten = self.boxes.forget_idle(needed=lambda name: self.directory.get(name) is not None)
        for link in self._links.values():
            for name in forgotten & link.pools.keys():
                del link.pools[name]

    def guard(self, rules: Sequence[GuardRule]) -> None:
        """Hold all endpoints to other guards from now on."""
        self.guards.change(rules)
        self._follow_guards()

    def guard_by_default(self, rule: GuardRule) -> None:
        """Hold endpoints to a guard that the rules do not name."""
        self.guards.add_default(rule)
        self._follow_guards()

    def _follow_guards(self) -> None:
        for link in self.links():
            self.leases.wake(link.address)
            link.guard = self.guards.of(link.address)
            self.leases.wake(link.address)

    def _guard_over(self, address: str) -> None:
        link = self._links.get(address)
        if link is not None:
            self.pump_link(link)
            self.leases.wake(address)

    def _throw_out(self, box: Mailbox) -> None:
        """The hub holds too much: of a mailbox drop what came first and only memory has.

        Its endpoint is told that it is too slow, which mostly closes it. Of many small messages a
        part is dropped at once, and the rest when the hub is found to hold too much again.
        """
        for delivery in list(islice(box.line.volatile(), THROWN_OUT)):
            self.endings.end(delivery, Outcome.DROPPED, MEMORY_FULL)
        link = self._links.get(box.name)
        if link is not None:
            link.endpoint.overloaded()

    # Handing over
    #
    # What ends while something is pumped (expired, dropped) would pump it again, once inside the
    # other for each: the flag makes that one loop, however much ends at once.

    def pump(self, box: Mailbox) -> None:
        """Hand over what can go from one mailbox."""
        if box.requirement is None:
            link = self._links.get(box.name)
            if link is not None:
                if box.line.plain or not link.endpoint.pull:
                    self.pump_link(link)
                most = link.endpoint.queue_size
                if most is not None and box.depth + len(link.in_flight) > most:
                    link.endpoint.overloaded()
        elif not box.pumping:
            box.pumping = True
            try:
                self._pump_pool(box)
            finally:
                box.pumping = False
        if len(box.line):
            box.arrived()
        self.boxes.refill(box)

    def _pump_pool(self, box: Mailbox) -> None:
        while (delivery := box.line.head(now_us=self.clock.now_us())) is not None:
            link = self.member_for(box, delivery)
            if link is not None:
                self._give(box, delivery, link)
            elif delivery.state is not DeliveryState.DONE:
                break

    def pump_link(self, link: EndpointLink) -> None:
        """Give an endpoint with free slots the lowest rank of its mailbox and its pools."""
        self._offer(link)
        if link.pumping:
            return
        link.pumping = True
        try:
            if link.takes_now:
                self._direct.empty(link)
            self._pump_link(link)
        finally:
            link.pumping = False
        self._pass_on(link)

    def _pass_on(self, link: EndpointLink) -> None:
        """Give others what a pool now begins with, if this one has that envelope already.

        They may have been free for long, and passed over only what this one has just taken.
        """
        for box in self.boxes_of(link):
            if box.requirement is not None and not box.pumping:
                first = box.line.head(now_us=self.clock.now_us())
                if first is not None and has_another(first, link.address):
                    self.pump(box)

    def _pump_link(self, link: EndpointLink) -> None:
        while link.free > 0 and not link.closed:
            chosen = self.next_for(link)
            if chosen is None:
                return
            guard = link.guard
            if guard is not None and (held := self.guards.held(link.address, guard)):
                if chosen[1].durable:
                    return
                self.endings.end(chosen[1], Outcome.DROPPED, held)
                continue
            self._give(*chosen, link)

    def next_for(self, link: EndpointLink) -> tuple[Mailbox, Delivery] | None:
        """Return the lowest rank that an endpoint may have now, and where it stands."""
        best: tuple[int, int] | None = None
        chosen: tuple[Mailbox, Delivery] | None = None
        for box in self.boxes_of(link):
            delivery = self._first_for(link, box)
            while delivery is not None and self._nobody_left(box, delivery, link):
                self._filter(box, delivery)
                delivery = self._first_for(link, box)
            if delivery is None:
                self.boxes.refill(box)
                continue
            if box.requirement is not None and has_another(delivery, link.address):
                continue
            if best is None or (delivery.rank, delivery.id) < best:
                best = (delivery.rank, delivery.id)
                chosen = (box, delivery)
        return chosen

    def _first_for(self, link: EndpointLink, box: Mailbox) -> Delivery | None:
        """Return what is next for an endpoint; tasks of a pull endpoint wait to be taken."""
        now_us = self.clock.now_us()
        if link.endpoint.pull:
            return box.line.find(is_plain, now_us=now_us) if box.line.plain else None
        return box.line.head(now_us=now_us)

    def boxes_of(self, link: EndpointLink) -> list[Mailbox]:
        """Return the mailboxes an endpoint takes from: its own and its pools."""
        names = (link.address, *link.pools)
        return [box for name in names if (box := self.boxes.find(name)) is not None]

    def member_for(self, box: Mailbox, delivery: Delivery) -> EndpointLink | None:
        """Return the member of a pool that shall have this: least in flight, then longest idle."""
        assert box.requirement is not None
        best: EndpointLink | None = None
        held: str | None = None
        for link in box.members:
            if link.free <= 0 or (link.endpoint.pull and delivery.leased):
                continue
            if has_another(delivery, link.address):
                continue
            guard = link.guard
            if guard is not None and (holds := self.guards.held(link.address, guard)):
                held = holds
                continue
            if not link.busy and not (guard is not None and guard.wary):
                return link  # nobody has less in hand, nor has been idle for longer
            if best is None or load_of(link) < load_of(best):
                best = link
        if best is None and delivery.siblings and self._all_have_it(box.requirement, delivery):
            self.endings.end(delivery, Outcome.FILTERED, "already_delivered")
        elif best is None and held is not None and not delivery.durable:
            self.endings.end(delivery, Outcome.DROPPED, held)
        return best

    def _nobody_left(self, box: Mailbox, delivery: Delivery, link: EndpointLink) -> bool:
        """Tell whether the head of a pool, which this one has already, stands there for nobody."""
        return (
            box.requirement is not None
            and has_another(delivery, link.address)
            and self._all_have_it(box.requirement, delivery)
        )

    def _filter(self, box: Mailbox, delivery: Delivery) -> None:
        """End what stands at the head of a pool for nobody; the pool is being looked at already."""
        pumping, box.pumping = box.pumping, True
        try:
            self.endings.end(delivery, Outcome.FILTERED, "already_delivered")
        finally:
            box.pumping = pumping

    def _all_have_it(self, requirement: Requirement, delivery: Delivery) -> bool:
        """Tell whether every member of a pool has the envelope by another delivery."""
        members = self.directory.eligible(requirement)
        return bool(members) and all(has_another(delivery, address) for address in members)

    def _give(self, box: Mailbox, delivery: Delivery, link: EndpointLink) -> None:
        """Take a delivery out of its mailbox for one endpoint."""
        if self.may_begin(delivery):
            self.taken(box, delivery, link.address)
            if link.guard is not None:
                self.guards.begun(link.guard, delivery)
            link.in_flight[delivery.id] = delivery
            self.taken_slot(link)
            self.couriers.send(link, delivery)

    def may_begin(self, delivery: Delivery) -> bool:
        """Tell whether an attempt may begin; one that is too late, or had enough, is ended."""
        if delivery.deadline_us is not None and delivery.deadline_us <= self.clock.now_us():
            self.endings.expire(delivery)
            return False
        if delivery.attempts >= delivery.max_attempts:
            self.endings.end(delivery, Outcome.DEAD, delivery.reason or NODE_LOST)
            return False
        return True

    def taken(self, box: Mailbox, delivery: Delivery, address: str) -> None:
        """Note that a delivery left its mailbox for an endpoint: one attempt more."""
        box.line.take(delivery)
        box.left()
        self.given(delivery, address)
        self.boxes.refill(box)

    def given(self, delivery: Delivery, address: str) -> None:
        """Note that an endpoint has a delivery that is in no mailbox any more."""
        link = self._links.get(address)
        self.hands.take(delivery, None if link is None or link.endpoint.pull else link.account)
        delivery.state = DeliveryState.IN_FLIGHT
        delivery.attempts += 1
        delivery.endpoint = address
        delivery.due_us = 0
        delivery.updated_us = self.clock.now_us()

    def pump_at(self, time_us: int, mailbox: str) -> None:
        """Hand over what can go from a mailbox once that time has come."""

        def due() -> None:
            box = self.boxes.find(mailbox)
            if box is not None:
                self.pump(box)

        self.timers.at(time_us, due)

    def backoff_us(self, delivery: Delivery) -> int:
        """Return how long to wait before the next attempt."""
        return self.policy.backoff_us(
            delivery.attempts, self._chance(), leased=delivery.leased
        )  # fmt: skip

    def tell(self, delivery: Delivery, task: Task | None) -> None:
        """Publish the state of a delivery's task, after the commit that holds it.

        Args:
            task: As it was written; the delivery may have gone on meanwhile.
        """
        if task is not None and self.follow is not None:
            self.follow.update(task, delivery)

    def answered(self, delivery: Delivery, answer: Envelope) -> None:
        """Publish what an endpoint answered to what it was handed."""
        if self.follow is not None:
            self.follow.answer(delivery, answer)
