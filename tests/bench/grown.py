"""What a publish costs on a hub that has grown: stored envelopes, routes, endpoints."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Final

import msgspec

from tests.bench.hubs import HubProcess, scratch
from tests.bench.load import post
from tests.bench.plan import Plan, envelope, rounds
from tests.bench.table import Line, compared

__all__ = ["grown"]

ENVELOPES: Final = 5_000_000
ROUTES: Final = 100_000
ENDPOINTS: Final = 10_000
AT_ONCE: Final = 250_000
SUBJECT: Final = "bench.stored"

CONFIG: Final = """
[[routes]]
name = "kept until somebody comes"
match = "bench.stored"
to = ["stream.bench"]
hold = "1h"
"""

_COUNT: Final = (
    "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
)


def grown(plan: Plan) -> list[Line]:
    """POST /api/v1/envelopes, durable to one mailbox: an empty hub, and three that are not."""
    kinds: Mapping[str, Callable[[sqlite3.Connection], None]] = {
        "empty": lambda _: None,
        f"{ENVELOPES:,} stored envelopes": _envelopes,
        f"{ROUTES:,} routes": _routes,
        f"{ENDPOINTS:,} endpoints": _endpoints,
    }
    request = envelope(SUBJECT, durable=True)
    with scratch(plan.where) as folder, ExitStack() as stack:
        hubs: list[HubProcess] = []
        for fill in kinds.values():
            hub = HubProcess(folder / str(len(hubs)), config=CONFIG)
            with hub, hub.client() as client:
                body = json.loads(envelope("nobody.listens", durable=True))
                client.post("/api/v1/envelopes", json=body).raise_for_status()
            with closing(sqlite3.connect(hub.database, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = OFF")
                fill(connection)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            hubs.append(stack.enter_context(hub))
        loads = [(hub, plan.load(post("/api/v1/envelopes", request, hub.token()))) for hub in hubs]
        taken = rounds(plan, loads)
        lines: list[Line] = []
        for place, name in enumerate(kinds):
            line = compared("grown", name, [(one[0], one[place]) for one in taken])
            cost = (line.cpu_us or 0.0) / (line.floor_cpu_us or 1.0)
            line.ratio = line.floor = None  # rates of four hubs at once say less than their CPU
            line.target = "CPU <= 1.15" if place else ""
            line.note = f"CPU {cost:.2f} of empty; ready in {hubs[place].ready_s:.2f} s"
            lines.append(line)
        return lines


def _envelopes(connection: sqlite3.Connection) -> None:
    """Copy the one envelope there is, with ids and times of their own that lie before it."""
    columns = [str(row[1]) for row in connection.execute("PRAGMA table_info(envelope)")]
    given = {
        "seq": f"seq - {ENVELOPES + 1} + i",
        "id": "printf('0%025d', i)",
        "time_us": f"time_us - ({ENVELOPES + 1} - i) * 1000",
        "trace_id": "printf('%032x', i)",
        "span_id": "printf('%016x', i)",
    }
    values = ", ".join(given.get(column, column) for column in columns)
    connection.execute("CREATE TEMP TABLE one AS SELECT * FROM envelope LIMIT 1")
    for first in range(1, ENVELOPES + 1, AT_ONCE):
        connection.execute(
            f"{_COUNT} INSERT INTO envelope ({', '.join(columns)}) SELECT {values} FROM n, one",
            {"first": first, "last": min(first + AT_ONCE - 1, ENVELOPES)},
        )


def _routes(connection: sqlite3.Connection) -> None:
    rows = [
        (f"r{number}", json.dumps({"match": f"shop.{number}.>", "to": [f"stream.s{number}"]}), 0)
        for number in range(ROUTES)
    ]
    _insert(connection, "INSERT INTO route (name, body, updated_us) VALUES (?, ?, ?)", rows)


def _endpoints(connection: sqlite3.Connection) -> None:
    rows = [
        (
            f"stream.e{number}",
            msgspec.json.encode({"linger_s": None, "subscriptions": [f"news.{number}.>"]}),
            0,
        )
        for number in range(ENDPOINTS)
    ]
    _insert(connection, "INSERT INTO endpoint (address, spec, seen_us) VALUES (?, ?, ?)", rows)


def _insert(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> None:
    connection.execute("BEGIN")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")
