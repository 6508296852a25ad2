"""What a runner and a hub say to each other, as the runner has it. Pure.

To the runner:

    {"type": "runner.exec", "data": {"id": "x1", "op": "start", "deployment_id": "dep_1", ...}}

From it, beside the registration; `runner.result` answers an `id`, or tells of a change by itself:

    {"type": "runner.result", "data": {"id": "x1", "ok": true, "data": {"actual": "running"}}}
    {"type": "runner.result", "data": {"deployment_id": "dep_1", "data": {"actual": "failed"}}}
    {"type": "runner.output", "data": {"deployment_id": "dep_1", "life": "9f...",
     "lines": [{"number": 1, "at_us": 1700000000000000, "text": "up"}]}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from hubbub.envelope import decode_json
from hubbub_kenko import wire
from hubbub_kenko.runner.output import OutputLine
from hubbub_kenko.runner.processes import Status

__all__ = [
    "REPLACED",
    "Frame",
    "Order",
    "OrderError",
    "Package",
    "answered",
    "failed",
    "figures",
    "output",
    "read_frame",
    "read_order",
    "register",
    "status_data",
    "told",
]

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Of a deployment: it is also the name of a folder."""


class OrderError(Exception):
    """An order that cannot be read.

    Attributes:
        order_id: Which one, where it says so.
    """

    def __init__(self, message: str, order_id: str | None) -> None:
        self.order_id: Final = order_id
        super().__init__(message)


class Package(msgspec.Struct, frozen=True):
    """A package to fetch.

    Attributes:
        path: On the hub, signed.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=0)]
    path: Annotated[str, Meta(pattern=r"^/[^/\\]")]


class Order(msgspec.Struct, frozen=True):
    """`runner.exec`.

    Attributes:
        again: Of a start: it was asked for before; what has ended by itself since stays ended.
    """

    id: str
    op: str
    deployment_id: Name
    entry: str = ""
    env: dict[str, str] = {}
    package: Package | None = None
    again: bool = False


class Frame(msgspec.Struct, frozen=True):
    """Any frame of the hub."""

    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


_read_frame = msgspec.json.Decoder(Frame).decode
_read_order = msgspec.json.Decoder(Order).decode
_BROKEN = (msgspec.DecodeError, UnicodeError, RecursionError)


def read_frame(text: str | bytes) -> Frame | None:
    """Return a frame of the hub; None for what is none."""
    try:
        return _read_frame(text)
    except _BROKEN:
        return None


def read_order(data: msgspec.Raw) -> Order:
    """Read the data of `runner.exec`.

    Raises:
        OrderError: it does not fit.
    """
    try:
        return _read_order(data)
    except _BROKEN as error:
        raise OrderError(f"the order cannot be read: {error}", _id_in(data)) from error


def _id_in(data: msgspec.Raw) -> str | None:
    try:
        value = decode_json(data)
    except _BROKEN:
        return None
    match value:
        case {"id": str(order_id)}:
            return order_id
        case _:
            return None


REPLACED: Final = 4009
"""Close code: another runner has joined with this token."""


def register(name: str, version: str, token: str, *, standby: bool) -> str:
    """Return the registration; a runner wants no messages.

    Args:
        standby: Do not take the place of another one that has joined with this token.
    """
    return _text(
        "register",
        {
            "name": name,
            "version": version,
            "description": "hubbub runner",
            "author": "",
            "capabilities": ["runner"],
            "join_token": token,
            "standby": standby,
            "subscribe": [],
        },
    )


def status_data(status: Status) -> dict[str, Any]:
    """Return how a process is, as the hub reads it."""
    return {
        "actual": status.actual,
        "pid": status.pid,
        "restarts": status.restarts,
        "exit_code": status.exit_code,
        "reason": status.reason,
    }


def answered(order_id: str, data: Mapping[str, Any]) -> str:
    """An order was carried out."""
    return _text("runner.result", {"id": order_id, "ok": True, "data": data})


def failed(order_id: str, why: str) -> str:
    """An order cannot be carried out."""
    return _text("runner.result", {"id": order_id, "ok": False, "error": why[:500]})


def told(deployment_id: str, data: Mapping[str, Any]) -> str:
    """A deployment has changed by itself."""
    return _text("runner.result", {"deployment_id": deployment_id, "data": data})


def figures(*, cpu: float, memory_total: int) -> str:
    """The load of this machine: percent, bytes."""
    return _text("runner.result", {"data": {"cpu": cpu, "memory_total": memory_total}})


def output(deployment_id: str, life: str, lines: Sequence[OutputLine]) -> str:
    """Lines that a process wrote; at most `wire.MAX_LINES`."""
    read = [wire.OutputLine(line.number, line.at_us, line.text) for line in lines]
    return _text("runner.output", wire.RunnerOutput(deployment_id, life, read))


def _text(kind: str, data: object) -> str:
    return msgspec.json.encode({"type": kind, "data": data}).decode()
