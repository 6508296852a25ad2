"""The wire of a WebSocket that the hub has opened: handshake, frames, pings, goodbye."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from hubbub.errors import HubError, Retry
from hubbub.listeners.connections import Connection
from hubbub.net.backoff import retry_after_s
from hubbub.net.dialer import Dial, Failure
from hubbub.net.handshake import AnswerReader, NotHttpError

if TYPE_CHECKING:
    from hubbub.net.websocket_connection import WebSocketConnection

__all__ = ["WebSocketLink"]

INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
VANISHED: Final = 1006

SHOWN_REASON: Final = 123
"""Characters of a peer's close reason in logs; that of a valid frame is no longer."""

_DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class WebSocketLink(Connection):
    """One connection of a dial, from the handshake to its end.

    Attributes:
        dial: What it belongs to.
        protocol: Frames and handshake, without input and output.
    """

    def __init__(
        self,
        dial: Dial,
        socket: WebSocketConnection,
        protocol: ClientProtocol,
        request: Request,
    ) -> None:
        super().__init__()
        self.dial: Final = dial
        self.protocol: Final = protocol
        self._socket = socket
        self._request = request
        self._times = dial.policy.times
        self._phase: Literal["handshake", "open", "closing"] = "handshake"
        self._was_open = False
        self._asked = False
        self._answer = AnswerReader()
        self._frames: deque[Frame] = deque()
        self._handing_over = False
        self._parts = bytearray()
        self._is_text = False
        socket.settle(self)

    # What the protocol object calls

    @property
    def is_usable(self) -> bool:
        """Whether messages can be written."""
        return self._phase == "open" and self.is_open and self.protocol.state is State.OPEN

    def write_message(self, message: str | bytes) -> None:
        """Send a message, if it can be sent."""
        if not self.is_usable:
            return
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self._write_out()

    async def drained(self) -> None:
        """Return when the peer keeps up.

        Raises:
            Retry: the link has ended.
        """
        self.flush()
        await self._room.wait()
        if not self.is_usable:
            raise Retry(reason="connection_lost")

    def say_goodbye(self, code: int, reason: str) -> None:
        """Begin to close; the peer has a while to answer."""
        if self._phase == "handshake":
            self.abort()
        elif self._phase == "open":
            if self.protocol.state is State.OPEN:
                self.protocol.send_close(code, reason)
            self._await_end()

    # What the listener's side calls

    def leave(self) -> None:
        """The dial is closed."""
        if self._phase == "handshake":
            self.abort()
        else:
            self._fenced(self._socket.leave)

    def opened(self) -> None:
        """The connection is there: ask for a WebSocket."""
        self.protocol.send_request(self._request)
        self._write_out()
        self._watch_for(self._times.handshake_s, "handshake")

    def received(self, data: bytes) -> None:
        """Take bytes, as they come."""
        if self._phase == "handshake":
            self._read_answer(data)
            return
        self._read_frames(data)

    def finished(self) -> None:
        """The peer sends nothing more."""
        if self._phase == "handshake":
            self._finish_handshake()
            return
        self.protocol.receive_eof()
        self._close_now()

    def closed(self) -> None:
        """The connection has ended, and its dial knows."""
        if not self._was_open:
            return
        self._socket.closed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand over what had come, say how it ended, and end."""
        if self._phase == "handshake":
            self._refused()
        elif self._phase == "open":
            self.paused = False
            self._fenced(self._hand_over)
        self._phase = "closing"
        self._note_end()
        super().connection_lost(exc)

    def pause(self) -> None:
        """Read nothing more for now."""
        if self._phase != "closing":
            super().pause()

    def resume(self) -> None:
        """Hand over what had come, and read on."""
        self.paused = False
        self._hand_over()
        if not self.paused:
            super().resume()

    # Handshake

    def _read_answer(self, data: bytes) -> None:
        try:
            self._answer.feed(data)
        except NotHttpError as error:
            self._fails("protocol", f"no WebSocket is there: {error}")
            self.abort()
            return
        if self._answer.opens is not None:
            self._open(self._answer.opens)
        elif self._answer.is_complete:
            self._finish_handshake()

    def _open(self, data: bytes) -> None:
        """Look at the answer, and at what came with it."""
        end = data.index(b"\r\n\r\n") + 4
        self.protocol.receive_data(data[:end])
        self.protocol.events_received()
        if (error := self.protocol.handshake_exc) is not None:
            self._fails("protocol", f"no WebSocket is there: {error}")
            self.abort()
            return
        self._phase, self._was_open = "open", True
        self._expect()
        self.dial.is_up()
        self._fenced(self._socket.opened)
        if data[end:] and self.is_open:
            self._read_frames(data[end:])

    def _finish_handshake(self) -> None:
        """End: the peer has answered with something else, or with nothing."""
        self._refused()
        self.abort()

    def _refused(self) -> None:
        self._phase = "closing"
        refusal = self._answer.refusal
        if refusal is None:
            return
        now_us = self.home.clock.now_us()
        asked_s = retry_after_s(refusal.headers, now_us)
        text = f"the peer has answered {refusal.status} to the handshake"
        self.dial.fails(Failure("refused", text, asked_s))
        self._fenced(lambda: self._socket.refused(refusal.status, refusal.headers, refusal.body))

    # Frames

    def _read_frames(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        came = self.protocol.events_received()
        self._write_out()
        if self._phase == "open":
            self._frames.extend(each for each in came if isinstance(each, Frame))
            self._hand_over()
        elif self.protocol.close_rcvd is not None:
            self._close_now()

    def _hand_over(self) -> None:
        """Hand over what has come, until the protocol object pauses; then see whether it ends."""
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._frames and not self.paused and self._phase == "open":
                self._take(self._frames.popleft())
        finally:
            self._handing_over = False
        if not self._frames and self._phase == "open" and self.protocol.close_expected():
            self._end_of_peer()

    def _end_of_peer(self) -> None:
        """The peer has closed, or made a mistake after which nothing can be read."""
        error = self.protocol.parser_exc
        if error is None:
            self._phase = "closing"
            self._close_now()
        else:
            if self.protocol.close_sent is not None and self.protocol.close_sent.code == TOO_BIG:
                self.home.gate.refuse("too_large")
            self._await_end()

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in _DATA:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._take_message(frame.data)
                return
        self._parts += frame.data
        if frame.fin:
            parts, self._parts = self._parts, bytearray()
            self._take_message(parts)

    def _take_message(self, data: bytes | bytearray | memoryview) -> None:
        message: str | bytes = bytes(data)
        if self._is_text:
            try:
                message = str(data, "utf-8")
            except UnicodeDecodeError:
                self.refuse("not_utf8")
                self.protocol.fail(INVALID_DATA, "text is not UTF-8")
                self._frames.clear()
                self._await_end()
                return
        try:
            self._socket.received(message)
        except HubError as error:
            self.refuse(error.code)

    # The end

    def _await_end(self) -> None:
        """A close frame is on its way: hand over nothing more, and wait a while for the answer."""
        self._phase = "closing"
        self._write_out()
        self._frames.clear()
        if self.paused:  # its answer has to be read
            Connection.resume(self)
        self._watch_for(self._times.close_s, "close")

    def _close_now(self) -> None:
        """End the connection, once what was written is gone: all has been said."""
        self.close()
        self._watch_for(self._times.close_s, "close")

    def _note_end(self) -> None:
        received, sent = self.protocol.close_rcvd, self.protocol.close_sent
        said = received or sent
        self._socket.close_code = VANISHED if said is None else said.code
        self._socket.close_reason = "" if said is None else said.reason
        if not self._was_open:
            return
        if received is not None:
            reason = received.reason[:SHOWN_REASON]
            self._fails("lost", f"the peer has closed with {received.code}: {reason!r}")
        elif sent is not None:
            self._fails("lost", f"closed with {sent.code}: {sent.reason!r}")

    def _fails(self, reason: str, text: str) -> None:
        self.dial.fails(Failure(reason, text))

    # Bytes and time

    def _write_out(self) -> None:
        for data in self.protocol.data_to_send():
            if data:  # else it would end our side alone; `close` ends both
                self.write(data)

    def _expect(self) -> None:
        """Something has come, or is awaited from here on."""
        if self._phase == "open" and not self.paused:
            self._asked = False
            self._watch_for(self._times.ping_s, "idle")

    def _watch_for(self, seconds: float, reason: str) -> None:
        if self._watch is not None:
            self._watch.read_within(seconds, reason)

    def _overdue(self, reason: str) -> None:
        match reason:
            case "idle" if self._phase == "open" and not self._asked:
                self._asked = True
                self.protocol.send_ping(b"")
                self._write_out()
                self._watch_for(self._times.pong_s, "idle")
            case "idle":
                self._fails("lost", f"the peer was silent for {self._times.pong_s:g} s")
                self.abort()
            case "handshake" if self._answer.refusal is not None:
                self._finish_handshake()
            case "handshake":
                self._fails("handshake", "the peer has not answered the handshake in time")
                self.abort()
            case "close":
                self.abort()
            case _:
                super()._overdue(reason)
