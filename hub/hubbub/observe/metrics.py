"""Every metric of the hub, in a registry of its own.

The hot path writes `metrics.envelopes_accepted["relay"].inc()`: children are looked up in a dict.
What is counted elsewhere (waiting deliveries, endpoints, tasks) is asked for at scrape time. The
table for operators is docs/metrics.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeGuard, TypeVar, cast, overload

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

from hubbub.observe.tallies import Spread, Spreads, Tallies, Tally

__all__ = [
    "MAX_ADAPTERS",
    "MAX_LABEL_VALUES",
    "OTHER",
    "Described",
    "Gauges",
    "Labelled",
    "Metrics",
    "total_of",
    "value_of",
]

MAX_ADAPTERS: Final = 64
"""Distinct values of the label `adapter`; the rest is counted as `OTHER`."""

MAX_LABEL_VALUES: Final = 256
"""Distinct values of any other label; the rest is counted as `OTHER`."""

OTHER: Final = "other"

PUBLISH_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
DELIVERY_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip
COMMIT_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
BATCH_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

_PREFIX: Final = "hubbub_"

_log = logging.getLogger(__name__)

Labels = tuple[str, *tuple[str, ...]]
"""Names of labels, at least one."""

Key = str | tuple[str, ...]
"""One label value, or a tuple of them in the order of the label names."""

M = TypeVar("M", Counter, Gauge, Histogram, Tally, Spread)


class _Bounds:
    """The values each label has had, so that none grows without end."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
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

    def __init__(self, make: Callable[..., M], labels: Labels, bounds: _Bounds) -> None:
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


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as it is seen from outside; `name` is the exported one."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str


class Metrics:
    """The metrics of one hub. Adapters add theirs with `counter`, `gauge` and `histogram`.

    Attributes:
        registry: Holds all of them, and those of the process.
    """

    def __init__(self, *, version: str | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice as many series, for a moment nobody asks for
        self.registry = CollectorRegistry(auto_describe=True)
        self._made: dict[str, tuple[Described, object]] = {}
        self._bounds = _Bounds()
        self._callbacks: list[Callable[[], None]] = []
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        self._make_incoming()
        self._make_outgoing()
        self._make_state()
        if version is not None:
            self.build_info[version].set(1)

    def _make_incoming(self) -> None:
        """Make those of what comes in."""
        self.envelopes_accepted = self.tally(
            "envelopes_accepted", "Envelopes taken in, by the adapter they came from", ("adapter",)
        )
        self.envelopes_refused = self.counter(
            "envelopes_refused", "Envelopes not taken in, and why", ("adapter", "reason")
        )
        self.envelopes_unrouted = self.tally(
            "envelopes_unrouted", "Envelopes taken in that went to nobody", ("adapter",)
        )
        self.publish_seconds = self.spread(
            "publish_seconds",
            "From taking an envelope to having it safe",
            buckets=PUBLISH_BUCKETS_S,
        )
        self.frames_refused = self.counter(
            "frames_refused", "Frames that could not be used, and why", ("adapter", "reason")
        )
        self.connections = self.gauge(
            "connections", "Connections that are open, by the listener's adapter", ("adapter",)
        )
        self.connections_refused = self.counter(
            "connections_refused",
            "Connections not let in, or closed over a limit, and why",
            ("adapter", "reason"),
        )

    def _make_outgoing(self) -> None:
        """Make those of what goes out, and of what keeps it."""
        self.deliveries = self.tally(
            "deliveries", "Deliveries that ended, and how", ("adapter", "outcome")
        )
        self.delivery_retries = self.counter(
            "delivery_retries", "Attempts after the first one", ("adapter",)
        )
        self.delivery_seconds = self.spread(
            "delivery_seconds",
            "From taking an envelope to the peer having it",
            ("adapter",),
            buckets=DELIVERY_BUCKETS_S,
        )
        self.replies_late = self.counter(
            "replies_late", "Answers that came after the request's deadline"
        )
        self.mailbox_depth = self.gauge("mailbox_depth", "Deliveries that wait", ("adapter",))
        self.guard_holds = self.counter(
            "guard_holds", "Times a guard began to hold an endpoint back", ("adapter", "guard")
        )
        self.breaker_opened = self.counter(
            "breaker_opened", "Times a circuit breaker opened", ("adapter",)
        )
        self.breakers = self.gauge(
            "breakers", "Circuit breakers of endpoints, by state", ("adapter", "state")
        )

    def _make_state(self) -> None:
        """Make those of how the hub stands."""
        self.build_info = self.gauge(
            "build_info", "Always 1; says which version runs", ("version",)
        )
        self.endpoints = self.gauge(
            "endpoints", "Endpoints that are known, by presence", ("adapter", "state")
        )
        self.tasks = self.gauge("tasks", "Tasks, by state", ("state",))
        self.routes = self.gauge("routes", "Routes in the table")
        self.adapter_up = self.gauge("adapter_up", "1 while the adapter is up", ("adapter",))
        self.plugin_errors = self.counter(
            "plugin_errors", "Exceptions and overruns in plugin code", ("plugin", "hook")
        )
        self.journal_commit_seconds = self.histogram(
            "journal_commit_seconds", "One commit of the journal", buckets=COMMIT_BUCKETS_S
        )
        self.journal_batch_size = self.histogram(
            "journal_batch_size", "Entries in one commit of the journal", buckets=BATCH_BUCKETS
        )

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
        buckets: tuple[float, ...] = DELIVERY_BUCKETS_S,
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

    def on_scrape(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `refresh` call this, to set gauges that nobody counts up and down.

        Returns:
            A function that takes the callback away again.
        """
        self._callbacks.append(callback)

        def forget() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return forget

    def refresh(self) -> None:
        """Call the callbacks; on the event loop, before `render`. One that fails is logged."""
        for callback in tuple(self._callbacks):
            try:
                callback()
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
