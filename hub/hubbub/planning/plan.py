"""A plan: what shall become of one envelope, as far as it is decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.ports import Row
from hubbub.routing import CompiledRoute
from hubbub.values import Delivery, DeliveryState, Outcome, Route

__all__ = ["ANY_WORKER", "DIRECT", "REPLY", "TASKS_ROUTE", "Offer", "Plan", "ended", "is_own"]


def compiled(route: Route) -> CompiledRoute:
    """Return one of the router's own routes, made ready."""
    return CompiledRoute(route, (9, 0), None, None, labels=())


DIRECT: Final = compiled(Route(name="direct", match=">", to=("direct",), deliver="all"))
TASKS_ROUTE: Final = Route(
    name="tasks: to any worker",
    match="tasks.*.request",
    to=(">",),
    types=(TASK_REQUEST,),
    deliver="one",
    fallback=True,
    origin="plugin",
)
"""Where a task goes when nobody said where: to any endpoint that declares its type."""

ANY_WORKER: Final = compiled(
    Route(name="any worker", match=">", to=(">",), deliver="one", fallback=True)
)
"""The same for a task on any other subject, that no route takes."""
REPLY: Final = compiled(Route(name="reply", match=">", to=("reply",), deliver="all"))


def is_own(route: CompiledRoute) -> bool:
    """Tell whether a route is the hub's own, which nobody wrote: it reaches declared workers."""
    return route is ANY_WORKER or route.route is TASKS_ROUTE


@dataclass(slots=True)
class Plan:
    """What shall become of one envelope."""

    deliveries: list[Delivery]
    rows: list[Row]
    reason: str | None = None
    """Why it is unrouted; None when there is a delivery."""
    _mailboxes: set[str] = field(default_factory=set[str])

    def has(self, mailbox: str) -> bool:
        """Tell whether a mailbox gets it already: at most one delivery each."""
        return mailbox in self._mailboxes

    def add(self, delivery: Delivery) -> None:
        """Take in one delivery more."""
        self.deliveries.append(delivery)
        self._mailboxes.add(delivery.mailbox)


@dataclass(slots=True)
class Offer:
    """An envelope under way to its plan."""

    envelope: Envelope
    seq: int
    now_us: int
    durable: bool
    plan: Plan


def ended(delivery: Delivery, outcome: Outcome, reason: str | None) -> Delivery:
    """Return a delivery that ended before it began."""
    delivery.state = DeliveryState.DONE
    delivery.outcome = outcome
    delivery.reason = reason
    return delivery
