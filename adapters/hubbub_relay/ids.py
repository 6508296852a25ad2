"""Ids of tasks that the relay makes."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final

from hubbub.ports import Clock

__all__ = ["TaskIds"]

_COUNTER: Final = 1_000_000


class TaskIds:
    """Makes ids: `t_`, 13 digits of milliseconds, 6 digits that count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counter = secrets.randbelow(_COUNTER)

    def next(self) -> str:
        """Return an id that this process has not made in this millisecond."""
        self._counter = (self._counter + 1) % _COUNTER
        return f"t_{self._clock.now_us() // 1000:013d}{self._counter:06d}"

    @staticmethod
    def of_key(owner: str, key: str) -> str:
        """Return the id of what an idempotency key names: the same one each time.

        It begins with 9, where no id made of the time begins before the year 2255.
        """
        said = blake2b(f"{owner}\0{key}".encode(), digest_size=8).digest()
        return f"t_9{int.from_bytes(said) % 10**18:018d}"
