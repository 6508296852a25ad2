"""Frames of the hub's own endpoint protocol: JSON text in, typed frames out, and back. Pure.

The socket that speaks them is `sockets.py`; the page for users is docs/streams.md.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.envelope import Envelope, encode_json
from hubbub.errors import InvalidError, MalformedError
from hubbub.web.problems import Problem

__all__ = [
    "Ack",
    "Frame",
    "Nack",
    "Publish",
    "Request",
    "Subscribe",
    "Unsubscribe",
    "accepted",
    "envelope_frame",
    "hello",
    "problem_frame",
    "read_frame",
    "refused",
    "reply",
]

MAX_REF: Final = 128
"""Characters of a `ref`."""


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """Ask for what is published on a pattern."""

    subject: str


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe"):
    """Ask for it no longer."""

    subject: str


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """Taken."""

    delivery: int


class Nack(msgspec.Struct, frozen=True, tag="nack"):
    """Not taken: tried again, or dead."""

    delivery: int
    reason: str = "nack"
    retry: bool = True


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """Publish an envelope, in any form that `POST /api/v1/envelopes` takes as an object."""

    envelope: msgspec.Raw
    ref: str | int | None = None


class Request(msgspec.Struct, frozen=True, tag="request"):
    """Publish an envelope and wait for one answer."""

    envelope: msgspec.Raw
    ref: str | int | None = None
    timeout: str | float = "30s"


Frame = Subscribe | Unsubscribe | Ack | Nack | Publish | Request

_read = msgspec.json.Decoder(Frame).decode


def read_frame(text: str) -> Frame:
    """Read one frame of a client.

    Raises:
        MalformedError: not JSON.
        InvalidError: no frame of this protocol, or a member that does not fit.
    """
    try:
        frame: Frame = _read(text)
    except msgspec.ValidationError as error:
        raise InvalidError(
            f"the frame does not fit: {error}; `type` is subscribe, unsubscribe, ack, nack, "
            "publish or request"
        ) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"the frame is not JSON: {error}") from None
    ref = frame.ref if isinstance(frame, Publish | Request) else None
    if isinstance(ref, str) and len(ref) > MAX_REF:
        raise InvalidError(f"`ref` has {len(ref)} characters, the limit is {MAX_REF}")
    return frame


def hello(endpoint: str, *, resumed: bool) -> bytes:
    """Return the first frame of a connection."""
    return encode_json({"type": "hello", "endpoint": endpoint, "resumed": resumed})


def envelope_frame(delivery: int, envelope: Envelope) -> bytes:
    """Return the frame that hands an envelope over."""
    return b'{"type":"envelope","delivery":%d,"envelope":%b}' % (delivery, envelope.encode())


def accepted(
    ref: str | int | None, envelope_id: str, deliveries: int, *, late: bool = False
) -> bytes:
    """Return the answer to a publish that is safe.

    Args:
        late: It was a task's result, and another one was first: `envelope_id` is of that.
    """
    said = {"type": "accepted", "ref": ref, "id": envelope_id, "deliveries": deliveries}
    return encode_json({**said, "late": True} if late else said)


def refused(ref: str | int | None, problem: Problem) -> bytes:
    """Return the answer to a publish or a request that was refused."""
    return encode_json({"type": "refused", "ref": ref, "problem": problem})


def reply(ref: str | int | None, envelope: Envelope) -> bytes:
    """Return the answer to a request."""
    return encode_json({"type": "reply", "ref": ref, "envelope": msgspec.Raw(envelope.encode())})


def problem_frame(problem: Problem) -> bytes:
    """Return what is said of a frame that could not be used; the connection stays."""
    return encode_json({"type": "error", "problem": problem})
