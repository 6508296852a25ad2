"""Bodies of the polling transport, read before python-engineio takes them. Pure.

What that library cannot read, or has nobody for, it drops, and answers 200. So a body is read here
first, and refused whole: its sender knows then that nothing of it was taken.

Source: Engine.IO protocol 4, Socket.IO protocol 5; python-engineio 4.15, python-socketio 5.18.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Set
from typing import Any, Final, cast

import engineio.json
import engineio.packet
import socketio.packet

from hubbub.envelope import encode_json
from hubbub.errors import HubError
from hubbub.web import parse_query

__all__ = [
    "MAX_ATTACHMENTS",
    "MAX_PACKETS",
    "MAX_POLLED",
    "AttachmentsError",
    "Packet",
    "PayloadError",
    "RoomError",
    "read_payload",
]

MAX_PACKETS: Final = 1000
"""Packets of one POST. The library's own 16 is less than what a client sends that was held up:
those of JavaScript put all that waits into one, up to the `maxPayload` of the handshake."""

MAX_ATTACHMENTS: Final = 10
"""Binary arguments of one event. The library waits for up to 9,999,999,999 of them, and what
comes meanwhile is taken for one."""

MAX_DIGITS: Final = 10
"""Digits of a number of attachments; of more the library says so in an error like any other."""

MAX_POLLED: Final = 16
"""Packets that one poll is answered with: clients of python-engineio hang up on more."""

SEPARATOR: Final = "\x1e"
RESERVED: Final = frozenset({"connect", "disconnect"})
"""Names of events that only the library itself may say."""

_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
_BINARY: Final = ("5", "6")
"""How packets with attachments begin."""

_io: Final[Any] = socketio.packet
_engine: Final[Any] = engineio.packet
_json: Final[Any] = engineio.json


class PayloadError(HubError):
    """A body of the polling transport that is not taken."""

    code = "kenko_payload"


class RoomError(PayloadError):
    """An event that is over the limit of a message with its attachments."""


class NoNumber:
    """Stands for a number that JSON has none of; what holds one cannot be encoded, so it is told.

    As `nan` it would become null on its way through the hub.
    """


class _Json:
    """What the library reads and writes data with: its own way, but for `NaN` and `1e999`."""

    dumps = staticmethod(_json.dumps)

    @staticmethod
    def loads(text: str) -> Any:  # noqa: ANN401  # JSON
        return _json.loads(text, parse_constant=_no_number, parse_float=_number)


def _no_number(text: str) -> NoNumber:
    del text
    return NoNumber()


def _number(text: str) -> float | NoNumber:
    number = float(text)
    return number if math.isfinite(number) else NoNumber()


class AttachmentsError(ValueError):
    """A packet announces no attachments where it must, or more than `MAX_ATTACHMENTS`."""

    def __init__(self, count: str | int) -> None:
        super().__init__(f"{count} attachments, it must be 1 to {MAX_ATTACHMENTS}")


class Packet(_io.Packet):  # type: ignore[misc]  # published without types
    """A Socket.IO packet with a bounded number of attachments, and data that is JSON.

    Attributes:
        size_bytes: What is there of a packet that has attachments, as it came.
    """

    json = _Json
    size_bytes = 0

    def decode(self, encoded_packet: Any) -> int:  # noqa: ANN401  # the library's
        """Read a packet; returns how many attachments follow.

        Raises:
            AttachmentsError: none, or more than `MAX_ATTACHMENTS`, where it has some.
        """
        untyped: Any = super()
        if isinstance(encoded_packet, str) and encoded_packet.startswith(_BINARY):
            announced = encoded_packet[1 : encoded_packet.find("-") + 1 or 1]
            if announced[:-1].isdigit() and len(announced) > MAX_DIGITS:
                raise AttachmentsError("very many")
            self.size_bytes = len(encoded_packet.encode("utf-8", "surrogatepass"))
        count: int = untyped.decode(encoded_packet) or 0
        binary = self.packet_type in (_io.BINARY_EVENT, _io.BINARY_ACK)
        if binary and not 1 <= count <= MAX_ATTACHMENTS:
            raise AttachmentsError(count)
        return count

    def add_attachment(self, attachment: bytes) -> bool:
        """Take an attachment; returns whether it was the last."""
        self.size_bytes += len(attachment)
        untyped: Any = super()
        is_last: bool = untyped.add_attachment(attachment)
        return is_last


def read_payload(
    body: bytes,
    *,
    connected: Callable[[str], bool],
    awaited: int,
    room_bytes: int = sys.maxsize,
) -> bytes:
    """Return a body that the library takes all of.

    Args:
        connected: Tells whether the session is connected to a namespace.
        awaited: Attachments of an earlier packet that are still to come.
        room_bytes: What these may have together.

    Raises:
        RoomError: these have more.
        PayloadError: some of it would be dropped; which packet, and why.
    """
    try:
        text = body.decode()
        if text.startswith("d="):  # a form, as scripts of other origins once posted it
            text = dict(reversed(parse_query(body, limit=1)))["d"]
    except (UnicodeDecodeError, HubError):
        raise PayloadError("the body is not UTF-8") from None
    packets = text.split(SEPARATOR) if text else []
    if len(packets) > MAX_PACKETS:
        raise PayloadError(f"{len(packets)} packets, the limit is {MAX_PACKETS}; send several")
    reading = _Reading(connected, awaited, room_bytes)
    for number, packet in enumerate(packets, start=1):
        try:
            reading.take(packet)
        except PayloadError as error:
            raise type(error)(f"packet {number} of {len(packets)}: {error}") from None
    return text.encode()


class _Reading:
    """What is known of a session after the packets that were read."""

    def __init__(self, connected: Callable[[str], bool], awaited: int, room_bytes: int) -> None:
        self._before = connected
        self._now: dict[str, bool] = {}
        self._awaited = awaited
        self._room_bytes = room_bytes
        self._closed = False

    def take(self, packet: str) -> None:
        if self._closed:
            raise PayloadError("it comes behind the end of the session")
        try:
            read = _engine.Packet(encoded_packet=packet)
        except _UNREADABLE:
            raise PayloadError("it is no packet of Engine.IO") from None
        if self._awaited:
            if not read.binary:
                raise PayloadError("an attachment is to come before it")
            self._awaited -= 1
            self._room_bytes -= len(read.data)
            if self._room_bytes < 0:
                raise RoomError("an event is over the limit with its attachments")
        elif read.binary:
            raise PayloadError("nothing has announced this attachment")
        elif read.packet_type == _engine.MESSAGE:
            self._message(read.data)
        elif read.packet_type == _engine.CLOSE:
            self._closed = True
        elif read.packet_type != _engine.PONG:
            raise PayloadError(f"a client does not post packets of type {read.packet_type}")

    def _message(self, data: object) -> None:
        try:
            packet: Any = Packet(encoded_packet=data)
        except _UNREADABLE as error:
            raise PayloadError(f"it is no packet of Socket.IO: {error}") from None
        namespace: str = packet.namespace or "/"
        match packet.packet_type:
            case _io.CONNECT:
                self._now[namespace] = True  # or refused, which is answered
            case _io.DISCONNECT:
                self._now[namespace] = False
            case _io.EVENT | _io.BINARY_EVENT:
                self._event(packet, namespace)
            case _:
                raise PayloadError("only connect, disconnect and event are taken")

    def _event(self, packet: Any, namespace: str) -> None:  # noqa: ANN401  # published untyped
        if not self._now.get(namespace, self._before(namespace)):
            raise PayloadError(f"the session is not connected to {namespace[:64]!r}")
        match packet.data:
            case [str(name), *_] if name not in RESERVED:
                pass
            case _:
                raise PayloadError("an event is a list that begins with its name")
        try:
            encode_json(packet.data)
        except (ValueError, TypeError, RecursionError):
            # half of a surrogate pair, no number of JSON, or nested too deep
            raise PayloadError("its data cannot be read") from None
        if packet.packet_type == _io.BINARY_EVENT:
            self._awaited = packet.attachment_count
            self._room_bytes = sys.maxsize  # its own attachments are as bounded as the body
            if _places(packet.data) != set(range(self._awaited)):
                raise PayloadError("its attachments and their places do not match")


def _places(value: object) -> Set[object]:
    """Return the places of attachments in the data of an event."""
    found: set[object] = set()
    rest: list[object] = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, list):
            rest += cast("list[object]", one)
        elif isinstance(one, dict):
            members = cast("dict[str, object]", one)
            if members.get("_placeholder") and "num" in members:
                number = members["num"]
                found.add(number if isinstance(number, int) else None)
            else:
                rest += members.values()
    return found
