"""Trace context (W3C) and the ring of recent steps.

Durable envelopes, deliveries and attempts are steps of a trace already, by their rows; the ring
holds what has no row: steps of volatile messages, and of the last minutes for live views.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["RING_STEPS", "Step", "Tracer", "parse_traceparent"]

RING_STEPS: Final = 20_000
"""Steps kept in memory; older ones are forgotten."""

# Version 00 has exactly four fields; a later version may add some (W3C Trace Context, 3.2.2).
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened on a trace."""

    trace_id: str
    name: str
    at_us: int
    took_us: int
    detail: Mapping[str, object]


def parse_traceparent(header: str | None) -> tuple[str, str] | None:
    """Return `(trace id, span id)` of a W3C traceparent header; None when there is no valid one."""
    if header is None:
        return None
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or (header.startswith("00") and found[3]):
        return None
    trace_id, span_id = found[1], found[2]
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    return trace_id, span_id


class Tracer:
    """The ring of recent steps."""

    def __init__(self, size: int = RING_STEPS) -> None:
        self._ring: deque[tuple[str, str, int, int, Mapping[str, object]]] = deque(maxlen=size)

    def step(
        self, trace_id: str, name: str, at_us: int, took_us: int, detail: Mapping[str, object]
    ) -> None:
        """Note a step."""
        self._ring.append((trace_id, name, at_us, took_us, detail))

    def newest_first(self) -> Iterator[Step]:
        """Yield all steps, the newest first."""
        for step in reversed(tuple(self._ring)):
            yield Step(*step)

    def of_trace(self, trace_id: str) -> list[Step]:
        """Return the steps of one trace, in order."""
        return [Step(*step) for step in list(self._ring) if step[0] == trace_id]
