"""Random runs of a whole hub, by seed: everything may happen, and the rules hold.

`HUBBUB_RUNS=2000` runs that many seeds instead of 40; `HUBBUB_SEED=7` begins at another one.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubbub.delivery import mailbox, pulling
from hubbub.hookspecs import hookimpl
from hubbub.testing.stores import shared_server
from tests.hub.invariants.rules import BrokenRuleError
from tests.hub.invariants.steps import (
    STEPS,
    WITH_EARLY_ENDS,
    WITH_FREE_WORKERS,
    Step,
    one_step,
    prepare,
    run_steps,
)
from tests.hub.invariants.world import World, quietly

RUNS = int(os.environ.get("HUBBUB_RUNS", "40"))
FIRST = int(os.environ.get("HUBBUB_SEED", "0"))
STEPS_A_RUN = 120
CHUNK = 10


@contextmanager
def window(size: int) -> Generator[None]:
    """Keep so few deliveries in memory that the store is read all the time."""
    modules = (mailbox, pulling)
    before = mailbox.WINDOW
    for module in modules:
        setattr(module, "WINDOW", size)  # noqa: B010  # it is Final, and no setting
    try:
        yield
    finally:
        for module in modules:
            setattr(module, "WINDOW", before)  # noqa: B010


def run(
    folder: Path,
    seed: int,
    *,
    steps: int = STEPS_A_RUN,
    size: int = 256,
    store_url: str | None = None,
    weights: Mapping[Step, int] | None = None,
) -> None:
    """Do one run; what is broken is told with its story."""
    world: World | None = None

    async def whole() -> None:
        nonlocal world
        world = World(folder / str(seed), seed, store_url=store_url)
        try:
            await run_steps(world, steps, weights)
        finally:
            await world.close()

    try:
        with window(size):
            logged = quietly(whole)
    except BrokenRuleError as error:
        assert world is not None
        error.add_note(f"seed {seed}, window {size}, the last steps:")
        error.add_note("\n".join(world.story[-25:]))
        raise
    failed = [line for line in logged if line["event"] in ("task.failed", "store.entry_refused")]
    assert not failed, failed


@pytest.mark.timeout(60 + RUNS)
@pytest.mark.parametrize("size", [256, 4], ids=["window 256", "window 4"])
@pytest.mark.parametrize("first", range(FIRST, FIRST + RUNS // 2, CHUNK))
def test_the_rules_hold_over_random_runs(tmp_path: Path, first: int, size: int) -> None:
    """Whatever happens in whatever order, rules 1 to 10 hold, and at the end nothing is left."""
    for seed in range(first, min(first + CHUNK, FIRST + RUNS // 2)):
        run(tmp_path, seed, size=size)


@pytest.mark.timeout(60 + RUNS)
@pytest.mark.parametrize("first", range(FIRST, FIRST + RUNS // 2, CHUNK))
def test_the_rules_hold_where_workers_are_free(tmp_path: Path, first: int) -> None:
    """Tasks are promised while they are written, and whatever happens until then, happens."""
    for seed in range(first, min(first + CHUNK, FIRST + RUNS // 2)):
        run(tmp_path, seed, size=4 if seed % 2 else 256, weights=WITH_FREE_WORKERS)


@pytest.mark.timeout(60 + RUNS)
@pytest.mark.parametrize("first", range(FIRST, FIRST + RUNS // 2, CHUNK))
def test_the_rules_hold_where_much_ends_early(tmp_path: Path, first: int) -> None:
    """Nothing is kept for what was taken back, given up, or lost before it began."""
    for seed in range(first, min(first + CHUNK, FIRST + RUNS // 2)):
        run(tmp_path, seed, size=4 if seed % 2 else 256, weights=WITH_EARLY_ENDS)


@pytest.mark.postgres
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + 2))
def test_the_rules_hold_on_postgresql(tmp_path: Path, seed: int) -> None:
    """Claims, refills, kills and recovery against the rows of a server."""
    url = shared_server().database()
    try:
        run(tmp_path, seed, steps=60, size=4 if seed % 2 else 256, store_url=url)
    finally:
        shared_server().drop(url)


@settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=5, max_size=60),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([256, 4]),
)
def test_the_rules_hold_over_generated_runs(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int, size: int
) -> None:
    """The same with steps that are generated, and made fewer when a rule is broken."""
    folder = tmp_path_factory.mktemp("run")

    async def whole() -> None:
        world = World(folder, seed)
        try:
            await prepare(world)
            for name in names:
                await one_step(world, STEPS[name][1])
            await world.finale()
        finally:
            await world.close()

    with window(size):
        quietly(whole)


class Faulty:
    """A plugin all of whose hooks fail."""

    @hookimpl
    def before_route(self, envelope: object) -> None:
        """Fail."""
        raise RuntimeError("before_route")

    @hookimpl
    def after_delivery(self, delivery: object) -> None:
        """Fail."""
        raise RuntimeError("after_delivery")


def facts_of(folder: Path, seed: int, plugins: dict[str, object]) -> list[object]:
    """Return what a run left in the store, ids of chance left out."""
    found: list[object] = []

    async def whole() -> None:
        world = World(folder, seed, plugins=plugins)
        try:
            await run_steps(world, 60)
            found.extend(
                (row.mailbox, row.state, row.outcome, row.reason, row.attempts)
                for row in world.store.rows.deliveries.values()
            )
            found.extend((task.state, task.run) for task in world.store.rows.tasks.values())
        finally:
            await world.close()

    quietly(whole)
    return found


def test_a_run_is_a_function_of_its_seed(tmp_path: Path) -> None:
    """The same seed gives the same rows, so that what is found once is found again."""
    assert facts_of(tmp_path / "a", 3, {}) == facts_of(tmp_path / "b", 3, {})


@pytest.mark.parametrize("seed", range(3))
def test_hooks_that_fail_change_nothing(tmp_path: Path, seed: int) -> None:
    """Rule 11: with a plugin whose hooks raise each time, everything goes as it goes without."""
    without = facts_of(tmp_path / "without", seed, {})
    assert facts_of(tmp_path / "with", seed, {"faulty": Faulty()}) == without
