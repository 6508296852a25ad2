"""What the hub brings to nodes and takes back: commands in chats, and posts of results."""

from __future__ import annotations

from typing import Final, cast

import msgspec

from hubbub import Endpoint, Envelope, Hub, Reject, Retry
from hubbub.callbacks import Callbacks, Post
from hubbub.envelope import CHAT_MESSAGE, TASK_RESULT, decode_json, encode_json
from hubbub.errors import HubError, UnavailableError
from hubbub.outgoing import Outgoing
from hubbub.store.reads import envelopes as reads
from hubbub.values import Principal
from hubbub_octohub.desk import CALLBACKS, Desk, TaskIn
from hubbub_octohub.node import ADDRESSES

__all__ = ["COMMANDS", "ChatCommands", "callbacks_of", "read_command"]

COMMANDS: Final = "octohub.command"
"""Address that routes lead chat messages to, so that nodes do what they say."""

SIGNS: Final = "/!#."
"""What may stand before a command."""

TASK_PREFIX: Final = "chat_"
"""Tasks made of a message are named after it: delivered twice, it is done once."""

CALLBACK_ATTEMPTS: Final = 8
LONGEST_ANSWER: Final = 4000
"""Characters of an answer in a chat."""


def read_command(text: str) -> tuple[str, object] | None:
    """Return task type and parameters of `/type {"json": "object"}` or `/type some words`.

    Words become `{"text": "some words", "args": ["some", "words"]}`. None when there is no word.
    """
    name, _, rest = text.strip().partition(" ")
    name, rest = name.lstrip(SIGNS), rest.strip()
    if not name:
        return None
    if rest.startswith("{"):
        try:
            return name, cast("dict[str, object]", decode_json(rest))  # `{` begins an object
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    return name, {"text": rest, "args": rest.split()}


class ChatCommands(Endpoint):
    """Takes commands out of chats, and answers there when a node has done them."""

    def __init__(self, hub: Hub, desk: Desk) -> None:
        super().__init__(
            address=COMMANDS, accepts=(CHAT_MESSAGE, TASK_RESULT), concurrency=64, linger_s=None
        )
        self._hub = hub
        self._desk = desk
        scopes = frozenset({"tasks", "publish:octohub.task.>"})
        self._principal = Principal(COMMANDS, COMMANDS, scopes)

    async def deliver(self, envelope: Envelope) -> None:
        """Make a task of a message, or a message of a result."""
        if envelope.type == TASK_RESULT:
            await self._answer(envelope)
        else:
            await self._order(envelope)

    async def _order(self, envelope: Envelope) -> None:
        data = _members(envelope.json())
        command = read_command(str(data.get("text", "")))
        if command is None:
            raise Reject("no command in this message")
        task_type, params = command
        if not self._somebody_does(task_type):
            raise Reject("no node does this command")
        asked = {
            "chat": {
                "in_reply_to": envelope.id,
                "conversation": data.get("conversation"),
                "platform": data.get("platform"),
            }
        }
        task = TaskIn(task_type=task_type, data=msgspec.Raw(encode_json(params)))
        try:
            await self._desk.submit(
                task,
                self._principal,
                reply_to=COMMANDS,
                traceparent=envelope.traceparent,
                task_id=TASK_PREFIX + envelope.id,
                extra=asked,
                hops=envelope.hops + 1,
            )
        except UnavailableError as error:
            raise Retry(reason=error.code) from error
        except HubError as error:
            raise Reject(error.code) from error

    def _somebody_does(self, task_type: str) -> bool:
        return any(node.does(task_type) for node in self._hub.known(ADDRESSES))

    async def _answer(self, envelope: Envelope) -> None:
        """Say a result where the command was given."""
        asked = _members((await _request_of(self._hub, envelope)).get("chat"))
        in_reply_to = asked.get("in_reply_to")
        if not isinstance(in_reply_to, str):
            raise Reject("this result answers no message")
        conversation = asked.get("conversation")
        try:
            await self._hub.publish(
                Envelope.new(
                    source=COMMANDS,
                    subject="octohub.command.answer",
                    type=CHAT_MESSAGE,
                    data={
                        "text": _said(_members(envelope.json())),
                        "sender": {"id": "octohub"},
                        "conversation": conversation or {"id": "", "kind": "private"},
                        "platform": asked.get("platform") or "octohub",
                    },
                    in_reply_to=in_reply_to,
                    traceparent=envelope.traceparent,
                    hops=envelope.hops + 1,
                )
            )
        except UnavailableError as error:
            raise Retry(reason=error.code) from error


def callbacks_of(hub: Hub, outgoing: Outgoing) -> Callbacks:
    """Return what posts results to the `callback_url` of their task."""

    async def post_of(envelope: Envelope) -> Post:
        url = (await _request_of(hub, envelope)).get("callback_url")
        if not isinstance(url, str):
            raise Reject("the task of this result has no callback_url")
        headers = {"Content-Type": "application/json", "traceparent": envelope.traceparent}
        return Post(url, envelope.json_bytes(), headers)

    return Callbacks(
        hub,
        outgoing,
        post_of,
        address=CALLBACKS,
        accepts=TASK_RESULT,
        attempts=CALLBACK_ATTEMPTS,
    )


async def _request_of(hub: Hub, result: Envelope) -> dict[str, object]:
    """Return `data.octohub` of the request that a result answers."""
    asked = result.in_reply_to
    if asked is None:
        return {}
    stored = await hub.read(lambda session: reads.one(session, asked))
    if stored is None:
        return {}
    return _members(_members(stored.envelope.json()).get("octohub"))


def _said(data: dict[str, object]) -> str:
    """Return a result in words."""
    result = data.get("result")
    if data.get("state") != "completed":
        return f"{data.get('state')}: {data.get('error') or 'no reason was given'}"[:LONGEST_ANSWER]
    if isinstance(result, str):
        return result[:LONGEST_ANSWER]
    text = _members(result).get("text")
    if isinstance(text, str):
        return text[:LONGEST_ANSWER]
    return encode_json(result).decode()[:LONGEST_ANSWER]


def _members(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
