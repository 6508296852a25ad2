"""What a benchmark found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

from tests.bench.hubs import Sample

__all__ = ["Line", "compared", "print_lines"]

HEADS: Final = (
    "line", "unit", "floor", "hub", "ratio", "target",
    "p50 ms", "p99 ms", "cpu us", "floor us", "note",
)  # fmt: skip


class Line(msgspec.Struct, kw_only=True):
    """One line of a table.

    Attributes:
        floor: The reference in the same run; None where there is none.
        ratio: Hub by floor, the median over the rounds; None where there is no floor.
        target: What the ratio or the figure shall be; empty where nothing is promised.
        cpu_us: CPU time of the hub's process, all threads, microseconds a request.
        note: Whatever went wrong, or is worth saying.
    """

    bench: str
    name: str
    unit: str
    hub: float
    floor: float | None = None
    ratio: float | None = None
    target: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None
    floor_cpu_us: float | None = None
    note: str = ""


def compared(
    bench: str,
    name: str,
    rounds: Sequence[tuple[Sample, Sample]],
    *,
    unit: str = "req/s",
    per_request: int = 1,
    target: str = "",
) -> Line:
    """Return the line of rounds, each a sample of the floor and one of the hub."""
    floors = [floor for floor, _ in rounds]
    hubs = [hub for _, hub in rounds]
    return Line(
        bench=bench,
        name=name,
        unit=unit,
        hub=median(s.result.rate for s in hubs) * per_request,
        floor=median(s.result.rate for s in floors) * per_request,
        ratio=median(h.result.rate / max(1e-9, f.result.rate) for f, h in rounds),
        target=target,
        p50_ms=median(s.result.p50_ms for s in hubs),
        p99_ms=median(s.result.p99_ms for s in hubs),
        cpu_us=median(s.cpu_us for s in hubs),
        floor_cpu_us=median(s.cpu_us for s in floors),
        note=trouble([*floors, *hubs]),
    )


def trouble(samples: Sequence[Sample]) -> str:
    """Return what was not as it should be: errors, and answers other than 2xx."""
    errors = sum(s.result.errors for s in samples)
    said = [f"{errors} errors"] if errors else []
    for sample in samples:
        for status, count in sample.result.statuses.items():
            if not status.startswith("2"):
                head, _, body = sample.result.sample.partition("\r\n\r\n")
                said.append(f"{count} x {status}: {(body or head)[:120]}")
    return "; ".join(said)


def print_lines(lines: Sequence[Line]) -> None:
    """Print a table."""
    rows = [HEADS] + [_row(line) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column in (0, 1, 5, 10) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def _row(line: Line) -> tuple[str, ...]:
    return (
        f"{line.bench}: {line.name}",
        line.unit,
        _figure(line.floor),
        _figure(line.hub),
        "" if line.ratio is None else f"{line.ratio:.2f}",
        line.target,
        _figure(line.p50_ms),
        _figure(line.p99_ms),
        _figure(line.cpu_us),
        _figure(line.floor_cpu_us),
        line.note,
    )


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
