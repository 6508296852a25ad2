"""The invariants, as checks of rows and of memory. Numbers are those of `RULES`.

Each is written again here from what it says, not by calling the code that should keep it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any, Final

from sqlalchemy import make_url

from hubbub.core import Core
from hubbub.delivery import mailbox
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox, requirement_of
from hubbub.values import Delivery
from tests.hub.invariants.rules import (
    BrokenRuleError,
    DeliveryFacts,
    Moment,
    Rows,
    TaskFacts,
)

FREE_S: Final = 10.0

_OWNERS: Final = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database "
    "WHERE locktype = 'advisory' AND datname = current_database()"
)
_NUMBERS_SQLITE: Final = "(SELECT value FROM json_each(?))"
_NUMBERS_POSTGRES: Final = "(SELECT value::bigint FROM json_array_elements_text(%s::json))"


class StoreChecks:
    """Reads the rows after each commit, and remembers what may never change.

    Attributes:
        run_ends: State of each run that has ended, by the task's id and the run.
        history: All that the row of any task has said after a commit.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._connection: Any = None  # of sqlite3 or psycopg, which are alike here
        self._outcomes: dict[int, tuple[str, str | None]] = {}
        self.run_ends: dict[tuple[str, int], str] = {}
        self.history: set[TaskFacts] = set()
        self._seen_seq = 0
        self._envelopes: dict[str, list[int]] = {}
        self._results: Counter[str] = Counter()
        self.rows = Rows()

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def wait_until_free(self) -> None:
        """Wait until a server has noticed that the hub is gone, which owned the database."""
        if self._connection is None or self._url.get_backend_name() == "sqlite":
            return
        until = monotonic() + FREE_S
        while self._connection.execute(_OWNERS).fetchone()[0]:
            assert monotonic() < until, "the server keeps the lock of a hub that is gone"
            sleep(0.005)

    def look(self) -> Rows:
        """Read all rows and check the rules that hold after every commit."""
        self.rows = rows = self._read()
        for d in rows.deliveries.values():
            _check_delivery(d)
        self._check_outcomes(rows)
        _check_twice(rows)
        for task in rows.tasks.values():
            self._check_task(task, rows)
        return rows

    def _read(self) -> Rows:
        on_sqlite = self._url.get_backend_name() == "sqlite"
        if self._connection is None:
            self._connection = self._connect(on_sqlite)
        run = self._connection.execute
        columns = ", ".join(DeliveryFacts._fields)
        deliveries = {
            row[0]: DeliveryFacts(*row) for row in run(f"SELECT {columns} FROM delivery")
        }  # fmt: skip
        columns = ", ".join(TaskFacts._fields)
        tasks = {row[0]: _task_facts(row) for row in run(f"SELECT {columns} FROM task")}
        self.history.update(tasks.values())
        fresh = run(
            "SELECT seq, id, type, data FROM envelope WHERE seq NOT IN "
            + (_NUMBERS_SQLITE if on_sqlite else _NUMBERS_POSTGRES),
            (json.dumps([seq for seqs in self._envelopes.values() for seq in seqs]),),
        )
        for seq, name, kind, data in fresh:
            self._envelopes.setdefault(name, []).append(seq)
            if kind == "hubbub.task.result.v1":
                self._results[json.loads(data)["task_id"]] += 1
        attempts = Counter[str]()
        for (task_id,) in run("SELECT task_id FROM task_attempt WHERE ended_us IS NULL"):
            attempts[task_id] += 1
        return Rows(deliveries, tasks, self._envelopes, self._results, attempts)

    def _connect(self, on_sqlite: bool) -> Any:
        if on_sqlite:
            return sqlite3.connect(str(self._url.database), isolation_level=None)
        import psycopg

        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True)

    def _check_outcomes(self, rows: Rows) -> None:
        for delivery_id, (outcome, reason) in self._outcomes.items():
            d = rows.deliveries.get(delivery_id)
            if d is None or (d.outcome, d.reason) != (outcome, reason):
                raise BrokenRuleError(2, f"delivery {delivery_id} was {outcome}: {reason}, now {d}")
        for d in rows.deliveries.values():
            if d.outcome is not None:
                self._outcomes[d.id] = (d.outcome, d.reason)

    def _check_task(self, task: TaskFacts, rows: Rows) -> None:
        if task.orphan:
            return
        d = rows.deliveries.get(task.delivery_id or 0)
        if d is None:
            raise BrokenRuleError(3, f"{task} has no delivery")
        wanted = _states_of(d)
        if task.state not in wanted:
            raise BrokenRuleError(3, f"task is {task.state}, not {wanted}: {task} of {d}")
        final = task.state not in ("queued", "dispatched")
        if final != (task.finished_us is not None):
            raise BrokenRuleError(3, f"final but not finished, or the other way: {task}")
        if rows.open_attempts[task.id] != (d.state == "in_flight"):
            raise BrokenRuleError(3, f"{rows.open_attempts[task.id]} open attempts: {task} of {d}")
        runs_ended = task.run if final else task.run - 1
        if rows.results[task.id] != runs_ended:
            raise BrokenRuleError(4, f"{rows.results[task.id]} results, {runs_ended} runs: {task}")
        before = self.run_ends.get((task.id, task.run))
        if before is not None and before != task.state:
            raise BrokenRuleError(2, f"the run was {before}: {task}")
        if final:
            self.run_ends[task.id, task.run] = task.state


def _task_facts(row: Sequence[Any]) -> TaskFacts:
    facts = TaskFacts(*row)
    result = None if facts.result is None else bytes(facts.result)
    return facts._replace(orphan=bool(facts.orphan), result=result)


def _check_delivery(d: DeliveryFacts) -> None:
    if (d.state == "done") != (d.outcome is not None):
        raise BrokenRuleError(1, f"done without outcome, or the other way: {d}")
    if d.state not in ("pending", "in_flight", "done"):
        raise BrokenRuleError(1, f"no such state: {d}")
    if d.state == "in_flight" and not (d.leased and d.lease_until_us and d.endpoint):
        raise BrokenRuleError(1, f"in flight without a lease: {d}")
    if d.state != "in_flight" and d.lease_until_us is not None:
        raise BrokenRuleError(1, f"a lease, and not in flight: {d}")
    if d.outcome not in (None, "delivered") and not d.reason:
        raise BrokenRuleError(1, f"no reason: {d}")
    if not 0 <= d.attempts <= d.max_attempts:
        raise BrokenRuleError(7, f"too many attempts: {d}")


def _states_of(d: DeliveryFacts) -> tuple[str, ...]:
    """Return what a task may be whose delivery is so (core, section 4)."""
    match (d.state, d.outcome, d.reason):
        case ("pending", _, _):
            return ("queued",)
        case ("in_flight", _, _):
            return ("dispatched",)
        case (_, "delivered", _):
            return ("completed", "failed")
        case (_, "dead", "timeout"):
            return ("timeout",)
        case (_, "dropped", "cancelled"):
            return ("cancelled",)
        case _:
            return ("failed",)


def _check_twice(rows: Rows) -> None:
    """No endpoint has one envelope by two deliveries, replays and further runs aside."""
    seen: dict[tuple[int, str], int] = {}
    for d in rows.deliveries.values():
        own = None if requirement_of(d.mailbox) else d.mailbox
        # A task pulled and finished by somebody else (`anyone`) names the finisher.
        address = own or d.endpoint
        if address is None or d.replay_of is not None:
            continue
        other = seen.setdefault((d.envelope_seq, address), d.id)
        if other != d.id:
            raise BrokenRuleError(
                7, f"{address} has envelope {d.envelope_seq} by {other} and {d.id}"
            )


def check_memory(moment: Moment) -> None:  # noqa: C901, PLR0912  # one fact after the other
    """Check what holds when nothing is under way: no publish, no commit, no read."""
    core = moment.core
    flying: dict[int, Delivery] = {}
    for link in moment.links.values():
        for d in link.in_flight.values():
            if d.id in flying:
                raise BrokenRuleError(1, f"in flight twice: {d.id}")
            flying[d.id] = d
        if link.closed and link.in_flight:
            raise BrokenRuleError(6, f"closed link of {link.address} has {list(link.in_flight)}")
        if link.promised:
            raise BrokenRuleError(6, f"{link.address} keeps slots for {link.promised}")
    for d in core.room.in_hand.values():
        if d.state == "in_flight" and d.pulled_by is None and d.id not in flying:
            raise BrokenRuleError(6, f"{d.endpoint} has {d.id}, and no living link of it has")
        if d.state == "in_flight":
            flying[d.id] = d
    waiting = {d.id: d for box in core.room.boxes for d in box.line}
    both = waiting.keys() & flying.keys()
    if both:
        raise BrokenRuleError(1, f"waiting and in flight: {both}")
    for d in (*flying.values(), *waiting.values()):
        row = moment.rows.deliveries.get(d.id)
        if d.durable and (row is None or row.state == "done"):
            raise BrokenRuleError(1, f"memory has {d}, the store {row}")
    behind = Counter(
        row.mailbox
        for row in moment.rows.deliveries.values()
        if row.state != "done" and row.id not in flying and row.id not in waiting
    )
    for row in moment.rows.deliveries.values():
        if row.state == "in_flight" and row.id not in flying:
            raise BrokenRuleError(1, f"nobody in memory has what is in flight: {row}")
    boxes = {box.name: box for box in core.room.boxes}
    for name, count in behind.items():
        if name not in boxes:
            raise BrokenRuleError(10, f"{count} wait in {name}, which is forgotten")
    for box in boxes.values():
        _check_depth(box, behind[box.name])
    for row in moment.rows.deliveries.values():
        if row.state == "pending" and row.id not in flying:
            _check_reason(row, moment, waiting, flying)


def _check_depth(box: Mailbox, behind: int) -> None:
    if box.behind != behind:
        raise BrokenRuleError(9, f"{box.name} counts {box.behind} behind, the store has {behind}")
    if box.depth != len(box.line) + behind:
        raise BrokenRuleError(9, f"{box.name} counts {box.depth}, has {len(box.line)} and {behind}")


def _check_reason(
    row: DeliveryFacts,
    moment: Moment,
    waiting: Mapping[int, Delivery],
    flying: Mapping[int, Delivery],
) -> None:
    """Something that could go now must not wait."""
    core, now_us = moment.core, moment.now_us
    known = waiting.get(row.id)
    due_us = row.due_us if known is None else known.due_us
    deadline_us = row.deadline_us if known is None else known.deadline_us
    since_us = max(moment.since_us, 0 if known is None else known.updated_us)
    awake = now_us - since_us > 2_000_000
    if awake and deadline_us is not None and deadline_us < now_us - 2_000_000:
        raise BrokenRuleError(10, f"its deadline has passed: {row}")
    if due_us > now_us - 1_000_000:
        return
    if known is None and _counted(core.room.boxes.get(row.mailbox)) > mailbox.WINDOW // 2:
        return  # memory is bounded: it is read when there is place
    if row.lane is not None and _lane_is_busy(row, moment, waiting, flying):
        return
    box = core.room.boxes.find(row.mailbox)
    assert box is not None
    ahead = box.line.head(now_us=now_us)
    if ahead is not None and (ahead.rank, ahead.id) < (row.rank, row.id):
        return  # it is looked at when that one has gone
    requirement = requirement_of(row.mailbox)
    addresses = [row.mailbox] if requirement is None else list(core.directory.eligible(requirement))
    siblings = {
        other.endpoint or other.mailbox
        for other in moment.rows.deliveries.values()
        if other.envelope_seq == row.envelope_seq and other.id != row.id
    }
    if known is not None:  # no row says of the volatile ones
        siblings.update(one.endpoint or one.mailbox for one in known.siblings if one is not known)
    for address in addresses:
        link = moment.links.get(address)
        if link is None or link.closed or link.free <= 0 or (link.endpoint.pull and row.leased):
            continue
        if requirement is not None and address in siblings:
            continue
        if link.guard is not None and link.guard.wait(now_us / 1e6)[0] > 0:
            continue
        raise BrokenRuleError(10, f"{address} is free, and {row} waits")


def _counted(box: Mailbox) -> int:
    """Return what counts of the durable ones in memory: half of the places are for blocked keys."""
    busy = box.line.busy_lanes()
    lanes = box.line._lanes
    leaders = {d.id for d in box.line if d.lane in busy and d is lanes[d.lane].busy}
    behind = Counter(
        d.lane for d in box.line if d.durable and d.lane in busy and d.id not in leaders
    )
    counted = sum(d.durable for d in box.line) - behind.total()
    share = mailbox.WINDOW // 2 // len(behind) if behind else 0
    return counted + sum(min(number, share) for number in behind.values())


def _lane_is_busy(
    row: DeliveryFacts,
    moment: Moment,
    waiting: Mapping[int, Delivery],
    flying: Mapping[int, Delivery],
) -> bool:
    """Tell whether another of its key is under way, between attempts, or before it."""
    mates: list[DeliveryFacts | Delivery] = [
        *moment.rows.deliveries.values(),
        *waiting.values(),
        *flying.values(),
    ]
    return any(
        d.id in flying
        or (d.id in waiting and waiting[d.id].attempts > 0)
        or (d.rank, d.id) < (row.rank, row.id)
        for d in mates
        if (d.mailbox, d.lane) == (row.mailbox, row.lane) and d.id != row.id and d.state != "done"
    )


def check_empty(core: Core, rows: Rows, links: Mapping[str, EndpointLink]) -> None:
    """Check that nothing is left when everybody was free for long enough."""
    for row in rows.deliveries.values():
        if row.state != "done":
            raise BrokenRuleError(10, f"it waits for ever: {row}")
    for box in core.room.boxes:
        if box.depth or box.behind or len(box.line):
            raise BrokenRuleError(
                9, f"{box.name}: depth {box.depth}, behind {box.behind} when all is done"
            )
        if box.line.busy_lanes():
            raise BrokenRuleError(
                5, f"{box.name}: lanes {set(box.line.busy_lanes())} are never free"
            )
    for link in links.values():
        if link.busy:
            kept = (link.in_flight, link.overtime, link.promised)
            raise BrokenRuleError(6, f"{link.address} keeps a slot: {kept}")
    left: dict[str, Any] = dict(core.room.in_hand)
    if left:
        raise BrokenRuleError(9, f"in hand for ever: {left}")
