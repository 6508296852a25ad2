"""An end of this process that needs no interpreter: another process asks for it.

A call into C that keeps the interpreter's lock lets no Python run, not even a signal handler. And
a hub that is process 1 of a container cannot be killed by another process in there. So the C
library is told at the start to call `_exit` on a thread of its own when a message comes into a
POSIX queue (`mq_notify`). The queue has no name any more by then: only who inherits it can write.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from typing import Final

__all__ = ["NativeExitError", "open_native_exit"]

SIGEV_THREAD: Final = 2


class NativeExitError(OSError):
    """This system has no such queues, or does not let this process have one."""


class _Attributes(ctypes.Structure):
    """`struct mq_attr` of Linux."""

    _fields_ = (
        ("flags", ctypes.c_long),
        ("messages", ctypes.c_long),
        ("message_bytes", ctypes.c_long),
        ("waiting", ctypes.c_long),
        ("reserved", ctypes.c_long * 4),
    )


class _Event(ctypes.Structure):
    """`struct sigevent` of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("reserved", ctypes.c_char * 32),
    )


def open_native_exit(code: int) -> int:
    """Return a descriptor; the first `mq_send` to it ends this process with that code.

    Raises:
        NativeExitError: it cannot be had here.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        queue = _open_queue(library)
        call = ctypes.cast(library["_exit"], ctypes.c_void_p).value
        event = _Event(value=code, notify=SIGEV_THREAD, function=call)
        if library["mq_notify"](queue, ctypes.byref(event)) != 0:
            os.close(queue)
            raise _error("mq_notify")
    except AttributeError as error:  # another C library
        raise NativeExitError(f"the C library lacks a function: {error}") from error
    return queue


def _open_queue(library: ctypes.CDLL) -> int:
    name = f"/hubbub-{os.getpid()}-{secrets.token_hex(8)}".encode()
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NONBLOCK
    attributes = _Attributes(messages=1, message_bytes=1)
    queue: int = library["mq_open"](name, flags, 0o600, ctypes.byref(attributes))
    if queue < 0:
        raise _error("mq_open")
    library["mq_unlink"](name)
    return queue


def _error(function: str) -> NativeExitError:
    number = ctypes.get_errno()
    return NativeExitError(number, f"{function}: {os.strerror(number)}")
