"""Where messages came from, so that answers and targets find their way; the recent ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hubbub_kenko.chat import Conversation, Dispatch
from hubbub_kenko.wire import Target

__all__ = ["REMEMBERED", "Places"]

REMEMBERED: Final = 16_384
"""Messages, and places, that are remembered; the oldest are forgotten."""

Place = tuple[str, str, str]
"""Adapter, `group` or `user`, and its id."""


class Places:
    """What applications were sent, and where those messages came from."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._said: OrderedDict[str, tuple[Conversation | None, str]] = OrderedDict()
        self._addresses: OrderedDict[Place, str] = OrderedDict()

    def remember(self, message_id: str, sent: Dispatch) -> None:
        """Note a message that an application was sent."""
        self._said[message_id] = (sent.conversation, sent.lang)
        if len(self._said) > self._remembered:
            self._said.popitem(last=False)
        source = sent.source
        place = _place(source.adapter, source.group_id, source.user_id)
        if place is not None and self._addresses.get(place) != source.address:
            self._addresses[place] = source.address
            if len(self._addresses) > self._remembered:
                self._addresses.popitem(last=False)

    def conversation_of(self, message_id: str) -> Conversation | None:
        """Return where a message was said; None when it is not known."""
        found = self._said.get(message_id)
        return None if found is None else found[0]

    def lang_of(self, message_id: str | None) -> str | None:
        """Return the language a message was said in; None when it is not known."""
        found = self._said.get(message_id or "")
        return None if found is None else found[1]

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
