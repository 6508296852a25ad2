"""Posts to URLs that clients gave: one endpoint for each destination; none waits for another.

`webhook.relay.example%2Ecom:443` is an endpoint like any other, made when it is named and forgotten
when nothing waits for it: its mailbox, its attempts and its circuit breaker are the hub's own. What
waited for an address of before, or finds too many destinations, goes by the common endpoint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from hubbub.envelope import Envelope
from hubbub.errors import ForbiddenError, InvalidError, Reject, Retry, UnavailableError
from hubbub.guards import BreakerRule, GuardRule
from hubbub.outgoing import Outgoing, host_of
from hubbub.ports import HubApi, Link, Timer
from hubbub.subjects import escape
from hubbub.values import Endpoint

__all__ = ["MAX_DESTINATIONS", "SHARE", "Callbacks", "Post", "pause_s"]

SHARE: Final = 4
"""Posts under way to one destination at once."""

COMMON: Final = 16
"""Posts under way at once by the common endpoint."""

MAX_DESTINATIONS: Final = 1000
"""Destinations of one adapter with an endpoint of their own."""

IDLE_S: Final = 600.0
"""From when on a destination that nothing waits for is forgotten."""

BREAKER: Final = BreakerRule(failures=10, open_s=10.0, open_max_s=60.0, probe_counts=True)
"""A destination that gives no answer so often in a row is asked with one post at a time."""

LONGEST_PAUSE_S: Final = 60.0
MAX_COUNTED: Final = 10_000
LONGEST_HOST: Final = 128
SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Post:
    """What is posted, and where to."""

    url: str
    body: bytes
    headers: Mapping[str, str]


PostOf = Callable[[Envelope], Awaitable[Post]]
"""Makes a post of an envelope; raises `Reject` where none can be made of it."""


def pause_s(attempt: int) -> float:
    """Return the seconds to wait after an attempt that failed: 1, 2, 4, ... up to 60."""
    return min(LONGEST_PAUSE_S, 2.0 ** min(attempt - 1, 10))


class Destination(Endpoint):
    """Takes posts for one host, and makes them."""

    def __init__(
        self, address: str, post: Callable[[Envelope], Awaitable[None]], *,
        accepts: str, attempts: int, concurrency: int,
    ) -> None:  # fmt: skip
        super().__init__(
            address=address,
            accepts=(accepts,),
            concurrency=concurrency,
            attempts=attempts,
            linger_s=None,
            fresh_first=True,
        )
        self._post = post

    async def deliver(self, envelope: Envelope) -> None:
        """Make one post; anything but a 2xx is tried again."""
        await self._post(envelope)


class Callbacks:
    """The posts of one adapter."""

    def __init__(
        self,
        hub: HubApi,
        outgoing: Outgoing,
        post_of: PostOf,
        *,
        address: str,
        accepts: str,
        attempts: int,
        max_destinations: int = MAX_DESTINATIONS,
    ) -> None:
        """Prepare.

        Args:
            address: Of the common endpoint; those of destinations lie below it.
            accepts: Type of the envelopes that posts are made of.
            attempts: Posts of one envelope, in all.
            max_destinations: How many have an endpoint of their own; others share the common one.
        """
        self._hub = hub
        self._outgoing = outgoing
        self._post_of = post_of
        self._address = address
        self._accepts = accepts
        self._attempts = attempts
        self._max_destinations = max_destinations
        self._common = self._destination(address, concurrency=COMMON)
        self._links: OrderedDict[str, Link] = OrderedDict()
        self._used_us: dict[str, int] = {}
        self._tried: OrderedDict[str, int] = OrderedDict()
        self._closing: list[Callable[[], None]] = []
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to post, what waits first."""
        hub, below = self._hub, f"{self._address}."
        hub.guard(GuardRule(match=f"{below}*", breaker=BREAKER))
        self._closing.append(hub.attach(self._common).close)
        self._closing.append(hub.on_demand(below, self._make, self._came))
        known = [endpoint.address for endpoint in hub.known(f"{below}*")]
        for address in dict.fromkeys([*hub.waiting(f"{below}*"), *known]):
            self._came(self._destination(address))
        self._look()

    def close(self) -> None:
        """End; what is under way is tried again at the next start."""
        for close in reversed(self._closing):
            close()
        for link in self._links.values():
            link.close()
        self._closing.clear()
        self._links.clear()
        if self._timer is not None:
            self._timer.cancel()

    def address_of(self, url: str) -> str:
        """Return the address of what posts to a URL.

        Raises:
            InvalidError: it is no URL.
        """
        host = host_of(url)
        if len(host) > LONGEST_HOST:
            host = blake2b(host.encode(), digest_size=16).hexdigest()
        return f"{self._address}.{escape(host)}"

    # Destinations come and go

    def _destination(self, address: str, *, concurrency: int = SHARE) -> Destination:
        return Destination(
            address,
            self._deliver_to(address),
            accepts=self._accepts,
            attempts=self._attempts,
            concurrency=concurrency,
        )

    def _make(self, address: str) -> Endpoint | None:
        if "." in address.removeprefix(f"{self._address}."):
            return None
        full = len(self._hub.known(f"{self._address}.*")) >= self._max_destinations
        return self._common if full and not self._idle() else self._destination(address)

    def _came(self, endpoint: Endpoint) -> None:
        if not self._closing:
            return  # the adapter has stopped since; it looks for what waits when it starts again
        while len(self._links) >= self._max_destinations and self._forget_one():
            pass
        self._links[endpoint.address] = self._hub.attach(endpoint)
        self._used_us[endpoint.address] = self._hub.clock.now_us()

    def _idle(self) -> bool:
        """Tell whether a destination could make way for another one."""
        return any(link.idle for link in self._links.values())

    def _forget_one(self) -> bool:
        """Forget the destination that has had nothing to do for longest; False if all have."""
        return any(self._forgotten(address) for address in list(self._links))

    def _forgotten(self, address: str) -> bool:
        if not self._links[address].forget_if_idle():
            return False
        del self._links[address], self._used_us[address]
        return True

    def _look(self) -> None:
        """Forget destinations that were not used for long, now and then."""
        now_us = self._hub.clock.now_us()
        idle_us = int(IDLE_S * 1e6)
        for address in list(self._links):
            if self._used_us[address] <= now_us - idle_us:
                self._forgotten(address)
        self._timer = self._hub.clock.call_at(now_us + idle_us, self._look)

    # Posting

    def _deliver_to(self, address: str) -> Callable[[Envelope], Awaitable[None]]:
        async def deliver(envelope: Envelope) -> None:
            if address in self._links:
                self._links.move_to_end(address)
                self._used_us[address] = self._hub.clock.now_us()
            await self._deliver(envelope)

        return deliver

    async def _deliver(self, envelope: Envelope) -> None:
        post = await self._post_of(envelope)
        attempt = self._tried.pop(envelope.id, 0) + 1
        try:
            status = await self._outgoing.post(post.url, post.body, post.headers)
        except (ForbiddenError, InvalidError) as error:
            raise Reject(error.message) from error
        except UnavailableError as error:
            raise self._again(envelope.id, attempt, error.message) from error
        if not 200 <= status < 300:  # noqa: PLR2004  # of HTTP
            answered = status < SERVER_ERROR
            raise self._again(envelope.id, attempt, f"status {status}", answered=answered)

    def _again(self, name: str, attempt: int, reason: str, *, answered: bool = False) -> Retry:
        self._tried[name] = attempt
        if len(self._tried) > MAX_COUNTED:
            self._tried.popitem(last=False)
        return Retry(pause_s(attempt), reason, answered=answered)
