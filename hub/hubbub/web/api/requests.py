"""Request and reply over HTTP: one envelope in, one answer out, nothing stored."""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.errors import InvalidError
from hubbub.times import parse_duration
from hubbub.web.calls import ANYONE, Call, Operation, Reply, Spec
from hubbub.web.forms import Given, is_binary, read_forms
from hubbub.web.inputs import TRACEPARENT, RequestIn
from hubbub.web.shapes import Event

__all__ = ["OPERATIONS"]

DEFAULT_TIMEOUT: Final = "30s"
LONGEST_S: Final = 3600.0


async def request(call: Call) -> Reply:
    """Publish an envelope and answer with the reply."""
    body = await call.body()
    given = Given(call.principal, call.core.clock.now_us(), call.traceparent)
    headers = call.scope["headers"]
    timeout_s = parse_duration(DEFAULT_TIMEOUT, what="timeout")
    if not is_binary(headers):
        timeout_s, body = _without_timeout(body)
    envelopes, batch = read_forms(body, headers, given, batch_limit=1)
    if batch:
        raise InvalidError("a request is one envelope, not a batch; send them one by one")
    async with call.core.credentials.within(call.principal.id):
        answer = await call.core.asking.request(
            envelopes[0], timeout_s=timeout_s, principal=call.principal
        )
    return Reply(200, answer.encode())


def _without_timeout(body: bytes) -> tuple[float, bytes]:
    """Return the timeout, and the envelope without it: it is no attribute of that."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        given = msgspec.json.decode(members.pop("timeout", b'"30s"'), type=str | float)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return parse_duration(DEFAULT_TIMEOUT, what="timeout"), body  # the form says what is wrong
    timeout_s = parse_duration(given, what="timeout")
    if not 0 < timeout_s <= LONGEST_S:
        raise InvalidError(f"timeout is {timeout_s:g} s, it must be over 0 and up to an hour")
    return timeout_s, msgspec.json.encode(members)


OPERATIONS: Final = (
    Operation(
        "POST",
        "/api/v1/requests",
        request,
        "Publish and wait for one reply",
        ANYONE,
        Spec(
            answers={200: Event},
            body=RequestIn,
            parameters=(TRACEPARENT,),
            problems=(429, 503, 504),
        ),
    ),
)
