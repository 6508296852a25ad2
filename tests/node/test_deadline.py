"""A node ends in its time, whatever its handlers do."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

from hubbub_node.deadline import HELD, INTERRUPTED

RUN: Final = """
import asyncio, sys, threading, time
from hubbub_node.deadline import Deadline

stop = asyncio.Event()

async def swallows():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    Deadline(float(sys.argv[2])).take(stop.set)
    print("begun", flush=True)
    if sys.argv[1] == "task":
        doing = asyncio.create_task(swallows())
    elif sys.argv[1] == "thread":
        threading.Thread(target=threading.Event().wait, name="keeper").start()
    elif sys.argv[1] == "held":
        time.sleep(3600)
    await stop.wait()

asyncio.run(main())
"""


def begun(how: str, limit_s: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, how, str(limit_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    ("how", "code", "named"),
    [
        ("plain", 0, ""),
        ("task", 0, "tasks: swallows"),
        ("thread", 0, "threads: keeper"),
        ("held", HELD, "its event loop is held"),
    ],
)
def test_a_stop_ends_and_names_what_is_left(how: str, code: int, named: str) -> None:
    """With 0, or with 70 where the event loop is held."""
    with begun(how, 0.2) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert named in said


def test_a_second_signal_ends_it_at_once() -> None:
    """Also while the loop is held."""
    with begun("held", 60) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == INTERRUPTED
