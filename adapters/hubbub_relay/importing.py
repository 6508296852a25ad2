"""Import of the original's files: `conversation_log.jsonl` and `task_state.json`.

Reading them (`fold`) is pure and happens where the files are; `take` happens in the hub. A record
is named by its place and text, so that importing the same file again adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Final, cast

import msgspec

from hubbub import Hub
from hubbub.clock import seq_of_time
from hubbub.envelope import decode_json, encode_json
from hubbub.errors import HubError
from hubbub.ports import Record, Row
from hubbub.values import Task, TaskState
from hubbub_relay import events, wire
from hubbub_relay.keys import Caller
from hubbub_relay.sending import Sending
from hubbub_relay.wire import RelayError

__all__ = ["Batch", "Done", "Ended", "Folded", "Line", "batches", "fold", "read_batch", "take"]

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
EVENTS: Final = frozenset({"send", "callback", "ack"})
_DONE: Final = frozenset({"done", "completed", "ok"})


class Ended(msgspec.Struct, frozen=True):
    """How a task ended."""

    state: str
    result: object = None


class Line(msgspec.Struct, frozen=True):
    """One record of the log; `mark` names it."""

    mark: str
    record: dict[str, object]


class Batch(msgspec.Struct, frozen=True):
    """A part of a log, and how tasks ended that are in it."""

    lines: list[Line] = []
    ended: dict[str, Ended] = {}


@dataclass(slots=True)
class Folded:
    """A whole log: its records, how its tasks ended, and how many lines could not be read."""

    lines: list[Line] = field(default_factory=list[Line])
    ended: dict[str, Ended] = field(default_factory=dict[str, Ended])
    bad_lines: int = 0
    bad_state: bool = False


@dataclass(slots=True)
class Done:
    """What became of a batch.

    Attributes:
        known: Records that were there already.
        queued: Tasks that had not ended and wait again.
    """

    kept: int = 0
    known: int = 0
    queued: int = 0


# Reading the files


def fold(log: Iterable[bytes], state: bytes | None) -> Folded:
    """Read a log and a state file; lines and a state that cannot be read are left out.

    The state of a task is what the state file says, else what the log's last callback says.
    """
    folded = Folded()
    for place, text in enumerate(log):
        if not text.strip():
            continue
        record = _object(text)
        if record is None or record.get("event") not in EVENTS:
            folded.bad_lines += 1
            continue
        mark = sha256(b"%d:%b" % (place, text.strip())).hexdigest()[:32]
        folded.lines.append(Line(mark, record))
        _note_end(folded, record)
    if state is not None:
        states = _object(state)
        folded.bad_state = states is None
        for task_id, said in (states or {}).items():
            _note_state(folded, task_id, said)
    return folded


def _note_end(folded: Folded, record: Mapping[str, object]) -> None:
    task_id, status = record.get("task_id"), record.get("status", "done")
    if record["event"] != "callback" or not isinstance(task_id, str) or status == "processing":
        return
    done = isinstance(status, str) and status in _DONE
    folded.ended[task_id] = Ended("completed" if done else "failed", record.get("result"))


def _note_state(folded: Folded, task_id: str, said: object) -> None:
    if isinstance(said, dict):
        members = cast("dict[str, object]", said)
        said = members.get("status", members.get("state"))
    if said in ("completed", "failed"):
        before = folded.ended.get(task_id)
        folded.ended[task_id] = Ended(str(said), before.result if before else None)


def _object(text: bytes) -> dict[str, object] | None:
    try:
        decoded = decode_json(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return cast("dict[str, object]", decoded) if isinstance(decoded, dict) else None


def batches(folded: Folded) -> Iterator[bytes]:
    """Yield bodies of `POST import`, none much larger than `BATCH_BYTES`."""
    left = dict(folded.ended)
    for some in _parts(folded.lines):
        names = {str(line.record.get("task_id")) for line in some if _is_task(line.record)}
        ended = {name: left.pop(name) for name in names if name in left}
        yield encode_json(Batch(some, ended))
    rest = iter(left.items())
    while more := dict(islice(rest, BATCH)):
        yield encode_json(Batch([], more))


def _parts(lines: Iterable[Line]) -> Iterator[list[Line]]:
    some: list[Line] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(encode_json(line))
        if len(some) >= BATCH or size >= BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _is_task(record: Mapping[str, object]) -> bool:
    return record.get("event") == "send" and record.get("type") == "task"


# Taking them in


def read_batch(body: bytes) -> Batch:
    """Read the body of `POST import`.

    Raises:
        RelayError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=Batch)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RelayError(f"invalid batch: {error}") from None


async def take(hub: Hub, sending: Sending, batch: Batch, caller: Caller) -> Done:
    """Keep the records of a batch, and the tasks in it: as they ended, or waiting again.

    Raises:
        HubError: the store cannot be written; what was kept before is known next time.
    """
    done = Done()
    task_ids = [str(line.record.get("task_id")) for line in batch.lines]
    marks = [line.mark for line in batch.lines]
    known = await hub.read(lambda session: events.seen(session, task_ids, marks))
    left = dict(batch.ended)
    for line in batch.lines:
        if line.mark in known:
            done.known += 1
            left.pop(str(line.record.get("task_id")), None)
            continue
        await _take_line(hub, sending, line, left, done, caller)
        done.kept += 1
    for task_id, ended in left.items():
        if _valid(task_id):
            await hub.keep(Record(tasks=[_task(task_id, ended, hub.clock.now_us())]))
    return done


async def _take_line(
    hub: Hub,
    sending: Sending,
    line: Line,
    left: dict[str, Ended],
    done: Done,
    caller: Caller,
) -> None:
    record = line.record
    task_id = record.get("task_id")
    named = task_id if isinstance(task_id, str) and _valid(task_id) else None
    ended = left.pop(named, None) if named and _is_task(record) else None
    row = _row(line, named, now_ms=sending.now_ms(), mirrored=False)
    if named and ended is not None:
        task = _task(named, ended, hub.clock.now_us())
        kept = await hub.keep(Record(tasks=[task], rows=[row]))
        if kept.verdict == "kept":
            return
    elif named and _is_task(record):
        try:
            request = wire.read_send(encode_json(record))
            again = _row(line, named, now_ms=sending.now_ms(), mirrored=True)
            if await sending.queue(request, named, caller, again):
                done.queued += 1
                return
        except RelayError:
            pass  # The original took what we do not: kept as a record, not as a task.
    await hub.keep(Record(rows=[row]))


def _valid(task_id: str) -> bool:
    try:
        wire.task_id_of(task_id)
    except HubError:
        return False
    return True


def _row(line: Line, task_id: str | None, *, now_ms: int, mirrored: bool) -> Row:
    members = {name: value for name, value in line.record.items() if name not in wire.RESERVED}
    return events.event_row(
        str(line.record["event"]),
        members,
        ts_ms=_time_ms(line.record.get("ts"), now_ms),
        task_id=task_id,
        trace_id=line.mark,
        final=line.record["event"] == "callback",
        mirrored=mirrored,
    )


def _time_ms(text: object, now_ms: int) -> int:
    """Read `YYYY-MM-DD HH:MM:SS` in the zone of this machine."""
    if not isinstance(text, str):
        return now_ms
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return now_ms


def _task(task_id: str, ended: Ended, now_us: int) -> Task:
    failed = ended.state != "completed"
    return Task(
        id=task_id,
        seq=seq_of_time(now_us),
        envelope_seq=None,
        envelope_id=None,
        task_type="task",
        asker="relay.import",
        state=TaskState.FAILED if failed else TaskState.COMPLETED,
        result=encode_json(ended.result),
        error="failed" if failed else None,
        orphan=True,
        created_us=now_us,
        updated_us=now_us,
        finished_us=now_us,
    )
