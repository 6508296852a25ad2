"""The figures, read from the system by psutil; what it cannot tell is None."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import msgspec
import psutil

__all__ = ["Figures", "read_figures"]

T = TypeVar("T")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the process, now.

    Attributes:
        cpu_percent: Of all processors together, since the figures were read before.
        load1: Load average of the last minute.
        mem_total, mem_used, process_rss: Bytes.
    """

    os: str
    arch: str
    python: str
    cpu_percent: float | None
    load1: float | None
    mem_total: int | None
    mem_used: int | None
    process_rss: int | None
    process_uptime_s: float | None
    host_uptime_s: float | None


def read_figures() -> Figures:
    """Read all of them; takes about a millisecond."""
    memory = _known(psutil.virtual_memory)
    process = _process()
    return Figures(
        os=f"{platform.system()} {platform.release()}".strip(),
        arch=platform.machine(),
        python=platform.python_version(),
        cpu_percent=_known(psutil.cpu_percent),
        load1=_known(lambda: round(os.getloadavg()[0], 2)),
        mem_total=None if memory is None else memory.total,
        mem_used=None if memory is None else memory.total - memory.available,
        process_rss=_known(lambda: process.memory_info().rss),
        process_uptime_s=_known(lambda: _since(process.create_time())),
        host_uptime_s=_known(lambda: _since(psutil.boot_time())),
    )


@cache
def _process() -> psutil.Process:
    return psutil.Process()


def _since(moment_s: float) -> float:
    return round(max(0.0, time.time() - moment_s), 1)


def _known(read: Callable[[], T]) -> T | None:
    """Return a figure; None where the system has none."""
    try:
        return read()
    except (psutil.Error, OSError, NotImplementedError, AttributeError):
        return None
