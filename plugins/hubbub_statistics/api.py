"""Statistics over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute

from hubbub.errors import UnavailableError
from hubbub.times import parse_duration
from hubbub.web import Call, Operation, Reply, operation_routes
from hubbub_statistics.keeper import Keeper
from hubbub_statistics.series import Window

__all__ = ["routes"]


def routes(keeper: Callable[[], Keeper | None]) -> list[BaseRoute]:
    """Return the one path."""

    async def show(call: Call) -> Reply:
        """Show series of the last `?window=` (1h) in steps of `?bucket=` (1m)."""
        kept = keeper()
        if kept is None:
            raise UnavailableError("the plugin stat has ended")
        window_s = parse_duration(call.argument("window") or "1h", what="window")
        bucket_s = parse_duration(call.argument("bucket") or "1m", what="bucket")
        now_s = call.core.clock.now_us() // 1_000_000
        window = Window.of(now_s=now_s, window_s=window_s, bucket_s=bucket_s)
        series = await kept.series(window)
        return Reply(
            200,
            {"from": window.from_s, "until": now_s, "bucket_s": window.bucket_s, "series": series},
        )

    operations = [Operation("GET", "/api/stats", show, "What went through the hub", ("read",))]
    return [*operation_routes(operations)]
