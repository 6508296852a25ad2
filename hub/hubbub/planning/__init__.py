"""Steps 5 to 8 of the router: a stamped envelope becomes deliveries. No store, no waiting."""

from hubbub.planning.deliveries import TryHard
from hubbub.planning.plan import TASKS_ROUTE, Plan
from hubbub.planning.planner import Planner

__all__ = ["TASKS_ROUTE", "Plan", "Planner", "TryHard"]
