"""After a far jump of the clock nothing is deleted for its age until the time is confirmed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlmodel import Session, select

from hubbub import Envelope
from hubbub.clock import SystemClock
from hubbub.core import Core
from hubbub.envelope import rfc3339
from hubbub.errors import ConflictError
from hubbub.retention_hold import FAR_JUMP_US
from hubbub.store.tables import ClaimRow, EnvelopeRow, table_of
from hubbub.testing import FakeClock, running_hub
from hubbub_statistics.tables import StatBucketRow, adding
from tests.hub.web.conftest import serving

TOML = '[store]\nretention = "10d"\n[hub]\ndedupe_window = "1h"\n'
DAY_S = 86_400
HOUR_S = 3600
FAR_S = FAR_JUMP_US / 1e6


async def publish(core: Core, subject: str = "a.b") -> None:
    envelope = Envelope.new(source="api.test", subject=subject, data=0)
    await core.publish(envelope)


def subjects(session: Session) -> list[str]:
    return list(session.exec(select(EnvelopeRow.subject).order_by(EnvelopeRow.seq)))  # type: ignore[arg-type]


def claims(session: Session) -> int:
    return len(session.exec(select(ClaimRow)).all())


async def sweep_after(core: Core, clock: FakeClock, days: float) -> int:
    """Let days pass, and remove what is old."""
    await clock.advance(days * DAY_S)
    return await core.retention.sweep()


# While it runs


async def test_a_far_jump_forward_deletes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """No message, no claim of an id, no figure; `/readyz` says why and what to do."""
    async with serving(tmp_path / "hub", TOML, clock=clock) as served:
        core = served.core
        await publish(core)
        claim = ClaimRow(
            principal="p", kind="k", name="n", body_hash=b"", answer=b"", at_us=clock.now_us()
        )
        await core.execute((insert(table_of(ClaimRow)), [claim.model_dump()]))
        before = await core.read(claims)
        assert before
        await core.execute(adding([(clock.now_us() // 1_000_000, "old", "test", 1.0)]))
        clock.jump(365 * DAY_S)
        await publish(core, "new.a")  # the plugin that counts has a minute to keep
        await clock.advance(61)
        assert await core.retention.sweep() == 0
        assert "a.b" in await core.read(subjects)
        assert await core.read(claims) == before
        kept = select(StatBucketRow).where(StatBucketRow.metric == "old")
        assert await core.read(lambda session: len(session.exec(kept).all())) == 1

        answer = await served.client.get("/readyz")
        part = answer.json()["parts"]["retention"]
        assert (answer.status_code, part["state"]) == (200, "held")
        assert "hubbub db confirm-clock" in part["reason"]
        assert rfc3339(clock.now_us())[:13] in part["reason"]
        assert "hubbub_retention_held 1.0" in (await served.client.get("/metrics")).text

        now = rfc3339(clock.now_us())
        url = "/api/v1/retention/confirm"
        answer = await served.client.post(url, json={"time": now})
        assert answer.status_code == 200, answer.text
        assert answer.json()["held"] == part["reason"]
        acts = (await served.get("/api/v1/audit", limit=1))["items"]
        assert acts[0]["act"] == "retention.confirm"
        assert "retention" not in (await served.get("/readyz"))["parts"]
        assert "hubbub_retention_held 0.0" in (await served.client.get("/metrics")).text
        assert await core.retention.sweep() >= 1
        assert "a.b" not in await core.read(subjects)
        assert await core.read(claims) < before


async def test_a_far_jump_back_holds_until_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    """The hub's time never steps back, so that it was wrong before, or is now."""
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        await publish(core)
        clock.jump(-2 * DAY_S)
        assert await sweep_after(core, clock, 20) == 0
        assert "jumped" in (core.retention_hold or "")
        for time_us in (clock.wall_us(), clock.now_us()):
            with pytest.raises(ConflictError, match="restart"):
                await core.hold.confirm(time_us)
        assert core.retention_hold is not None


async def test_there_and_back_between_two_looks_is_seen(tmp_path: Path, clock: FakeClock) -> None:
    """The hub goes on at the later time, though the machine's is right again."""
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        await publish(core)
        clock.jump(30 * DAY_S)
        clock.jump(-30 * DAY_S)
        assert await core.retention.sweep() == 0
        assert "ahead for a moment" in (core.retention_hold or "")


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_jump_of_an_hour_is_none(tmp_path: Path, clock: FakeClock, sign: int) -> None:
    """FAR_JUMP_US itself is let pass; a second more is not."""
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        await publish(core)
        clock.jump(sign * FAR_S)
        assert core.retention_hold is None
        assert await sweep_after(core, clock, 11) == 1
    async with running_hub(tmp_path / "other", TOML, clock=clock) as core:
        clock.jump(sign * (FAR_S + 1))
        assert core.retention_hold is not None


@pytest.mark.parametrize(("apart_s", "held"), [(HOUR_S, True), (25 * HOUR_S, False)])
async def test_short_jumps_of_a_day_count_together(
    tmp_path: Path, clock: FakeClock, apart_s: int, held: bool
) -> None:
    """Forty minutes twice are more than an hour; a day later they are forgotten."""
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        clock.jump(2400)
        await clock.advance(apart_s)
        assert core.retention_hold is None
        clock.jump(2400)
        assert (core.retention_hold is not None) is held


async def test_bounds_in_number_hold_all_the_same(tmp_path: Path, clock: FakeClock) -> None:
    """They ask no clock, and keep the disk from filling up."""
    toml = f"{TOML}[[store.retention_rules]]\nsubject = 'few.>'\ncount = 1\n"
    async with running_hub(tmp_path / "hub", toml, clock=clock) as core:
        for number in range(3):
            await publish(core, f"few.n{number}")
        clock.jump(365 * DAY_S)
        assert await core.retention.sweep() == 2
        assert await core.read(subjects) == ["few.n2"]


# At start


async def run_once(folder: Path, clock: FakeClock, *, minutes: int = 0) -> None:
    async with running_hub(folder, TOML, clock=clock) as core:
        await publish(core)
        await clock.advance(60 * minutes)


@pytest.mark.parametrize(
    ("later_s", "says"),
    [
        (-FAR_S, None),
        (-FAR_S - 1, "lies in the future"),
        (10 * DAY_S, None),
        (10 * DAY_S + 1, "older than store.retention"),
        (3650 * DAY_S, "older than store.retention"),
    ],
)
async def test_the_newest_row_is_compared_at_start(
    tmp_path: Path, later_s: float, says: str | None
) -> None:
    """With the time, and with how long rows are kept."""
    clock = FakeClock()
    await run_once(tmp_path / "hub", clock)
    later = FakeClock(clock.now_us() + int(later_s * 1e6))
    async with running_hub(tmp_path / "hub", TOML, clock=later) as core:
        assert (core.retention_hold is None) is (says is None)
        assert (says or "") in (core.retention_hold or "")
        if later_s > 0:
            assert await core.retention.sweep() == 0
        if later_s > 0 and says:
            await core.hold.confirm(later.now_us())
            assert await core.retention.sweep() == 1


async def test_a_hub_that_ran_without_messages_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    """That nobody sent anything for longer than messages are kept is no jump."""
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        await publish(core, "a.b")
        assert await sweep_after(core, clock, 9) == 0
    clock = FakeClock(clock.now_us() + 2 * DAY_S * 1_000_000)
    async with running_hub(tmp_path / "hub", TOML, clock=clock) as core:
        assert core.retention_hold is None
        assert await core.retention.sweep() == 1


async def test_a_hold_outlives_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    """Though rows of the wrong time make it look right; a confirmation outlives it as well."""
    folder = tmp_path / "hub"
    async with running_hub(folder, TOML, clock=clock) as core:
        await publish(core)
        clock.jump(365 * DAY_S)
        await publish(core, "late.a")
        await core.retention.sweep()
        before = core.retention_hold
    again = FakeClock(clock.now_us())
    async with running_hub(folder, TOML, clock=again) as core:
        assert core.retention_hold == before
        assert await core.retention.sweep() == 0
        await core.hold.confirm(again.now_us())
        assert await core.retention.sweep() == 1
    async with running_hub(folder, TOML, clock=FakeClock(again.now_us())) as core:
        assert core.retention_hold is None


async def test_numbers_of_the_future_are_confirmed_once(tmp_path: Path, clock: FakeClock) -> None:
    """What was stored in a wrong time stays ahead; no later start asks about it again."""
    folder = tmp_path / "hub"
    await run_once(folder, FakeClock(clock.now_us() + 365 * DAY_S * 1_000_000))
    for start in range(3):
        now = FakeClock(clock.now_us() + start * DAY_S * 1_000_000)
        async with running_hub(folder, TOML, clock=now) as core:
            assert (core.retention_hold is not None) is (start == 0)
            await publish(core)  # its number is behind the newest, so ahead of its time
            if start == 0:
                await core.hold.confirm(now.now_us())
            await core.retention.sweep()


# What an operator does


async def test_another_time_is_not_confirmed(tmp_path: Path, clock: FakeClock) -> None:
    """By who says when it is; and nothing is confirmed by an empty body."""
    async with serving(tmp_path / "hub", TOML, clock=clock) as served:
        clock.jump(365 * DAY_S)
        url = "/api/v1/retention/confirm"
        now_us = clock.now_us()
        for wrong_us in (now_us - 365 * DAY_S * 1_000_000, now_us + FAR_JUMP_US + 1_000_000):
            answer = await served.client.post(url, json={"time": rfc3339(wrong_us)})
            assert answer.status_code == 409
            assert "set the machine's clock" in answer.json()["detail"]
        for body in ({}, {"time": ""}, {"time": "now"}, {"time": None}):
            assert (await served.client.post(url, json=body)).status_code == 422
        assert (await served.client.post(url)).status_code in (400, 415, 422)
        headers = await served.token("read")
        answer = await served.client.post(url, json={"time": rfc3339(now_us)}, headers=headers)
        assert answer.status_code == 403
        assert served.core.retention_hold is not None


async def test_old_rows_are_not_pruned_by_a_doubtful_clock(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A duration counts from now; a time is a time, and a dry run removes nothing."""
    async with serving(tmp_path / "hub", TOML, clock=clock) as served:
        await publish(served.core)
        clock.jump(365 * DAY_S)
        for table in ("envelope", "audit"):
            body = {"table": table, "older_than": "30d"}
            answer = await served.client.post("/api/v1/database/prune", json=body)
            assert answer.status_code == 409
            assert "confirm-clock" in answer.json()["detail"]
        dry = {"table": "envelope", "older_than": "30d", "dry_run": True}
        answer = await served.client.post("/api/v1/database/prune", json=dry)
        assert answer.json()["matched"] == 1
        exact = {"table": "envelope", "older_than": rfc3339(clock.now_us() - DAY_S * 1_000_000)}
        answer = await served.client.post("/api/v1/database/prune", json=exact)
        assert answer.json()["removed"] == 1


def test_the_clock_of_the_machine() -> None:
    """What was set and what has passed are two clocks; the second goes on while it sleeps."""
    clock = SystemClock()
    assert abs(clock.wall_us() / 1e6 - time.time()) < 1
    passed_us, since_s = clock.boot_us(), time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(passed_us / 1e6 - since_s) < 1
    assert clock.boot_us() >= passed_us
