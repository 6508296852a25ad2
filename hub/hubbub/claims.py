"""Claims: the same id or idempotency key from one principal is the same act of publishing.

The store keeps them with their answer (`dedupe_window`). In front of it stand the claims under
way: a second arrival waits for the first one and gets its answer, so that two equal claims never
meet in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import IdReusedError, InvalidError, KeyReusedError
from hubbub.intake import body_hash
from hubbub.ports import Claim, ClaimKind
from hubbub.values import Receipt

__all__ = ["Claims", "answer_of", "check_once", "claim", "claims_of", "with_answer"]

ClaimName = tuple[str, ClaimKind, str]

_read_receipts = msgspec.json.Decoder(list[Receipt]).decode


def claims_of(envelope: Envelope, *, principal: str, at_us: int) -> list[Claim]:
    """Return the claims that an envelope makes by its id and its idempotency key."""
    claims: list[Claim] = []
    if envelope.id:
        claims.append(claim("id", envelope.id, envelope, principal=principal, at_us=at_us))
    if envelope.idempotency_key:
        key = envelope.idempotency_key
        claims.append(claim("key", key, envelope, principal=principal, at_us=at_us))
    return claims


def claim(kind: ClaimKind, name: str, *said: Envelope, principal: str, at_us: int) -> Claim:
    """Return the claim of a principal on a name, for what it said."""
    return Claim(principal, kind, name, b"".join(map(body_hash, said)), b"", at_us)


def check_once(claims: Sequence[Claim]) -> None:
    """Refuse a batch in which one name stands twice.

    Raises:
        InvalidError: it does.
    """
    if len({(claim.kind, claim.name) for claim in claims}) < len(claims):
        raise InvalidError("this id or idempotency key stands in the batch twice")


def with_answer(claims: Sequence[Claim], receipts: list[Receipt]) -> tuple[Claim, ...]:
    """Return the claims with the answer they got."""
    answer = encode_json(receipts)
    return tuple(msgspec.structs.replace(claim, answer=answer) for claim in claims)


def same_answer(first: Claim, again: Claim) -> list[Receipt]:
    """Return the first one's receipts, if the same was said.

    Raises:
        IdReusedError, KeyReusedError: another body.
    """
    if first.body_hash != again.body_hash:
        raise IdReusedError(envelope_id=first.name) if first.kind == "id" else KeyReusedError()
    return [replace(receipt, duplicate=True) for receipt in _read_receipts(first.answer)]


def answer_of(found: Claim, claims: Sequence[Claim]) -> list[Receipt]:
    """Return the answer that a claim found in the store got.

    Raises:
        IdReusedError, KeyReusedError: another body.
    """
    mine = next(c for c in claims if (c.kind, c.name) == (found.kind, found.name))
    return same_answer(found, mine)


class Claims:
    """The claims under way in this process."""

    def __init__(self) -> None:
        self._under_way: dict[ClaimName, asyncio.Future[Claim | None]] = {}

    async def publish(
        self, claims: Sequence[Claim], publish: Callable[[], Awaitable[list[Receipt]]]
    ) -> list[Receipt]:
        """Publish under claims, or give the answer of whoever was first.

        Raises:
            IdReusedError, KeyReusedError: the first one said something else.
        """
        names: list[ClaimName] = [(claim.principal, claim.kind, claim.name) for claim in claims]
        while (busy := self._busy(names)) is not None:
            answered = await asyncio.shield(self._under_way[busy])
            if answered is not None:
                return same_answer(answered, claims[names.index(busy)])
        loop = asyncio.get_running_loop()
        for name in names:
            self._under_way[name] = loop.create_future()
        answers: tuple[Claim | None, ...] = (None,) * len(claims)
        try:
            receipts = await publish()
            answers = with_answer(claims, receipts)
            return receipts
        finally:
            for name, answer in zip(names, answers, strict=True):
                self._under_way.pop(name).set_result(answer)

    def _busy(self, names: Sequence[ClaimName]) -> ClaimName | None:
        return next((name for name in names if name in self._under_way), None)
