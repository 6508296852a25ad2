"""The tables, as SQLModel classes: the hot path writes them by `rows.py`, reads use them so.

Times are microseconds since the epoch, sequence numbers are time-ordered 63-bit integers
(`clock.Ids.seq`), so that a range of time is a range of the primary key. Every index here either
grows at its end only, or is partial and covers what still waits: the cost of a publish must not
grow with what is stored.

What most new rows leave empty stands last in a table of the hot path, so that `rows.py` can leave
it out. The order is that of the statements; the files of older hubs have another one.
"""

from __future__ import annotations

from typing import Any, Final, cast

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, Table, text
from sqlmodel import Field, SQLModel

__all__ = [
    "OWN",
    "ROW_NUMBER",
    "AuditRow",
    "ClaimRow",
    "DeliveryRow",
    "EndpointRow",
    "EnvelopeRow",
    "MetaRow",
    "PluginStateRow",
    "RouteRow",
    "SpanRow",
    "TaskAttemptRow",
    "TaskRow",
    "TokenRow",
    "table_of",
]


ROW_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere; on SQLite only a column named INTEGER is the row id itself."""

_NOT_AUTOMATIC: Final[dict[str, Any]] = {"autoincrement": False}


def table_of(model: type[SQLModel]) -> Table:
    """Return the SQLAlchemy table of a model."""
    return cast("Table", vars(model)["__table__"])


class EnvelopeRow(SQLModel, table=True):
    """An accepted durable envelope."""

    __tablename__ = "envelope"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_envelope_id", "id"), Index("ix_envelope_trace", "trace_id"))

    seq: int = Field(primary_key=True, sa_type=ROW_NUMBER, sa_column_kwargs=_NOT_AUTOMATIC)
    id: str
    source: str
    subject: str
    type: str
    time_us: int = Field(sa_type=BigInteger)
    data: bytes = Field(sa_type=LargeBinary)
    priority: int
    trace_id: str
    span_id: str
    hops: int

    key: str | None = None
    reply_to: str | None = None
    in_reply_to: str | None = None
    to_json: str | None = None
    expires_us: int | None = Field(default=None, sa_type=BigInteger)
    unrouted: str | None = None


_WAITS = text("state <> 'done'")
_DUE = text("state <> 'done' AND due_us > 0")
_DEADLINE = text("state <> 'done' AND deadline_us IS NOT NULL")
_IN_FLIGHT = text("state = 'in_flight'")
_DEAD = text("outcome = 'dead'")


class DeliveryRow(SQLModel, table=True):
    """One envelope for one mailbox."""

    __tablename__ = "delivery"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_delivery_envelope", "envelope_seq"),
        Index(
            "ix_delivery_waiting", "mailbox", "rank", "id", "leased",
            sqlite_where=_WAITS, postgresql_where=_WAITS,
        ),
        Index("ix_delivery_due", "due_us", sqlite_where=_DUE, postgresql_where=_DUE),
        Index(
            "ix_delivery_deadline", "deadline_us",
            sqlite_where=_DEADLINE, postgresql_where=_DEADLINE,
        ),
        Index("ix_delivery_in_flight", "id", sqlite_where=_IN_FLIGHT, postgresql_where=_IN_FLIGHT),
        Index("ix_delivery_dead", "id", sqlite_where=_DEAD, postgresql_where=_DEAD),
    )  # fmt: skip

    id: int = Field(primary_key=True, sa_type=ROW_NUMBER, sa_column_kwargs=_NOT_AUTOMATIC)
    envelope_seq: int = Field(sa_type=BigInteger)
    mailbox: str
    route: str
    leased: bool
    rank: int = Field(sa_type=BigInteger)
    lane: str | None = None
    max_attempts: int
    timeout_us: int = Field(sa_type=BigInteger)
    wait_us: int = Field(sa_type=BigInteger)
    hold: bool
    created_us: int = Field(sa_type=BigInteger)
    task_id: str | None = None
    task_type: str | None = None
    replay_of: int | None = Field(default=None, sa_type=BigInteger)
    transform: str | None = None
    state: str
    attempts: int
    due_us: int = Field(sa_type=BigInteger)
    deadline_us: int | None = Field(default=None, sa_type=BigInteger)
    updated_us: int = Field(sa_type=BigInteger)

    endpoint: str | None = None
    outcome: str | None = None
    reason: str | None = None
    lease_until_us: int | None = Field(default=None, sa_type=BigInteger)
    pulled_by: str | None = None
    last_error: str | None = None


class TaskRow(SQLModel, table=True):
    """Work with a result. Where it is not final, its delivery says so too, and has the indexes."""

    __tablename__ = "task"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_task_seq", "seq"),)

    id: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    envelope_seq: int | None = Field(default=None, sa_type=BigInteger)
    envelope_id: str | None = None
    task_type: str
    asker: str
    reply_to: str | None = None
    state: str
    run: int
    delivery_id: int | None = Field(default=None, sa_type=BigInteger)
    attempt: int
    orphan: bool
    retry_on_failure: bool
    trace_id: str
    created_us: int = Field(sa_type=BigInteger)
    updated_us: int = Field(sa_type=BigInteger)

    endpoint: str | None = None
    result: bytes | None = Field(default=None, sa_type=LargeBinary)
    error: str | None = None
    finished_us: int | None = Field(default=None, sa_type=BigInteger)


class TaskAttemptRow(SQLModel, table=True):
    """History: one hand-over of a task."""

    __tablename__ = "task_attempt"  # pyright: ignore[reportAssignmentType]

    task_id: str = Field(primary_key=True)
    run: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    endpoint: str
    worker: str | None = None
    started_us: int = Field(sa_type=BigInteger)
    ended_us: int | None = Field(default=None, sa_type=BigInteger)
    outcome: str | None = None
    error: str | None = None


class ClaimRow(SQLModel, table=True):
    """A caller's id or idempotency key, with the answer it got."""

    __tablename__ = "claim"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_claim_at", "at_us"), {"info": {"prune_by": "at_us"}})

    principal: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    body_hash: bytes = Field(sa_type=LargeBinary)
    answer: bytes = Field(sa_type=LargeBinary)
    at_us: int = Field(sa_type=BigInteger)


class EndpointRow(SQLModel, table=True):
    """An endpoint that stays known while it is away."""

    __tablename__ = "endpoint"  # pyright: ignore[reportAssignmentType]

    address: str = Field(primary_key=True)
    spec: bytes = Field(sa_type=LargeBinary)
    seen_us: int = Field(sa_type=BigInteger)


class RouteRow(SQLModel, table=True):
    """A route given over the API."""

    __tablename__ = "route"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True)
    body: str
    updated_us: int = Field(sa_type=BigInteger)


class SpanRow(SQLModel, table=True):
    """A step of a trace that no other row tells: a failed attempt, a refused or dead one."""

    __tablename__ = "span"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_span_trace", "trace_id"), {"info": {"prune_by": "at_us"}})

    seq: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    trace_id: str
    name: str
    at_us: int = Field(sa_type=BigInteger)
    took_us: int = Field(sa_type=BigInteger)
    detail: str


class TokenRow(SQLModel, table=True):
    """An API token; only its hash is kept."""

    __tablename__ = "token"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str
    scopes: str
    hash: bytes = Field(sa_type=LargeBinary)
    created_us: int = Field(sa_type=BigInteger)
    expires_us: int | None = Field(default=None, sa_type=BigInteger)
    revoked_us: int | None = Field(default=None, sa_type=BigInteger)


class AuditRow(SQLModel, table=True):
    """An administrative act."""

    __tablename__ = "audit"  # pyright: ignore[reportAssignmentType]
    __table_args__ = ({"info": {"prune_by": "at_us"}},)

    seq: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    at_us: int = Field(sa_type=BigInteger)
    principal: str
    act: str
    target: str
    detail: str


class PluginStateRow(SQLModel, table=True):
    """What is remembered of a plugin over a restart."""

    __tablename__ = "plugin_state"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True)
    state: str
    reason: str
    at_us: int = Field(sa_type=BigInteger)


class MetaRow(SQLModel, table=True):
    """Facts about the database itself."""

    __tablename__ = "meta"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True)
    value: str


OWN: Final[tuple[type[SQLModel], ...]] = (
    EnvelopeRow,
    DeliveryRow,
    TaskRow,
    TaskAttemptRow,
    ClaimRow,
    EndpointRow,
    RouteRow,
    SpanRow,
    TokenRow,
    AuditRow,
    PluginStateRow,
    MetaRow,
)
"""The tables of the hub itself."""
