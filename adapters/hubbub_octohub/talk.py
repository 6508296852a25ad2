"""What is answered to frames of the `action` dialect, whoever sends them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, Protocol, cast

from hubbub import Envelope, Hub
from hubbub.envelope import CHAT_MESSAGE, encode_json
from hubbub.errors import (
    ForbiddenError,
    HubError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
)
from hubbub.observe.tracing import parse_traceparent
from hubbub.subjects import escape
from hubbub.values import Principal
from hubbub_octohub import actions, wire
from hubbub_octohub.session import Wishes
from hubbub_octohub.socket import Socket
from hubbub_octohub.wire import Ask

__all__ = ["Commands", "Talk", "WishesHolder", "canonical_traceparent", "user_address"]

Role = Literal["node", "user"]

MAX_WISHES: Final = 100
"""Names a connection may subscribe to one by one."""


def user_address(identity: str) -> str:
    """Return the address of a user."""
    return f"octohub.user.{escape(identity)}"


def canonical_traceparent(given: str) -> str:
    """Return a trace context that the hub takes; empty for one that is none."""
    parsed = parse_traceparent(given) if given else None
    return f"00-{parsed[0]}-{parsed[1]}-01" if parsed else ""


class Commands(Protocol):
    """What `command` can do."""

    async def run(
        self, command: str, args: Mapping[str, object], speaker: Talk, *, traceparent: str
    ) -> object:
        """Do one; returns its result.

        Raises:
            HubError: it cannot be done.
        """
        ...


class WishesHolder(Protocol):
    """Keeps what a user wants to be told."""

    async def wish(self, wishes: Wishes) -> None:
        """Tell this from now on."""
        ...


class Talk:
    """One speaker of the dialect: a user, or a node that speaks it too.

    Attributes:
        principal: Who it is to the hub.
        wishes: Which events of tasks it is told.
        own: Tasks it has submitted, by id; their events are told too.
    """

    def __init__(
        self,
        role: Role,
        identity: str,
        principal: Principal,
        *,
        hub: Hub,
        commands: Commands | None = None,
        holder: WishesHolder | None = None,
    ) -> None:
        self.identity: Final = identity
        self.principal: Final = principal
        self.wishes = Wishes()
        self.own: Final[set[str]] = set()
        self._role: Role = role
        self._both = role == "node"
        self._hub = hub
        self._commands = commands
        self._holder = holder
        self._connected_s = self.now_s
        self.seen_s = self.now_s
        self._answers: dict[str, Callable[[Ask], Awaitable[object]]] = {
            "ping": self._ping,
            "echo": self._echo,
            "status": self._status,
            "chat": self._chat,
            "command": self._command,
            "private": self._private,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    @property
    def now_s(self) -> int:
        """Unix time in whole seconds."""
        return self._hub.clock.now_us() // 1_000_000

    async def answer(self, socket: Socket, ask: Ask) -> None:
        """Do what a frame asks for, and reply.

        Raises:
            SocketGoneError: the peer has left.
        """
        self.seen_s = self.now_s
        try:
            data = await self._done(ask)
        except _Refusal as refusal:
            number, details = refusal.number, refusal.details
            reply = actions.failed(ask, number, details, now_s=self.now_s, both=self._both)
        else:
            reply = actions.answer(ask, data, now_s=self.now_s, both=self._both)
        await socket.write(reply)

    async def refuse(self, socket: Socket, error: wire.FrameError) -> None:
        """Say that a frame could not be read."""
        await socket.write(actions.frame_refused(error, now_s=self.now_s, both=self._both))

    async def _done(self, ask: Ask) -> object:
        do = self._answers.get(ask.action)
        if do is None:
            if ask.action in ("broadcast", "notification"):
                raise _Refusal(wire.DENIED, ask.action)
            raise _Refusal(wire.UNKNOWN, ask.action[:64])
        try:
            return await do(ask)
        except ForbiddenError as error:
            raise _Refusal(wire.DENIED, str(error)) from error
        except RateLimitedError as error:
            raise _Refusal(wire.LIMITED, str(error)) from error
        except HubError as error:
            bad = isinstance(error, (MalformedError, NotFoundError, TooLargeError))
            number = wire.INVALID if bad or "invalid" in error.code else wire.INTERNAL
            raise _Refusal(number, str(error)) from error

    # Actions

    async def _ping(self, ask: Ask) -> object:
        del ask
        return {"server_time": self.now_s, "sender_id": self.identity}

    async def _echo(self, ask: Ask) -> object:
        return {
            "original_message": ask.data,
            "echoed_by": "server",
            "sender_id": self.identity,
        }

    async def _status(self, ask: Ask) -> object:
        del ask
        return {
            "online": True,
            "last_active": self.seen_s,
            "connection_info": {"connected_at": self._connected_s, "client_id": self.identity},
        }

    async def _chat(self, ask: Ask) -> object:
        """Publish what somebody says, as a message of the hub."""
        text = _text_of(ask.data)
        receipt = await self._say(ask, f"octohub.{escape(self.identity)}.message", text, ())
        return {"status": "sent", "id": receipt}

    async def _private(self, ask: Ask) -> object:
        """Send something to one user."""
        to, said, text = ask.to, ask.data, _text_of(ask.data)
        if to is None and isinstance(said, dict):
            given = cast("dict[str, object]", said).get("to")
            to = str(given) if isinstance(given, (str, int)) else None
        if not to:
            raise _Refusal(wire.INVALID, "`to` is missing")
        if self._role != "user":
            raise _Refusal(wire.DENIED, "private")
        address = user_address(to)
        if not self._hub.known(address):
            raise _Refusal(wire.INVALID, f"user {to[:64]!r} is not connected")
        subject = f"octohub.{escape(self.identity)}.private"
        receipt = await self._say(ask, subject, text, (address,), to=to)
        return {"status": "sent", "id": receipt}

    async def _say(
        self, ask: Ask, subject: str, text: str, addresses: tuple[str, ...], *, to: str = ""
    ) -> str:
        private = bool(addresses)
        data: dict[str, object] = {
            "text": text,
            "sender": {"id": self.identity},
            "conversation": {
                "id": to if private else self.identity,
                "kind": "private",
            },
            "platform": "octohub",
            "octohub": {"data": ask.data},
        }
        receipt = await self._hub.publish(
            Envelope.new(
                source=self.principal.source,
                subject=subject,
                type=CHAT_MESSAGE,
                data=data,
                to=addresses,
                key=self.identity,
                traceparent=canonical_traceparent(ask.traceparent),
                durable=False,
            ),
            principal=self.principal,
        )
        return receipt.id

    async def _command(self, ask: Ask) -> object:
        data = cast("dict[str, object]", ask.data) if isinstance(ask.data, dict) else {}
        command, args = data.get("command"), data.get("args")
        if not isinstance(command, str):
            raise _Refusal(wire.INVALID, "`data.command` is missing")
        if self._commands is None:
            raise _Refusal(wire.DENIED, "command")
        given = cast("dict[str, object]", args) if isinstance(args, dict) else {}
        try:
            result = await self._commands.run(
                command, given, self, traceparent=canonical_traceparent(ask.traceparent)
            )
        except HubError as error:
            problem = {"code": error.code, "message": str(error)}
            return {"command": command, "status": "failed", "result": None, "error": problem}
        return {"command": command, "status": "executed", "result": result}

    async def _subscribe(self, ask: Ask) -> object:
        if self._holder is None:
            raise _Refusal(wire.DENIED, "subscribe")
        wishes = self.wishes.add(**_wish_of(ask))
        if len(wishes) > MAX_WISHES:
            raise _Refusal(wire.LIMITED, f"{MAX_WISHES} subscriptions are the limit")
        return await self._wish(wishes)

    async def _unsubscribe(self, ask: Ask) -> object:
        return await self._wish(self.wishes.remove(**_wish_of(ask)))

    async def _wish(self, wishes: Wishes) -> object:
        if self._holder is None:
            raise _Refusal(wire.DENIED, "subscribe")
        await self._holder.wish(wishes)
        self.wishes = wishes
        return {
            "all": wishes.everything,
            "task_ids": sorted(wishes.task_ids),
            "task_types": sorted(wishes.task_types),
        }


class _Refusal(Exception):  # noqa: N818  # a signal inside this module
    def __init__(self, number: int, details: str) -> None:
        self.number = number
        self.details = details
        super().__init__(details)


def _text_of(data: object) -> str:
    """Return what somebody says: a text, or the text in an object."""
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        members = cast("dict[str, object]", data)
        for name in ("text", "message", "content"):
            if isinstance(members.get(name), str):
                return str(members[name])
    return "" if data is None else encode_json(data).decode()


def _wish_of(ask: Ask) -> dict[str, str]:
    data = ask.data
    if not data:
        return {}
    members = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    for name in ("task_id", "task_type"):
        value = members.get(name)
        if isinstance(value, str) and value:
            return {name: value}
    raise _Refusal(wire.INVALID, "`data` is empty, or has a `task_id` or a `task_type`")
