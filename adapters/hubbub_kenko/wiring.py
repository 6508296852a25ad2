"""The default wiring: ordinary routes that hold where no other one matches."""

from __future__ import annotations

from typing import Final

from hubbub import Route
from hubbub.envelope import CHAT_MESSAGE

__all__ = ["CHAT_LABEL", "ROUTES", "WANTED"]

CHAT_LABEL: Final = "chat"
WANTED: Final = "any"
"""What the label `chat` of an application says while it runs and has subscribed nothing itself."""

ROUTES: Final = (
    Route(
        name="kenko: chat to applications that run",
        match=">",
        to=("kenko.app.*",),
        types=(CHAT_MESSAGE,),
        labels={CHAT_LABEL: WANTED},
        fallback=True,
    ),
)
