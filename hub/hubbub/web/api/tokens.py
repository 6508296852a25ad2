"""API tokens: made, listed, revoked."""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.errors import InvalidError
from hubbub.times import parse_deadline
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.inputs import CURSOR, LIMIT, NewTokenIn
from hubbub.web.shapes_of_the_hub import NewTokenView, TokenList
from hubbub.web.views import moment, token_view

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/tokens"
MAX_SCOPES: Final = 100


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that somebody wants."""

    name: str
    scopes: list[str]
    expires: str | float | None = None


async def create(call: Call) -> Reply:
    """Make a token; it is shown this once."""
    core = call.core
    given = await call.json(NewToken)
    if not 1 <= len(given.scopes) <= MAX_SCOPES:
        raise InvalidError(f"`scopes` has {len(given.scopes)} members, give 1 to {MAX_SCOPES}")
    now_us = core.clock.now_us()
    expires_us = (
        None
        if given.expires is None
        else parse_deadline(given.expires, what="expires", now_us=now_us)
    )
    if expires_us is not None and expires_us <= now_us:
        raise InvalidError("`expires` is in the past; the token would be of no use")
    token, text = await core.tokens.create(given.name, given.scopes, expires_us=expires_us)
    await core.audit(call.principal.name, "token.create", token.id, " ".join(token.scopes))
    shown = NewTokenView(
        token.id, token.name, list(token.scopes), moment(token.expires_us), token=text
    )
    return Reply(201, shown, headers=((b"cache-control", b"no-store"),))


async def listed(call: Call) -> Reply:
    """List all tokens ever made, newest first; never the tokens themselves."""
    limit, start = pages.limit_of(call), pages.number_after(call) or 0
    tokens = await call.core.tokens.listed()
    end = start + limit
    shown = map(token_view, tokens[start:end])
    after = end if end < len(tokens) else None
    return pages.page(shown, after, places=range(start + 1, end + 1))


async def revoke(call: Call) -> Reply:
    """Make a token worthless."""
    token_id = call.params["id"]
    await call.core.tokens.revoke(token_id)
    await call.core.audit(call.principal.name, "token.revoke", token_id)
    return Reply(204)


OPERATIONS: Final = (
    Operation(
        "POST",
        PATH,
        create,
        "Make a token",
        spec=Spec(answers={201: NewTokenView}, body=NewTokenIn),
    ),
    Operation(
        "GET",
        PATH,
        listed,
        "All tokens",
        spec=Spec(answers={200: TokenList}, parameters=(LIMIT, CURSOR)),
    ),
    Operation(
        "DELETE",
        PATH + "/{id}",
        revoke,
        "Revoke a token",
        spec=Spec(answers={204: None}, problems=(404,)),
    ),
)
