"""Fake peers of the relay: a master that sends tasks and a worker that does them. Blocking HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx2

__all__ = ["SimulationError", "both", "master", "worker"]

NAME: Final = "child"
WAIT_S: Final = 20
POLL_S: Final = 0.2

Say = Callable[[str], None]


class SimulationError(Exception):
    """The relay did not do what was asked."""


def _json(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code != 200:  # noqa: PLR2004
        raise SimulationError(f"{answer.request.url}: {answer.status_code} {answer.text}")
    decoded: dict[str, Any] = answer.json()
    return decoded


def _client(url: str, key: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=url.rstrip("/"),
        headers={"X-Relay-API-Key": key},
        timeout=WAIT_S + 10,
        trust_env=False,
    )


def worker(url: str, key: str, *, count: int, say: Say) -> None:
    """Take tasks, return their payload as the result, until that many are done; 0 is for ever.

    Raises:
        SimulationError: the relay refused something.
    """
    done = 0
    with _client(url, key) as client:
        while not count or done < count:
            query: dict[str, str | int] = {
                "to": NAME,
                "wait": WAIT_S,
                "worker": "simulated",
                "limit": 1,
            }
            for task in _json(client.get("/tasks", params=query))["tasks"]:
                result = {"echo": task["payload"], "cmd": task["cmd"]}
                body = {"task_id": task["task_id"], "child_id": NAME, "result": result}
                _json(client.post("/callback", json=body))
                done += 1
                say(f"done {task['task_id']} {task['cmd']}")


def master(url: str, key: str, *, count: int, timeout_s: float, say: Say) -> None:
    """Send tasks, wait until each has ended, and say how.

    Raises:
        SimulationError: the relay refused something, or a task did not end in time.
    """
    with _client(url, key) as client:
        waiting: list[str] = []
        for number in range(count):
            body = {
                "from": "master",
                "to": NAME,
                "type": "task",
                "cmd": "echo",
                "payload": {"number": number},
            }
            waiting.append(str(_json(client.post("/send", json=body))["task_id"]))
            say(f"sent {waiting[-1]}")
        until = time.monotonic() + timeout_s
        for task_id in waiting:
            while (state := _state(client, task_id)) not in ("completed", "failed"):
                if time.monotonic() > until:
                    raise SimulationError(
                        f"{task_id} is still {state}; run a worker with --role worker"
                    )
                time.sleep(POLL_S)
            say(f"{state} {task_id}")


def both(url: str, key: str, *, count: int, timeout_s: float, say: Say) -> None:
    """Send tasks and do them, the worker on a thread of its own.

    Raises:
        SimulationError: as `master`.
    """
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(worker, url, key, count=count, say=say)
        master(url, key, count=count, timeout_s=timeout_s, say=say)
        working.result()


def _state(client: httpx2.Client, task_id: str) -> str:
    return str(_json(client.get(f"/task-status/{task_id}"))["task_status"])
