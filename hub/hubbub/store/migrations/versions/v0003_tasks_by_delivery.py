"""What tasks wait is counted by their deliveries, without an index of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_task_unfinished", table_name="task")
    op.drop_index("ix_delivery_waiting", table_name="delivery")
    op.create_index(
        "ix_delivery_waiting",
        "delivery",
        ["mailbox", "rank", "id", "leased"],
        unique=False,
        sqlite_where=sa.text("state <> 'done'"),
        postgresql_where=sa.text("state <> 'done'"),
    )
