"""Who calls: `Authorization: Bearer <token>`, and what that caller may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.types import Scope

from hubbub.core import Core
from hubbub.errors import ForbiddenError, UnauthorizedError
from hubbub.intake import scoped
from hubbub.values import Principal
from hubbub.web.decoding import bearer_of

__all__ = ["authenticated", "has_scope", "need", "peer_of"]


def peer_of(scope: Scope) -> str | None:
    """Return the address a request came from; None where it is not known."""
    client = scope.get("client")
    return str(client[0]) if client else None


def authenticated(core: Core, scope: Scope) -> Principal:
    """Return the caller of a request.

    Raises:
        UnauthorizedError: no token, or one that is unknown, expired or revoked.
        TooManyFailuresError: the same, after too many of these from its source.
        MalformedError: two of them.
    """
    token = bearer_of(scope["headers"])
    if token is not None:
        try:
            return core.tokens.authenticate(token)
        except UnauthorizedError:
            core.auth_failures.failed("token", peer_of(scope))
            raise
    raise UnauthorizedError(
        "this path needs a token: send the header `Authorization: Bearer <token>`; "
        "`hubbub token create` makes one"
    )


SOME: Final = ":PATTERN"
"""Ends the name of a scope that is enough with any pattern; what it covers is looked at later."""


def has_scope(principal: Principal, scopes: Iterable[str]) -> bool:
    """Tell whether a caller has one of these scopes; `admin` is all of them."""
    return "admin" in principal.scopes or any(
        scope in principal.scopes
        or (scope.endswith(SOME) and scoped(principal.scopes, scope.removesuffix(SOME)))
        for scope in scopes
    )


def need(principal: Principal, scopes: Iterable[str]) -> None:
    """Check that a caller has one of these scopes, or `admin`.

    Raises:
        ForbiddenError: it has not.
    """
    if not has_scope(principal, scopes):
        wanted = " or ".join(f"{scope!r}" for scope in dict.fromkeys((*scopes, "admin")))
        raise ForbiddenError(f"{principal.name!r} may not do this; it needs the scope {wanted}")
