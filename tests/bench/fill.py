"""Fill a stopped hub's database with tasks of the past, quickly.

No row is invented here: a hub takes one real task (and finishes it), and every row it wrote is
copied with its times moved back and its ids changed. So the copies are like the hub's own whatever
columns it has.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from tests.bench.hubs import HubProcess
from tests.bench.plan import RELAY_SEND, relay_task

__all__ = ["fill", "one_task"]

TABLES: Final = ("envelope", "delivery", "task", "task_attempt", "relay_event")

GAP_MS: Final = 5_000
"""So long before the sampled task the newest copy is."""

AT_ONCE: Final = 5_000

_SEQ_FROM: Final = 10**17
"""Integers from here on are sequence numbers: milliseconds and a counter of `_SEQ_BITS` bits."""

_SEQ_BITS: Final = 19
_US_FROM: Final = 10**15
_MS_FROM: Final = 10**12
_ULID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_TASK_ID: Final = re.compile(r"t_(\d{13})(\d{6})")
_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_SPAN: Final = re.compile(r"[0-9a-f]{16}")
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Value = int | str | bytes | None
Values = tuple[Value, ...]


def one_task(hub: HubProcess, *, finished: bool) -> None:
    """Let a running hub take one task, and let a worker finish it."""
    with hub.client() as client:
        sent = client.post(RELAY_SEND, content=relay_task())
        assert sent.status_code == 200, sent.text
        if not finished:
            return
        leased = client.get("/api/relay/tasks?to=child&limit=1&wait=5&worker=w1&lease=60")
        assert leased.status_code == 200, leased.text
        assert len(leased.json()["tasks"]) == 1, leased.text
        done = {
            "task_id": sent.json()["task_id"],
            "child_id": "w1",
            "status": "done",
            "result": {"summary": "ok", "score": 0.85},
        }
        answer = client.post("/api/relay/callback", json=done)
        assert answer.status_code == 200, answer.text


@dataclass(frozen=True, slots=True)
class _Changes:
    """What differs from the sampled task in one copy."""

    number: int
    back_ms: int
    texts: dict[str, str]
    blobs: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Shape:
    """One sampled row, and which of its columns a copy changes."""

    values: Values
    shifted: tuple[tuple[int, int], ...]
    """Column and the number of units in a millisecond."""
    texts: tuple[int, ...]
    blobs: tuple[int, ...]
    counted: int | None
    """The automatic key, if it has one."""

    def copy(self, changes: _Changes, row_number: int) -> Values:
        """Return this row as it is in one copy."""
        values = list(self.values)
        for column, units in self.shifted:
            values[column] = self.values[column] - changes.back_ms * units  # type: ignore[operator]
        for column in self.texts:
            text = values[column]
            assert isinstance(text, str)
            values[column] = changes.texts.get(text) or _replaced(text, changes.texts)
        for column in self.blobs:
            blob = values[column]
            assert isinstance(blob, bytes)
            for old, new in changes.blobs.items():
                blob = blob.replace(old, new)
            values[column] = blob
        if self.counted is not None:
            values[self.counted] = row_number
        return tuple(values)


def fill(database: Path, tasks: int) -> None:
    """Replace the one task in the database of a stopped hub by many copies of it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "temp_store = MEMORY", "cache_size = -200000"):
            connection.execute(f"PRAGMA {pragma}")
        rows = {table: _rows(connection, table) for table in TABLES}
        ids = _ids_of(rows)
        shapes = {
            table: [_shape(values, ids, _automatic(connection, table)) for values in found]
            for table, found in rows.items()
            if found
        }
        inserts = {
            table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0].values))})"
            for table, found in shapes.items()
        }
        for table in shapes:
            connection.execute(f"DELETE FROM {table}")
        copies = _copies(ids, tasks, apart_ms=_length_ms(rows))
        while some := list(islice(copies, AT_ONCE)):
            connection.execute("BEGIN")
            for table, found in shapes.items():
                count = len(found)
                connection.executemany(
                    inserts[table],
                    (
                        shape.copy(changes, changes.number * count + place + 1)
                        for changes in some
                        for place, shape in enumerate(found)
                    ),
                )
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(connection: sqlite3.Connection, table: str) -> list[Values]:
    return list(connection.execute(f"SELECT * FROM {table} ORDER BY rowid"))


def _automatic(connection: sqlite3.Connection, table: str) -> int | None:
    """Return the column that counts the rows, if the table has one."""
    columns = list(connection.execute(f"PRAGMA table_info({table})"))
    keys = [(int(place), kind) for place, _, kind, _, _, key in columns if key]
    if len(keys) == 1 and keys[0][1].upper() == "INTEGER" and table not in ("envelope", "delivery"):
        return keys[0][0]
    return None


def _ids_of(rows: dict[str, list[Values]]) -> list[str]:
    """Return every text in the rows that is an id, as a whole."""
    texts = {value for found in rows.values() for row in found for value in row}
    patterns = (_ULID, _TASK_ID, _TRACE, _SPAN)
    return sorted(
        text for text in texts if isinstance(text, str) and any(p.fullmatch(text) for p in patterns)
    )


def _shape(values: Values, ids: list[str], automatic: int | None) -> _Shape:
    shifted: list[tuple[int, int]] = []
    texts: list[int] = []
    blobs: list[int] = []
    for column, value in enumerate(values):
        match value:
            case int() if column != automatic and value >= _SEQ_FROM:
                shifted.append((column, 1 << _SEQ_BITS))
            case int() if column != automatic and value >= _US_FROM:
                shifted.append((column, 1000))
            case int() if column != automatic and value >= _MS_FROM:
                shifted.append((column, 1))
            case str() if any(one in value for one in ids):
                texts.append(column)
            case bytes() if any(one.encode() in value for one in ids):
                blobs.append(column)
            case _:
                pass
    return _Shape(values, tuple(shifted), tuple(texts), tuple(blobs), automatic)


def _length_ms(rows: dict[str, list[Values]]) -> int:
    """Return how far apart copies must be, so that none has a number of another one."""
    values = [value for found in rows.values() for row in found for value in row]
    seqs = [value for value in values if isinstance(value, int) and value >= _SEQ_FROM]
    return ((max(seqs) - min(seqs)) >> _SEQ_BITS) + 1


def _copies(ids: list[str], tasks: int, *, apart_ms: int) -> Iterator[_Changes]:
    """Yield what each copy changes, oldest first."""
    for number in range(tasks):
        back_ms = GAP_MS + (tasks - number) * apart_ms
        texts = {one: _earlier(one, number, place, back_ms) for place, one in enumerate(ids)}
        blobs = {old.encode(): new.encode() for old, new in texts.items()}
        yield _Changes(number, back_ms, texts, blobs)


def _earlier(one: str, number: int, place: int, back_ms: int) -> str:
    """Return an id of the same kind, of an earlier time, in the order of time."""
    if (found := _TASK_ID.fullmatch(one)) is not None:
        return f"t_{int(found[1]) - back_ms}{number % 10**6:06d}"
    if _ULID.fullmatch(one):
        prefix = _base32(_number32(one[:10]) - back_ms, 10)
        return prefix + _base32(number * 16 + place, 16)
    if len(one) == 32:
        return f"{int(one[:16], 16) - back_ms * 1000:016x}{one[16:]}"
    return f"{number * 16 + place + 1:016x}"


def _replaced(text: str, texts: dict[str, str]) -> str:
    for old, new in texts.items():
        text = text.replace(old, new)
    return text


def _base32(number: int, digits: int) -> str:
    letters = [_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(digits))]
    return "".join(letters)


def _number32(text: str) -> int:
    number = 0
    for letter in text:
        number = number * 32 + _CROCKFORD.index(letter)
    return number
