"""What frames of nodes mean: codes, limits, and one value for each kind of frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from hubbub.errors import HubError

__all__ = [
    "DENIED",
    "INTERNAL",
    "INVALID",
    "LIMITED",
    "MAX_CONCURRENCY",
    "MAX_ERROR",
    "MAX_FEATURES",
    "MAX_LABELS",
    "MAX_TASK_ID",
    "MAX_TYPES",
    "RESULT_DEPTH",
    "UNKNOWN",
    "Ask",
    "FrameError",
    "NodeFrame",
    "NodeReady",
    "Pong",
    "Result",
    "Status",
    "Stopping",
]

INVALID: Final = 1001
UNKNOWN: Final = 1002
DENIED: Final = 1003
INTERNAL: Final = 1004
LIMITED: Final = 1005

MAX_TASK_ID: Final = 128
MAX_TYPES: Final = 1000
MAX_LABELS: Final = 64
MAX_CONCURRENCY: Final = 1000
MAX_FEATURES: Final = 32
MAX_ERROR: Final = 4000
"""Characters of a node's own words of why it failed; the rest is cut off."""

RESULT_DEPTH: Final = 60
"""How deeply a result may be nested; deeper ones are `failed`, or the task would never end."""

Status = Literal["completed", "failed"]


class FrameError(HubError):
    """A frame that cannot be used; the connection stays.

    Attributes:
        number: The code that OctoHub has for it.
        details: What was wrong with it.
    """

    code = "octohub_frame"

    def __init__(self, details: str, number: int = INVALID) -> None:
        self.number = number
        self.details = details
        super().__init__(details)


@dataclass(frozen=True, slots=True)
class NodeReady:
    """`node_ready`: what a node says of itself; the original's say only their id.

    Attributes:
        task_types: What it does; None when it does not say.
        max_concurrency: Tasks it does at once.
        features: What it understands beside the original's frames: `ack`, `cancel`.
    """

    task_types: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    max_concurrency: int = 1
    version: str = ""
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Result:
    """`task_result`: how a task ended; `result` is JSON."""

    task_id: str
    status: Status
    result: bytes
    error: str | None


@dataclass(frozen=True, slots=True)
class Pong:
    """`pong`, in answer to a `ping`."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """`node_stopping`: the node finishes what it has, wants nothing more, and will leave."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A frame of the `action` dialect.

    Attributes:
        data: Decoded JSON.
        request_id: Comes back with the reply; a text, a number, or None.
    """

    action: str
    data: object = None
    request_id: str | float | None = None
    to: str | None = None
    traceparent: str = ""


NodeFrame = NodeReady | Result | Pong | Stopping | Ask
