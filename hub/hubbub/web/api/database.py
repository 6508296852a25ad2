"""The database as an operator sees it: sizes, old rows, copies, history."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Table

from hubbub.core import Core
from hubbub.envelope import rfc3339
from hubbub.errors import ConflictError, InvalidError
from hubbub.store import backups, pruning, sizes, upkeep
from hubbub.times import parse_time
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.shapes_of_upkeep import (
    BackupList,
    BackupView,
    Confirmed,
    ConfirmIn,
    MigrationList,
    Pruned,
    PruneIn,
    TableList,
    Vacuumed,
)

__all__ = ["OPERATIONS"]

ENVELOPE: Final = "envelope"
"""Goes with its deliveries, tasks and steps, and only when nothing of it waits."""


async def tables(call: Call) -> Reply:
    """List tables with their rows and bytes."""
    core = call.core
    found = await core.read(sizes.table_sizes, patient=True)
    old = await core.read(pruning.prunable)
    items = [
        {
            "name": one.name,
            "rows": one.rows,
            "bytes": one.bytes,
            "prunable": one.name == ENVELOPE or one.name in old,
        }
        for one in found
    ]
    return Reply(200, {"items": items, "next": None, "bytes": await core.database_bytes()})


async def prune(call: Call) -> Reply:
    """Remove rows that are older than a time, or count them."""
    wanted, core = await call.json(PruneIn), call.core
    now_us = core.clock.now_us()
    before_us = pages.time_in(wanted.older_than, what="older_than", now_us=now_us)
    if pages.is_duration(wanted.older_than) and not wanted.dry_run and core.hold.reason is not None:
        raise ConflictError(
            f"older_than {wanted.older_than!r} counts from the hub's clock, which is not confirmed "
            f"({core.hold.reason}); or give a time, such as {rfc3339(before_us)}"
        )
    if wanted.table == ENVELOPE:
        matched = await core.retention.prune(before_us, dry_run=wanted.dry_run)
    else:
        table = await _table(core, wanted.table)
        matched = await core.read(
            partial(pruning.count_old, table=table, before_us=before_us), patient=True
        )
        if not wanted.dry_run:
            for _ in range(0, matched, pruning.STEP):
                await core.execute(pruning.removing(table, before_us=before_us), patient=True)
    if not wanted.dry_run:
        detail = f"{matched} rows before {rfc3339(before_us)}"
        await core.audit(call.principal.name, "database.prune", wanted.table, detail)
    return Reply(
        200,
        {
            "table": wanted.table,
            "older_than": rfc3339(before_us),
            "matched": matched,
            "removed": 0 if wanted.dry_run else matched,
            "dry_run": wanted.dry_run,
        },
    )


async def confirm(call: Call) -> Reply:
    """Let retention go on, by a time that an operator has looked at."""
    wanted, core = await call.json(ConfirmIn), call.core
    held = await core.hold.confirm(parse_time(wanted.time, what="time"))
    now = rfc3339(core.clock.now_us())
    await core.audit(call.principal.name, "retention.confirm", now, held or "nothing was held")
    return Reply(200, {"time": now, "held": held})


async def _table(core: Core, name: str) -> Table:
    """Return a table whose old rows may go.

    Raises:
        InvalidError: it has none that may.
    """
    known = await core.read(pruning.prunable)
    if name not in known:
        names = ", ".join(sorted((ENVELOPE, *known)))
        raise InvalidError(f"rows of {name[:64]!r} do not grow old; those of {names} do")
    return known[name]


async def vacuum(call: Call) -> Reply:
    """Give back the room of rows that are gone."""
    core = call.core
    core.database.check_files()
    before = await core.database_bytes()
    await asyncio.to_thread(upkeep.vacuum, core.database.engine)
    await core.audit(call.principal.name, "database.vacuum", core.config.hub.name)
    return Reply(200, {"bytes_before": before, "bytes": await core.database_bytes()})


async def back_up(call: Call) -> Reply:
    """Copy the database into the data directory."""
    core = call.core
    if core.database.path is None:
        raise ConflictError(
            "a PostgreSQL database is backed up by its operator: with pg_dump, or with "
            "`hubbub db backup FILE`"
        )
    core.database.check_files()
    made = await asyncio.to_thread(backups.back_up_into, core.config.store_url, _folder(core))
    await core.audit(call.principal.name, "database.backup", made.file.name)
    return Reply(201, _backup(made))


async def copies(call: Call) -> Reply:
    """List the copies in the data directory."""
    found = await asyncio.to_thread(backups.listed, _folder(call.core))
    return pages.page([_backup(one) for one in found], None)


async def migrations(call: Call) -> Reply:
    """List the steps of the tables' history."""
    found = await call.core.read(upkeep.migrations)
    items = [{"revision": one.revision, "says": one.says, "applied": one.applied} for one in found]
    return pages.page(items, None)


def _folder(core: Core) -> Path:
    return core.data_dir / "backups"


def _backup(one: backups.Backup) -> dict[str, object]:
    return {
        "name": one.file.name,
        "file": str(one.file),
        "bytes": one.bytes,
        "created_at": rfc3339(one.made_us),
    }


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/database/tables",
        tables,
        "Tables, their rows and bytes",
        ("read",),
        Spec(answers={200: TableList}),
    ),
    Operation(
        "POST",
        "/api/v1/database/prune",
        prune,
        "Remove rows that are older than a time, or count them",
        spec=Spec(answers={200: Pruned}, body=PruneIn, problems=(409,)),
    ),
    Operation(
        "POST",
        "/api/v1/retention/confirm",
        confirm,
        "Say what time it is after a far jump of the clock, so that retention goes on",
        spec=Spec(answers={200: Confirmed}, body=ConfirmIn, problems=(409,)),
    ),
    Operation(
        "POST",
        "/api/v1/database/vacuum",
        vacuum,
        "Give back the room of rows that are gone",
        spec=Spec(answers={200: Vacuumed}),
    ),
    Operation(
        "POST",
        "/api/v1/database/backup",
        back_up,
        "Copy a SQLite database into the data directory",
        spec=Spec(answers={201: BackupView}, problems=(409,)),
    ),
    Operation(
        "GET",
        "/api/v1/database/backups",
        copies,
        "Copies in the data directory, newest first",
        spec=Spec(answers={200: BackupList}),
    ),
    Operation(
        "GET",
        "/api/v1/database/migrations",
        migrations,
        "Steps of the tables' history, newest first",
        ("read",),
        Spec(answers={200: MigrationList}),
    ),
)
