"""Statistics over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from starlette.routing import BaseRoute

from hubbub.times import parse_duration
from hubbub.web import (
    Call,
    Manners,
    Operation,
    Parameter,
    Reply,
    Spec,
    operation_routes,
    while_up,
)
from hubbub_statistics.keeper import Keeper
from hubbub_statistics.series import Series, Window

__all__ = ["routes"]


class SeriesView(msgspec.Struct):
    """Series of a window.

    Attributes:
        from_s, until: Seconds since the epoch.
        bucket_s: Length of a step, in seconds.
    """

    from_s: int = msgspec.field(name="from")
    until: int
    bucket_s: int
    series: Series


SPEC: Final = Spec(
    answers={200: SeriesView},
    parameters=(
        Parameter("window", "How long it is, such as `1h`.", {"type": "string", "default": "1h"}),
        Parameter(
            "bucket", "How long a step is, whole minutes.", {"type": "string", "default": "1m"}
        ),
    ),
)


def routes(keeper: Callable[[], Keeper | None]) -> list[BaseRoute]:
    """Return the one path."""
    here = while_up("the plugin stat", keeper)

    async def show(call: Call) -> Reply:
        """Show series of the last `?window=` (1h) in steps of `?bucket=` (1m)."""
        window_s = parse_duration(call.argument("window") or "1h", what="window")
        bucket_s = parse_duration(call.argument("bucket") or "1m", what="bucket")
        now_s = call.core.clock.now_us() // 1_000_000
        window = Window.of(now_s=now_s, window_s=window_s, bucket_s=bucket_s)
        series = await here().series(window)
        return Reply(200, SeriesView(window.from_s, now_s, window.bucket_s, series))

    scopes = ("read",)
    operation = Operation("GET", "/api/stats", show, "What went through the hub", scopes, SPEC)
    return [*operation_routes([operation], Manners(ready=here))]
