"""A virtual user who talks to applications, and hears what they answer.

What it says is an ordinary chat message, published on `kenko.simulator.message`; answers find their
way back as those to any other place do. Both are kept, so that a window can show the conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta
from sqlalchemy import insert, select
from sqlmodel import Session, col

from hubbub import Endpoint, Envelope, Hub
from hubbub.envelope import CHAT_MESSAGE, rfc3339
from hubbub.portions import PAGE_BYTES, READ_AHEAD, until_past
from hubbub.store.tables import table_of
from hubbub_kenko.admin.tables import KenkoMessageRow
from hubbub_kenko.chat import as_text

__all__ = ["ADDRESS", "SUBJECT", "Said", "Simulator", "shown"]

ADDRESS: Final = "kenko.simulator"
SUBJECT: Final = "kenko.simulator.message"
PLATFORM: Final = "simulator"

ASKED: Final = 10_000
"""Messages whose answers can tell how long they took; the oldest are forgotten."""

_rows = table_of(KenkoMessageRow)

Name = Annotated[str, Meta(min_length=1, max_length=128)]


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """Something for the virtual user to say."""

    content: Annotated[str, Meta(min_length=1, max_length=65_536)]
    user_id: Name = "simulator"
    group_id: Name | None = None
    lang: Annotated[str, Meta(max_length=35)] = "zh-CN"

    @property
    def session(self) -> str:
        """The conversation it is said in."""
        return self.group_id or self.user_id


class Simulator(Endpoint):
    """The virtual user, as an endpoint."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(
            address=ADDRESS,
            accepts=(CHAT_MESSAGE,),
            labels={"name": "simulator"},
            concurrency=16,
            linger_s=None,
        )
        self._hub = hub
        self._asked: OrderedDict[str, tuple[str, int]] = OrderedDict()

    async def say(self, said: Said) -> dict[str, Any]:
        """Say something; returns ids of the message and its trace, its session, what came of it."""
        kind = "private" if said.group_id is None else "group"
        receipt = await self._hub.publish(
            Envelope.new(
                source=ADDRESS,
                subject=SUBJECT,
                type=CHAT_MESSAGE,
                data={
                    "text": said.content,
                    "sender": {"id": said.user_id},
                    "conversation": {"id": said.session, "kind": kind},
                    "platform": PLATFORM,
                    "lang": said.lang,
                },
                key=said.session,
                reply_to=ADDRESS,
                durable=True,
            )
        )
        now_us = self._hub.clock.now_us()
        self._remember(receipt.id, said.session, now_us)
        row = self._row(receipt.id, said.session, receipt.trace_id, now_us)
        rows = [row | {"user_id": said.user_id, "content": said.content, "lang": said.lang}]
        if receipt.outcome == "unrouted":
            rows.append(row | {"id": "", "in_reply_to": receipt.id, **self._nobody(said.lang)})
        await self._hub.execute(*((insert(_rows), [each]) for each in rows))
        return {
            "message_id": receipt.id,
            "trace_id": receipt.trace_id,
            "session": said.session,
            "outcome": receipt.outcome,
        }

    async def deliver(self, envelope: Envelope) -> None:
        """Hear an answer, or what else is said to this user."""
        data = envelope.json() if envelope.content_type is None else {"text": as_text(envelope)}
        asked = self._asked.get(envelope.in_reply_to or "")
        session = asked[0] if asked else _at(data, "conversation", "id") or ADDRESS
        now_us = self._hub.clock.now_us()
        row = self._row(envelope.id, session, envelope.trace_id, now_us) | {
            "user_id": _at(data, "sender", "id"),
            "app": _at(data, "sender", "name") or envelope.source,
            "content": _at(data, "text"),
            "lang": _at(data, "lang") or "",
            "in_reply_to": envelope.in_reply_to,
            "latency_us": now_us - asked[1] if asked else None,
        }
        await self._hub.execute((insert(_rows), [row]))

    async def messages(
        self, session_name: str, *, after: int, limit: int
    ) -> Sequence[KenkoMessageRow]:
        """Return a conversation, oldest first, after a number."""

        def read(session: Session) -> Sequence[KenkoMessageRow]:
            query = (
                select(KenkoMessageRow)
                .where(col(KenkoMessageRow.session) == session_name)
                .where(col(KenkoMessageRow.seq) > after)
                .order_by(col(KenkoMessageRow.seq))
                .limit(limit)
            )
            rows = session.scalars(query.execution_options(yield_per=READ_AHEAD))
            with closing(rows):
                return until_past(rows, lambda row: len(row.content), PAGE_BYTES)

        return await self._hub.read(read)

    def _nobody(self, lang: str) -> dict[str, Any]:
        key = "kenko.simulator.nobody"
        text = self._hub.translate(key, {}, lang) or "No application is running that could answer."
        return {"user_id": "", "app": "hub", "content": text, "lang": lang}

    def _remember(self, message_id: str, session: str, now_us: int) -> None:
        self._asked[message_id] = (session, now_us)
        if len(self._asked) > ASKED:
            self._asked.popitem(last=False)

    def _row(self, message_id: str, session: str, trace_id: str, now_us: int) -> dict[str, Any]:
        return {
            "id": message_id,
            "session": session,
            "source_adapter": PLATFORM,
            "app": "",
            "trace_id": trace_id,
            "in_reply_to": None,
            "latency_us": None,
            "at_us": now_us,
        }


def _at(data: object, *names: str) -> str:
    """Return a text inside of data; empty when it is not there."""
    for name in names:
        data = cast("dict[str, object]", data).get(name) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


def shown(row: KenkoMessageRow) -> dict[str, Any]:
    """Return a message as the API shows it."""
    return {
        "id": row.id or None,
        "session": row.session,
        "source_adapter": row.source_adapter,
        "direction": "out" if row.app else "in",
        "user_id": row.user_id or None,
        "app": row.app or None,
        "content": row.content,
        "lang": row.lang,
        "trace_id": row.trace_id,
        "in_reply_to": row.in_reply_to,
        "latency_ms": None if row.latency_us is None else row.latency_us / 1000,
        "time": rfc3339(row.at_us),
    }
