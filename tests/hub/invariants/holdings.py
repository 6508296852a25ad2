"""What memory keeps, and for what: slots, couriers, lanes, leases, probes, places, waiters.

Each of them is kept for something that is under way. What outlives it takes room from others for
nothing, and no row tells of it; so it is looked for whenever the hub has come to rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubbub.core import Core
from hubbub.delivery.courier import is_mine
from hubbub.delivery.links import EndpointLink
from hubbub.guards import BreakerState
from hubbub.values import Delivery
from tests.hub.invariants.rules import BrokenRuleError, Moment

__all__ = ["check_kept", "check_nothing_kept"]

Known = Mapping[int, Delivery]


def check_kept(moment: Moment) -> None:
    """Check that all that is kept has something under way for which it is."""
    core = moment.core
    waiting = {d.id: d for box in core.room.boxes for d in box.line}
    flying = {d.id: d for link in moment.links.values() for d in link.in_flight.values()}
    flying.update((d.id, d) for d in core.room.in_hand.values() if d.state == "in_flight")
    for link in moment.links.values():
        _check_slots(link, moment)
        _check_couriers(link, moment)
    _check_tasks(core, flying)
    _check_lanes(core, waiting, flying)
    _check_store(core, waiting, flying)
    _check_pools(core, moment.links)
    _check_guards(moment, flying)
    _check_callers(core)


def _check_slots(link: EndpointLink, moment: Moment) -> None:
    """A slot without a delivery in it is kept only for who may still be busy with it."""
    on_the_way = {(delivery.id, attempt) for delivery, attempt in link.todo}
    for slot in link.overtime:
        if (link, *slot) not in moment.seen and slot not in on_the_way:
            raise BrokenRuleError(6, f"{link.address} keeps a slot for {slot}, never handed over")


def _check_couriers(link: EndpointLink, moment: Moment) -> None:
    """What is in flight is carried, or every slot has a courier who waits for the peer."""
    on_the_way = {delivery.id for delivery, _ in link.todo}
    for d in link.in_flight.values():
        if (link, d.id, d.attempts) not in moment.seen and d.id not in on_the_way:
            raise BrokenRuleError(10, f"{link.address} shall have {d.id}, and nobody carries it")
    left = [delivery.id for delivery, attempt in link.todo if is_mine(delivery, attempt)]
    if left and link.couriers < link.busy:
        raise BrokenRuleError(10, f"{link.couriers} couriers of {link.address} leave {left}")


def _check_tasks(core: Core, flying: Known) -> None:
    room = core.room
    for task_id, d in room.in_hand.items():
        if d is not flying.get(d.id):
            raise BrokenRuleError(14, f"{task_id} is in nobody's hand: {d}")
    if room.promises._made:
        raise BrokenRuleError(14, f"promised for ever: {list(room.promises._made)}")
    pulled = {(d.endpoint, d.id) for d in flying.values() if d.pulled_by is not None}
    noted = {(address, one) for address, ids in room.leases._pulled.items() for one in ids}
    if pulled != noted:
        raise BrokenRuleError(14, f"of {pulled} that were pulled guards know {noted}")
    if room.endings.unwritten:
        raise BrokenRuleError(14, f"ended, and never written: {list(room.endings.unwritten)}")
    if core.work.ledger.changing:
        raise BrokenRuleError(14, f"changed for ever: {list(core.work.ledger.changing)}")


def _check_lanes(core: Core, waiting: Known, flying: Known) -> None:
    for box in core.room.boxes:
        for key, lane in box.line._lanes.items():
            d = lane.busy
            if (d is not None) != (key in box.line.busy_lanes()):
                raise BrokenRuleError(5, f"{box.name}: is the lane {key} busy with {d} or not?")
            if d is not None and d is not flying.get(d.id) and d is not waiting.get(d.id):
                raise BrokenRuleError(5, f"{box.name}: the lane {key} is kept for {d}")
            if d is None and not lane.queue:
                raise BrokenRuleError(14, f"{box.name}: an empty lane {key}")


def _check_store(core: Core, waiting: Known, flying: Known) -> None:
    """What the store shall give to nobody is what memory has."""
    mine = {d.id for d in (*waiting.values(), *flying.values()) if d.durable}
    kept: dict[str, set[int]] = {
        "here": set(core.room.boxes.here),
        "held": set(core.engine._box_of),
        "held by box": {one for ids in core.engine._held.values() for one in ids},
    }
    for what, ids in kept.items():
        if ids != mine:
            raise BrokenRuleError(14, f"{what}: {ids - mine} too many, {mine - ids} missing")
    for one, d in core.room.boxes.here.items():
        if d is not waiting.get(one) and d is not flying.get(one):
            raise BrokenRuleError(14, f"another {one} is here than the one under way")


def _check_pools(core: Core, links: Mapping[str, EndpointLink]) -> None:
    """Pools know their members, and who of them has a free slot; nobody else."""
    pools = {box.name: box for box in core.room.boxes if box.requirement is not None}
    for link in links.values():
        gone = link.pools.keys() - pools.keys()
        if gone:
            raise BrokenRuleError(14, f"{link.address} is a member of pools that are gone: {gone}")
        for name in link.pools:
            if link.free > 0 and link not in pools[name].members:
                raise BrokenRuleError(10, f"{link.address} is free, and {name} does not know")
    for box in pools.values():
        for link in box.members:
            if links.get(link.address) is not link or box.name not in link.pools:
                raise BrokenRuleError(14, f"{box.name} has a member that has left: {link.address}")


def _check_guards(moment: Moment, flying: Known) -> None:
    guarding = moment.core.room.guards
    for address, guard in guarding._guards.items():
        if moment.core.directory.get(address) is None:
            raise BrokenRuleError(14, f"a guard of {address}, who is gone")
        if guard.waits_until_us is not None and guard.waits_until_us <= moment.now_us:
            raise BrokenRuleError(10, f"the guard of {address} waits for what has been")
        breaker = guard.breaker
        if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
            probe = flying.get(breaker.probe or 0)
            if probe is None or probe.endpoint != address:
                raise BrokenRuleError(14, f"{address} waits for a probe that is over: {probe}")
    for address, link in moment.links.items():
        if link.guard is not guarding._guards.get(address):
            raise BrokenRuleError(13, f"{address} is held to a guard that is no more")


def _check_callers(core: Core) -> None:
    """Who waits for a place or for something to take is somebody."""
    polls = core.work.pulling._polling
    for box in core.room.boxes:
        strangers = [future for future in box._arrivals if future not in polls]
        if strangers:
            raise BrokenRuleError(14, f"{len(strangers)} wait at {box.name}, who have gone")
        if box._space and not box.full:
            raise BrokenRuleError(10, f"{len(box._space)} wait for a place, {box.name} has one")
        if any(future.done() for future in box._space):
            raise BrokenRuleError(14, f"who has gone still waits for a place in {box.name}")
        if box.pumping or box.refilling:
            raise BrokenRuleError(14, f"{box.name} is looked at for ever")
    boxes: Any = core.room.boxes
    if boxes._reads or boxes._reading or boxes._left:
        raise BrokenRuleError(14, "a read of the store never ends")


def check_nothing_kept(core: Core, links: Mapping[str, EndpointLink]) -> None:
    """Check that nothing is kept when all is done and nobody asks for anything."""
    room = core.room
    for link in links.values():
        if link.todo or link.couriers:
            raise BrokenRuleError(14, f"{link.couriers} couriers, {list(link.todo)} to carry")
    couriers: Any = room.couriers
    carrying = [link.address for link, tasks in couriers._carrying.items() if tasks]
    if carrying or couriers._under_way:
        raise BrokenRuleError(14, f"under way for ever to {carrying}")
    for link in couriers._carrying:
        if links.get(link.address) is not link:
            raise BrokenRuleError(14, f"couriers of a link that is closed: {link.address}")
    for box in room.boxes:
        if box.line._lanes or box._arrivals or box._space:
            raise BrokenRuleError(14, f"{box.name} keeps lanes or waiters for nobody")
    if core.work.pulling.waiting or core.work.ledger.changing:
        raise BrokenRuleError(14, "somebody waits for ever")
