"""The rules by number, what breaks them, and the facts that checks look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hubbub.core import Core
from hubbub.delivery.links import EndpointLink

RULES: Final = {
    1: "acknowledged and durable implies stored; stored is waiting, in flight, or done once",
    2: "an outcome never changes",
    3: "the state of a task is a function of its delivery",
    4: "one result a run, its envelope exactly once",
    5: "of one key: first hand-overs in rank order, one in flight",
    6: "never more in flight than slots; a closed link has nothing; what nobody saw takes no slot",
    7: "at most one delivery per envelope and endpoint; attempts within their limit",
    8: "equal claims: equal answers, one envelope",
    9: "depth of a mailbox is what is reserved and what waits",
    10: "nothing waits without a reason",
    11: "what fails changes nothing but its own",
    13: "nobody is given more than their guard lets through",
    14: "nothing is kept for what is over",
    15: "what is shown of a task is written, and never taken back",
}


class BrokenRuleError(AssertionError):
    """A rule does not hold."""

    def __init__(self, rule: int, fact: str) -> None:
        self.rule = rule
        super().__init__(f"rule {rule} ({RULES[rule]}): {fact}")


class DeliveryFacts(NamedTuple):
    """What a row of `delivery` says."""

    id: int
    envelope_seq: int
    mailbox: str
    leased: bool
    rank: int
    lane: str | None
    max_attempts: int
    task_id: str | None
    replay_of: int | None
    endpoint: str | None
    state: str
    outcome: str | None
    reason: str | None
    attempts: int
    due_us: int
    deadline_us: int | None
    lease_until_us: int | None


class TaskFacts(NamedTuple):
    """What a row of `task` says."""

    id: str
    state: str
    run: int
    delivery_id: int | None
    endpoint: str | None
    attempt: int
    result: bytes | None
    error: str | None
    orphan: bool
    finished_us: int | None


@dataclass(slots=True)
class Rows:
    """All rows as they are after a commit."""

    deliveries: dict[int, DeliveryFacts] = field(default_factory=dict[int, DeliveryFacts])
    tasks: dict[str, TaskFacts] = field(default_factory=dict[str, TaskFacts])
    envelopes: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    results: Counter[str] = field(default_factory=Counter[str])
    open_attempts: Counter[str] = field(default_factory=Counter[str])


class Moment(NamedTuple):
    """What memory looks like when nothing is under way.

    Attributes:
        seen: Attempts that peers were handed: the link, the delivery's id, the attempt's number.
    """

    core: Core
    rows: Rows
    links: Mapping[str, EndpointLink]
    now_us: int
    since_us: int
    seen: Set[tuple[EndpointLink, int, int]]
