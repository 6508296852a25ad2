"""The metrics of the hub itself; adapters and plugins add theirs to the same registry.

The hot path writes `metrics.envelopes_accepted["relay"].inc()`: children are looked up in a dict.
What is counted elsewhere (waiting deliveries, endpoints, tasks) is asked for at scrape time. The
table for operators is docs/metrics.md.
"""

from __future__ import annotations

from typing import Final

from hubbub.observe.registry import SCRAPE_S, SECONDS, Registry

__all__ = ["Metrics"]

PUBLISH_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
COMMIT_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
BATCH_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Metrics(Registry):
    """The metrics of one hub. Adapters add theirs with `counter`, `gauge` and `histogram`."""

    def __init__(self, *, version: str | None = None, scrape_s: float = SCRAPE_S) -> None:
        super().__init__(scrape_s=scrape_s)
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
        self.conditions_skipped = self.counter(
            "conditions_skipped",
            "Conditions that did not run, and so did not hold, for what they would cost",
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
        self.requests_refused = self.counter(
            "requests_refused", "Requests not served because of where they come from", ("reason",)
        )

        self.auth_failures = self.counter(
            "auth_failures", "Credentials that were not valid", ("kind",)
        )
        self.auth_refused = self.counter(
            "auth_refused", "Attempts answered 429 after too many failures", ("kind",)
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
            buckets=SECONDS,
        )
        self.replies_late = self.counter(
            "replies_late", "Answers that came after the request's deadline"
        )
        self.dials = self.gauge(
            "dials", "Links that the hub dials itself, by state", ("adapter", "state")
        )
        self.dial_failures = self.counter(
            "dial_failures",
            "Attempts to connect that failed, and links lost",
            ("adapter", "reason"),
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
