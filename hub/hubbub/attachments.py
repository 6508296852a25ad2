"""Endpoints that come, go away, and are gone; what they subscribed comes and goes with them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from hubbub.delivery import DeliveryRoom
from hubbub.delivery.links import EndpointLink
from hubbub.directory import Directory, Known
from hubbub.errors import HubError
from hubbub.ports import Clock
from hubbub.store.journal import Journal
from hubbub.store.reads import endpoints as reads
from hubbub.subscriptions import Subscriptions
from hubbub.values import Endpoint, Outcome, PresenceState

__all__ = ["Attachment", "Attachments"]

GONE: Final = "endpoint_gone"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Attachment:
    """A link as plugins see it: closing it marks the endpoint away, and later gone."""

    attachments: Attachments
    link: EndpointLink

    @property
    def slots(self) -> int:
        """Envelopes it takes at once; 0 pauses it."""
        return self.link.slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self.link.slots = slots
        self.attachments.paused(self.link, paused=slots == 0)

    def refresh(self) -> None:
        """Its endpoint's labels or task types have changed: give it what is for it now."""
        self.attachments.refresh(self.link)

    @property
    def waiting(self) -> int:
        """Deliveries that wait for it in its own mailbox."""
        return self.attachments.waiting(self.link)

    def close(self) -> None:
        """End this attachment only; a newer one of the same address stays."""
        self.attachments.detach(self.link)

    def sent(self, envelope_id: str) -> None:
        """An envelope it was given was written to its peer, which is to acknowledge it."""
        self.attachments.sent(self.link, envelope_id)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for it in its own mailbox, and nothing is in its hand."""
        return self.attachments.idle(self.link)

    def forget_if_idle(self) -> bool:
        """End this attachment, and forget its endpoint, if nothing waits for it or is in its hand.

        Returns:
            Whether it is forgotten.
        """
        return self.attachments.forget_if_idle(self.link)


class Attachments:
    """Who is attached to one hub, and for how long somebody who left is waited for."""

    def __init__(
        self,
        *,
        directory: Directory,
        room: DeliveryRoom,
        subscriptions: Subscriptions,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._room = room
        self._subscriptions = subscriptions
        self._journal = journal
        self._clock = clock
        self._clearing: dict[str, asyncio.Task[None]] = {}
        self._freeing: set[str] = set()

    def attach(self, endpoint: Endpoint) -> Attachment:
        """Bring an endpoint here; attaching its address again closes the older link."""
        self._directory.put(endpoint, PresenceState.ONLINE)
        link = self._room.attach(endpoint)
        self._pump_pools(link)
        own = self._room.boxes.find(endpoint.address)
        if own is not None:
            self._room.boxes.refill(own)
        return Attachment(self, link)

    async def attach_for_good(self, endpoint: Endpoint) -> Attachment:
        """Attach an endpoint that is remembered over a restart."""
        await self.remember(endpoint)
        return self.attach(endpoint)

    def refresh(self, link: EndpointLink) -> None:
        """An endpoint changed what it is able to do; what it has in hand stays with it."""
        if not link.closed:
            self._room.join_pools(link)
            self._pump_pools(link)

    def _pump_pools(self, link: EndpointLink) -> None:
        """Hand over, or end, what waited in the pools that an endpoint is a member of."""
        for name in tuple(link.pools):
            box = self._room.boxes.find(name)
            if box is not None:
                self._room.pump(box)

    def paused(self, link: EndpointLink, *, paused: bool) -> None:
        """Note that an endpoint takes nothing just now, or does again."""
        known = self._directory.get(link.address)
        if known is not None and self._room.link_of(link.address) is link:
            self._directory.mark(known, PresenceState.PAUSED if paused else PresenceState.ONLINE)

    def waiting(self, link: EndpointLink) -> int:
        """Return how many deliveries wait in an endpoint's own mailbox."""
        box = self._room.boxes.find(link.address)
        return 0 if box is None else box.depth

    def detach(self, link: EndpointLink) -> None:
        """End one attachment; the endpoint is away, and gone when its `linger` is over."""
        if self._room.link_of(link.address) is link:
            known = self._directory.get(link.address)
            if known is not None:
                self.away(known)
        link.close()

    def away(self, known: Known) -> None:
        """An endpoint has no link; it is gone when nobody brings it back in time."""
        endpoint = known.endpoint
        self._directory.mark(known, PresenceState.OFFLINE)
        if endpoint.linger_s is None:
            return

        def over() -> None:
            if self._directory.get(endpoint.address) is known and not known.present:
                self._gone(endpoint)

        self._room.timers.at(self._clock.now_us() + int(endpoint.linger_s * 1e6), over)

    def sent(self, link: EndpointLink, envelope_id: str) -> None:
        """Note that an envelope was written to an endpoint's peer, which is to acknowledge it."""
        self._room.sent(link, envelope_id)

    def idle(self, link: EndpointLink) -> bool:
        """Tell whether an endpoint has nothing to do."""
        return not (link.busy or self.waiting(link))

    def forget_if_idle(self, link: EndpointLink) -> bool:
        """Forget an endpoint that has nothing to do; False where it has, or another link."""
        if self._room.link_of(link.address) is not link or not self.idle(link):
            return False
        self._directory.forget(link.address)
        self._subscriptions.forget(link.address)
        link.close()
        self._room.guards.forget(link.address)
        return True

    async def subscribe(self, endpoint: Endpoint, pattern: str, *, limit: int) -> None:
        """Give an endpoint a private route; kept over a restart if the endpoint is.

        Raises:
            SubjectError: no pattern.
            ConflictError: it has too many already.
        """
        self._subscriptions.add(endpoint.address, pattern, limit=limit)
        if endpoint.linger_s != 0:
            await self.remember(endpoint)

    async def unsubscribe(self, endpoint: Endpoint, pattern: str) -> None:
        """Take a private route back.

        Raises:
            NotFoundError: there is none.
        """
        self._subscriptions.remove(endpoint.address, pattern)
        if endpoint.linger_s != 0:
            await self.remember(endpoint)

    def _gone(self, endpoint: Endpoint) -> None:
        self._clear(endpoint.address, [])
        if endpoint.linger_s:
            self._room.spawn(self._unremember(endpoint.address))

    def _clear(self, address: str, kept: list[int]) -> asyncio.Task[None]:
        """Forget an endpoint and let die what waits for it; what is kept of that is told."""
        self._directory.forget(address)
        self._subscriptions.forget(address)

        async def bury() -> None:
            kept.append(await self._room.lifecycle.bury(address))

        clearing = self._clearing[address] = self._room.spawn(bury())
        clearing.add_done_callback(lambda _: self._cleared(address, clearing))
        return clearing

    def _cleared(self, address: str, clearing: asyncio.Task[None]) -> None:
        if self._clearing.get(address) is clearing:
            del self._clearing[address]

    def is_clearing(self, address: str) -> bool:
        """Tell whether an endpoint is being freed, or what waited for it is still being ended."""
        return address in self._clearing or address in self._freeing

    async def cleared(self, address: str) -> None:
        """Return once nothing is left of an endpoint that is gone, or will be in a moment.

        Who attaches to that address before would get what was for the former one, or lose its own.
        """
        known = self._directory.get(address)
        if known is not None and not known.present and known.endpoint.linger_s == 0:
            self._gone(known.endpoint)
        while (clearing := self._clearing.get(address)) is not None:
            await asyncio.wait([clearing])

    async def free(self, known: Known) -> int:
        """Let an endpoint be gone now, whatever its `linger`; its connection has ended already.

        Returns:
            How many dead letters that made.

        Raises:
            StoreUnavailableError: nothing has changed.
        """
        address = known.address
        self._freeing.add(address)
        try:
            await self._journal.execute(*reads.forgetting(address))
        finally:
            self._freeing.discard(address)
        link = self._room.link_of(address)
        held = [] if link is None else [d for d in link.in_flight.values() if d.mailbox == address]
        if link is not None:
            link.close()
        kept: list[int] = []
        await asyncio.shield(self._clear(address, kept))
        lost = sum(d.durable and d.outcome is Outcome.DEAD and d.reason != GONE for d in held)
        return sum(kept) + lost

    async def remember(self, endpoint: Endpoint) -> None:
        """Keep an endpoint, and what it subscribed, over a restart."""
        subscriptions = self._subscriptions.of(endpoint.address)
        now_us = self._clock.now_us()
        await self._journal.execute(*reads.remembering(endpoint, subscriptions, now_us))

    async def _unremember(self, address: str) -> None:
        try:
            await self._journal.execute(*reads.forgetting(address))
        except HubError as error:  # it is away again at the next start, and goes then
            log.warning("hub.endpoint_not_forgotten", endpoint=address, error=str(error))
