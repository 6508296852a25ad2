"""Who publishes, and what it gets for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

__all__ = ["Principal", "Receipt"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is speaking, and what it may do.

    Attributes:
        source: Address its envelopes carry, `api.<token name>` for API callers.
        scopes: `admin`, `read`, `tasks`, `tasks:<pattern>`, `publish:<pattern>`,
            `subscribe:<pattern>`, `direct:<pattern>`, `stream:<pattern>`.
        durable: Default of what it publishes.
        id: Of the credential itself, such as a token's id: names may be used again, ids are not.
            Empty for what has none.
    """

    name: str
    source: str
    scopes: frozenset[str] = frozenset()
    durable: bool = True
    id: str = ""


class Receipt(msgspec.Struct, frozen=True):
    """What a publisher gets once its message is safe.

    Attributes:
        deliveries: How many were planned.
        outcome: `accepted`, or `unrouted` with a reason.
        duplicate: The same message was published before; this is the first one's receipt.
        task_id: For a task request, the id of the task.
    """

    id: str
    trace_id: str
    outcome: Literal["accepted", "unrouted"]
    deliveries: int
    reason: str | None = None
    duplicate: bool = False
    task_id: str | None = None
