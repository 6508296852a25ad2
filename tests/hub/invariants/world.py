"""A hub, its peers and its publishers, driven by one seeded source of chance.

`World` does steps, weighted or generated; it notes what it was told and checks the rules of
`checks.py` after every commit and whenever the hub has come to rest.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any, Final, cast
from unittest.mock import patch

from structlog.testing import capture_logs

from hubbub import plugins as plugins_module
from hubbub import rooms as rooms_module
from hubbub.config import Config, load_config
from hubbub.core import Core
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.rules import has_another
from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import HubError, Reject, Retry
from hubbub.guards import GuardRule
from hubbub.ports import Leased, Link, Planned
from hubbub.values import Delivery, Endpoint, Overflow, Principal, Receipt, Route, TaskResult
from tests.hub.invariants.checks import StoreChecks, check_empty, check_memory
from tests.hub.invariants.holdings import check_kept, check_nothing_kept
from tests.hub.invariants.onlookers import Onlookers
from tests.hub.invariants.rules import BrokenRuleError, DeliveryFacts, Moment
from tests.hub.invariants.seams import SimClock, SteppedDatabase, SteppedJournal, quiet

ADDRESSES: Final = (
    "app.a", "app.b", "app.small", "work.a", "work.b", "pull.a", "pull.b",
)  # fmt: skip
KEYS: Final = (None, None, None, "k1", "k2")
SUBJECTS: Final = ("e.1", "e.2", "e.1.deep")
TASK_TYPES: Final = ("alpha", "beta")
CLAIMER: Final = Principal("p", "api.p", frozenset({"admin"}))


class SimEndpoint(Endpoint):
    """A peer: what it answers is the world's business."""

    def __init__(self, world: World, **how: Any) -> None:
        super().__init__(**how)
        self.world = world
        self.told_cancelled: list[str] = []

    async def deliver(self, envelope: Envelope) -> None:
        """Take it, or not, or hang."""
        await self.world.handed_over(self, envelope)

    def cancel(self, task_id: str) -> None:
        """Hear that nobody wants it any more."""
        self.told_cancelled.append(task_id)


class QuickEndpoint(SimEndpoint):
    """A peer that takes some of what it is given without waiting, the rest as all others do."""

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Take the first of them, none, or all."""
        return self.world.handed_over_now(self, envelopes)


@dataclass(slots=True, eq=False)
class Hang:
    """A peer that has not answered yet."""

    address: str
    answer: asyncio.Future[None]


@dataclass(slots=True)
class Claimed:
    """An act under a claim: what was said, and the answers."""

    envelope: Envelope
    answers: list[Receipt] = field(default_factory=list[Receipt])


@lru_cache
def template() -> Path:
    """Return a database that is brought up to date already."""
    folder = Path(mkdtemp(prefix="hubbub-template-"))
    config = load_config(None, overrides=[f'hub.data_dir="{folder}"'], environ={})
    core = Core(config, environ={})
    core.database.open()
    core.database.close()
    return folder / "hub.db"


class World:
    """One run.

    Attributes:
        gave_up: Some of those who called the hub have not waited for its answer.
        story: Steps in words, to read when a rule is broken.
        broken: Rules found broken where nobody could raise.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        plugins: dict[str, object] | None = None,
        store_url: str | None = None,
    ) -> None:
        self.folder = folder
        self.chance = Random(seed)
        # Of their own, so that the runs of old are still the same.
        self.quickness = Random(seed)
        self.declaring = Random(seed)
        self.patience = Random(seed + 1)  # of the journal with outcomes; also of its own
        self.clock = SimClock()
        self.story: list[str] = []
        self.broken: list[BaseException] = []
        self.plugins = plugins or {}
        self.limits = {"app.small": 3}
        self.overflow = self.chance.choice(("wait", "drop_oldest", "drop_newest", "refuse"))
        self.kind = True
        self.number = 0
        self.guards: dict[str, GuardRule] = {}
        self.routes: dict[str, Route] = {}
        self.claims: dict[tuple[str, str], Claimed] = {}
        self.acked: list[str] = []
        self.tasks: list[str] = []
        self.envelopes: list[str] = []
        self.gave_up = False
        self.given: list[tuple[str, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if store_url is None:
            shutil.copy(template(), folder / "hub.db")
        self.store_url = store_url or f"sqlite:///{folder / 'hub.db'}"
        self.store = StoreChecks(self.store_url)
        self.onlookers = Onlookers(self.store, seed, broken=self.broken.append)
        self._new_life()

    # Life of the hub

    def _new_life(self) -> None:
        self.since_us = self.clock.now_us()
        self.found: list[DeliveryFacts] = []
        self.held_links: dict[str, Link] = {}
        self.hanging: list[Hang] = []
        self.doing: list[asyncio.Task[None]] = []
        self.ended: set[int] = set()
        self.counted: set[int] = set()
        self.begun: set[int] = set()
        self.accepted: dict[int, Delivery] = {}
        self.came: dict[int, int] = {}
        self.taken: set[int] = set()
        self.promised: set[int] = set()
        self.there_when_given: dict[int, int] = {}
        self.handed: Counter[int] = Counter()
        self.seen: set[tuple[EndpointLink, int, int]] = set()
        self.let_through: defaultdict[str, list[int]] = defaultdict(list)
        config = self._config()
        with (
            patch.object(rooms_module, "Journal", SteppedJournal),
            patch.object(rooms_module, "Database", SteppedDatabase),
        ):
            self.core = Core(config, clock=self.clock, environ={})
        self.core.plugins.load = _load_nothing  # type: ignore[method-assign]
        for name, plugin in self.plugins.items():
            self.core.plugins.add(name, plugin)
        self.journal = cast("SteppedJournal", self.core.journal)
        self.journal.chance = self.patience
        self.journal.committed = self._committed
        cast("SteppedDatabase", self.core.database).chance = Random(self.chance.random())
        self._watch_room()

    def _watch_room(self) -> None:
        """See what the delivery room takes in, gives and ends."""
        room: Any = self.core.room
        room._chance = Random(self.chance.random()).random
        counted, accept, given = room.endings._after_delivery, room.accept, room.given
        freed = room.endings.freed

        def after(delivery: Delivery) -> None:
            self._counted(delivery)
            counted(delivery)

        def freeing(delivery: Delivery, had: str | None = None) -> None:
            self.ended.add(delivery.id)
            freed(delivery, had)

        def accepting(deliveries: Iterable[Delivery]) -> None:
            for one in deliveries:
                self.accepted[one.id] = one
                self.came[one.id] = len(self.came)
                accept([one])

        def giving(delivery: Delivery, address: str) -> None:
            self.taken.add(delivery.id)
            self.there_when_given.setdefault(delivery.id, len(self.accepted))
            given(delivery, address)

        make = room.promises.make

        def making(planned: Planned) -> None:
            make(planned)
            for one in planned.deliveries:
                if one.state == "in_flight":
                    self.promised.add(one.id)
                    self._let_through(one, str(one.endpoint))

        room.endings._after_delivery = after
        room.endings.freed = freeing
        self.core.router.tap(self.onlookers.envelope)
        room.accept = accepting
        room.given = giving
        room.promises.make = making
        self._watch_guards()

    def _watch_guards(self) -> None:
        """See what guards let through, and what they count."""
        room: Any = self.core.room
        taken, failed, forget = room.taken, room.guards.failed, room.guards.forget

        def taking(box: Mailbox, delivery: Delivery, address: str) -> None:
            self._let_through(delivery, address)
            taken(box, delivery, address)

        def failing(delivery: Delivery) -> float | None:
            wait_s: float | None = failed(delivery)
            if wait_s is not None:
                self.handed[delivery.id] -= 1  # a probe is no attempt
            return wait_s

        def forgetting(address: str) -> None:
            self.let_through.pop(address, None)  # who is gone comes again with a full bucket
            forget(address)

        room.guards.forget = forgetting
        room.taken = taking
        room.guards.failed = failing

    def _config(self) -> Config:
        toml = self.folder / "hub.toml"
        if not toml.exists():
            toml.write_text('[hub]\nbackoff = "1s"\n[store]\nsync = "normal"\n', encoding="utf-8")
        where = [f'hub.data_dir="{self.folder}"', f'store.url="{self.store_url}"']
        return load_config(toml, overrides=where, environ={})

    async def start(self) -> None:
        """Let the hub begin."""
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        rows = self.store.look().deliveries.values()
        self.ended.update(row.id for row in rows if row.outcome is not None)
        self.counted |= self.ended
        self.found = [row for row in rows if row.outcome is None]
        for route in self.routes.values():
            self.core.table.put(route)
        self.guard()
        await self.core.start()
        await quiet()

    def _unheard(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or AssertionError(str(context))
        if self.gave_up and isinstance(error, HubError):
            return  # an answer for somebody who has gone
        self.broken.append(error)

    async def kill(self) -> None:
        """End the hub between two commits, as `kill -9` would."""
        self.journal.dead = True
        self.clock.forget()
        self.onlookers.leave()
        core = self.core
        core.watchdog.stop()  # a thread, which dies with its process; here it would keep the hub
        while under_way := [*self.doing, *core._tasks, *core.work.ledger.changing.values()]:
            for work in under_way:
                work.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await asyncio.sleep(0)
        for hang in self.hanging:
            hang.answer.cancel()
        self.journal.close()
        core.database.close()
        self.store.wait_until_free()
        self.clock.forget()
        self._new_life()

    async def stop(self) -> None:
        """End the hub in order; peers that hang do not answer in time."""
        self.journal.let()
        stopping = asyncio.get_running_loop().create_task(self.core.stop())
        for _ in range(20):
            await quiet()
            if stopping.done():
                break
            await self.clock.leap(6.0)
        await stopping
        self.clock.forget()
        for work in self.doing:
            work.cancel()
        await asyncio.gather(*self.doing, return_exceptions=True)
        for hang in self.hanging:
            hang.answer.cancel()
        rows = self.store.look()
        for row in rows.deliveries.values():
            if row.state == "in_flight" and row.endpoint and not row.endpoint.startswith("pull."):
                raise BrokenRuleError(1, f"stopped, and still in flight: {row}")

    async def close(self) -> None:
        """End all of it, broken or not."""
        if not self.journal.dead and self.core.state != "stopped":
            await self.kill()
        self.core.database.close()
        self.store.close()

    # What the world sees

    def _committed(self) -> None:
        try:
            self.store.look()
        except BrokenRuleError as error:
            self.broken.append(error)

    def _counted(self, delivery: Delivery) -> None:
        if delivery.id in self.counted:
            self.broken.append(BrokenRuleError(2, f"ended twice: {delivery.id}"))
        self.counted.add(delivery.id)
        self.ended.add(delivery.id)
        self.onlookers.ended(delivery)

    def guard(self) -> None:
        """Let the hub hold to the guards there are now."""
        self.core.room.guard(list(self.guards.values()))

    def _let_through(self, delivery: Delivery, address: str) -> None:
        """Check that a guard lets something through: over any time no more than burst and rate.

        Of a pull endpoint it bounds the leases; what is no task is pushed to it, slot by slot.
        """
        rule = self.guards.get(address)
        if rule is None:
            return
        now_us = self.clock.now_us()
        times = self.let_through[address]
        times.append(now_us)
        for place, time_us in enumerate(times):
            most = rule.burst + rule.rate_per_s * (now_us - time_us) / 1e6
            if rule.rate_per_s and len(times) - place > most + 0.001:
                self.broken.append(BrokenRuleError(13, f"{address} is given more than {rule}"))
                return
        if rule.concurrency and delivery.leased and address.startswith("pull."):
            held = [
                d for d in self.core.room.in_hand.values()
                if d.pulled_by is not None and (d.endpoint, d.state) == (address, "in_flight")
            ]  # fmt: skip
            if len(held) >= rule.concurrency:
                self.broken.append(BrokenRuleError(13, f"{address} has {len(held)}: {rule}"))

    def _mates(self, delivery: Delivery) -> Iterable[tuple[int, int]]:
        """Return `(rank, id)` of all others of its key that are in its mailbox and not done.

        Those that came when it was given to its endpoint already, but not handed over, aside.
        """
        same = (delivery.mailbox, delivery.lane)
        there = islice(self.accepted.values(), self.there_when_given.get(delivery.id))
        found = {d.id: d.rank for d in there if (d.mailbox, d.lane) == same}
        found.update((r.id, r.rank) for r in self.found if (r.mailbox, r.lane) == same)
        return [
            (rank, one)
            for one, rank in found.items()
            if one != delivery.id and one not in self.ended
        ]

    def hand_over(self, delivery: Delivery) -> None:
        """Check the order at a hand-over, pushed or pulled."""
        self.handed[delivery.id] += 1
        if self.handed[delivery.id] > delivery.max_attempts:
            raise BrokenRuleError(7, f"handed over {self.handed[delivery.id]} times: {delivery.id}")
        if delivery.id in self.ended:
            raise BrokenRuleError(2, f"handed over after its end: {delivery.id}")
        if delivery.lane is not None:
            for rank, one in self._mates(delivery):
                if one in self.begun:
                    raise BrokenRuleError(5, f"{delivery.id} while {one} of its key is not done")
                if delivery.id not in self.begun and (rank, one) < (delivery.rank, delivery.id):
                    raise BrokenRuleError(5, f"{delivery.id} before {one} of its key")
        self.begun.add(delivery.id)

    def _check_turn(self, link: EndpointLink, delivery: Delivery) -> None:
        """Check that nothing stands before a task that was promised to somebody beforehand.

        What was in memory all the time since it was accepted, without a key and without a time
        of its own, must have begun before what was accepted later and ranks behind it.
        """
        room = self.core.room
        if delivery.id not in self.promised or self.handed[delivery.id]:
            return
        came = self.came[delivery.id]
        for box in room.boxes_of(link):
            first = box.line.head(now_us=self.clock.now_us())
            if (
                first is None
                or first is not self.accepted.get(first.id)
                or first.id in self.taken
                or (first.lane or first.due_us or has_another(first, link.address))
            ):
                continue
            earlier = self.came[first.id] < came
            if earlier and (first.rank, first.id) < (delivery.rank, delivery.id):
                raise BrokenRuleError(10, f"{delivery.id} overtakes {first.id} at {link.address}")

    async def handed_over(self, peer: SimEndpoint, envelope: Envelope) -> None:
        """Be a peer that is handed something."""
        link = self.core.room.link_of(peer.address)
        try:
            if link is None or link.endpoint is not peer:
                raise BrokenRuleError(6, f"a closed link of {peer.address} is handed something")
            mine = [d for d in link.in_flight.values() if d.envelope is envelope]
            if not mine:
                raise BrokenRuleError(1, f"{peer.address} is handed what is not in flight")
            if link.busy > peer.concurrency:
                raise BrokenRuleError(6, f"{peer.address} has {link.busy} in flight")
            given = max(mine, key=lambda d: d.id)
            self._check_turn(link, given)
            self.seen.add((link, given.id, given.attempts))
            self.hand_over(given)
            task_id = mine[-1].task_id
        except BrokenRuleError as error:
            self.broken.append(error)
            raise
        if task_id is not None:
            self.given.append((task_id, peer.address))
        await self._answer(peer.address)

    def handed_over_now(self, peer: SimEndpoint, envelopes: Sequence[Envelope]) -> int:
        """Be a peer that takes at once what it likes."""
        link = self.core.room.link_of(peer.address)
        number = self.quickness.randint(0, len(envelopes))
        try:
            if link is None or link.endpoint is not peer:
                raise BrokenRuleError(6, f"a closed link of {peer.address} is handed something")
            if link.in_flight or link.free < 1:
                raise BrokenRuleError(6, f"{peer.address} is handed something past its slots")
            for envelope in envelopes[:number]:
                self.hand_over(self._waits_for(peer.address, envelope))
        except BrokenRuleError as error:
            self.broken.append(error)
            raise
        return number

    def _waits_for(self, address: str, envelope: Envelope) -> Delivery:
        """Return the delivery of an envelope that an endpoint is handed just now."""
        for d in (*self.accepted.values(), *self.core.room.boxes.here.values()):
            to = d.mailbox if d.state == "pending" else d.endpoint
            if d.envelope is envelope and d.state != "done" and to == address:
                return d
        raise BrokenRuleError(1, f"{address} is handed what nobody sent it")

    async def _answer(self, address: str) -> None:
        if self.kind:
            return
        match self.chance.choices(("take", "retry", "reject", "raise", "hang"), (50, 14, 5, 6, 25))[
            0
        ]:
            case "retry":
                raise Retry(self.chance.choice((None, 0.0, 3.0)))
            case "reject":
                raise Reject
            case "raise":
                raise ValueError("a peer's bug")
            case "hang":
                hang = Hang(address, asyncio.get_running_loop().create_future())
                self.hanging.append(hang)
                try:
                    await hang.answer
                finally:
                    if hang in self.hanging:
                        self.hanging.remove(hang)
            case _:
                pass

    # Doing things

    def do(self, work: Awaitable[Any], then: Callable[[Any], None] = lambda _: None) -> None:
        """Begin something that the hub answers some time; a refusal is an answer too."""

        async def doing() -> None:
            try:
                answer = await work
            except HubError as error:
                self.story.append(f"  refused: {error.code}")
            else:
                then(answer)

        self._begin(doing())
        if isinstance(work, Coroutine):  # killed before it began
            self.doing[-1].add_done_callback(lambda _: work.close())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.doing.append(task)

        def ended(task: asyncio.Task[None]) -> None:
            if task in self.doing:
                self.doing.remove(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.broken.append(error)

        task.add_done_callback(ended)

    def checked(self, envelope: Envelope) -> Callable[[Receipt], None]:
        """Return what checks the acknowledgement of an envelope that is published now."""
        return partial(self.published, envelope=envelope, routes=dict(self.routes))

    def _is_kept(self, envelope: Envelope, reason: str | None, routes: object) -> bool | None:
        """Tell whether an envelope without a delivery is stored; None where routes changed.

        The word of a route that found nobody, else that of the publisher, else of the source.
        """
        asked = envelope.durable is not False
        if reason != "no_endpoint" or envelope.to or envelope.in_reply_to:
            return asked
        if routes != self.routes:
            return None
        words = [one.route.durable for one in self.core.table.match(envelope)]
        return any(asked if word is None else word for word in words)

    def published(self, receipt: Receipt, *, envelope: Envelope, routes: object) -> None:
        """Check what an acknowledgement promises."""
        self.envelopes.append(receipt.id)
        rows = self.store.rows
        mine = [d for d in self.accepted.values() if d.envelope.id == receipt.id and d.durable]
        missing = [d.id for d in mine if d.id not in rows.deliveries]
        if missing:
            raise BrokenRuleError(1, f"acknowledged, and not stored: {missing}")
        kept: bool | None = bool(mine)
        if receipt.outcome == "unrouted":
            kept = self._is_kept(envelope, receipt.reason, routes)
        if kept and receipt.id not in rows.envelopes:
            raise BrokenRuleError(1, f"acknowledged, and not stored: {receipt}")
        if kept is False and receipt.outcome == "unrouted" and receipt.id in rows.envelopes:
            raise BrokenRuleError(1, f"volatile, and stored: {receipt}")
        if receipt.task_id is not None:
            if receipt.task_id not in rows.tasks:
                raise BrokenRuleError(1, f"acknowledged, and no task: {receipt}")
            if receipt.task_id not in self.tasks:
                self.tasks.append(receipt.task_id)

    def claimed(self, name: tuple[str, str], receipt: Receipt, envelope: Envelope) -> None:
        """Check that a claim has one answer."""
        claim = self.claims[name]
        for before in claim.answers:
            if (before.id, before.deliveries, before.outcome) != (
                receipt.id, receipt.deliveries, receipt.outcome,
            ):  # fmt: skip
                raise BrokenRuleError(8, f"{name} was answered {before}, now {receipt}")
        if claim.answers and not receipt.duplicate:
            raise BrokenRuleError(8, f"{name} was done twice: {receipt}")
        if any((claim.envelope.data, claim.envelope.subject) != (envelope.data, envelope.subject)
               for _ in claim.answers[:1]):  # fmt: skip
            raise BrokenRuleError(8, f"{name} was answered for another body")
        if not claim.answers:
            claim.envelope = envelope
        claim.answers.append(receipt)
        stored = self.store.rows.envelopes.get(receipt.id, [])
        if len(stored) > 1:
            raise BrokenRuleError(8, f"{name} is stored {len(stored)} times")

    def leased(self, given: Sequence[Leased]) -> None:
        """Note what a pull worker took."""
        for lease in given:
            self.begun_by_hand(lease.task_id)

    def begun_by_hand(self, task_id: str) -> None:
        """Note that a worker has a task that nobody pushed."""
        delivery = self.core.room.in_hand.get(task_id)
        if delivery is None or delivery.state != "in_flight":
            return  # it ended while the answer was under way
        self.hand_over(delivery)
        self.given.append((task_id, delivery.endpoint or ""))

    # Checking

    async def check(self, *, rest: bool) -> None:
        """Raise what was found; at rest, check memory too."""
        if rest:
            await quiet()
            if self._at_rest():
                moment = self._moment()
                check_memory(moment)
                check_kept(moment)
        if self.journal.refused:
            raise BrokenRuleError(1, f"the database refused {self.journal.refused}")
        if self.broken:
            raise self.broken[0]

    def _moment(self) -> Moment:
        return Moment(
            core=self.core,
            rows=self.store.rows,
            links=self._links(),
            now_us=self.clock.now_us(),
            since_us=self.since_us,
            seen=self.seen,
        )

    def _links(self) -> dict[str, EndpointLink]:
        return dict(self.core.room._links)

    def _at_rest(self) -> bool:
        if self.journal.behind or self.journal.held or self.journal.broken:
            return False
        waiters = sum(len(box._space) for box in self.core.room.boxes)
        polls = self.core.work.pulling.waiting
        return len(self.doing) <= waiters + polls

    def let(self) -> None:
        """Let the journal write again; what waited for it, the sweeper too, begins only now."""
        if self.journal.held or self.journal.broken:
            self.since_us = self.clock.now_us()
        self.journal.let()

    async def finale(self) -> None:
        """Let everybody be there, free and kind for long enough: then nothing may be left."""
        self.story.append("finale")
        self.kind = True
        self.guards.clear()
        self.guard()
        self.let()
        for hang in list(self.hanging):
            if not hang.answer.done():
                hang.answer.set_result(None)
        await quiet()
        for address in ADDRESSES:
            self.attach(address, everything=True)
        await self.check(rest=True)
        for _ in range(6):
            for seconds in (0.6, 61.0, 1.0, 1.0):
                await self.clock.leap(seconds)
                await self._finish_all()
                await self.check(rest=True)
        await self.clock.leap(4000.0)
        for _ in range(4):
            await self._finish_all()
            await self.clock.leap(61.0)
            await self.check(rest=True)
        if self.doing:
            raise BrokenRuleError(10, f"{len(self.doing)} callers are never answered")
        check_empty(self.core, self.store.rows, self._links())
        check_nothing_kept(self.core, self._links())
        for name, claim in self.claims.items():
            if len(self.store.rows.envelopes.get(claim.envelope.id, [])) > 1:
                raise BrokenRuleError(8, f"{name} is stored twice")

    async def _finish_all(self) -> None:
        for _ in range(50):
            self.do(
                self.core.work.lease(["pull.*"], worker="w0", limit=20, lease_us=5_000_000),
                self.leased,
            )
            await quiet()
            running = [t for t in self.store.rows.tasks.values() if t.state == "dispatched"]
            if not running:
                return
            for task in running:
                d = self.store.rows.deliveries[task.delivery_id or 0]
                self.do(self.core.work.finish(TaskResult(task.id), by=d.endpoint or "x"))
            await self.check(rest=True)

    # Peers

    def attach(self, address: str, *, everything: bool = False) -> None:
        """Bring a peer here, or a newer link of it."""
        chance = self.chance
        overflow = cast("Overflow", self.overflow) if address in self.limits else None
        kind, _, name = address.partition(".")
        quick = kind == "app" and self.quickness.random() < 0.4
        endpoint = (QuickEndpoint if quick else SimEndpoint)(
            self,
            address=address,
            labels={"zone": "x" if name == "a" else "y"}
            if everything or chance.random() < 0.8
            else {},
            concurrency=3 if everything else chance.choice((1, 1, 2)),
            accepts=("*", TASK_REQUEST)
            if kind != "app"
            else ("hubbub.event.v1", "hubbub.task.result.v1"),
            task_types=self._some_work(everything=everything),
            linger_s=None if everything else chance.choice((None, None, 0.0, 20.0)),
            pull=kind == "pull",
            mailbox_limit=self.limits.get(address),
            overflow=overflow,
        )
        self.held_links[address] = self.core.attach(endpoint)

    def _some_work(self, *, everything: bool) -> tuple[str, ...] | None:
        """Return what a peer declares: everything, nothing, or one task type."""
        if everything:
            return ("*",)
        if self.chance.random() < 0.6:
            return ("*",) if self.declaring.random() < 0.7 else None
        return (self.chance.choice(TASK_TYPES),)


def _load_nothing(found: object = None, *, states: object = None) -> None:
    """Load no plugin that is installed beside."""


def _no_entry_points(**_: str) -> list[Any]:
    return []


def quietly(run: Callable[[], Coroutine[Any, Any, None]]) -> list[Any]:
    """Run something on a loop of its own; returns what was logged."""
    with capture_logs() as logged, patch.object(plugins_module, "entry_points", _no_entry_points):
        asyncio.run(run())
    return logged
