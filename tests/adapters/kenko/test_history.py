"""Applications that have left are remembered for a while, by a clock that is trusted."""

from __future__ import annotations

from pathlib import Path

from hubbub.testing import FakeClock
from hubbub_kenko.history import KEPT_US
from tests.adapters.kenko.serving import Kenko, running_kenko


async def names(kenko: Kenko) -> set[str]:
    """Return who is remembered once the adapter has begun anew."""
    await kenko.core.adapters.restart("kenko")
    items = (await kenko.http.get("/api/kenko/apps")).json()["items"]
    return {item["name"] for item in items}


async def test_a_far_jump_of_the_clock_forgets_nobody(tmp_path: Path) -> None:
    """Until an operator has confirmed the time."""
    clock = FakeClock()
    async with running_kenko(tmp_path / "hub", clock=clock) as kenko:
        async with kenko.app(name="old"):
            pass
        assert await names(kenko) == {"old"}
        clock.jump(KEPT_US / 1e6 + 3601)
        assert await names(kenko) == {"old"}
        await kenko.core.hold.confirm(clock.now_us())
        assert await names(kenko) == set()
