"""Posts of final records to the `callback_url` of a task.

The row `relay_callback` is written in the commit of the task, the final log record in the commit
of its result. Whoever finds both has a post to make: at once when the result passes by, and after
a restart by looking. The post itself is an envelope for the endpoint `webhook.relay`, named by an
idempotency key, so that looking twice posts once; the hub tries it again and keeps it if it dies.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import structlog

from hubbub import Endpoint, Envelope, Hub, Reject, Retry
from hubbub.envelope import encode_json
from hubbub.errors import ForbiddenError, HubError, InvalidError, UnavailableError
from hubbub.outgoing import Outgoing
from hubbub_relay import events
from hubbub_relay.wire import log_record

__all__ = ["ADDRESS", "CALLBACK", "SIGNATURE", "Webhooks", "pause_s", "signature"]

ADDRESS: Final = "webhook.relay"
CALLBACK: Final = "hubbub.relay.callback.v1"
SIGNATURE: Final = "X-Relay-Signature"

CONCURRENCY: Final = 16
LONGEST_PAUSE_S: Final = 60.0
LOOKS: Final = 20
"""Times a result that passed by is looked for in the store; its commit may have failed."""

MAX_COUNTED: Final = 10_000
CHUNK: Final = 500

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def pause_s(attempt: int) -> float:
    """Return the seconds to wait after an attempt that failed: 1, 2, 4, ... up to 60."""
    return min(LONGEST_PAUSE_S, 2.0 ** min(attempt - 1, 10))


def signature(secret: bytes, body: bytes) -> str:
    """Return HMAC-SHA256 of a body as hex digits."""
    return hmac.new(secret, body, "sha256").hexdigest()


class Post(msgspec.Struct, frozen=True):
    """Data of a post: where to, whose key signs it, and the record as it is sent."""

    url: str
    key: str
    record: str


class WebhookEndpoint(Endpoint):
    """Takes posts and makes them."""

    def __init__(
        self, *, attempts: int, outgoing: Outgoing, secret_of: Callable[[str], bytes | None]
    ) -> None:
        super().__init__(
            address=ADDRESS,
            accepts=(CALLBACK,),
            concurrency=CONCURRENCY,
            attempts=attempts,
            linger_s=None,
        )
        self._outgoing = outgoing
        self._secret_of = secret_of
        self._tried: OrderedDict[str, int] = OrderedDict()

    async def deliver(self, envelope: Envelope) -> None:
        """Post one record; anything but a 2xx is tried again."""
        post = msgspec.json.decode(envelope.data, type=Post)
        secret = self._secret_of(post.key)
        if secret is None:
            raise Reject(f"the API key {post.key!r} is gone")
        body = post.record.encode()
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(secret, body),
            "traceparent": envelope.traceparent,
        }
        attempt = self._tried.pop(envelope.id, 0) + 1
        try:
            status = await self._outgoing.post(post.url, body, headers)
        except (ForbiddenError, InvalidError) as error:
            raise Reject(error.message) from error
        except UnavailableError as error:
            raise self._again(envelope.id, attempt, error.message) from error
        if not 200 <= status < 300:  # noqa: PLR2004
            raise self._again(envelope.id, attempt, f"status {status}")

    def _again(self, name: str, attempt: int, reason: str) -> Retry:
        self._tried[name] = attempt
        if len(self._tried) > MAX_COUNTED:
            self._tried.popitem(last=False)
        return Retry(pause_s(attempt), reason)


@dataclass(slots=True)
class _Open:
    url: str
    key: str
    looks: int = 0


@dataclass(slots=True)
class Webhooks:
    """Knows which tasks have a `callback_url`, and posts when they have ended."""

    hub: Hub
    now_ms: Callable[[], int]
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])
    _ended: set[str] = field(default_factory=set[str])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> None:
        """Read what is still open, and note what of it has ended."""
        for task_id, url, key in await self.hub.read(events.open_callbacks):
            self.open(task_id, url=url, key=key)
        names = list(self._open)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            for task_id in await self.hub.read(partial(events.ended, task_ids=chunk)):
                self.ended(task_id)

    def open(self, task_id: str, *, url: str, key: str) -> None:
        """Remember a task whose record is to be posted."""
        self._open[task_id] = _Open(url, key)

    def forget(self, task_id: str) -> None:
        """The task was not taken."""
        self._open.pop(task_id, None)

    def ended(self, task_id: str) -> None:
        """A result passed by; it may not be in the store yet."""
        if task_id in self._open:
            self._open[task_id].looks = 0
            self._ended.add(task_id)
            self._wake.set()

    async def reopen(self, task_id: str, *, url: str, key: str) -> None:
        """A task runs once more: its next result is posted too."""
        await self.hub.execute(events.callbacks_done([task_id], now_ms=None))
        self.open(task_id, url=url, key=key)

    async def run(self) -> None:
        """Post what ended, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause = 0.02
            while self._ended:
                try:
                    await self.look()
                except HubError as error:
                    log.warning("relay.callbacks_wait", error=str(error))
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    async def look(self) -> None:
        """Look for final records of the tasks that ended, and hand their posts to the hub."""
        names = list(self._ended)[:CHUNK]
        found = await self.hub.read(lambda session: events.ended(session, names))
        for task_id, event in found.items():
            await self._hand_over(task_id, event)
        if found:
            await self.hub.execute(events.callbacks_done(list(found), now_ms=self.now_ms()))
        for task_id in found:
            self._open.pop(task_id, None)
            self._ended.discard(task_id)
        self._count_looks(names)

    def _count_looks(self, names: Sequence[str]) -> None:
        for task_id in names:
            waiting = self._open.get(task_id)
            if waiting is None:
                self._ended.discard(task_id)
                continue
            waiting.looks += 1
            if waiting.looks >= LOOKS:
                self._ended.discard(task_id)

    async def _hand_over(self, task_id: str, event: events.Event) -> None:
        waiting = self._open.get(task_id)
        if waiting is None:
            return
        record = log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
        await self.hub.publish(
            Envelope.new(
                source=ADDRESS,
                subject=f"{ADDRESS}.post",
                type=CALLBACK,
                to=(ADDRESS,),
                data=encode_json(Post(waiting.url, waiting.key, record.decode())),
                idempotency_key=f"relay.callback:{event.id}",
            )
        )
