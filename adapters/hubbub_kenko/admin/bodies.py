"""Bodies of these requests, as values."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hubbub.errors import InvalidError, MalformedError
from hubbub_kenko.calls import Call

__all__ = ["shaped"]

T = TypeVar("T")


async def shaped(call: Call, model: type[T]) -> T:
    """Return the body as a model; an empty one is `{}`.

    Raises:
        MalformedError: it is no JSON.
        InvalidError: it is JSON of another shape.
    """
    body = await call.body() or b"{}"
    try:
        return msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"the body is not JSON: {error}") from None
