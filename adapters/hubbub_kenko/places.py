"""Where messages came from, so that answers and targets find their way; the recent ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from hubbub_kenko.chat import Conversation, Dispatch
from hubbub_kenko.wire import Target

__all__ = ["REMEMBERED", "Places"]

REMEMBERED: Final = 16_384
"""Messages, and places, that are remembered; the oldest are forgotten."""

Place = tuple[str, str, str]
"""Adapter, `group` or `user`, and its id."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A message that an application was sent.

    Attributes:
        adapters: Of who said it, and of who takes the answer.
    """

    conversation: Conversation | None
    lang: str
    adapters: tuple[str, str]
    traceparent: str


class Places:
    """What applications were sent, and where those messages came from."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._said: OrderedDict[str, Asked] = OrderedDict()
        self._addresses: OrderedDict[Place, str] = OrderedDict()

    def remember(self, message_id: str, sent: Dispatch) -> None:
        """Note a message that an application was sent."""
        source = sent.source
        adapters = (source.adapter, source.address.split(".", 1)[0])
        asked = Asked(sent.conversation, sent.lang, adapters, sent.traceparent)
        self._said[message_id] = asked
        if len(self._said) > self._remembered:
            self._said.popitem(last=False)
        place = _place(source.adapter, source.group_id, source.user_id)
        if place is not None and self._addresses.get(place) != source.address:
            self._addresses[place] = source.address
            if len(self._addresses) > self._remembered:
                self._addresses.popitem(last=False)

    def find(self, message_id: str | None) -> Asked | None:
        """Return what is known of a message."""
        return self._said.get(message_id or "")

    def address_of(self, target: Target) -> str | None:
        """Return the endpoint that a target means; None when nothing came from there."""
        if target.address is not None:
            return target.address
        place = _place(target.adapter or "", target.group_id, target.user_id)
        return None if place is None else self._addresses.get(place)


def _place(adapter: str, group_id: str | None, user_id: str | None) -> Place | None:
    if group_id is not None:
        return (adapter, "group", group_id)
    return None if user_id is None else (adapter, "user", user_id)
