"""Counters and histograms for the path of a message: plain numbers until somebody scrapes.

A child of prometheus-client takes a lock and walks over its buckets each time; these are used on
the event loop only, and need neither.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["Spread", "Spreads", "Tallies", "Tally"]


class Tally:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count something."""
        self.value += amount


class Spread:
    """How values spread over buckets.

    Attributes:
        counts: Values by bucket, those above the last bound at the end.
        total: Sum of all values.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final = bounds
        self.counts: Final = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, *, times: int = 1) -> None:
        """Note a value, so many times."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times


C = TypeVar("C", Tally, Spread)


class _Family(Collector, Generic[C]):
    """The children of one metric, by the values of its labels."""

    def __init__(self, name: str, doc: str, labels: Sequence[str], make: Callable[[], C]) -> None:
        self._name = name
        self._doc = doc
        self._labels = labels
        self._make: Callable[[], C] = make
        self._children: dict[tuple[str, ...], C] = {}

    def labels(self, *values: str) -> C:
        """Return the child with these values, made when first asked for."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._make()
        return child

    def _now(self) -> list[tuple[tuple[str, ...], C]]:
        """Return what is there: the text is made in a thread, while children come to be."""
        return list(self._children.items())


class Tallies(_Family[Tally]):
    """A counter."""

    def __init__(self, name: str, doc: str, labels: Sequence[str]) -> None:
        super().__init__(name, doc, labels, Tally)

    def collect(self) -> Iterable[Metric]:
        """Yield it for a scrape."""
        family = CounterMetricFamily(self._name, self._doc, labels=self._labels)
        for values, child in self._now():
            family.add_metric(values, child.value)
        yield family


class Spreads(_Family[Spread]):
    """A histogram.

    Args:
        bounds: Upper bounds of its buckets, without infinity.
    """

    def __init__(
        self, name: str, doc: str, labels: Sequence[str], *, bounds: Sequence[float]
    ) -> None:
        super().__init__(name, doc, labels, lambda: Spread(bounds))
        self._shown = [*map(str, bounds), "+Inf"]

    def collect(self) -> Iterable[Metric]:
        """Yield it for a scrape."""
        family = HistogramMetricFamily(self._name, self._doc, labels=self._labels)
        for values, child in self._now():
            upto = accumulate(tuple(child.counts))
            family.add_metric(values, list(zip(self._shown, upto, strict=True)), child.total)
        yield family
