"""A registry of metrics: made once by name, asked for again by whoever names them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeGuard, cast, overload

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from hubbub.observe.labels import Bounds, Gauges, Labelled, Labels
from hubbub.observe.tallies import Spread, Spreads, Tallies, Tally

__all__ = ["SCRAPE_S", "SECONDS", "Described", "Registry"]

SCRAPE_S: Final = 2.0
"""Seconds a scrape waits for one callback; then its gauges are those of the scrape before."""

SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip
"""Buckets of what may take a moment or minutes."""

_PREFIX: Final = "hubbub_"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as it is seen from outside; `name` is the exported one."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Registry:
    """Metrics by name.

    Attributes:
        registry: Holds all of them, and those of the process.
    """

    def __init__(self, *, scrape_s: float = SCRAPE_S) -> None:
        self._scrape_s = scrape_s
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice as many series, for a moment nobody asks for
        self.registry = CollectorRegistry(auto_describe=True)
        self._made: dict[str, tuple[Described, object]] = {}
        self._bounds = Bounds()
        self._callbacks: list[Callable[[], Awaitable[None] | None]] = []
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    @overload
    def counter(self, name: str, doc: str) -> Counter: ...
    @overload
    def counter(self, name: str, doc: str, labels: Labels) -> Labelled[Counter]: ...
    def counter(
        self, name: str, doc: str, labels: tuple[str, ...] = ()
    ) -> Counter | Labelled[Counter]:
        """Return the counter `hubbub_<name>_total`; the same one for the same name.

        Raises:
            ValueError: there is such a metric, of another kind or with other labels.
        """

        def make(full_name: str) -> Counter | Labelled[Counter]:
            made = Counter(full_name, doc, labels, registry=self.registry)
            return Labelled(made.labels, labels, self._bounds) if _some(labels) else made

        name = f"{name.removesuffix('_total')}_total"
        return cast("Counter | Labelled[Counter]", self._once(name, "counter", labels, doc, make))

    def tally(self, name: str, doc: str, labels: Labels) -> Labelled[Tally]:
        """Return a counter for the path of a message, to be used on the event loop only.

        Raises:
            ValueError: there is such a metric, of another kind or with other labels.
        """

        def make(full_name: str) -> Labelled[Tally]:
            made = Tallies(full_name, doc, labels)
            self.registry.register(made)
            return Labelled(made.labels, labels, self._bounds)

        name = f"{name.removesuffix('_total')}_total"
        return cast("Labelled[Tally]", self._once(name, "counter", labels, doc, make))

    @overload
    def spread(self, name: str, doc: str, *, buckets: tuple[float, ...]) -> Spread: ...
    @overload
    def spread(
        self, name: str, doc: str, labels: Labels, *, buckets: tuple[float, ...]
    ) -> Labelled[Spread]: ...
    def spread(
        self, name: str, doc: str, labels: tuple[str, ...] = (), *, buckets: tuple[float, ...]
    ) -> Spread | Labelled[Spread]:
        """Return a histogram for the path of a message, to be used on the event loop only.

        Raises:
            ValueError: there is such a metric, of another kind or with other labels.
        """

        def make(full_name: str) -> Spread | Labelled[Spread]:
            made = Spreads(full_name, doc, labels, bounds=buckets)
            self.registry.register(made)
            return Labelled(made.labels, labels, self._bounds) if _some(labels) else made.labels()

        found = self._once(name, "histogram", labels, doc, make)
        return cast("Spread | Labelled[Spread]", found)

    @overload
    def gauge(self, name: str, doc: str) -> Gauge: ...
    @overload
    def gauge(self, name: str, doc: str, labels: Labels) -> Gauges: ...
    def gauge(self, name: str, doc: str, labels: tuple[str, ...] = ()) -> Gauge | Gauges:
        """Return the gauge `hubbub_<name>`; the same one for the same name.

        Raises:
            ValueError: there is such a metric, of another kind or with other labels.
        """

        def make(full_name: str) -> Gauge | Gauges:
            made = Gauge(full_name, doc, labels, registry=self.registry)
            return Gauges(made.labels, labels, self._bounds) if _some(labels) else made

        return cast("Gauge | Gauges", self._once(name, "gauge", labels, doc, make))

    @overload
    def histogram(self, name: str, doc: str, *, buckets: tuple[float, ...] = ...) -> Histogram: ...
    @overload
    def histogram(
        self, name: str, doc: str, labels: Labels, *, buckets: tuple[float, ...] = ...
    ) -> Labelled[Histogram]: ...
    def histogram(
        self,
        name: str,
        doc: str,
        labels: tuple[str, ...] = (),
        *,
        buckets: tuple[float, ...] = SECONDS,
    ) -> Histogram | Labelled[Histogram]:
        """Return the histogram `hubbub_<name>`; the same one for the same name.

        Raises:
            ValueError: there is such a metric, of another kind or with other labels.
        """

        def make(full_name: str) -> Histogram | Labelled[Histogram]:
            made = Histogram(full_name, doc, labels, buckets=buckets, registry=self.registry)
            return Labelled(made.labels, labels, self._bounds) if _some(labels) else made

        found = self._once(name, "histogram", labels, doc, make)
        return cast("Histogram | Labelled[Histogram]", found)

    def on_scrape(self, callback: Callable[[], Awaitable[None] | None]) -> Callable[[], None]:
        """Have `refresh` call this, to set gauges that nobody counts up and down.

        Args:
            callback: May give an awaitable, which a scrape waits for, up to `scrape_s` seconds.

        Returns:
            A function that takes the callback away again.
        """
        self._callbacks.append(callback)

        def forget() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return forget

    async def refresh(self) -> None:
        """Call the callbacks, before `render`. One that fails or takes too long is logged."""
        for callback in tuple(self._callbacks):
            try:
                more = callback()
                if more is not None:
                    await asyncio.wait_for(more, self._scrape_s)
            except Exception:  # noqa: BLE001  # adapters bring them; one must not hide all metrics
                _log.exception("a metrics callback failed; its gauges are stale")

    def render(self) -> bytes:
        """Return the text for Prometheus. Takes milliseconds: call it in a thread."""
        return generate_latest(self.registry)

    def described(self) -> list[Described]:
        """Return what the hub and its adapters registered, by name; not those of the process."""
        return sorted((described for described, _ in self._made.values()), key=lambda it: it.name)

    def _once(
        self,
        name: str,
        kind: str,
        labels: tuple[str, ...],
        doc: str,
        make: Callable[[str], object],
    ) -> object:
        full_name = f"{_PREFIX}{name.removeprefix(_PREFIX)}"
        if full_name in self._made:
            described, made = self._made[full_name]
            if (described.kind, described.labels) != (kind, labels):
                raise ValueError(
                    f"metric {full_name!r} is a {described.kind} with labels {described.labels}, "
                    f"not a {kind} with labels {labels}; give the new one another name"
                )
            return made
        made = make(full_name)
        self._made[full_name] = (Described(full_name, kind, labels, doc), made)
        return made


def _some(labels: tuple[str, ...]) -> TypeGuard[Labels]:
    return bool(labels)
