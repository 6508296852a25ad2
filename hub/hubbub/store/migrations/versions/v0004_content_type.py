"""Data that is not JSON, under its media type."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("envelope", sa.Column("content_type", sa.String(), nullable=True))
