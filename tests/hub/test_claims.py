"""The same id or key from one principal is the same act."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from hubbub import Envelope
from hubbub.core import Core
from hubbub.errors import IdReusedError, InvalidError, KeyReusedError
from hubbub.store.reads import envelopes as reads


def said(name: str, number: int, **more: str) -> Envelope:
    return Envelope.new(source="api.test", subject=f"s.{name}", data=number, id=name, **more)  # type: ignore[arg-type]


async def test_a_known_member_is_answered_again_and_the_others_are_stored(core: Core) -> None:
    """A batch may repeat what was published before."""
    (first,) = await core.router.publish_all([said("a", 1)])
    again, other = await core.router.publish_all([said("a", 1), said("b", 2)])
    assert (again.id, again.trace_id, again.duplicate) == ("a", first.trace_id, True)
    assert (other.id, other.duplicate) == ("b", False)
    for name in ("a", "b"):
        assert await core.read(partial(reads.one, envelope_id=name)) is not None


async def test_a_member_repeated_alone_gets_its_own_answer(core: Core) -> None:
    """Not that of the batch's first member."""
    first = await core.router.publish_all([said("c", 1), said("d", 2)])
    again = await core.publish(said("d", 2))
    assert (again.id, again.trace_id) == ("d", first[1].trace_id)


async def test_equal_claims_at_once_are_one_act(core: Core) -> None:
    """However they interleave: equal answers, one envelope."""
    batches = [[said("e", 1), said("f", 2)], [said("f", 2), said("g", 3)], [said("e", 1)]] * 4
    answers = await asyncio.gather(*(core.router.publish_all(batch) for batch in batches))
    traces: dict[str, set[str]] = {}
    for receipts in answers:
        for receipt in receipts:
            traces.setdefault(receipt.id, set()).add(receipt.trace_id)
    assert {name: len(found) for name, found in traces.items()} == {"e": 1, "f": 1, "g": 1}


async def test_another_body_is_refused(core: Core) -> None:
    """409 for an id, 422 for a key, and a name twice in one batch."""
    await core.publish(said("h", 1, idempotency_key="k"))
    with pytest.raises(IdReusedError):
        await core.publish(said("h", 2))
    with pytest.raises(KeyReusedError):
        await core.publish(said("i", 1, idempotency_key="k"))
    with pytest.raises(InvalidError, match="twice") as refusal:
        await core.router.publish_all([said("j", 1), said("j", 1)])
    assert refusal.value.index == 1


async def test_a_key_for_a_whole_batch_gives_the_whole_answer_again(core: Core) -> None:
    """The batch is one act."""
    batch = [Envelope.new(source="api.test", subject="s.k", data=n) for n in range(3)]
    first = await core.router.publish_all(batch, key="all")
    again = await core.router.publish_all(batch, key="all")
    assert [r.id for r in again] == [r.id for r in first]
    with pytest.raises(KeyReusedError):
        await core.router.publish_all(batch[:2], key="all")
