"""Claims: the same id or idempotency key from one principal is the same act of publishing.

The store keeps them with their answer (`dedupe_window`). In front of it stand the claims under
way: a second arrival waits for the first one and gets its answer, so that two equal claims never
meet in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import IdReusedError, InvalidError, KeyReusedError
from hubbub.intake import body_hash
from hubbub.ports import Claim, ClaimKind
from hubbub.store.database import Database
from hubbub.store.reads import claims as reads
from hubbub.store.reads.claims import ClaimName
from hubbub.values import Receipt

__all__ = ["Claims", "Said", "answer_of", "said_by", "with_answers"]

_read_receipts = msgspec.json.Decoder(list[Receipt]).decode


@dataclass(frozen=True, slots=True)
class Said:
    """A claim, and which member of what was published it is about; None for all of it."""

    claim: Claim
    member: int | None

    @property
    def name(self) -> ClaimName:
        """What makes two claims the same."""
        return self.claim.principal, self.claim.kind, self.claim.name

    def answer(self, first: Claim) -> list[Receipt]:
        """Return the receipts that the first one got, if the same was said.

        Raises:
            IdReusedError, KeyReusedError: another body.
        """
        if first.body_hash != self.claim.body_hash:
            raise IdReusedError(envelope_id=first.name) if first.kind == "id" else KeyReusedError()
        return [
            msgspec.structs.replace(receipt, duplicate=True)
            for receipt in _read_receipts(first.answer)
        ]


def said_by(
    envelopes: Sequence[Envelope], *, key: str | None, principal: str, at_us: int
) -> list[Said]:
    """Return the claims of what is published: by ids and keys of members, by one key for all.

    Raises:
        InvalidError: one name stands twice; `index` says where.
    """

    def claim(kind: ClaimKind, name: str, said: Iterable[Envelope]) -> Claim:
        return Claim(principal, kind, name, b"".join(map(body_hash, said)), b"", at_us)

    found: list[Said] = []
    names: set[ClaimName] = set()
    for member, envelope in enumerate(envelopes):
        if envelope.id:
            found.append(Said(claim("id", envelope.id, (envelope,)), member))
        if envelope.idempotency_key:
            found.append(Said(claim("key", envelope.idempotency_key, (envelope,)), member))
        if len(found) > len(names):
            names = {said.name for said in found}
            if len(names) < len(found):
                error = InvalidError("this id or idempotency key stands in the batch twice")
                error.index = member
                raise error
    if key is not None:
        found.append(Said(claim("key", key, envelopes), None))
    return found


def with_answers(claims: Sequence[Said], receipts: list[Receipt]) -> tuple[Claim, ...]:
    """Return the claims with the answers they got."""
    return tuple(
        msgspec.structs.replace(
            said.claim,
            answer=encode_json(receipts if said.member is None else [receipts[said.member]]),
        )
        for said in claims
    )


def answer_of(found: Claim, claims: Sequence[Said]) -> list[Receipt]:
    """Return the answer that a claim found in the store got.

    Raises:
        IdReusedError, KeyReusedError: another body.
    """
    name = (found.principal, found.kind, found.name)
    return next(said for said in claims if said.name == name).answer(found)


class Claims:
    """The claims under way in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._under_way: dict[ClaimName, asyncio.Future[Claim | None]] = {}

    async def publish(
        self,
        claims: Sequence[Said],
        members: int,
        publish: Callable[[Sequence[int]], Awaitable[list[Receipt]]],
    ) -> list[Receipt]:
        """Publish under claims; what was published before gets its first answer.

        Args:
            members: How many envelopes there are.
            publish: Publishes the members with these places, in one commit.

        Raises:
            IdReusedError, KeyReusedError: the first one said something else.
        """
        names = [said.name for said in claims]
        while (busy := self._busy(names)) is not None:
            answered = await asyncio.shield(self._under_way[busy])
            said = claims[names.index(busy)]
            if answered is not None and (said.member is None or members == 1):
                return said.answer(answered)
        loop = asyncio.get_running_loop()
        for name in names:
            self._under_way[name] = loop.create_future()
        answers: tuple[Claim | None, ...] = (None,) * len(claims)
        try:
            if members == 1:
                receipts = await publish((0,))
            else:
                receipts = await self._batch(claims, members, publish)
            answers = with_answers(claims, receipts)
            return receipts
        finally:
            for name, answer in zip(names, answers, strict=True):
                self._under_way.pop(name).set_result(answer)

    async def _batch(
        self,
        claims: Sequence[Said],
        members: int,
        publish: Callable[[Sequence[int]], Awaitable[list[Receipt]]],
    ) -> list[Receipt]:
        """Publish the members of a batch that were not published before."""
        names = [said.name for said in claims]
        known = await self._database.read(lambda session: reads.known(session, names))
        before: dict[int, Receipt] = {}
        for said in claims:
            first = known.get(said.name)
            if first is None:
                continue
            answer = said.answer(first)
            if said.member is None:
                return answer
            before[said.member] = answer[0]
        new = [place for place in range(members) if place not in before]
        fresh = iter(await publish(new) if new else [])
        return [before.get(place) or next(fresh) for place in range(members)]

    def _busy(self, names: Sequence[ClaimName]) -> ClaimName | None:
        return next((name for name in names if name in self._under_way), None)
