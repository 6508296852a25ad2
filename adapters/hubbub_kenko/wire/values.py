"""What a client says, as values."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "ABSENT", "CAPABILITIES", "HEARD", "MAX_CONCURRENCY", "MAX_LINE", "MAX_LINES", "MAX_NAME",
    "MAX_SUBSCRIPTIONS", "MAX_TASK_TYPES", "MAX_TEXT", "PINGED", "Ack", "Auth", "BadRegister",
    "FrameError", "Heartbeat", "Inbound", "Message", "OutputLine", "Ping", "Refusal", "Register",
    "RunnerOutput", "RunnerResult", "Target", "Unknown",
]  # fmt: skip

MAX_NAME: Final = 128
"""Characters of an application's name."""

MAX_TEXT: Final = 4096
"""Characters of each other text of a registration."""

MAX_SUBSCRIPTIONS: Final = 100
MAX_CONCURRENCY: Final = 1000
MAX_TASK_TYPES: Final = 100

MAX_LINE: Final = 4096
"""Characters of a line of a deployment's output."""

MAX_LINES: Final = 100
"""Lines in one `runner.output`."""

MAX_TIME_US: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""

CAPABILITIES: Final = frozenset({"ack", "runner", "segments", "task"})

ABSENT: Final = msgspec.Raw(b"")
"""Parts of a rich message that it does not have."""

Code = Literal["bad_json", "bad_type", "bad_data"]
Refusal = Literal[
    "invalid_data",
    "invalid_name",
    "unauthorized",
    "too_many_apps",
    "runner_connected",
    "shutting_down",
    "internal",
]


class FrameError(Exception):
    """A frame that cannot be used.

    Attributes:
        code: What the peer is told.
        ref: Message that the frame was about, where it says so.
    """

    def __init__(self, code: Code, message: str, ref: str | None = None) -> None:
        self.code: Final[Code] = code
        self.message: Final = message
        self.ref: Final = ref
        super().__init__(message)


class Register(msgspec.Struct, frozen=True, gc=False):
    """A registration that may be decided.

    Attributes:
        lang: Language of messages that say none.
        speaks: The language it named itself, in which it is told what goes wrong; None for none.
        subscribe: Subject patterns; None when the application named none at all.
        task_types: What it works on, with the capability `task`; None for all.
        standby: Of a runner: it shall not take the place of another one of its token.
    """

    kind: ClassVar[str] = "register"

    name: str
    version: str = ""
    description: str = ""
    author: str = ""
    lang: str = "zh-CN"
    capabilities: frozenset[str] = frozenset()
    task_types: tuple[str, ...] | None = None
    join_token: str = ""
    standby: bool = False
    subscribe: tuple[str, ...] | None = None
    concurrency: int = 16
    speaks: str | None = None


class BadRegister(msgspec.Struct, frozen=True, gc=False):
    """A registration that is refused, unless it is ignored as a second one."""

    kind: ClassVar[str] = "register"

    code: Refusal
    message: str
    speaks: str | None = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    """The Socket.IO event `auth`; `token` is its argument when that is a text."""

    kind: ClassVar[str] = "auth"

    register: Register | BadRegister
    token: str | None = None


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """`heartbeat`."""

    kind: ClassVar[str] = "heartbeat"


class Ping(msgspec.Struct, frozen=True, gc=False):
    """`ping`, as JSON or as the bare text."""

    kind: ClassVar[str] = "ping"

    bare: bool = False


HEARD: Final = Heartbeat()
PINGED: Final = Ping()


class Target(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a message shall go.

    Attributes:
        address: An endpoint of the hub; stronger than the rest.
    """

    adapter: str | None = None
    platform: str | None = None
    group_id: str | None = None
    user_id: str | None = None
    address: str | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """What an application says; with `key` instead of `content`, the hub finds the words."""

    kind: ClassVar[str] = "message"

    content: str | None = None
    reply_to: str | None = None
    target: Target | None = None
    segments: msgspec.Raw = ABSENT
    key: str | None = None
    args: dict[str, Any] = {}
    lang: str | None = None


class Ack(msgspec.Struct, frozen=True, gc=False):
    """A message was taken, or (`ok` false) never will be."""

    kind: ClassVar[str] = "ack"

    id: str
    ok: bool = True
    error: str | None = None


class RunnerResult(msgspec.Struct, frozen=True, gc=False):
    """What a runner answers to `runner.exec`."""

    kind: ClassVar[str] = "runner.result"

    data: dict[str, Any]


class OutputLine(msgspec.Struct, frozen=True, gc=False):
    """One line that a deployed application wrote.

    Attributes:
        number: 1 for the first that this life of the runner read, and one more for each.
    """

    number: Annotated[int, Meta(ge=1, lt=2**53)]
    at_us: Annotated[int, Meta(ge=0, le=MAX_TIME_US)]
    text: Annotated[str, Meta(max_length=MAX_LINE)]


class RunnerOutput(msgspec.Struct, frozen=True, gc=False):
    """What a runner's deployment wrote.

    Attributes:
        life: Names the runner's process: numbers begin anew with it.
    """

    kind: ClassVar[str] = "runner.output"

    deployment_id: str
    life: Annotated[str, Meta(max_length=64)]
    lines: Annotated[list[OutputLine], Meta(max_length=MAX_LINES)]


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """A type of a newer protocol; ignored."""

    kind: str


Inbound = (
    Register | BadRegister | Auth | Heartbeat | Ping | Message | Ack | RunnerResult | RunnerOutput
    | Unknown
)  # fmt: skip
