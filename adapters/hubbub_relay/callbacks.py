"""Posts of final records to the `callback_url` of a task.

A post is an envelope for the endpoint of its destination below `webhook.relay`, named by an
idempotency key, so that asking for it twice posts once; the hub tries it again and keeps it if it
dies. `afterwards` knows when.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

import msgspec

from hubbub import Envelope, Hub, Reject
from hubbub.callbacks import Callbacks, Post
from hubbub.envelope import encode_json
from hubbub.outgoing import Outgoing
from hubbub_relay.events import Event
from hubbub_relay.wire import log_record

__all__ = ["ADDRESS", "CALLBACK", "SIGNATURE", "callbacks_of", "envelope_of", "signature"]

ADDRESS: Final = "webhook.relay"
CALLBACK: Final = "hubbub.relay.callback.v1"
SIGNATURE: Final = "X-Relay-Signature"


def signature(secret: bytes, body: bytes) -> str:
    """Return HMAC-SHA256 of a body as hex digits."""
    return hmac.new(secret, body, "sha256").hexdigest()


class FinalRecord(msgspec.Struct, frozen=True):
    """Data of such an envelope: where to, whose key signs it, and the record as it is sent."""

    url: str
    key: str
    record: str


def callbacks_of(
    hub: Hub, outgoing: Outgoing, *, attempts: int, secret_of: Callable[[str], bytes | None]
) -> Callbacks:
    """Return what posts final records.

    Args:
        secret_of: Gives what signs for a key, by its name; None when that key is gone.
    """

    async def post_of(envelope: Envelope) -> Post:
        if envelope.source != ADDRESS:  # else a publisher could have anything signed
            raise Reject("only the relay has its records posted")
        final = msgspec.json.decode(envelope.json_bytes(), type=FinalRecord)
        secret = secret_of(final.key)
        if secret is None:
            raise Reject(f"the API key {final.key!r} is gone")
        body = final.record.encode()
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(secret, body),
            "traceparent": envelope.traceparent,
        }
        return Post(final.url, body, headers)

    return Callbacks(
        hub, outgoing, post_of, address=ADDRESS, accepts=CALLBACK, attempts=attempts
    )  # fmt: skip


def envelope_of(event: Event, *, url: str, key: str, to: str) -> Envelope:
    """Return the envelope that has a final record posted; of one record it is always the same.

    Args:
        to: Address of its destination.
    """
    record = log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
    return Envelope.new(
        source=ADDRESS,
        subject=f"{ADDRESS}.post",
        type=CALLBACK,
        to=(to,),
        data=encode_json(FinalRecord(url, key, record.decode())),
        idempotency_key=f"relay.callback:{event.id}",
    )
