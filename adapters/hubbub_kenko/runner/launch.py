"""Run as a program: sets limits on itself and becomes the application.

    python -I launch.py '{"RLIMIT_AS": 1073741824, ...}' python app.py

A program of its own, because between fork and exec nothing may be done in a process with threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

__all__ = ["main"]

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Set the limits, and become what the other arguments say."""
    limits: dict[str, int] = json.loads(arguments[0])
    for name, limit in limits.items():
        number: int = getattr(resource, name)
        _, most = resource.getrlimit(number)
        value = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(number, (value, value))
    if sys.platform == "linux":  # the application does not outlive a hub that is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(arguments[1], arguments[1:])  # noqa: S606  # no shell


if __name__ == "__main__":
    main(sys.argv[1:])
