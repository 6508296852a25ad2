"""One row for each figure of each minute, and how series are read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Index, case, delete, func, insert, select
from sqlmodel import Field, Session, SQLModel

from hubbub.store.entries import Statement
from hubbub.store.tables import ROW_NUMBER, table_of

__all__ = [
    "GAUGE",
    "USER",
    "Read",
    "StatBucketRow",
    "adding",
    "forgetting",
    "read_series",
    "users_of",
]

GAUGE: Final = "gauge"
"""Label of what is measured, not counted."""

USER: Final = "user"
"""Metric whose labels are those who spoke; its value is how often."""


class StatBucketRow(SQLModel, table=True):
    """One figure of one minute; several rows of one minute add up (the hub was restarted)."""

    __tablename__ = "stat_bucket"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_stat_bucket_metric_ts", "metric", "ts"),
        {"info": {"prune_by": "ts", "prune_unit_us": 1_000_000}},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    ts: int = Field(sa_type=BigInteger)
    metric: str
    label: str
    value: float


_rows: Any = table_of(StatBucketRow).c

Read = tuple[int, str, str, float]
"""Beginning of a bucket in seconds, metric, label, value."""


def adding(rows: Sequence[Read]) -> Statement:
    """Return the statement that keeps figures."""
    names = ("ts", "metric", "label", "value")
    values: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    return insert(StatBucketRow), values


def forgetting(*, before_s: int, users_before_s: int) -> list[Statement]:
    """Return the statements that remove what is too old."""
    return [
        (delete(StatBucketRow).where(_rows.ts < before_s), []),
        (delete(StatBucketRow).where(_rows.metric == USER, _rows.ts < users_before_s), []),
    ]


def read_series(session: Session, *, from_s: int, bucket_s: int) -> list[Read]:
    """Return all metrics but users by bucket: sums, and of gauges the highest."""
    place = _rows.ts - _rows.ts % bucket_s
    query = (
        select(
            place,
            _rows.metric,
            _rows.label,
            case((_rows.label == GAUGE, func.max(_rows.value)), else_=func.sum(_rows.value)),
        )
        .where(_rows.metric != USER, _rows.ts >= from_s)
        .group_by(place, _rows.metric, _rows.label)
    )
    found = session.connection().execute(query).all()
    return [(int(ts), metric, label, float(value)) for ts, metric, label, value in found]


def users_of(session: Session, *, from_s: int, bucket_s: int) -> list[tuple[int, str]]:
    """Return who spoke in which bucket, each once."""
    place = _rows.ts - _rows.ts % bucket_s
    query = select(place, _rows.label).where(_rows.metric == USER, _rows.ts >= from_s).distinct()
    return [(int(ts), label) for ts, label in session.connection().execute(query).all()]
