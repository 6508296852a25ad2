"""Posts of final records to the `callback_url` of a task.

A post is an envelope for the endpoint `webhook.relay`, named by an idempotency key, so that asking
for it twice posts once; the hub tries it again and keeps it if it dies. `afterwards` knows when.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from hubbub import Endpoint, Envelope, Reject, Retry
from hubbub.envelope import encode_json
from hubbub.errors import ForbiddenError, InvalidError, UnavailableError
from hubbub.outgoing import Outgoing
from hubbub_relay.events import Event
from hubbub_relay.wire import log_record

__all__ = ["ADDRESS", "CALLBACK", "SIGNATURE", "WebhookEndpoint", "pause_s", "post_of", "signature"]

ADDRESS: Final = "webhook.relay"
CALLBACK: Final = "hubbub.relay.callback.v1"
SIGNATURE: Final = "X-Relay-Signature"

CONCURRENCY: Final = 16
LONGEST_PAUSE_S: Final = 60.0
MAX_COUNTED: Final = 10_000


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
        post = msgspec.json.decode(envelope.json_bytes(), type=Post)
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


def post_of(event: Event, *, url: str, key: str) -> Envelope:
    """Return the envelope that has a final record posted; of one record it is always the same."""
    record = log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
    return Envelope.new(
        source=ADDRESS,
        subject=f"{ADDRESS}.post",
        type=CALLBACK,
        to=(ADDRESS,),
        data=encode_json(Post(url, key, record.decode())),
        idempotency_key=f"relay.callback:{event.id}",
    )
