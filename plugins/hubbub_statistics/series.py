"""Figures put into series over a window, as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from hubbub.errors import InvalidError
from hubbub_statistics.tables import GAUGE, USER, Read

__all__ = ["MAX_POINTS", "Series", "Window"]

MAX_POINTS: Final = 2000
"""Buckets of one window."""

COUNTERS: Final = ("messages_in", "messages_out")
GAUGES: Final = ("active_users", "db_bytes", "fs_bytes")

Points = list[tuple[int, float]]
"""Beginning of each bucket, seconds since the epoch, and the value."""


@dataclass(frozen=True, slots=True)
class Window:
    """From when on, in which steps, until now; in seconds."""

    from_s: int
    until_s: int
    bucket_s: int

    @classmethod
    def of(cls, *, now_s: int, window_s: float, bucket_s: float) -> Self:
        """Return the buckets that touch a window.

        Raises:
            InvalidError: too short, or too many steps.
        """
        step = int(bucket_s)
        if step < 60 or step % 60 or window_s < step:  # noqa: PLR2004  # whole minutes
            raise InvalidError(
                "bucket must be whole minutes and window at least as long, such as "
                "?window=1h&bucket=1m"
            )
        begin = int(now_s - window_s)
        found = cls(begin - begin % step, now_s, step)
        if len(found.places) > MAX_POINTS:
            raise InvalidError(
                f"a window has at most {MAX_POINTS} buckets; ask for a larger bucket"
            )
        return found

    @property
    def places(self) -> range:
        """Beginnings of its buckets, the one that runs included."""
        return range(self.from_s, self.until_s - self.until_s % self.bucket_s + 1, self.bucket_s)

    def place_of(self, ts: int) -> int:
        """Return the bucket of a time."""
        return ts - ts % self.bucket_s


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted.

    Attributes:
        calls: Deliveries that were taken, by `<adapter>:<name>` of the endpoint, else its address.
        figures: One number for the whole window of each.
    """

    messages_in: Points
    messages_out: Points
    calls: dict[str, Points]
    active_users: Points
    db_bytes: Points
    fs_bytes: Points
    figures: dict[str, float]

    @classmethod
    def of(
        cls,
        window: Window,
        kept: Sequence[Read],
        users: Iterable[tuple[int, str]],
        running: Iterable[Read],
    ) -> Self:
        """Put figures together.

        Args:
            users: Who spoke in which bucket; where it is known no more, the highest minute holds.
            running: Figures of the minute that runs.
        """
        spoke: dict[int, set[str]] = {}
        for ts, user in users:
            spoke.setdefault(ts, set()).add(user)
        values: dict[tuple[str, str], dict[int, float]] = {}
        for ts, metric, label, value in (*kept, *running):
            place = window.place_of(ts)
            if metric == USER:
                spoke.setdefault(place, set()).add(label)
                continue
            series = values.setdefault((metric, label), {})
            if metric in GAUGES:
                series[place] = max(series.get(place, 0.0), value)
            else:
                series[place] = series.get(place, 0.0) + value
        active = values.setdefault(("active_users", GAUGE), {})
        for place, people in spoke.items():
            active[place] = max(active.get(place, 0.0), len(people))
        counted = {name: _filled(window, values.get((name, ""), {})) for name in COUNTERS}
        calls = {
            label: _filled(window, series)
            for (metric, label), series in sorted(values.items())
            if metric == "calls"
        }
        gauges = {name: _measured(window, values.get((name, GAUGE), {})) for name in GAUGES}
        minutes = max(1.0, (window.until_s - window.from_s) / 60)
        everybody = len({user for users in spoke.values() for user in users})
        figures = {
            "messages_per_minute": round(_total(counted["messages_in"]) / minutes, 3),
            "calls_per_minute": round(sum(map(_total, calls.values())) / minutes, 3),
            "active_users": max([everybody, *(value for _, value in gauges["active_users"])]),
            "db_bytes": gauges["db_bytes"][-1][1] if gauges["db_bytes"] else 0,
            "fs_bytes": gauges["fs_bytes"][-1][1] if gauges["fs_bytes"] else 0,
        }
        return cls(**counted, **gauges, calls=calls, figures=figures)


def _filled(window: Window, series: dict[int, float]) -> Points:
    """Return a counter in all buckets; nothing counted is 0."""
    return [(place, series.get(place, 0.0)) for place in window.places]


def _measured(window: Window, series: dict[int, float]) -> Points:
    """Return a gauge in the buckets in which it was measured."""
    return [(place, series[place]) for place in window.places if place in series]


def _total(points: Points) -> float:
    return sum(value for _, value in points)
