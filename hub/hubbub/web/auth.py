"""Who calls: `Authorization: Bearer <token>`, and what that caller may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hubbub.core import Core
from hubbub.errors import ForbiddenError, UnauthorizedError
from hubbub.intake import scoped
from hubbub.values import Principal

__all__ = ["authenticated", "bearer_of", "has_scope", "need"]


def bearer_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token of a request; None without one."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return token.strip().decode("latin-1")
            return None
    return None


def authenticated(core: Core, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
    """Return the caller of a request.

    Raises:
        UnauthorizedError: no token, or one that is unknown, expired or revoked.
    """
    token = bearer_of(headers)
    if token is not None:
        return core.tokens.authenticate(token)
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
