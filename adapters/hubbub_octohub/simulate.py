"""Fake peers of OctoHub: a node that does what the original's does, and somebody with work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from websockets.sync.client import connect

from hubbub.cli.client import HubClient
from hubbub_octohub.signatures import request_signature, signed_text

__all__ = ["SimulationError", "asker", "both", "node"]

PATH: Final = "/node/ws"
POLL_S: Final = 0.1
FINAL: Final = frozenset({"completed", "failed", "timeout", "cancelled"})

Say = Callable[[str], None]


class SimulationError(Exception):
    """The hub did not do what was asked."""


def address(url: str, key: str, pc_id: str) -> str:
    """Return the signed address of a node.

    Raises:
        SimulationError: the hub gives none.
    """
    timestamp, nonce = str(int(time.time())), str(time.time_ns() // 1_000_000 + 999)
    prefix = urlsplit(url).path.rstrip("/")
    text = signed_text("GET", prefix + PATH, [("pc_id", pc_id)], timestamp, nonce)
    headers = {
        "X-Timestamp": timestamp,
        "X-Nonce": nonce,
        "X-Signature": request_signature(key.encode(), text),
    }
    with httpx2.Client(trust_env=False) as client:
        answer = client.get(url.rstrip("/") + PATH, params={"pc_id": pc_id}, headers=headers)
    if answer.status_code != 200:  # noqa: PLR2004
        raise SimulationError(f"{url}{PATH}: {answer.status_code} {answer.text}")
    return str(answer.json()["data"]["wsUrl"])


def node(url: str, key: str, *, pc_id: str, count: int, say: Say) -> None:
    """Do that many tasks, one after the other; 0 is for ever.

    Raises:
        SimulationError: the hub refused something.
    """
    done = 0
    with connect(address(url, key, pc_id), proxy=None) as socket:
        while not count or done < count:
            frame: dict[str, Any] = json.loads(socket.recv())
            match frame.get("type"):
                case "connected":
                    socket.send(json.dumps({"type": "node_ready", "pc_id": pc_id}))
                    say(f"connected {pc_id}")
                case "ping":
                    socket.send(json.dumps({"type": "pong"}))
                case "disconnect_notification":
                    raise SimulationError(f"closed by the hub: {frame.get('reason')}")
                case "task":
                    socket.send(json.dumps(_result(frame)))
                    done += 1
                    say(f"done {frame['task_id']} {frame['task_type']}")
                case _:
                    pass


def _result(task: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = task.get("data") or {}
    now_s = int(time.time())
    result: object = "done"
    match task["task_type"]:
        case "echo":
            result = {"echo": data, "processed_at": now_s}
        case "sleep":
            seconds = min(10.0, max(0.1, float(data.get("sleep_time", 1))))
            time.sleep(seconds)
            result = f"slept {seconds} s"
        case _:
            pass
    return {
        "type": "task_result",
        "task_id": task["task_id"],
        "status": "completed",
        "result": result,
        "timestamp": now_s,
    }


def asker(url: str, token: str | None, *, count: int, timeout_s: float, say: Say) -> None:
    """Ask for that many tasks, wait until each has ended, and say how.

    Raises:
        SimulationError: one did not end in time.
    """
    with HubClient(url, token) as hub:
        waiting: list[str] = []
        for number in range(count):
            task = hub.post("/api/octohub/tasks", {"task_type": "echo", "data": {"number": number}})
            waiting.append(str(task["task_id"]))
            say(f"asked {waiting[-1]}")
        until = time.monotonic() + timeout_s
        for task_id in waiting:
            while (task := hub.get(f"/api/octohub/tasks/{task_id}"))["state"] not in FINAL:
                if time.monotonic() > until:
                    raise SimulationError(
                        f"{task_id} is still {task['state']}; run a node with --role node"
                    )
                time.sleep(POLL_S)
            say(f"{task['state']} {task_id} on {task['node']}")


def both(
    url: str,
    key: str,
    token: str | None,
    *,
    pc_id: str,
    count: int,
    timeout_s: float,
    say: Say,
) -> None:
    """Be a node, on a thread of its own, and somebody who asks for tasks.

    Raises:
        SimulationError: as `asker`.
    """
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(node, url, key, pc_id=pc_id, count=count, say=say)
        asker(url, token, count=count, timeout_s=timeout_s, say=say)
        working.result()
