"""Run by Alembic: migrates over the connection that `store.migrate` gives."""

from __future__ import annotations

from alembic import context

from hubbub.store.tables import MetaRow

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=MetaRow.metadata,
    transactional_ddl=False,
)
context.run_migrations()
