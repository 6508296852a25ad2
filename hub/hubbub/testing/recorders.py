"""What keeps what it is given, and what looks at what was counted."""

from __future__ import annotations

import asyncio
from typing import Any

from hubbub.envelope import Envelope
from hubbub.ports import HubApi
from hubbub.values import Endpoint

__all__ = ["RecordingEndpoint", "counted"]


class RecordingEndpoint(Endpoint):
    """Takes envelopes and keeps them; `answers` says what happens instead, one at a time.

    Attributes:
        taken: Envelopes in order of hand-over.
        answers: Exceptions to raise, or None to take it; used up from the front.
    """

    def __init__(self, address: str, **how: Any) -> None:  # noqa: ANN401  # as Endpoint
        super().__init__(address=address, **how)
        self.taken: list[Envelope] = []
        self.answers: list[Exception | None] = []
        self._arrived = asyncio.Condition()

    async def deliver(self, envelope: Envelope) -> None:
        """Take one envelope, or do what the next answer says."""
        async with self._arrived:
            self.taken.append(envelope)
            self._arrived.notify_all()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    async def wait_for(self, number: int, timeout_s: float = 10.0) -> list[Envelope]:
        """Return what was taken once it is that many.

        Raises:
            TimeoutError: they did not come.
        """
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.taken) >= number)
        return self.taken


def counted(hub: HubApi, metric: str, **labels: str) -> float:
    """Return what a metric of a hub is now, such as `hubbub_frames_refused_total`.

    Args:
        labels: Some or all of its labels; the series that have them are added up.
    """
    return sum(
        sample.value
        for family in hub.metrics.registry.collect()
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )
