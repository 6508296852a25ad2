"""What is too old or too much goes; what waits stays."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import Session, select

from hubbub import Envelope
from hubbub.core import Core
from hubbub.store.reads import tasks as task_reads
from hubbub.store.tables import DeliveryRow, EnvelopeRow
from hubbub.testing import FakeClock, running_hub

RULES = """
[store]
retention = "10d"
retention_max_envelopes = 4

[[store.retention_rules]]
subject = "chat.>"
age = "1d"

[[store.retention_rules]]
subject = "ledger.>"
age = "300d"

[[store.retention_rules]]
subject = "few.>"
count = 2
"""


async def publish(core: Core, subject: str) -> None:
    await core.publish(Envelope.new(source="api.test", subject=subject, data=0))


def subjects(session: Session) -> list[str]:
    """Return what is stored, oldest first."""
    return list(session.exec(select(EnvelopeRow.subject).order_by(EnvelopeRow.seq)))  # type: ignore[arg-type]


async def test_the_first_rule_that_covers_a_subject_decides(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A rule may keep less than the rest, and more."""
    async with running_hub(tmp_path / "hub", RULES, clock=clock) as core:
        for subject in ("chat.a", "ledger.a", "other.a"):
            await publish(core, subject)
        await clock.advance(2 * 86400)
        await core.retention.sweep()
        assert await core.read(subjects) == ["ledger.a", "other.a"]
        await clock.advance(9 * 86400)
        await core.retention.sweep()
        assert await core.read(subjects) == ["ledger.a"]


async def test_counts_keep_the_newest(tmp_path: Path, clock: FakeClock) -> None:
    """Each policy counts its own subjects only."""
    async with running_hub(tmp_path / "hub", RULES, clock=clock) as core:
        for number in range(4):
            await publish(core, f"few.n{number}")
        for number in range(6):
            await publish(core, f"other.n{number}")
        removed = await core.retention.sweep()
        assert removed == 4
        kept = await core.read(subjects)
        assert kept == ["few.n2", "few.n3", *(f"other.n{n}" for n in range(2, 6))]


async def test_what_waits_is_never_removed(tmp_path: Path, clock: FakeClock) -> None:
    """A task that waits without end outlives its age; once it has ended it goes, rows and all."""
    toml = '[hub]\nqueue_ttl = 0\n[store]\nretention = "1d"\n'
    async with running_hub(tmp_path / "hub", toml, clock=clock) as core:
        data = {"task_type": "t", "task_id": "t_1"}
        request = "hubbub.task.request.v1"
        envelope = Envelope.new(
            source="api.test", subject="tasks.t.request", type=request, data=data
        )
        await core.publish(envelope)
        await clock.advance(3 * 86400)
        assert await core.retention.sweep() == 0
        await core.work.cancel("t_1")
        await clock.advance(3 * 86400)
        await core.retention.sweep()
        assert await core.read(subjects) == []
        assert await core.read(lambda session: task_reads.one(session, "t_1")) is None
        assert await core.read(lambda session: session.exec(select(DeliveryRow)).all()) == []
