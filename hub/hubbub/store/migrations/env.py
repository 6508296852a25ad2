"""Run by Alembic: migrates over the connection that `store.migrate` gives."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from hubbub.store import tables as tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transactional_ddl=False,
)
context.run_migrations()
