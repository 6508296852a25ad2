"""Words of the hub's own frames, in the language of the client that gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from hubbub_kenko.session import State
from hubbub_kenko.wire import Frame

__all__ = ["Translate", "preferred", "worded"]

Translate = Callable[[str, Mapping[str, object], str], str | None]
"""Finds the words for a key, its arguments and a language; None where nobody has them."""

MAX_LANG: Final = 64
_KEYS: Final = {"error": "code", "register": "code", "pause": "reason"}
"""Frames that have words, and the member that says which."""


def worded(frame: Frame, lang: str, translate: Translate, state: State) -> Frame:
    """Return a frame with its `message` in a language, as far as a catalogue has it.

    Keys are `kenko.error.<code>`, `kenko.register.<code>` and `kenko.pause.<reason>`; arguments
    are `detail`, what the hub says in English, and `state`.
    """
    member = _KEYS.get(frame.type)
    if member is None or not isinstance(frame.data, dict):
        return frame
    data = cast("dict[str, Any]", frame.data)
    which = data.get(member)
    if which is None:  # a registration that succeeded
        return frame
    args = {"detail": data.get("message", ""), "state": state.name}
    text = translate(f"kenko.{frame.type}.{which}", args, lang)
    return frame if text is None else Frame(frame.type, {**data, "message": text})


def preferred(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the language a handshake asks for by `Accept-Language`; None when it names none."""
    best: tuple[float, str] | None = None
    for name, value in headers:
        if name != b"accept-language":
            continue
        for part in value.decode("latin-1").split(","):
            tag, _, weight = part.partition(";")
            quality = _quality(weight)
            if tag.strip() not in ("", "*") and quality > (best[0] if best else 0.0):
                best = (quality, tag.strip()[:MAX_LANG])
    return best[1] if best else None


def _quality(weight: str) -> float:
    """Return `q=0.5` as a number: 1 when there is none, 0 when it is no number."""
    if not weight.strip():
        return 1.0
    try:
        return float(weight.strip().removeprefix("q="))
    except ValueError:
        return 0.0
