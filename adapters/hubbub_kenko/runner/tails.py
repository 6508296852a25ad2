"""What of the output of a runner's deployments has been sent over one connection."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Final

from hubbub_kenko.runner import wire
from hubbub_kenko.runner.output import Output
from hubbub_kenko.wire import MAX_LINES

__all__ = ["Tails"]

MAX_FRAME: Final = 64 * 1024
"""Bytes of text in one frame, give or take a line."""


class Tails:
    """The ends of all outputs that are still to be sent.

    After a reconnect all that is remembered is sent anew: the hub knows lines by their numbers, and
    what it does not have it takes. What is written faster than it can be sent is forgotten by
    `Output`, not gathered here; the hub sees the gap in the numbers.
    """

    def __init__(self, output_of: Callable[[str], Output]) -> None:
        self._output_of = output_of
        self._life = secrets.token_hex(8)
        self._outputs: dict[str, Output] = {}
        self._sent: dict[str, int] = {}

    def grown(self, deployment_id: str) -> None:
        """Note that there is more; an ended deployment's output is kept until it was sent."""
        self._outputs[deployment_id] = self._output_of(deployment_id)

    def again(self) -> None:
        """Begin anew, with a hub that may have nothing."""
        self._sent.clear()

    def forget(self, deployment_id: str) -> None:
        """Forget a deployment that was removed."""
        self._outputs.pop(deployment_id, None)
        self._sent.pop(deployment_id, None)

    def frames(self) -> Iterator[str]:
        """Yield frames of what was not sent yet, each deployment in its turn."""
        unsent = list(self._outputs)
        while unsent:
            for deployment_id in list(unsent):
                frame = self._next(deployment_id)
                if frame is None:
                    unsent.remove(deployment_id)
                else:
                    yield frame

    def _next(self, deployment_id: str) -> str | None:
        output = self._outputs.get(deployment_id)
        lines = [] if output is None else output.after(self._sent.get(deployment_id, 0), MAX_LINES)
        size = 0
        for count, line in enumerate(lines, 1):
            size += len(line.text)
            if size >= MAX_FRAME:
                del lines[count:]
                break
        if not lines:
            return None
        self._sent[deployment_id] = lines[-1].number
        return wire.output(deployment_id, self._life, lines)
