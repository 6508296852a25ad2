"""Who is here: known endpoints, their presence, and live sets of who a pattern covers.

Sets are kept up to date when somebody comes or goes, so that a publish never scans endpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from hubbub.conversion import Conversions
from hubbub.subjects import SubjectTrie, is_pattern, matches
from hubbub.values import Endpoint, Presence, PresenceState, Requirement

__all__ = ["Directory", "Known", "choose_sticky"]

MAX_SETS: Final = 4096
"""Patterns with a live set; the one unused longest is forgotten."""


@dataclass(slots=True, eq=False)
class Known:
    """One endpoint that is known: present, paused, or away and waited for.

    Attributes:
        records: Whether rows may be its taking (it has a `record` of its own).
    """

    endpoint: Endpoint
    state: PresenceState = PresenceState.OFFLINE
    records: bool = False

    @property
    def address(self) -> str:
        """Its address."""
        return self.endpoint.address

    @property
    def present(self) -> bool:
        """Whether it has a link, paused or not."""
        return self.state is not PresenceState.OFFLINE


@dataclass(slots=True)
class _Set:
    pattern: str
    members: dict[str, Known] = field(default_factory=dict[str, Known])


class Directory:
    """Addresses and what is known of them."""

    def __init__(self, conversions: Conversions) -> None:
        self._conversions = conversions
        self._known: dict[str, Known] = {}
        self._sets: OrderedDict[str, _Set] = OrderedDict()
        self._by_pattern: SubjectTrie[_Set] = SubjectTrie()
        self._watchers: list[Callable[[Presence], None]] = []

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, address: str) -> Known | None:
        """Return what is known of an address."""
        return self._known.get(address)

    def watch(self, watcher: Callable[[Presence], None]) -> None:
        """Call `watcher` after each change of somebody's presence."""
        self._watchers.append(watcher)

    def put(self, endpoint: Endpoint, state: PresenceState) -> Known:
        """Note an endpoint, or that it changed."""
        known = self._known.get(endpoint.address)
        if known is None:
            known = self._known[endpoint.address] = Known(endpoint)
            for found in self._by_pattern.find(endpoint.address):
                found.members[endpoint.address] = known
        known.endpoint = endpoint
        known.records = getattr(endpoint.record, "__func__", None) is not Endpoint.record
        self.mark(known, state)
        return known

    def mark(self, known: Known, state: PresenceState) -> None:
        """Note a presence; tells the watchers when it is new."""
        if known.state is state:
            return
        known.state = state
        self._tell(known)

    def forget(self, address: str) -> None:
        """The endpoint is gone."""
        known = self._known.pop(address, None)
        if known is None:
            return
        for found in self._by_pattern.find(address):
            found.members.pop(address, None)
        self.mark(known, PresenceState.OFFLINE)

    def members(self, pattern: str) -> Iterable[Known]:
        """Return all known endpoints an address or pattern covers."""
        if not is_pattern(pattern):
            known = self._known.get(pattern)
            return () if known is None else (known,)
        kept = self._sets.get(pattern)
        if kept is None:
            kept = self._keep_set(pattern)
        else:
            self._sets.move_to_end(pattern)
        return kept.members.values()

    def able(self, endpoint: Endpoint, requirement: Requirement) -> bool:
        """Tell whether an endpoint has the labels, and takes the type and the task type."""
        return (
            has_labels(endpoint, requirement.labels)
            and self._conversions.accepts(requirement.type, endpoint.accepts)
            and (requirement.task_type is None or _does(endpoint, requirement))
        )

    def covers(self, requirement: Requirement, endpoint: Endpoint) -> bool:
        """Tell whether an endpoint is a member of the pool that requires this."""
        return any(
            matches(pattern, endpoint.address) for pattern in requirement.patterns
        ) and self.able(endpoint, requirement)

    def eligible(self, requirement: Requirement) -> dict[str, Known]:
        """Return all known members of a pool, by address."""
        found: dict[str, Known] = {}
        for pattern in requirement.patterns:
            for known in self.members(pattern):
                if known.address not in found and self.able(known.endpoint, requirement):
                    found[known.address] = known
        return found

    def _keep_set(self, pattern: str) -> _Set:
        if len(self._sets) >= MAX_SETS:
            _, oldest = self._sets.popitem(last=False)
            self._by_pattern.remove(oldest.pattern, oldest)
        kept = _Set(pattern)
        for known in self._known.values():
            if matches(pattern, known.address):
                kept.members[known.address] = known
        self._sets[pattern] = kept
        self._by_pattern.add(pattern, kept)
        return kept

    def _tell(self, known: Known) -> None:
        presence = Presence(known.address, known.state, known.endpoint.labels)
        for watcher in self._watchers:
            watcher(presence)


def _does(endpoint: Endpoint, requirement: Requirement) -> bool:
    """Tell whether an endpoint does a task type, and has declared so where it must."""
    if endpoint.task_types is None:
        return not requirement.declared
    return requirement.task_type is not None and endpoint.does(requirement.task_type)


def has_labels(endpoint: Endpoint, labels: Iterable[tuple[str, str]]) -> bool:
    """Tell whether an endpoint has all these labels."""
    return all(endpoint.labels.get(name) == value for name, value in labels)


def choose_sticky(key: str, addresses: Iterable[str]) -> str | None:
    """Return the member that a key sticks to: rendezvous hashing, so that few keys move.

    When a member goes for good only its own keys find another one.
    """
    return max(
        addresses,
        key=lambda address: blake2b(f"{key}\0{address}".encode(), digest_size=8).digest(),
        default=None,
    )
