"""Metrics by the values of their labels, so many and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from hubbub.observe.tallies import Spread, Tally

__all__ = [
    "MAX_ADAPTERS",
    "MAX_LABEL_VALUES",
    "OTHER",
    "Bounds",
    "Gauges",
    "Key",
    "Labelled",
    "Labels",
    "total_of",
    "value_of",
]

MAX_ADAPTERS: Final = 64
"""Distinct values of the label `adapter`; the rest is counted as `OTHER`."""

MAX_LABEL_VALUES: Final = 256
"""Distinct values of any other label; the rest is counted as `OTHER`."""

OTHER: Final = "other"

Labels = tuple[str, *tuple[str, ...]]
"""Names of labels, at least one."""

Key = str | tuple[str, ...]
"""One label value, or a tuple of them in the order of the label names."""

M = TypeVar("M", Counter, Gauge, Histogram, Tally, Spread)


class Bounds:
    """The values each label has had, so that none grows without end."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
        """Return the value, or `OTHER` where the label has had too many."""
        seen = self._seen.setdefault(label, set())
        if value not in seen:
            if len(seen) >= (MAX_ADAPTERS if label == "adapter" else MAX_LABEL_VALUES):
                return OTHER
            seen.add(value)
        return value


class Labelled(dict[Key, M], Generic[M]):
    """Children of one metric by their label values, made when first asked for.

    Attributes:
        labels: Names of the labels, in the order of a key.
    """

    def __init__(self, make: Callable[..., M], labels: Labels, bounds: Bounds) -> None:
        super().__init__()
        self.labels = labels
        self._make: Callable[..., M] = make
        self._bounds = bounds

    def __missing__(self, key: Key) -> M:
        values = self.bounded(key)
        child: M = self._make(*values)
        if values == (key if isinstance(key, tuple) else (key,)):  # `OTHER` is not kept per key
            self[key] = child
        return child

    def bounded(self, key: Key) -> tuple[str, ...]:
        """Return the label values a key is counted under.

        Raises:
            ValueError: not as many values as labels.
        """
        values = key if isinstance(key, tuple) else (key,)
        pairs = zip(self.labels, values, strict=True)
        return tuple(self._bounds.bounded(label, value) for label, value in pairs)


def total_of(counters: Labelled[Counter] | Labelled[Tally]) -> int:
    """Return the sum of a counter over all its labels."""
    return sum(value_of(child) for child in counters.values())


def value_of(child: Counter | Tally) -> int:
    """Return the value of a counter, by its public samples."""
    if isinstance(child, Tally):
        return child.value
    return int(
        sum(
            sample.value
            for family in child.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )
    )


class Gauges(Labelled[Gauge]):
    """A gauge with labels that is filled as a whole at scrape time."""

    def fill(self, values: Mapping[Key, float]) -> None:
        """Set every child: to its value, or to 0 when it has none any more."""
        sums: dict[tuple[str, ...], float] = {}
        for key in self:
            sums[self.bounded(key)] = 0.0
        for key, value in values.items():
            counted_as = self.bounded(key)
            sums[counted_as] = sums.get(counted_as, 0.0) + value
        for counted_as, value in sums.items():
            first, *more = counted_as
            self[counted_as if more else first].set(value)
