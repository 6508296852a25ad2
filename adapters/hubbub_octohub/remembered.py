"""What is remembered over a restart, for a while: what was used once, and when nodes were here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Boolean, Executable, delete, exists, insert, select, update
from sqlmodel import Field, Session, SQLModel

from hubbub.store.tables import table_of
from hubbub_octohub.records import OctohubNodeRow

__all__ = [
    "OctohubOnceRow",
    "OctohubSeenRow",
    "Once",
    "forget_once",
    "forget_seen",
    "keep_once",
    "keep_seen",
    "known_once",
    "unseen_rules",
    "use_all",
]

Statement = tuple[Executable, list[dict[str, Any]]]


class OctohubOnceRow(SQLModel, table=True):
    """A nonce that was used, or an address that was given.

    Attributes:
        kind: `nonce`, `node` or `user`.
        name: Hash of the nonce, or the id that the address is for.
        time_s: Time the address is signed with; 0 for a nonce.
        used: False for an address nobody has come with.
    """

    __tablename__ = "octohub_once"  # pyright: ignore[reportAssignmentType]

    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    time_s: int = Field(primary_key=True, sa_type=BigInteger)
    used: bool = Field(sa_type=Boolean)
    at_us: int = Field(sa_type=BigInteger)


class OctohubSeenRow(SQLModel, table=True):
    """When a node was here last."""

    __tablename__ = "octohub_seen"  # pyright: ignore[reportAssignmentType]

    pc_id: str = Field(primary_key=True)
    seen_us: int = Field(sa_type=BigInteger)


_once = table_of(OctohubOnceRow)
_seen = table_of(OctohubSeenRow)
_rule = table_of(OctohubNodeRow)


@dataclass(frozen=True, slots=True)
class Once:
    """A nonce or an address, as `OctohubOnceRow` says it."""

    kind: str
    name: str
    time_s: int
    used: bool
    at_us: int


def keep_once(once: Once) -> tuple[Statement, Statement]:
    """Remember a nonce or an address, in the place of what was remembered of it."""
    of = _once.c
    same = of.kind == once.kind, of.name == once.name, of.time_s == once.time_s
    row = {
        "kind": once.kind, "name": once.name, "time_s": once.time_s, "used": once.used,
        "at_us": once.at_us,
    }  # fmt: skip
    return (delete(_once).where(*same), []), (insert(_once), [row])


def use_all(kind: str, name: str) -> tuple[Statement, ...]:
    """Let all addresses that were given to an id be used."""
    of = _once.c
    changed = update(_once).where(of.kind == kind, of.name == name).values(used=True)
    return ((changed, []),)


def known_once(session: Session, *, after_us: int) -> list[Once]:
    """Return what was remembered since a time, the earliest first."""
    query = select(_once).where(_once.c.at_us >= after_us).order_by(_once.c.at_us)
    return [Once(*row) for row in session.connection().execute(query)]


def forget_once(*, before_us: int) -> Statement:
    """Forget what is older than a time."""
    return delete(_once).where(_once.c.at_us < before_us), []


def keep_seen(pc_ids: Sequence[str], *, now_us: int) -> tuple[Statement, Statement]:
    """Note that nodes, one at least, are here."""
    rows = [{"pc_id": pc_id, "seen_us": now_us} for pc_id in pc_ids]
    return (delete(_seen).where(_seen.c.pc_id.in_(pc_ids)), []), (insert(_seen), rows)


def forget_seen(*, before_us: int) -> Statement:
    """Forget nodes that were not here since a time."""
    return delete(_seen).where(_seen.c.seen_us < before_us), []


def unseen_rules(session: Session, *, before_us: int, but: Iterable[str]) -> list[str]:
    """Return ids of single nodes of which something was said, and that were not here since.

    What keeps a node out is none of it: that holds until somebody takes it back.

    Args:
        but: Ids of nodes that are connected.
    """
    of = _rule.c
    seen = exists().where(_seen.c.pc_id == of.pc_id, _seen.c.seen_us >= before_us)
    query = select(of.pc_id).where(
        of.updated_us < before_us, of.enabled.is_(True), ~of.pc_id.endswith("*"), ~seen
    )
    connected = frozenset(but)
    found = session.connection().execute(query).scalars()
    return [pc_id for pc_id in found if pc_id not in connected]
