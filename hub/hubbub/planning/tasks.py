"""The plan of a task: one delivery, for one worker or for a pool of them."""

from __future__ import annotations

from typing import Final

from hubbub.delivery.mailbox import pool_name
from hubbub.delivery.rules import deadline_of
from hubbub.directory import Directory, Known, choose_sticky
from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.lanes import rank_of
from hubbub.planning.deliveries import Deliveries, TryHard
from hubbub.planning.plan import DIRECT, Offer, ended, is_own
from hubbub.planning.recording import Recording
from hubbub.routing import CompiledRoute
from hubbub.subjects import is_pattern
from hubbub.tasks import TaskRequest
from hubbub.times import parse_time
from hubbub.values import Delivery, DeliveryState, Endpoint, Outcome, Requirement

__all__ = ["TaskPlanner"]


class TaskPlanner:
    """Decides who may do a task.

    Attributes:
        defaults: Of adapters, by name: for tasks that only their endpoints may have.
    """

    def __init__(self, directory: Directory, deliveries: Deliveries, recording: Recording) -> None:
        self._directory = directory
        self._deliveries = deliveries
        self._recording = recording
        self.defaults: Final[dict[str, TryHard]] = {}

    def plan(self, offer: Offer, route: CompiledRoute, request: TaskRequest) -> None:
        """Add the one delivery of a task, for one worker or for a pool of them."""
        envelope, plan = offer.envelope, offer.plan
        targets = tuple(envelope.to if route is DIRECT else route.targets(envelope))
        declared = not targets or is_own(route)
        targets = targets or (">",)
        pinned = route is DIRECT and len(targets) == 1 and not is_pattern(targets[0])
        labels = () if pinned else route.labels
        if request.labels and not pinned:
            labels = tuple(sorted({**dict(labels), **request.labels}.items()))
        requirement = Requirement(targets, labels, envelope.type, request.task_type, declared)
        known = self._worker(route, targets, requirement, envelope)
        name = pool_name(requirement) if known is None else known.address
        endpoint = known.endpoint if known is not None else None
        adapter = self._adapter_of(targets)
        defaults = self.defaults.get(adapter, self._deliveries.defaults)
        delivery = self._deliveries.make(offer, name, route, endpoint, defaults)
        ttl_s = endpoint.queue_ttl_s if endpoint is not None else None
        ttl_s = defaults.queue_ttl_s if ttl_s is None else ttl_s
        delivery.wait_us = int((route.route.hold_s or ttl_s) * 1e6)
        if not (adapter or route.route.timeout_s):
            delivery.timeout_us = 0  # whoever takes it says
        self._as_task(delivery, request)
        plan.add(delivery)
        if delivery.state is DeliveryState.DONE or known is None:
            return
        if self._directory.able(known.endpoint, requirement):
            if known.records:
                plan.rows += self._recording.rows(known.endpoint, delivery) or ()
        else:
            ended(delivery, Outcome.DEAD, "no_converter")

    def is_for(self, endpoint: Endpoint, request: TaskRequest) -> bool:
        """Tell whether an endpoint may do a task: it takes requests, of that type and labels."""
        labels = tuple(sorted(request.labels.items()))
        requirement = Requirement((), labels, TASK_REQUEST, request.task_type)
        return self._directory.able(endpoint, requirement)

    def _adapter_of(self, targets: tuple[str, ...]) -> str:
        """Return whose endpoints these are, known or still to come; empty for several adapters'."""
        adapters = {target.split(".", 1)[0] for target in targets}
        only = adapters.pop() if len(adapters) == 1 else ""
        return "" if is_pattern(only) else only

    def _worker(
        self,
        route: CompiledRoute,
        targets: tuple[str, ...],
        requirement: Requirement,
        envelope: Envelope,
    ) -> Known | None:
        """Return the one worker a task is for; None when a pool of them decides later."""
        if len(targets) == 1 and not is_pattern(targets[0]):
            return self._directory.get(targets[0])
        if route.route.deliver == "sticky":
            members = self._directory.eligible(requirement)
            chosen = choose_sticky(route.key_of(envelope) or "", members)
            return None if chosen is None else members[chosen]
        return None

    def _as_task(self, delivery: Delivery, request: TaskRequest) -> None:
        """Make a delivery leased, and give it what the asker of the task said."""
        delivery.leased = True
        delivery.durable = True
        delivery.task_id = request.task_id
        delivery.task_type = request.task_type
        if request.max_attempts is not None:
            delivery.max_attempts = request.max_attempts
        if request.timeout_s is not None:
            delivery.timeout_us = int(request.timeout_s * 1e6)
        now_us = delivery.created_us
        if request.not_before is not None:
            delivery.due_us = parse_time(request.not_before, what="not_before")
            now_us = max(now_us, delivery.due_us)
            delivery.rank = rank_of(
                created_us=delivery.created_us,
                not_before_us=delivery.due_us,
                priority=delivery.envelope.priority,
                keyed=delivery.lane is not None,
            )
        delivery.deadline_us = deadline_of(delivery, now_us=now_us)
