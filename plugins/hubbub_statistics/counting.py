"""What is counted in the minute that runs: on the path of messages, so it does very little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, cast

import msgspec

from hubbub import Envelope
from hubbub.envelope import CHAT_MESSAGE, CHAT_TEMPLATE, finite_float
from hubbub.values import Delivery, Outcome

__all__ = ["MAX_CALLED", "MAX_USERS", "Counting", "sender_of"]

MAX_CALLED: Final = 1000
"""Endpoints that are counted apart in one minute; others are counted together."""

MAX_USERS: Final = 10_000
"""Senders of one minute; more are not told apart from those."""

MAX_DATA: Final = 64 * 1024
"""Bytes of a message that is looked into for its sender."""

_CHAT: Final = frozenset({CHAT_MESSAGE, CHAT_TEMPLATE})


class _Sender(msgspec.Struct):
    """Where chat of the hub and of OneBot name who spoke."""

    sender: Any = None
    user_id: Any = None


_decode = msgspec.json.Decoder(_Sender, float_hook=finite_float).decode


class Counting:
    """Counts of the minute that runs; `take` gives them and begins again.

    Attributes:
        begun: Called with the first thing that is counted after that.
    """

    def __init__(self, begun: Callable[[], None] = lambda: None) -> None:
        self.begun: Final = begun
        self.empty = True
        self.accepted = 0
        self.delivered = 0
        self.called: Counter[str] = Counter()
        self.users: Counter[str] = Counter()

    def take(self) -> Counting:
        """Return what was counted, and begin again."""
        taken = Counting()
        taken.accepted, taken.delivered = self.accepted, self.delivered
        taken.called, taken.users = self.called, self.users
        self.accepted = self.delivered = 0
        self.empty = True
        self.called, self.users = Counter(), Counter()
        return taken

    def _begin(self) -> None:
        self.empty = False
        self.begun()

    def on_accepted(self, envelope: Envelope) -> None:
        """Count an envelope; what the hub tells of itself is none."""
        if envelope.source.startswith("hub."):
            return
        if self.empty:
            self._begin()
        self.accepted += 1
        if envelope.type in _CHAT or ".message" in envelope.subject:
            sender = sender_of(envelope)
            if sender is not None and (sender in self.users or len(self.users) < MAX_USERS):
                self.users[sender] += 1

    def on_ended(self, delivery: Delivery) -> None:
        """Count a delivery that was taken."""
        if delivery.outcome is Outcome.DELIVERED:
            if self.empty:
                self._begin()
            self.delivered += 1
            address = delivery.endpoint or delivery.mailbox
            if address in self.called or len(self.called) < MAX_CALLED:
                self.called[address] += 1
            else:
                self.called["other"] += 1


def sender_of(envelope: Envelope) -> str | None:
    """Return who sent a chat message, as a hash; None for what nobody sent."""
    if len(envelope.data) > MAX_DATA or envelope.content_type is not None:
        return None
    try:
        found = _decode(envelope.data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    user: object = found.user_id
    if isinstance(found.sender, dict):
        sender = cast("dict[str, object]", found.sender)
        user = sender.get("id", sender.get("user_id", user))
    if user in (None, "") or isinstance(user, bool) or not isinstance(user, str | int):
        return None
    platform = envelope.source.split(".", 1)[0]
    return blake2b(f"{platform}:{user}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
