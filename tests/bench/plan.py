"""What a run is given, and what is sent in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.hubs import RELAY_KEY, Sample, Server
from tests.bench.load import NUMBER, Load, get, post

__all__ = ["Plan", "envelope", "filled", "poll", "relay_send", "relay_task", "rounds", "several"]

RELAY_SEND: Final = "/api/relay/send"
_TEXT: Final = "please check what was sent, and say what is wrong with it; " * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how often, how much.

    Attributes:
        seconds: How long one sample takes, without its warm-up.
        rounds: Samples of each side; they take turns.
        tasks: How many tasks the benchmarks of growth and memory go up to.
        where: Folder for databases; the system's temporary one when None.
    """

    seconds: float = 4.0
    rounds: int = 3
    tasks: int = 1_000_000
    where: Path | None = None

    def load(self, request: bytes, *, connections: int = 64, rate: float | None = None) -> Load:
        """Return a load of this length."""
        return Load(0, request, connections=connections, seconds=self.seconds, rate=rate)


def relay_task() -> bytes:
    """Return the body of a relay task: 309 bytes, as in the tables of the design."""
    head = b'{"from":"master","to":"child","type":"task","cmd":"verify_chart",'
    payload = b'"payload":{"user_id":"u77","n":"' + NUMBER + b'"},"text":"'
    return filled(head + payload, b'"}')


def relay_send() -> bytes:
    """Return the request that sends a relay task."""
    return post(RELAY_SEND, relay_task(), RELAY_KEY)


def poll(worker: str, *, limit: int = 10) -> bytes:
    """Return the request of a worker that waits for relay tasks."""
    query = f"to=child&limit={limit}&wait=20&worker={worker}&lease=600"
    return get(f"/api/relay/tasks?{query}", RELAY_KEY)


def envelope(subject: str, *, durable: bool) -> bytes:
    """Return an envelope to publish: 309 bytes."""
    said = "" if durable else '"durable":false,'
    head = f'{{"subject":"{subject}",{said}"data":{{"order":77,"n":"'.encode() + NUMBER
    return filled(head + b'","text":"', b'"}}')


def several(body: bytes, count: int) -> bytes:
    """Return an array of the same body."""
    return b"[" + b",".join([body] * count) + b"]"


def rounds(
    plan: Plan, sides: Sequence[tuple[Server, Load]], *, said: Callable[[str], None] | None = None
) -> list[tuple[Sample, ...]]:
    """Return samples of all sides, taken in turns: what disturbs one round disturbs all of it."""
    taken: list[tuple[Sample, ...]] = []
    for _ in range(plan.rounds):
        samples = tuple(server.measure(load) for server, load in sides)
        if said is not None:
            said(" ".join(f"{sample.result.rate:,.0f}" for sample in samples))
        taken.append(samples)
    return taken


def filled(head: bytes, tail: bytes, size: int = 309) -> bytes:
    """Return a body of so many bytes: text between head and tail."""
    text = _TEXT.encode() * 3
    return head + text[: size - len(head) - len(tail)] + tail
