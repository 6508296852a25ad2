"""The nouns that the rooms hand each other: routes, endpoints, deliveries, tasks, presence."""

from hubbub.values.deliveries import Delivery, DeliveryState, Outcome
from hubbub.values.endpoints import (
    EVERYTHING,
    Endpoint,
    Overflow,
    Presence,
    PresenceState,
    Requirement,
)
from hubbub.values.publishing import Principal, Receipt
from hubbub.values.routes import Deliver, Origin, Route, RouteCase
from hubbub.values.tasks import Attempt, Submission, Task, TaskResult, TaskState

__all__ = [
    "EVERYTHING",
    "Attempt",
    "Deliver",
    "Delivery",
    "DeliveryState",
    "Endpoint",
    "Origin",
    "Outcome",
    "Overflow",
    "Presence",
    "PresenceState",
    "Principal",
    "Receipt",
    "Requirement",
    "Route",
    "RouteCase",
    "Submission",
    "Task",
    "TaskResult",
    "TaskState",
]
