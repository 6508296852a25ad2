"""A node's and a user's connection as values: what they said, what they may be given. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from hubbub_octohub.records import NodeRule
from hubbub_octohub.wire import NodeFrame, NodeReady, Stopping

__all__ = ["Abilities", "NodeSession", "Wishes", "rule_for"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a node may be given: types, labels, tasks at once; 0 tasks when it is not ready."""

    task_types: frozenset[str]
    labels: Mapping[str, str]
    concurrency: int


@dataclass(frozen=True, slots=True)
class NodeSession:
    """One connection of a node. Every change returns a new value; times are Unix seconds.

    A node of the original may never say `node_ready`, because the version of a library silences
    it, and it says nothing of what it does. So whoever has not said it in time is taken for one of
    those, and is given the types that all of them have.

    Attributes:
        ready: What it said of itself; None as long as it has not.
        stopping: It wants no more tasks.
    """

    pc_id: str
    connected_s: float
    seen_s: float
    ready: NodeReady | None = None
    stopping: bool = False

    def receive(self, frame: NodeFrame | None, *, now_s: float) -> Self:
        """Apply one frame; None is one that could not be read, which is a sign of life too."""
        if isinstance(frame, NodeReady):
            return replace(self, seen_s=now_s, ready=frame)
        if isinstance(frame, Stopping):
            return replace(self, seen_s=now_s, stopping=True)
        return replace(self, seen_s=now_s)

    def has(self, feature: str) -> bool:
        """Tell whether it understands something that the original's nodes do not."""
        return self.ready is not None and feature in self.ready.features

    def abilities(
        self,
        rule: NodeRule | None,
        *,
        legacy_types: Iterable[str],
        ready_wait_s: float,
        now_s: float,
    ) -> Abilities:
        """Return what it may be given now.

        Args:
            rule: What an administrator said of it, which is stronger than what it says itself.
            legacy_types: Types of a node that does not say any.
            ready_wait_s: How long it may take to say `node_ready`.
        """
        waits = self.stopping
        waits = waits or (self.ready is None and now_s - self.connected_s < ready_wait_s)
        said = self.ready or NodeReady()
        types, labels, concurrency = said.task_types, dict(said.labels), said.max_concurrency
        if rule is not None:
            types = types if rule.task_types is None else rule.task_types
            labels.update(rule.labels)
            concurrency = rule.max_concurrency or concurrency
            waits = waits or not rule.enabled
        return Abilities(
            frozenset(legacy_types if types is None else types), labels, 0 if waits else concurrency
        )


def rule_for(rules: Iterable[NodeRule], pc_id: str) -> NodeRule | None:
    """Return the first rule that is about a node; they stand in order of how exact they are."""
    return next((rule for rule in rules if rule.covers(pc_id)), None)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Which events of tasks a user wants to be told."""

    everything: bool = False
    task_ids: frozenset[str] = field(default_factory=frozenset[str])
    task_types: frozenset[str] = field(default_factory=frozenset[str])

    def add(self, *, task_id: str | None = None, task_type: str | None = None) -> Self:
        """Return these wishes and one more; without a name it is for everything."""
        if task_id is None and task_type is None:
            return replace(self, everything=True)
        if task_id is not None:
            return replace(self, task_ids=self.task_ids | {task_id})
        return replace(self, task_types=self.task_types | {str(task_type)})

    def remove(self, *, task_id: str | None = None, task_type: str | None = None) -> Self:
        """Return these wishes without one; without a name nothing is left."""
        if task_id is None and task_type is None:
            return type(self)()
        if task_id is not None:
            return replace(self, task_ids=self.task_ids - {task_id})
        return replace(self, task_types=self.task_types - {str(task_type)})

    def want(self, task_id: str, task_type: str) -> bool:
        """Tell whether an event shall be told."""
        return self.everything or task_id in self.task_ids or task_type in self.task_types

    def __bool__(self) -> bool:
        return self.everything or bool(self.task_ids or self.task_types)

    def __len__(self) -> int:
        return len(self.task_ids) + len(self.task_types)
