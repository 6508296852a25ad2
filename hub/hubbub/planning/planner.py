"""The planner: who gets an envelope, and by which mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hubbub.clock import Ids
from hubbub.conversion import Conversions
from hubbub.delivery.mailbox import is_pool, pool_name
from hubbub.delivery.rules import deadline_of
from hubbub.directory import Directory, Known, choose_sticky
from hubbub.envelope import Envelope
from hubbub.planning.deliveries import Deliveries, TryHard
from hubbub.planning.plan import ANY_WORKER, DIRECT, REPLY, Offer, Plan, ended
from hubbub.planning.recording import Recording
from hubbub.planning.tasks import TaskPlanner
from hubbub.ports import Clock
from hubbub.preparing import Preparer
from hubbub.routing import CompiledRoute, RoutingTable
from hubbub.subjects import is_pattern, matches
from hubbub.tasks import TaskRequest
from hubbub.values import DeliveryState, Endpoint, Outcome, Requirement, Route

__all__ = ["Planner"]


class Planner:
    """Decides who gets an envelope, by which mailbox, and how hard to try.

    Attributes:
        tasks: Decides who may do a task.
    """

    def __init__(
        self,
        *,
        table: RoutingTable,
        directory: Directory,
        conversions: Conversions,
        preparer: Preparer,
        clock: Clock,
        ids: Ids,
        defaults: TryHard,
    ) -> None:
        self._table = table
        self._directory = directory
        self._conversions = conversions
        self._clock = clock
        self._recording = Recording(preparer)
        self._deliveries = Deliveries(ids, defaults)
        self.tasks: Final = TaskPlanner(directory, self._deliveries, self._recording)

    def try_hard(self, defaults: TryHard) -> None:
        """Try as hard as this from here on, where nobody else says."""
        self._deliveries.defaults = defaults

    def plan(
        self,
        envelope: Envelope,
        *,
        seq: int,
        durable: bool,
        request: TaskRequest | None = None,
        reply_to: str | None = None,
        now_us: int | None = None,
    ) -> Plan:
        """Return the deliveries of an envelope, and rows that are some of them.

        Args:
            now_us: The time, where it was read just now.
            durable: What holds where no route says otherwise.
            request: What the hub reads of a task request; such an envelope goes to one worker.
            reply_to: An address that gets it beside the table's (the result of a task).
        """
        routes = self.routes(envelope, request)
        plan = Plan([], [])
        if now_us is None:
            now_us = self._clock.now_us()
        offer = Offer(envelope, seq, now_us, durable, plan)
        if request is not None:
            self.tasks.plan(offer, routes[0], request)
            return plan
        for route in routes:
            self._follow(offer, route)
        if reply_to is not None:
            self._to_address(offer, REPLY, reply_to)
        if len(plan.deliveries) > 1:
            # Only who is chosen from a pool asks who else has it; a ring of all would be left to
            # the garbage collector, a thousand deliveries of one message at a time.
            for delivery in plan.deliveries:
                if is_pool(delivery.mailbox):
                    delivery.siblings = tuple(plan.deliveries)
        if not plan.deliveries:
            plan.reason = "no_endpoint" if routes else "no_route"
        return plan

    def routes(self, envelope: Envelope, request: TaskRequest | None) -> Sequence[CompiledRoute]:
        """Return the routes of an envelope, in order.

        Of a task the subscriptions of those who do no such work are left out: they would take it
        away from those who do.
        """
        if envelope.to:
            return (DIRECT,)
        if request is None:
            return self._table.match(envelope)
        asked = request

        def is_idle(route: Route) -> bool:
            if route.origin != "private":
                return False
            known = self._directory.get(route.to[0])
            return known is None or not self.tasks.is_for(known.endpoint, asked)

        return self._table.match(envelope, but=is_idle) or (ANY_WORKER,)

    def may_reach(self, envelope: Envelope, endpoint: Endpoint) -> bool:
        """Tell whether the table as it is gives a plain envelope to an endpoint, or may give it."""
        for route in self._table.match(envelope):
            wanted = Requirement((), route.labels, envelope.type)
            if any(matches(target, endpoint.address) for target in route.targets(envelope)) and (
                route.route.transform is not None or self._directory.able(endpoint, wanted)
            ):
                return True
        return False

    # Plain envelopes

    def _follow(self, offer: Offer, route: CompiledRoute) -> None:
        """Add the deliveries of one route."""
        targets = (
            offer.envelope.to if route is DIRECT else tuple(route.targets(offer.envelope))
        )  # fmt: skip
        one = len(targets) == 1 and not is_pattern(targets[0])
        deliver = route.route.deliver
        if deliver == "all":
            found = self._to_all(offer, route, targets)
        elif deliver == "sticky":
            found = self._to_sticky(offer, route, targets)
        elif one:
            found = self._to_address(offer, route, targets[0])
        else:
            found = self._to_pool(offer, route, targets)
        if not found and route.route.hold_s and targets:
            self._hold(offer, route, targets)

    def _to_all(self, offer: Offer, route: CompiledRoute, targets: Sequence[str]) -> bool:
        requirement = Requirement((), route.labels, offer.envelope.type)
        found = False
        for target in targets:
            if not is_pattern(target):
                found |= self._to_address(offer, route, target)
                continue
            # What nobody asked for by name does not come back to who said it.
            but = offer.envelope.source if route.route.fallback else None
            for known in list(self._directory.members(target)):
                if known.address != but and self._directory.able(known.endpoint, requirement):
                    self._to_known(offer, route, known)
                    found = True
        return found

    def _to_address(self, offer: Offer, route: CompiledRoute, address: str) -> bool:
        """Add the delivery to a literal address; one that cannot take the type is dead at once."""
        known = self._directory.get(address)
        if known is None:
            return False
        # What a transform makes of it is known when it has run.
        if route.route.transform or self._conversions.accepts(
            offer.envelope.type, known.endpoint.accepts
        ):
            self._to_known(offer, route, known)
        elif not offer.plan.has(address):
            delivery = self._deliveries.make(offer, address, route, known.endpoint)
            offer.plan.add(ended(delivery, Outcome.DEAD, "no_converter"))
        return True

    def _to_known(self, offer: Offer, route: CompiledRoute, known: Known) -> None:
        """Add the delivery to one endpoint's own mailbox, unless it has one already."""
        plan, address = offer.plan, known.address
        if plan.has(address):
            return
        delivery = self._deliveries.make(offer, address, route, known.endpoint)
        plan.add(delivery)
        if delivery.state is DeliveryState.DONE:
            return
        rows = self._recording.rows(known.endpoint, delivery) if known.records else None
        if rows is not None:
            plan.rows += rows
            delivery.durable = True
            delivery.endpoint = address
            delivery.attempts = 1
            ended(delivery, Outcome.DELIVERED, None)
        elif not (delivery.durable or known.present):
            ended(delivery, Outcome.DROPPED, "offline")

    def _to_pool(self, offer: Offer, route: CompiledRoute, targets: tuple[str, ...]) -> bool:
        requirement = Requirement(targets, route.labels, offer.envelope.type)
        members = self._directory.eligible(requirement)
        if not members:
            return False
        some = next(iter(members.values())).endpoint
        delivery = self._deliveries.make(offer, pool_name(requirement), route, some)
        offer.plan.add(delivery)
        if not delivery.durable and not any(known.present for known in members.values()):
            ended(delivery, Outcome.DROPPED, "offline")
        return True

    def _to_sticky(self, offer: Offer, route: CompiledRoute, targets: tuple[str, ...]) -> bool:
        requirement = Requirement(targets, route.labels, offer.envelope.type)
        members = self._directory.eligible(requirement)
        chosen = choose_sticky(route.key_of(offer.envelope) or "", members)
        if chosen is None:
            return False
        self._to_known(offer, route, members[chosen])
        return True

    def _hold(self, offer: Offer, route: CompiledRoute, targets: tuple[str, ...]) -> None:
        """Keep it until an endpoint is known."""
        name = pool_name(Requirement(targets, route.labels, offer.envelope.type))
        delivery = self._deliveries.make(offer, name, route, None)
        if not delivery.durable:
            return
        if delivery.state is DeliveryState.PENDING:
            delivery.hold = True
            delivery.wait_us = int(route.route.hold_s * 1e6)
            delivery.deadline_us = deadline_of(delivery, now_us=delivery.created_us)
        offer.plan.add(delivery)
