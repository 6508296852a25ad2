"""Why an attempt of a task failed, beside how it ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("task_attempt", sa.Column("error", sa.String(), nullable=True))
