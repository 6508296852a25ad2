"""The adapter's own tables: users, and what administrators said of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Boolean, Executable, delete, insert, select, update
from sqlmodel import Field, Session, SQLModel

from hubbub.store.tables import ROW_NUMBER, table_of

__all__ = [
    "NodeRule",
    "OctohubNodeRow",
    "OctohubUserRow",
    "User",
    "add_user",
    "all_rules",
    "all_users",
    "forget_rule",
    "forget_user",
    "keep_rule",
    "new_password",
    "user_by_email",
    "user_by_id",
]

Statement = tuple[Executable, list[dict[str, Any]]]


class OctohubUserRow(SQLModel, table=True):
    """Somebody who may log in.

    Attributes:
        email: In lower case.
        password: Hash, with the name of its algorithm in front.
    """

    __tablename__ = "octohub_user"  # pyright: ignore[reportAssignmentType]

    id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    email: str = Field(unique=True)
    password: str
    created_us: int = Field(sa_type=BigInteger)
    updated_us: int = Field(sa_type=BigInteger)


class OctohubNodeRow(SQLModel, table=True):
    """What holds for a node, or for all whose id begins so, whatever they say themselves.

    Attributes:
        pc_id: An id, or the beginning of ids with `*` behind it.
        labels: JSON object of texts.
        task_types: JSON array of texts; None for what the node says.
    """

    __tablename__ = "octohub_node"  # pyright: ignore[reportAssignmentType]

    pc_id: str = Field(primary_key=True)
    labels: str = "{}"
    task_types: str | None = None
    max_concurrency: int | None = None
    enabled: bool = Field(default=True, sa_type=Boolean)
    updated_us: int = Field(sa_type=BigInteger)


_user = table_of(OctohubUserRow)
_node = table_of(OctohubNodeRow)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in; `password` is a hash."""

    id: int
    email: str
    password: str = field(repr=False)
    created_us: int
    updated_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRule:
    """What an administrator said of a node; None for what the node says itself."""

    pc_id: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    task_types: tuple[str, ...] | None = None
    max_concurrency: int | None = None
    enabled: bool = True

    def covers(self, pc_id: str) -> bool:
        """Tell whether it is about a node."""
        if self.pc_id.endswith("*"):
            return pc_id.startswith(self.pc_id[:-1])
        return pc_id == self.pc_id


# Users

_COLUMNS: Final = (_user.c.id, _user.c.email, _user.c.password, _user.c.created_us,
                   _user.c.updated_us)  # fmt: skip


def user_by_email(session: Session, email: str) -> User | None:
    """Return a user, by an email address in any case."""
    row = (
        session.connection()
        .execute(select(*_COLUMNS).where(_user.c.email == email.lower()))
        .first()
    )
    return None if row is None else User(*row)


def user_by_id(session: Session, number: int) -> User | None:
    """Return a user."""
    row = session.connection().execute(select(*_COLUMNS).where(_user.c.id == number)).first()
    return None if row is None else User(*row)


def all_users(session: Session, *, after: int, limit: int) -> list[User]:
    """Return users in the order of their ids."""
    query = select(*_COLUMNS).where(_user.c.id > after).order_by(_user.c.id).limit(limit)
    return [User(*row) for row in session.connection().execute(query)]


def add_user(email: str, password: str, *, now_us: int) -> Statement:
    """Add a user; fails where the address is taken."""
    row = {"email": email, "password": password, "created_us": now_us, "updated_us": now_us}
    return insert(_user), [row]


def new_password(number: int, password: str, *, now_us: int) -> Statement:
    """Change the hash of a user's password."""
    changed = update(_user).where(_user.c.id == number)
    return changed.values(password=password, updated_us=now_us), []


def forget_user(number: int) -> Statement:
    """Remove a user."""
    return delete(_user).where(_user.c.id == number), []


# Nodes


def all_rules(session: Session) -> list[NodeRule]:
    """Return what was said of nodes, that about single ones first, then longer beginnings."""
    rows: Sequence[Any] = session.connection().execute(select(_node)).all()
    rules = [
        NodeRule(
            pc_id=row.pc_id,
            labels=msgspec.json.decode(row.labels, type=dict[str, str]),
            task_types=(
                None
                if row.task_types is None
                else msgspec.json.decode(row.task_types, type=tuple[str, ...])
            ),
            max_concurrency=row.max_concurrency,
            enabled=row.enabled,
        )
        for row in rows
    ]
    return sorted(rules, key=lambda rule: (rule.pc_id.endswith("*"), -len(rule.pc_id), rule.pc_id))


def keep_rule(rule: NodeRule, *, now_us: int) -> tuple[Statement, Statement]:
    """Put a rule in the place of what was said of the same node before."""
    types = rule.task_types
    row = {
        "pc_id": rule.pc_id,
        "labels": msgspec.json.encode(rule.labels).decode(),
        "task_types": None if types is None else msgspec.json.encode(types).decode(),
        "max_concurrency": rule.max_concurrency,
        "enabled": rule.enabled,
        "updated_us": now_us,
    }
    return forget_rule(rule.pc_id), (insert(_node), [row])


def forget_rule(pc_id: str) -> Statement:
    """Remove what was said of a node."""
    return delete(_node).where(_node.c.pc_id == pc_id), []
